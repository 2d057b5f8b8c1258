"""Test a model of MMDetection, MMPretrain or MMSegmentation.

The flags and their meanings are those of the host libraries::

    python tools/test.py CONFIG CHECKPOINT --out results.pkl --tta
    python tools/test.py NAME  # of a model of the zoo, or of a host library
"""
from mmfeatjnd.apis.building import build_runner, prepare_host
from mmfeatjnd.cli.arguments import parse_test_args
from mmfeatjnd.cli.checkpoints import ensure_checkpoint, named_checkpoint
from mmfeatjnd.cli.configs import open_config
from mmfeatjnd.cli.console import plain_errors
from mmfeatjnd.cli.launch import distributed
from mmfeatjnd.cli.merge_test import merge_test_args
from mmfeatjnd.cli.run_test import run_test


def main():
    args = parse_test_args()
    with plain_errors():
        cfg = open_config(args, merge=False)
        if args.checkpoint is None:
            args.checkpoint = named_checkpoint(args.config)
        prepare_host(cfg)
        merge_test_args(cfg, args)
        with distributed(cfg):
            ensure_checkpoint(cfg, remedy='python tools/test.py CONFIG {}')
            run_test(build_runner(cfg), args)


if __name__ == '__main__':
    main()
