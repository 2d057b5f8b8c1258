"""Train a model of MMDetection, MMPretrain or MMSegmentation.

The flags and their meanings are those of the host libraries::

    python tools/train.py CONFIG --work-dir DIR --amp --resume

``--featjnd`` puts FeatJND on the host of a stock config::

    python tools/train.py STOCK_CONFIG --featjnd split=neck \\
        --cfg-options load_from=STOCK_CHECKPOINT
"""
from mmfeatjnd.apis.building import prepare_host
from mmfeatjnd.apis.training import train
from mmfeatjnd.cli.arguments import parse_train_args
from mmfeatjnd.cli.checkpoints import drop_pretrained, ensure_checkpoint
from mmfeatjnd.cli.configs import open_config
from mmfeatjnd.cli.console import UsageError, plain_errors
from mmfeatjnd.cli.launch import distributed
from mmfeatjnd.cli.merge_train import merge_train_args


def main():
    args = parse_train_args()
    with plain_errors():
        cfg = open_config(args, merge=False)
        prepare_host(cfg)
        merge_train_args(cfg, args)
        if args.featjnd is not None and not cfg.get('load_from'):
            raise UsageError('--featjnd trains on a frozen host: name its '
                             'weights, --cfg-options load_from=CHECKPOINT')
        with distributed(cfg):
            drop_pretrained(cfg, ensure_checkpoint(cfg))
            train(cfg)


if __name__ == '__main__':
    main()
