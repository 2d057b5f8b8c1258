"""Run a host in two parts, with the bytes of its features between them.

The part before the split on one machine, the part after it on another. Both
have the plan of tools/make_plan.py, which is exchanged once::

    python tools/feature_codec.py encode CONFIG CHECKPOINT PLAN images/ \
        features/ --tolerance 0.02
    python tools/feature_codec.py info PLAN features/
    python tools/feature_codec.py decode CONFIG CHECKPOINT PLAN features/ \
        --out predictions.pkl
"""
import argparse
import functools
from collections import Counter
from pathlib import Path

from mmfeatjnd.apis import CodecError, FeatureCodec
from mmfeatjnd.apis.codec_pool import encode_all
from mmfeatjnd.cli.arguments import count, positive
from mmfeatjnd.cli.checkpoints import ensure_checkpoint
from mmfeatjnd.cli.configs import open_config
from mmfeatjnd.cli.console import UsageError, plain_errors, printable
from mmfeatjnd.cli.files import find_files
from mmfeatjnd.cli.options import add_cfg_options, add_featjnd_flag
from mmfeatjnd.cli.predictions import write_predictions
from mmfeatjnd.cli.results import DUMP_SUFFIXES, check_suffix
from mmfeatjnd.coding import BitstreamError, read_plan_header
from mmfeatjnd.models.codec_plan import load_plan
from mmfeatjnd.models.host_half import SUFFIX as HALF
from mmfeatjnd.models.operations.step_policies import STEPS_PER_OCTAVE
from mmfeatjnd.utils import atomic_path

IMAGES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff',
          '.webp')
#: A file is named after its image.
SUFFIX = '.fjnd'


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    encode = _command(commands, 'encode', 'images to files of features')
    encode.add_argument('images', help='an image, or a folder of images')
    encode.add_argument(
        'out_dir', type=Path, help='folder for the files, one for each image')
    size = encode.add_mutually_exclusive_group()
    size.add_argument(
        '--tolerance',
        type=positive,
        help='nats of an image, a mean over images; 0.02 by default')
    size.add_argument(
        '--step', type=positive, help="in the unit of the plan's components")
    encode.add_argument(
        '--estimator',
        help='estimator file, for a plan whose steps vary over blocks; by '
        'default the estimator of the checkpoint')
    encode.add_argument(
        '--amp',
        action='store_true',
        help='compute in half precision where autocast does')
    encode.add_argument(
        '--jobs',
        type=count,
        default=1,
        help='so many processes, which share the cores')
    decode = _command(commands, 'decode', 'files of features to predictions')
    decode.add_argument('files', help='a file, or a folder of files')
    decode.add_argument(
        '--out',
        required=True,
        help='pickle file for the predictions, as tools/test.py writes it')
    info = commands.add_parser('info', help='what files hold')
    info.add_argument('plan', help='file of tools/make_plan.py')
    info.add_argument('files', nargs='+', help='files or folders of files')
    return parser.parse_args()


def _command(commands, name, text):
    parser = commands.add_parser(name, help=text)
    parser.add_argument(
        'config', help='config file path, of FeatJND or of a stock host')
    parser.add_argument(
        'checkpoint',
        help='checkpoint of the host, with or without estimator, or the half '
        'of tools/model_converters/split_host.py')
    parser.add_argument('plan', help='file of tools/make_plan.py')
    parser.add_argument('--device', help='an accelerator if there is one')
    add_featjnd_flag(parser)
    add_cfg_options(parser)
    return parser


def codec_maker(args, plan, **kwargs):
    """What makes the codec, here or in another process."""
    cfg = open_config(args)
    cfg.load_from = args.checkpoint
    if not args.checkpoint.endswith(HALF):
        ensure_checkpoint(cfg, 'tools/feature_codec.py ... CONFIG {}')
    return functools.partial(FeatureCodec, cfg, args.checkpoint, plan,
                             device=args.device, **kwargs)


def report(name, size, pixels):
    return (f'{printable(name)}: {size} bytes, '
            f'{8 * size / max(pixels, 1):.4f} bits per pixel')


def unfinished(folder):
    """Files that a killed run left: hidden, and read by no command."""
    return sorted(folder.rglob(f'.*.[0-9]*{SUFFIX}'))


def encode(args):
    images = list(find_files(args.images, IMAGES))
    if args.out_dir.exists() and not args.out_dir.is_dir():
        raise UsageError(f'{args.out_dir} is not a folder')
    plan = load_plan(args.plan)
    make = codec_maker(args, plan, tolerance=args.tolerance, step=args.step,
                       estimator=args.estimator, amp=args.amp)
    digest = plan.digest
    total = Counter()
    encoded = encode_all(make, [image for image, _ in images], args.jobs)
    for (_, name), data in zip(images, encoded):
        with atomic_path(args.out_dir / f'{name}{SUFFIX}') as path:
            Path(path).write_bytes(data)
        height, width = read_plan_header(data, digest).size
        row = Counter(size=len(data), pixels=height * width)
        print(report(name, **row), flush=True)
        total += row
    print(report(f'{len(images)} images', **total))
    for file in unfinished(args.out_dir):
        print(f'unfinished: {printable(file)}. Delete it, unless another run '
              'writes to this folder just now')


def read(path, digest):
    """A file that was checked, or an error that names it."""
    try:
        data = path.read_bytes()
        return data, read_plan_header(data, digest)
    except (BitstreamError, OSError) as error:
        raise UsageError(f'{printable(path)}: {error}') from error


def decode(args):
    check_suffix(args.out, DUMP_SUFFIXES, 'predictions')
    files = list(find_files(args.files, (SUFFIX, )))
    plan = load_plan(args.plan)
    digest = plan.digest
    for file, _ in files:  # before the model is built
        read(file, digest)
    # what a step costs is the sender's affair
    codec = codec_maker(args, plan, step=1.0)()

    def predictions():
        for file, name in files:
            image = name.removesuffix(SUFFIX)
            try:
                prediction = codec.decode(read(file, digest)[0], image)
            except (BitstreamError, CodecError) as error:
                raise UsageError(f'{printable(file)}: {error}') from error
            print(f'{printable(file)}: {printable(image)}', flush=True)
            yield prediction

    write_predictions(codec.cfg, predictions(), args.out)
    print(f'written: {args.out}')


def info(args):
    plan = load_plan(args.plan)
    print(f"split='{plan.split}', code '{plan.code}', host "
          f'{plan.host_hash[:16]}, plan {plan.digest.hex()[:16]}')
    for source in args.files:
        for file, _ in find_files(source, (SUFFIX, )):
            data, header = read(file, plan.digest)
            height, width = header.size
            print(report(file, len(data), height * width) +
                  f', {height} x {width} pixels, step '
                  f'{2**(header.step / STEPS_PER_OCTAVE):.4g}' +
                  ', adapted to blocks' * header.adapted)


def main():
    args = parse_args()
    with plain_errors():
        dict(encode=encode, decode=decode, info=info)[args.command](args)


if __name__ == '__main__':
    main()
