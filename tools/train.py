"""Train a model of MMDetection, MMPretrain or MMSegmentation.

The flags and their meanings are those of the host libraries::

    python tools/train.py CONFIG --work-dir DIR --amp --resume
"""
from mmfeatjnd import compat  # first: it lets `_base_` reach every host
from mmfeatjnd.apis import checkpoints, cli, console, launch, training


def main():
    args = cli.parse_train_args()
    with console.plain_errors():
        compat.check_environment()
        compat.register_trusted_checkpoint_loader()
        cfg = cli.load_config(args.config)
        launch.prepare_host(cfg)
        cli.merge_train_args(cfg, args)
        with launch.distributed(cfg):
            names = checkpoints.ensure_checkpoint(cfg)
            checkpoints.drop_pretrained(cfg, names)
            training.train(cfg)


if __name__ == '__main__':
    main()
