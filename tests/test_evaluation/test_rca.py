import numpy as np
from PIL import Image

from mmfeatjnd.evaluation import plot_rca


def test_picture(tmp_path):
    rows = [
        dict(series=name, metrics={
            'rca/mean': 90. - i,
            'psnr': 10. - i
        }) for name in ('JND', 'WGN') for i in range(3)
    ]
    plot_rca(rows, tmp_path / 'curve.png')
    assert np.ptp(np.array(Image.open(tmp_path / 'curve.png'))) > 100
