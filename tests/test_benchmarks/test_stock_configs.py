"""A sample of what benchmarks/stock_configs.py runs on all stock configs."""
import pytest
import stock_configs
from mmengine.registry import DefaultScope

OK = [
    'mmdet::atss/atss_r50_fpn_1x_coco.py',
    'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
    'mmdet::htc/htc_r50_fpn_1x_coco.py',
    'mmdet::reppoints/reppoints-moment_r50_fpn_1x_coco.py',
    'mmdet::solo/solo_r50_fpn_1x_coco.py',
    'mmdet::tood/tood_r50_fpn_1x_coco.py',
    'mmpretrain::convnext/convnext-tiny_32xb128_in1k.py',
    'mmpretrain::deit/deit-tiny_4xb256_in1k.py',
    'mmpretrain::efficientnet/efficientnet-b0_8xb32_in1k.py',
    'mmpretrain::mobilevit/mobilevit-xxsmall_8xb128_in1k.py',
    'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py',
    'mmpretrain::vgg/vgg11_8xb32_in1k.py',
    'mmseg::danet/danet_r50-d8_4xb2-40k_cityscapes-512x1024.py',
    'mmseg::fastfcn/fastfcn_r50-d32_jpu_enc_4xb2-80k_cityscapes-512x1024.py',
]
REFUSED = [
    'mmdet::boxinst/boxinst_r50_fpn_ms-90k_coco.py',
]


def look(name):
    library, path = name.split('::')
    with DefaultScope.overwrite_default_scope(library):
        stock_configs._look(stock_configs.read(library, path))


@pytest.mark.slow
@pytest.mark.parametrize('name', OK)
def test_it_works(name):
    look(name)


@pytest.mark.slow
@pytest.mark.parametrize('name', REFUSED)
def test_it_is_refused_by_name(name):
    with pytest.raises(stock_configs._Outcome) as found:
        look(name)
    status, message = found.value.args
    assert status == 'refused' and len(message) > 40


def test_one_model_is_run_once(monkeypatch):
    ran = []
    monkeypatch.setattr(
        stock_configs.Worker, 'examine',
        lambda self, *name: ran.append(name) or ('ok', ''))
    names = [('mmdet', f'yolox/yolox_{x}_8xb8-300e_coco.py')
             for x in ('nano', 'tiny')]
    rows = {}
    steps = list(stock_configs.sweep(names + names[:1], rows, None))
    assert len(steps) == 2 and ran == names
    assert {r['status'] for r in rows.values()} == {'ok'}
    # known ones are not run again, nor is another config of the same model
    list(stock_configs.sweep(names, rows, None))
    other = {('mmdet', 'other.py'): rows[names[0]]}
    list(stock_configs.sweep(names[:1], other, None))
    assert len(ran) == 2
