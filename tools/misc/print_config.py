"""Print a config with everything that it inherits.

Example::

    python tools/misc/print_config.py CONFIG --save-path whole.py
"""
import argparse

import mmfeatjnd  # noqa: F401  first: it lets `_base_` reach every host
from mmfeatjnd.apis import cli, console
from mmfeatjnd.apis.cfg_options import CfgOptions

SUFFIXES = ('.py', '.json', '.yml', '.yaml')


def main():
    parser = argparse.ArgumentParser(description='Print the whole config')
    parser.add_argument('config', help='path of the config file')
    parser.add_argument(
        '--save-path', help='also write it to this .py, .json or .yml file')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        help='override fields of the config, as key=value')
    args = parser.parse_args()
    if args.save_path and not args.save_path.endswith(SUFFIXES):
        parser.error('--save-path must end with ' + ', '.join(SUFFIXES))

    with console.plain_errors():
        cfg = cli.load_config(args.config)
        cli.merge_options(cfg, args.cfg_options)
        print(cfg.pretty_text)
        if args.save_path:
            with console.atomic_path(args.save_path) as path:
                cfg.dump(path)


if __name__ == '__main__':
    main()
