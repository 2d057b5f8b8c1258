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
    task_losses = [torch.tensor(0.5), torch.tensor(2.)]
    return build(**kwargs)(task_losses, jnd, attention)


def test_by_hand():
    loss = terms()
    assert float(loss['jnd_target']) == 0.75
    assert float(loss['jnd_magnitude']) == 0.375
    assert float(loss['loss_task']) == 1.25
    assert float(loss['loss_magnitude']) == pytest.approx(math.log(1.25))
    v = 1 / (1 + math.exp(0.5))
    assert float(loss['loss_distribution']) == pytest.approx(0.75 * v)


def test_weights_and_scale():
    loss, plain = terms(alpha=2., beta=3., target_scale=0.5), terms()
    assert float(loss['jnd_target']) == 0.375
    assert float(loss['loss_task']) == 1.25
    # the target is met
    assert float(loss['loss_magnitude']) == pytest.approx(0, abs=1e-6)
    assert float(loss['loss_distribution']) == pytest.approx(
        3 * float(plain['loss_distribution']))
    assert float(terms(alpha=2.)['loss_magnitude']) == pytest.approx(
        2 * math.log(1.25))


@pytest.mark.parametrize('reading, sign, mean', [('absolute', 1, 0),
                                                 ('signed', -1, 0),
                                                 ('centred', 1, 0.375)])
def test_readings_of_loss3(reading, sign, mean):
    jnd = torch.tensor([[[[-0.75, 0.]]]])
    attention = torch.tensor([[[[0., 0.5]]]])
    v = 1 / (1 + math.exp(0.5))
    loss = build(distribution=reading)([torch.tensor(0.)], jnd, attention)
    assert float(loss['loss_distribution']) == pytest.approx(
        sign * 0.75 * v - mean)
    assert float(loss['jnd_magnitude']) == 0.375


def test_only_the_centred_reading_leaves_the_magnitude_alone():
    """As the class's documentation says: where a constant |e| comes to rest
    between Loss2 and Loss3 at N = 0.6."""
    attention = torch.full((1, 1, 2, 2), 0.4)

    def rest(reading):
        magnitude = torch.tensor(0.3, requires_grad=True)
        objective = build(distribution=reading)
        optimizer = torch.optim.SGD([magnitude], 0.05)
        for _ in range(200):
            terms = objective([torch.tensor(0.)],
                              magnitude.expand(1, 3, 2, 2), attention)
            optimizer.zero_grad()
            sum(v for k, v in terms.items() if 'loss' in k).backward()
            optimizer.step()
        return float(magnitude.detach())

    assert rest('absolute') == pytest.approx(0.4, abs=0.01)
    assert rest('centred') == pytest.approx(0.6, abs=0.01)


def test_unknown_reading():
    with pytest.raises(ValueError, match="'absolute', 'signed', 'centred'"):
        build(distribution='both')


def test_what_is_logged_has_no_gradient():
    loss = terms()
    assert not loss['jnd_magnitude'].requires_grad
    assert loss['loss_magnitude'].requires_grad


def test_errors():
    with pytest.raises(ValueError, match='target_scale.*0.0'):
        build(target_scale=0.)
    with pytest.raises(ValueError, match='alpha and beta'):
        build(beta=-1.)
