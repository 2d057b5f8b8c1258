"""Pictures without labels: all that the training of an estimator needs."""
import os.path as osp
from typing import List, Optional

from mmengine.dataset import BaseDataset
from mmengine.utils import scandir

from mmfeatjnd.registry import DATASETS

SUFFIXES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.tif', '.tiff', '.webp')


@DATASETS.register_module()
class PictureFolder(BaseDataset):
    """The pictures of a folder, or those of it that a list names.

    They have no annotations, so any host's pipeline without
    ``LoadAnnotations`` will do, and any host: a detector is not asked for
    boxes, a classifier not for classes.

    Args:
        data_root (str): The folder. Defaults to ''.
        ann_file (str): A text file below it, one picture a line below
            ``data_prefix``; what follows a space, such as a label, is not
            read. Defaults to '': all pictures there are.
        data_prefix (dict): Where the pictures are below ``data_root``.
            Defaults to ``dict(img_path='')``.
        pipeline (list): Transforms. Defaults to ().
        **kwargs: Of MMEngine's ``BaseDataset``.

    Raises:
        FileNotFoundError: There is no such folder or list, or no picture.
    """

    def __init__(self,
                 data_root: Optional[str] = '',
                 ann_file: str = '',
                 data_prefix: dict = dict(img_path=''),
                 pipeline: list = (),
                 **kwargs) -> None:
        self._listed = bool(ann_file)
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=dict(data_prefix),
            pipeline=list(pipeline),
            **kwargs)

    def load_data_list(self) -> List[dict]:
        """One dict a picture, sorted by name unless a list says the order."""
        folder = self.data_prefix['img_path']
        if not osp.isdir(folder):
            raise FileNotFoundError(f'PictureFolder: no folder {folder!r}. '
                                    'Set data_root and data_prefix.')
        if self._listed:
            if not osp.isfile(self.ann_file):
                raise FileNotFoundError(
                    f'PictureFolder: no list {self.ann_file!r}')
            with open(self.ann_file, encoding='utf-8') as file:
                names = [line.split(' ')[0].strip() for line in file]
            names = [name for name in names if name]
        else:
            names = sorted(scandir(folder, SUFFIXES, recursive=True,
                                   case_sensitive=False))
        if not names:
            raise FileNotFoundError(f'PictureFolder: no picture in {folder!r}')
        return [
            dict(img_path=osp.join(folder, name), img_id=i, instances=[])
            for i, name in enumerate(names)
        ]
