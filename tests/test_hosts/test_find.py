import pytest
from mmengine.registry import DefaultScope
from torch import nn

from mmfeatjnd.hosts import adapter_of
from mmfeatjnd.hosts.mmdet import DetectorAdapter
from mmfeatjnd.hosts.mmpretrain import ClassifierAdapter
from mmfeatjnd.hosts.mmseg import SegmentorAdapter


@pytest.mark.parametrize('scope', [None, 'mmdet', 'mmseg'])
@pytest.mark.parametrize('kind, adapter', [
    ('classifier', ClassifierAdapter),
    ('segmentor', SegmentorAdapter),
    ('detector', DetectorAdapter)])
def test_the_library_is_that_of_the_model(build, configs, kind, adapter,
                                          scope):
    """Whatever the default scope says: a config may mix libraries."""
    models = build(kind), build(configs[0](kind))
    with DefaultScope.overwrite_default_scope(scope):
        assert all(type(adapter_of(m)) is adapter for m in models)


def test_other_models_are_refused():
    with pytest.raises(TypeError, match='Sequential is no model of mmdet, '
                       'mmpretrain, mmseg'):
        adapter_of(nn.Sequential())
