import math

import pytest
import torch

from mmfeatjnd.registry import MODELS


def build(**kwargs):
    return MODELS.build(dict(type='mmfeatjnd.DMVJNDLoss', **kwargs))


def terms(**kwargs):
    """Two classifiers, one image: N = 1 - 1/4, N0 = 3/8."""
    attention = torch.tensor([[[[0., 0.5]]]])
    jnd = torch.tensor([[[[0.75, 0.]]]], requires_grad=True)
    logits = [torch.zeros(1, 4), torch.tensor([[0., math.log(3.)]])]
    labels = [torch.tensor([2]), torch.tensor([1])]
    return build(**kwargs)(logits, labels, jnd, attention)


def test_by_hand():
    loss = terms()
    assert float(loss['jnd_target']) == 0.75
    assert float(loss['jnd_magnitude']) == 0.375
    assert float(loss['loss_tolerance']) == pytest.approx(
        (math.log(4) + math.log(4 / 3)) / 2)
    assert float(loss['loss_magnitude']) == pytest.approx(math.log(1.25))
    v = 1 / (1 + math.exp(0.5))
    assert float(loss['loss_distribution']) == pytest.approx(0.75 * v)


def test_weights_and_scale():
    loss, plain = terms(alpha=2., beta=3., target_scale=0.5), terms()
    # the target is met
    assert float(loss['loss_magnitude']) == pytest.approx(0, abs=1e-6)
    assert float(loss['loss_distribution']) == pytest.approx(
        3 * float(plain['loss_distribution']))
    assert float(terms(alpha=2.)['loss_magnitude']) == pytest.approx(
        2 * math.log(1.25))


def test_what_is_logged_has_no_gradient():
    loss = terms()
    assert not loss['jnd_magnitude'].requires_grad
    assert loss['loss_magnitude'].requires_grad


def test_errors():
    with pytest.raises(ValueError, match='target_scale.*0.0'):
        build(target_scale=0.)
    with pytest.raises(ValueError, match='alpha and beta'):
        build(beta=-1.)
