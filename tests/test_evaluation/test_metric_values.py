import math

import numpy as np
import pytest
import torch

from mmfeatjnd.evaluation import advantage, better_when, scalar_metrics
from mmfeatjnd.evaluation.metric_values import _tell_left_out


@pytest.mark.parametrize('metric', [
    'accuracy/top1', 'coco/bbox_mAP', 'coco/AR@100', 'mIoU', 'aAcc',
    'single-label/f1-score', 'rca/mean', 'psnr', 'd1', 'PQ', 'IDF1',
    'retrieval/Recall@1', 'terror_alerts/precision', 'camel/top5'
])
def test_better_when_higher(metric):
    assert better_when(metric) == 'higher'


@pytest.mark.parametrize('metric', [
    'loss', 'val/loss_cls', 'kl', 'mae', 'MSE', 'depth/rmse', 'rmse_log',
    'abs_rel', 'sq_rel', 'silog', 'log10', 'jnd/nrmse', 'top1_error',
    'crowd_human/mMR', 'motchallenge-metric/FP'
])
def test_better_when_lower(metric):
    assert better_when(metric) == 'lower'


def test_advantage_has_the_sign_of_what_is_better():
    assert advantage('acc', 80., 78.) == 2
    assert advantage('rmse', 80., 78.) == -2
    assert math.isnan(advantage('acc', math.nan, 78.))


def test_scalars_of_any_kind_become_floats():
    found = scalar_metrics({
        'int': 1, 'numpy': np.float32(0.5), 'array': np.array(2),
        'tensor': torch.tensor(0.25), 'one': torch.tensor([3.]),
        'bool': np.bool_(True)
    })
    assert found == dict(int=1., numpy=0.5, array=2., tensor=0.25, one=3.,
                         bool=1.)
    assert all(type(v) is float for v in found.values())


def test_what_is_no_number_is_left_out_and_named_once(monkeypatch):
    said = []
    monkeypatch.setattr('mmfeatjnd.evaluation.metric_values.print_log',
                        lambda text, **kwargs: said.append(text))
    _tell_left_out.cache_clear()
    given = {
        'acc': 1., 'confusion_matrix/result': torch.zeros(2, 2),
        'per class': [1., 2.], 'classwise': np.zeros(3), 'table': 'text',
        'more': dict(a=1.)
    }
    assert scalar_metrics(given) == scalar_metrics(given) == {'acc': 1.}
    assert said == ['Left out, as they are not one number: confusion_matrix/'
                    'result, per class, classwise, table, more']
    assert 'per class' in given  # the evaluator's own is as it was


def test_coco_writes_minus_one_for_what_is_not_defined():
    found = scalar_metrics({
        'coco/bbox_mAP_l': -1.0, 'coco/AR_l@1000': np.float64(-1),
        'coco/bbox_mAP': 0.5, 'score': -1.0, 'mIoU': math.nan, 'PQ': None
    })
    assert all(
        math.isnan(found[k])
        for k in ('coco/bbox_mAP_l', 'coco/AR_l@1000', 'mIoU', 'PQ'))
    assert (found['coco/bbox_mAP'], found['score']) == (0.5, -1.0)
