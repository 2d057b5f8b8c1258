"""Write the estimator of a FeatJND checkpoint to a small file of its own."""
import argparse

from mmengine.runner import load_checkpoint

from mmfeatjnd.apis import build_model, read_weights, save_estimator
from mmfeatjnd.cli.configs import open_config, require_parts
from mmfeatjnd.cli.console import UsageError, plain_errors
from mmfeatjnd.models import find_neck
from mmfeatjnd.models.hosts import check_host_weights
from mmfeatjnd.utils import check_writable


def extract(cfg, checkpoint, out):
    """Write the estimators in a checkpoint to a file.

    Args:
        cfg (Config): The config that it was trained with.
        checkpoint (str): The checkpoint.
        out (str): The file.

    Raises:
        UsageError: There are none, or not of this config; or not all of the
            host is there.
    """
    check_writable(out)
    weights = read_weights(checkpoint)
    names = [name.removeprefix('module.') for name in weights]
    if not any(name.startswith('neck.estimators.') for name in names):
        raise UsageError(
            f'there is no estimator in {checkpoint}. Give a checkpoint that '
            'tools/train.py has written with this config')
    model = build_model(cfg)
    find_neck(model)  # else another error would come first
    try:
        check_host_weights(model, weights, checkpoint)
        load_checkpoint(model, checkpoint, map_location='cpu')
    except (RuntimeError, ValueError) as error:  # each says what is wrong
        raise UsageError(f'{checkpoint}: {error}') from error
    try:
        save_estimator(model, out)
    except ValueError as error:
        raise UsageError(f'{checkpoint}: {error}') from error


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='FeatJND config file path')
    parser.add_argument('checkpoint', help='FeatJND checkpoint file')
    parser.add_argument('out', help='estimator file to write')
    args = parser.parse_args()
    with plain_errors():
        cfg = open_config(args)
        require_parts(cfg, 'model')
        extract(cfg, args.checkpoint, args.out)
    print(f'Saved to {args.out}')


if __name__ == '__main__':
    main()
