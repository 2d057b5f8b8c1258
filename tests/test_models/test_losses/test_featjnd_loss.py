import math

import pytest
import torch

from mmfeatjnd.models import FeatJNDLoss


def step(loss, discrepancy, magnitude=0.375):
    return loss(torch.as_tensor(discrepancy), torch.as_tensor(magnitude))


def test_hinge_by_hand():
    loss = FeatJNDLoss(tolerance=0.1, multiplier=3., magnitude_weight=0.5)
    out = step(loss, 0.3)
    assert out['loss_jnd_discrepancy'].item() == pytest.approx(3 * 0.2)
    assert out['loss_jnd_magnitude'].item() == pytest.approx(-0.5 * 0.375)
    assert out['jnd_discrepancy'].item() == pytest.approx(0.3)
    assert out['jnd_magnitude'].item() == pytest.approx(0.375)
    assert out['jnd_multiplier'].item() == 3
    # what MMEngine sums and what it only logs
    assert {k for k in out if 'loss' in k} == {
        'loss_jnd_discrepancy', 'loss_jnd_magnitude'}
    assert step(loss, 0.05)['loss_jnd_discrepancy'] == 0


def test_the_hinge_has_no_gradient_below_the_tolerance():
    loss = FeatJNDLoss(tolerance=0.1)
    for value, expected in ((0.05, 0.), (0.2, 1.)):
        d = torch.tensor(value, requires_grad=True)
        grad, = torch.autograd.grad(step(loss, d)['loss_jnd_discrepancy'], d)
        assert grad == expected


@pytest.mark.parametrize('kwargs', [
    dict(), dict(tolerance=0.1), dict(tolerance=0.1, adapt=0.05)])
def test_a_host_that_is_surer_is_no_reward(kwargs):
    """Distortions that make it so are not looked for."""
    loss = FeatJNDLoss(multiplier=2., **kwargs)
    for value in (-0.3, -1e-6):
        d = torch.tensor(value, requires_grad=True)
        out = step(loss, d)
        assert out['loss_jnd_discrepancy'] == 0
        grad, = torch.autograd.grad(out['loss_jnd_discrepancy'], d)
        assert grad == 0
        assert out['jnd_discrepancy'].item() == pytest.approx(value)
    # it counts as much below the tolerance as nothing that is noticed
    if 'adapt' in kwargs:
        assert loss.multiplier.item() == pytest.approx(
            2 * math.exp(-0.05)**2, rel=1e-5)


def test_the_log_entries_have_no_gradient():
    loss = FeatJNDLoss()
    out = step(loss, torch.tensor(0.5, requires_grad=True),
               torch.tensor(0.2, requires_grad=True))
    for key, value in out.items():
        assert value.requires_grad == key.startswith('loss'), key


def test_adaptation_moves_the_multiplier_in_training_only():
    loss = FeatJNDLoss(tolerance=0.1, adapt=0.05, multiplier=2.)
    out = step(loss, 0.05)
    # no hinge, and the multiplier of this step is the one before the update
    assert out['loss_jnd_discrepancy'].item() == pytest.approx(2 * 0.05)
    assert out['jnd_multiplier'] == 2
    lower = 2 * math.exp(-0.05 * 0.5)
    assert loss.multiplier.item() == pytest.approx(lower)
    step(loss, 0.05)
    assert loss.multiplier.item() == pytest.approx(lower * math.exp(-0.025))
    loss.eval()
    now = loss.multiplier.clone()
    step(loss, 5.)
    assert loss.multiplier == now
    assert loss.state_dict()['multiplier'] == now


def test_dual_ascent_holds_the_tolerance_on_a_toy():
    """The distortion grows until the constraint D = 4 x^2 = eps is met."""
    loss = FeatJNDLoss(tolerance=0.04, adapt=0.05, magnitude_weight=1.)
    log_x = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.Adam([log_x], lr=0.05)
    held = []
    for _ in range(400):
        x = log_x.exp()
        out = loss(4 * x**2, log_x)
        optimizer.zero_grad()
        (out['loss_jnd_discrepancy'] + out['loss_jnd_magnitude']).backward()
        optimizer.step()
        held.append((out['jnd_discrepancy'], out['jnd_multiplier']))
    discrepancy, multiplier = torch.tensor(held[200:]).mean(0).tolist()
    assert discrepancy == pytest.approx(0.04, rel=0.1)
    # stationary where 2 lambda D = 1
    assert multiplier == pytest.approx(12.5, rel=0.15)


@pytest.mark.parametrize('kwargs, message', [
    (dict(tolerance=-1.), 'tolerance must be >= 0'),
    (dict(adapt=0.1), '> 0 with adapt'),
])
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        FeatJNDLoss(**kwargs)
