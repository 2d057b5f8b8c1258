"""Test a model of MMDetection, MMPretrain or MMSegmentation.

The flags and their meanings are those of the host libraries::

    python tools/test.py CONFIG CHECKPOINT --out results.pkl --tta
"""
from mmfeatjnd import compat  # first: it lets `_base_` reach every host
from mmfeatjnd.apis import checkpoints, cli, console, launch, testing


def main():
    args = cli.parse_test_args()
    with console.plain_errors():
        compat.check_environment()
        compat.register_trusted_checkpoint_loader()
        cfg = cli.load_config(args.config)
        launch.prepare_host(cfg)
        testing.merge_test_args(cfg, args)
        with launch.distributed(cfg):
            checkpoints.ensure_checkpoint(
                cfg, remedy='python tools/test.py CONFIG {}')
            testing.run_test(launch.build_runner(cfg), args)


if __name__ == '__main__':
    main()
