"""Run a host in two parts, with a file of features between them.

The part before the split on one machine, the part after it on another::

    python tools/feature_codec.py encode CONFIG CHECKPOINT images/ features/
    python tools/feature_codec.py info features/*.fjnd
    python tools/feature_codec.py decode CONFIG CHECKPOINT features/ \
        --out predictions.pkl
"""
import argparse
import math
from collections import Counter
from pathlib import Path

from mmfeatjnd.apis import CodecError, FeatureCodec
from mmfeatjnd.cli.arguments import add_split
from mmfeatjnd.cli.checkpoints import ensure_checkpoint
from mmfeatjnd.cli.configs import open_config
from mmfeatjnd.cli.console import UsageError, plain_errors, printable
from mmfeatjnd.cli.files import find_files
from mmfeatjnd.cli.options import add_cfg_options
from mmfeatjnd.cli.predictions import write_predictions
from mmfeatjnd.cli.results import DUMP_SUFFIXES, check_suffix
from mmfeatjnd.coding import BitstreamError, feature_file, read_header
from mmfeatjnd.models import Quantization
from mmfeatjnd.utils import atomic_path

IMAGES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff',
          '.webp')


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    encode = _command(commands, 'encode', 'images to files of features')
    encode.add_argument('images', help='an image, or a folder of images')
    encode.add_argument(
        'out_dir', type=Path, help='folder for the files, one for each image')
    encode.add_argument(
        '--policy',
        default='featjnd',
        help='how steps are chosen, see mmfeatjnd.models.Quantization')
    size = encode.add_mutually_exclusive_group()
    size.add_argument(
        '--scale', type=float, help="of the policy's steps; 1 by default")
    size.add_argument(
        '--bits', type=float, help='bits per element of each image and level')
    size.add_argument(
        '--noise-budget', type=float, help='NRMSE of each image and level')
    encode.add_argument(
        '--estimator',
        help='estimator file; by default the estimator of the checkpoint')
    decode = _command(commands, 'decode', 'files of features to predictions')
    decode.add_argument('files', help='a file, or a folder of files')
    decode.add_argument(
        '--out',
        required=True,
        help='pickle file for the predictions, as tools/test.py writes it')
    info = commands.add_parser('info', help='what files hold')
    info.add_argument('files', nargs='+', help='files or folders of files')
    return parser.parse_args()


def _command(commands, name, text):
    parser = commands.add_parser(name, help=text)
    parser.add_argument(
        'config', help='config file path, of FeatJND or of a stock host')
    add_split(parser)
    parser.add_argument(
        'checkpoint', help='checkpoint of the host, with or without estimator')
    parser.add_argument('--device', help='an accelerator if there is one')
    add_cfg_options(parser)
    return parser


def build_codec(args, estimator=None):
    cfg = open_config(args.config, args.cfg_options)
    cfg.load_from = args.checkpoint
    ensure_checkpoint(cfg, 'tools/feature_codec.py ... CONFIG {}')
    return FeatureCodec(cfg, args.checkpoint, estimator, args.device,
                        args.split, args.levels)


def size_of(stream):
    """Elements of a stream."""
    return sum(math.prod(x['shape']) for x in read_header(stream))


def report(name, size, stream, elements):
    bits = 8 * stream / max(elements, 1)
    return (f'{printable(name)}: {size} bytes, stream {stream}, container '
            f'{size - stream}, {bits:.4f} bits per element')


def out_names(names):
    """The files of images, in their folders, all different.

    The suffix of an image stays where two images differ in nothing else, or
    another image has the name that is left without it.
    """
    stems = [Path(n).with_suffix('').as_posix() for n in names]
    count, taken = Counter(stems), set(names)
    return [
        f'{n if count[s] > 1 or s in taken else s}{feature_file.SUFFIX}'
        for n, s in zip(names, stems)
    ]


def unfinished(folder):
    """Files that a killed run left: hidden, and read by no command."""
    return sorted(folder.rglob(f'.*.[0-9]*{feature_file.SUFFIX}'))


def encode(args):
    images = list(find_files(args.images, IMAGES))
    if args.out_dir.exists() and not args.out_dir.is_dir():
        raise UsageError(f'{args.out_dir} is not a folder')
    try:
        quantization = Quantization(
            args.policy,
            scale=args.scale,
            bits=args.bits,
            noise_budget=args.noise_budget,
            coded=False)
    except ValueError as error:
        raise UsageError(str(error)) from error
    codec = build_codec(args, args.estimator)
    total = Counter()
    for (image, name), out in zip(images, out_names([n for _, n in images])):
        data = codec.encode(image, quantization, name)
        with atomic_path(args.out_dir / out) as path:
            Path(path).write_bytes(data)
        stream = feature_file.unpack(data).stream
        row = Counter(
            size=len(data), stream=len(stream), elements=size_of(stream))
        print(report(name, **row), flush=True)
        total += row
    print(report(f'{len(images)} images', **total))
    for file in unfinished(args.out_dir):
        print(f'unfinished: {printable(file)}. Delete it, unless another run '
              'writes to this folder just now')


def read(path):
    """A file that was checked, or an error that names it."""
    try:
        return feature_file.read(path)
    except (BitstreamError, OSError) as error:
        raise UsageError(f'{path}: {error}') from error


def decode(args):
    check_suffix(args.out, DUMP_SUFFIXES, 'predictions')
    files = [f for f, _ in find_files(args.files, (feature_file.SUFFIX, ))]
    for file in files:  # before the model is built
        read(file)
    codec = build_codec(args)

    def predictions():
        for file in files:
            try:
                prediction = codec.decode(read(file))
            except (UsageError, CodecError) as error:
                text = str(error).removeprefix(f'{file}: ')
                raise UsageError(f'{file}: {text}') from error
            print(f'{printable(file)}: {printable(prediction.img_path)}',
                  flush=True)
            yield prediction

    write_predictions(codec.cfg, predictions(), args.out)
    print(f'written: {args.out}')


def info(args):
    for source in args.files:
        for file, _ in find_files(source, (feature_file.SUFFIX, )):
            content = read(file)
            size, stream = file.stat().st_size, len(content.stream)
            print(report(file, size, stream, size_of(content.stream)))
            print(f'  version {feature_file.VERSION}, '
                  f"split='{content.split}', host {content.host}")
            meta = content.metainfo
            print(f'  image {printable(meta["img_path"])}, ' + ', '.join(
                f'{k} {printable(meta[k])}'
                for k in ('ori_shape', 'img_shape') if k in meta))
            for level, x in zip(content.levels, read_header(content.stream)):
                kinds = ' and '.join(x['exponents']) or 'one for all'
                print(f'  level {level}: {tuple(x["shape"])}, '
                      f'{str(x["dtype"]).removeprefix("torch.")}, base step '
                      f'{x["base"]:.6g}, steps by {kinds}')


def main():
    args = parse_args()
    with plain_errors():
        dict(encode=encode, decode=decode, info=info)[args.command](args)


if __name__ == '__main__':
    main()
