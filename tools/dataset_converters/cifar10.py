"""Lay CIFAR-10 out as the image folder that our CIFAR-10 configs read.

MMPretrain's dataset class downloads the original archive, if it is not in
SOURCE, and checks it::

    python tools/dataset_converters/cifar10.py data/cifar10-archive
        # writes data/cifar10/{train,test}/<class>/<index>.png
"""
import argparse
from pathlib import Path

import cv2
from mmengine.utils import track_iter_progress

import mmfeatjnd  # noqa: F401
from mmfeatjnd.cli.console import plain_errors
from mmfeatjnd.utils import WriteError, check_writable


def write_folder(dataset, out: Path) -> None:
    """Write every image as ``out/<class>/<index>.png``.

    Args:
        dataset: A loaded MMPretrain dataset of RGB arrays.
        out (Path): The folder.

    Raises:
        WriteError: An image cannot be written.
    """
    classes = dataset.metainfo['classes']
    for name in classes:
        (out / name).mkdir(parents=True, exist_ok=True)
    for i in track_iter_progress(list(range(len(dataset)))):
        info = dataset.get_data_info(i)
        file = out / classes[int(info['gt_label'])] / f'{i:05d}.png'
        image = info['img'][..., ::-1]  # OpenCV writes BGR
        if not cv2.imwrite(str(file), image):  # it raises nothing
            raise WriteError(f'cannot write {file}: is the disk full?')


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', help="folder of MMPretrain's CIFAR10")
    parser.add_argument(
        '--out', type=Path, default=Path('data/cifar10'), help='image folder')
    args = parser.parse_args()
    from mmpretrain.datasets import CIFAR10
    with plain_errors():
        check_writable(args.out, folder=True)
        for split in ('train', 'test'):
            print(f'{split}:')
            write_folder(
                CIFAR10(data_root=args.source, split=split), args.out / split)


if __name__ == '__main__':
    main()
