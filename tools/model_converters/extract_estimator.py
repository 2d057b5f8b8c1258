"""Write the estimator of a FeatJND checkpoint to a small file of its own."""
import argparse

from mmengine.runner import load_checkpoint

from mmfeatjnd import compat  # first: it lets `_base_` reach every host
from mmfeatjnd.apis import build_model, cli, console, save_estimator


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='FeatJND config file path')
    parser.add_argument('checkpoint', help='FeatJND checkpoint file')
    parser.add_argument('out', help='estimator file to write')
    args = parser.parse_args()
    with console.plain_errors():
        compat.check_environment()
        compat.register_trusted_checkpoint_loader()
        cfg = cli.load_config(args.config)
    model = build_model(cfg)
    load_checkpoint(model, args.checkpoint, map_location='cpu')
    save_estimator(model, args.out)
    print(f'Saved to {args.out}')


if __name__ == '__main__':
    main()
