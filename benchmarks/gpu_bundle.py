"""Put what a GPU machine without network needs into ``.gpu``.

    python benchmarks/gpu_bundle.py tests cost
    python benchmarks/gpu_bundle.py cifar10
    python benchmarks/gpu_bundle.py cifar10 --no-wheels --images 13952 32000

Git ignores the folder; together with the checkout it must stay below what
travels in one go. CIFAR-10 goes as the mosaics of ``--data``, of which any row
holds balanced images: the test images and the first of the training, the
others in further pieces, as long as the machine is the same. On the machine::

    . .gpu/setup.sh; python .gpu/unpack.py; python benchmarks/gpu.py
"""
import argparse
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

from gpu import STAGES

ROOT = Path(__file__).resolve().parents[1]
MIB = 1 << 20
#: Unpacks what the bundle has into ``data``, beside the checkout's own files.
UNPACK = '''"""Lay the bundle's data out in ``data``."""
import json, shutil
from pathlib import Path
import numpy as np
from PIL import Image
here = Path(__file__).resolve().parent
data = here.parent / 'data'
data.mkdir(exist_ok=True)
for folder in sorted((here / 'data').iterdir()):
    if folder.name != 'cifar10':
        shutil.copytree(folder, data / folder.name, dirs_exist_ok=True)
        continue
    meta = json.loads((folder / 'meta.json').read_text())
    grid, tile = meta['grid'], meta['tile']
    for split in ('train', 'test'):
        labels = np.load(folder / f'labels_{split}.npy')
        for file in sorted(folder.glob(f'{split}_*.webp')):
            index = int(file.stem.split('_')[1]) * grid * grid
            mosaic = np.asarray(Image.open(file).convert('RGB'))
            cells = mosaic.reshape(grid, tile, grid, tile, 3).swapaxes(1, 2)
            for cell in cells.reshape(-1, tile, tile, 3):
                if index >= meta[split]['n']:
                    break
                name = meta['classes'][labels[index]]
                target = data / 'cifar10' / split / name / f'{index:05d}.png'
                target.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(cell).save(target, compress_level=1)
                index += 1
        print('cifar10', split, 'unpacked')
'''


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(f.stat().st_size for f in folder.rglob('*') if f.is_file())


def checkout_size() -> int:
    """Bytes of the files that git tracks."""
    names = subprocess.run(['git', 'ls-files', '-z'],
                           cwd=ROOT,
                           check=True,
                           capture_output=True,
                           text=True).stdout.split('\0')
    return sum((ROOT / n).stat().st_size for n in names
               if n and (ROOT / n).is_file())


def copy_cifar10(source: Path, target: Path, first: int, last: int) -> None:
    """The mosaics of some training images and, with the first of them, of
    all test images."""
    cells = json.loads((source / 'meta.json').read_text())['grid']**2
    wanted = range(first // cells, math.ceil(last / cells))
    target.mkdir(parents=True)
    for file in sorted(source.iterdir()):
        split, _, number = file.stem.partition('_')
        if split == 'train' and int(number) not in wanted:
            continue
        if split == 'test' and first:
            continue
        shutil.copy(file, target)


def bundle(args: argparse.Namespace) -> int:
    """Make the bundle anew; its size with the checkout, in bytes."""
    out = ROOT / '.gpu'
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(
        args.gpu,
        out,
        ignore=shutil.ignore_patterns(*['*.whl'] * (not args.wheels)))
    for file in out.rglob('*'):  # the source may be read-only
        file.chmod(0o755 if file.is_dir() else 0o644)
    # MMPretrain takes a newer transformers than it knows for one that it
    # knows, and fails; the machine is ours for minutes
    with (out / 'setup.sh').open('a') as file:
        file.write('PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip uninstall '
                   '-q -y transformers 2>/dev/null || true\n')
    (out / 'data').mkdir()
    (out / 'unpack.py').write_text(UNPACK)
    for name in sorted({d for s in args.stages for d in STAGES[s].data}):
        if name == 'cifar10':
            copy_cifar10(args.data / name, out / 'data' / name,
                         *args.images)
        elif (args.data / name).is_file():
            (out / 'data' / name).parent.mkdir(exist_ok=True)
            shutil.copy(args.data / name, out / 'data' / name)
        else:
            shutil.copytree(args.data / name, out / 'data' / name)
    return size_of(out) + checkout_size()


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'stages', nargs='+', choices=STAGES, help='what is to run there')
    parser.add_argument(
        '--gpu',
        type=Path,
        default=ROOT.parent / 'shared/gpu',
        help='folder of wheels and setup.sh')
    parser.add_argument(
        '--data', type=Path, default=ROOT.parent / 'shared/data')
    parser.add_argument(
        '--images',
        nargs=2,
        type=int,
        default=(0, 13952),
        metavar=('FIRST', 'LAST'),
        help='training images of CIFAR-10 in this piece')
    parser.add_argument(
        '--no-wheels',
        dest='wheels',
        action='store_false',
        help='a further piece: the machine has them installed')
    parser.add_argument('--limit-mib', type=float, default=64.0)
    args = parser.parse_args(argv)
    for folder in (args.gpu, args.data):
        if not folder.is_dir():
            raise SystemExit(f'error: there is no folder {folder}')
    size = bundle(args)
    print(f'.gpu with the checkout: {size / MIB:.1f} MiB')
    if size > args.limit_mib * MIB:
        shutil.rmtree(ROOT / '.gpu')
        raise SystemExit(
            f'error: {size / MIB:.1f} MiB are more than {args.limit_mib:g}: '
            'take fewer stages at once, or fewer --images')
    stages = ' '.join(args.stages)
    print('There, with .gpu carried along:\n  . .gpu/setup.sh; python '
          '.gpu/unpack.py; python benchmarks/gpu.py --out "$OUT" --stages '
          f'{stages}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
