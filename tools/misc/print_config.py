"""Print a config with everything that it inherits.

Example::

    python tools/misc/print_config.py CONFIG --save-path whole.py
    python tools/misc/print_config.py STOCK_CONFIG --featjnd split=neck
"""
import argparse

import mmfeatjnd  # noqa: F401  first: it lets `_base_` reach every host
from mmfeatjnd.cli.configs import read_given
from mmfeatjnd.cli.console import plain_errors
from mmfeatjnd.cli.options import (
    add_cfg_options,
    add_featjnd_flag,
    add_hook,
    append_hooks,
    merge_options,
)
from mmfeatjnd.utils import atomic_path

SUFFIXES = ('.py', '.json', '.yml', '.yaml')


def main():
    parser = argparse.ArgumentParser(description='Print the whole config')
    parser.add_argument('config', help='path of the config file')
    parser.add_argument(
        '--save-path', help='also write it to this .py, .json or .yml file')
    add_featjnd_flag(parser)
    add_cfg_options(parser)
    add_hook(parser)
    args = parser.parse_args()
    if args.save_path and not args.save_path.endswith(SUFFIXES):
        parser.error('--save-path must end with ' + ', '.join(SUFFIXES))

    with plain_errors():
        cfg = read_given(args)
        merge_options(cfg, args.cfg_options)
        append_hooks(cfg, args.hook)
        print(cfg.pretty_text)
        if args.save_path:
            with atomic_path(args.save_path) as path:
                cfg.dump(path)


if __name__ == '__main__':
    main()
