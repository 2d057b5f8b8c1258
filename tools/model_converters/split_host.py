"""Split the weights of a host in two files, one for each side of a split.

Each takes the place of the checkpoint on its side::

    python tools/model_converters/split_host.py CONFIG CHECKPOINT PLAN \
        sender.safetensors receiver.safetensors
    python tools/feature_codec.py encode CONFIG sender.safetensors PLAN \
        images/ features/
    python tools/feature_codec.py decode CONFIG receiver.safetensors PLAN \
        features/ --out predictions.pkl
"""
import argparse
from pathlib import Path

from mmfeatjnd.apis import FeatureCodec
from mmfeatjnd.cli.checkpoints import ensure_checkpoint
from mmfeatjnd.cli.configs import open_config
from mmfeatjnd.cli.console import UsageError, plain_errors
from mmfeatjnd.cli.options import add_cfg_options
from mmfeatjnd.models.codec_plan import load_plan
from mmfeatjnd.models.host_half import SUFFIX, save_half
from mmfeatjnd.utils import check_writable


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file path, of any host')
    parser.add_argument('checkpoint', help='checkpoint of the host')
    parser.add_argument('plan', help='file of tools/make_plan.py')
    for side in ('sender', 'receiver'):
        parser.add_argument(
            side, type=Path, help=f'file for the {side}, *{SUFFIX}')
    add_cfg_options(parser)
    return parser.parse_args()


def main():
    args = parse_args()
    with plain_errors():
        files = dict(sender=args.sender, receiver=args.receiver)
        for file in files.values():
            if file.suffix != SUFFIX:
                raise UsageError(f'{file}: the name must end in {SUFFIX}')
            check_writable(file)
        cfg = open_config(args)
        cfg.load_from = args.checkpoint
        plan = load_plan(args.plan)
        ensure_checkpoint(cfg,
                          'tools/model_converters/split_host.py CONFIG {}')
        codec = FeatureCodec(cfg, args.checkpoint, plan, step=1.0,
                             device='cpu')
        for side, half in codec.halves().items():
            save_half(half, files[side])
            print(f'Saved to {files[side]}: {files[side].stat().st_size} '
                  f'bytes, without {", ".join(half.idle) or "nothing"}')


if __name__ == '__main__':
    main()
