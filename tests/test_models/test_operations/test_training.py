"""What the operations of training disturb, and what M is made of."""
import math

import pytest
import torch

from mmfeatjnd.functional import nrmse
from mmfeatjnd.models import (
    DrawnNRMSE,
    FeatJNDNeck,
    LearnedNRMSE,
    QuantizationSurrogate,
)

FEATURE = torch.full((2, 3, 2, 2), 2.)
DELTA = torch.full((2, 3, 2, 2), 0.5)
RMS = torch.full((1, 3, 1, 1), 2.)


def test_magnitude_by_hand():
    kept = [(DELTA, FEATURE, RMS), (2 * DELTA, FEATURE, RMS)]
    # levels count alike: the mean of 0.25 and 0.5, or of their logarithms
    assert LearnedNRMSE('l2').magnitude(kept).item() == pytest.approx(0.375)
    log = (math.log(0.25 + 1e-3) + math.log(0.5 + 1e-3)) / 2
    for operation in (LearnedNRMSE(), DrawnNRMSE()):
        assert operation.magnitude(kept).item() == pytest.approx(log)


def test_images_count_alike_whatever_their_size():
    """Of one level three images: two of one size, and one of another."""
    kept = [(DELTA, FEATURE, RMS),
            (4 * DELTA[:1, :, :1, :1], FEATURE[:1, :, :1, :1], RMS)]
    assert LearnedNRMSE('l2').magnitude(kept).item() == pytest.approx(
        (2 * 0.25 + 1) / 3)


def test_rate_by_hand():
    """Minus the bits per element, over all levels and images."""
    kept = [(torch.tensor([12., 24.]), FEATURE, RMS),
            (torch.tensor([6., 6.]), FEATURE, RMS)]
    # 48 bits for 2 levels of 2 x 12 elements
    operation = QuantizationSurrogate(magnitude='rate')
    assert operation.magnitude(kept).item() == pytest.approx(-1.)


@pytest.mark.parametrize('mode', ['signed', 'envelope'])
def test_what_is_disturbed(mode):
    torch.manual_seed(0)
    neck = FeatJNDNeck(
        dict(type='mmfeatjnd.ConvEstimator', hidden_channels=4, mode=mode),
        in_channels=[3]).train()
    torch.nn.init.normal_(neck.estimators[0].expand.weight)
    feature = torch.rand(4, 3, 8, 8)
    for operation, low, high in ((DrawnNRMSE((0.3, 0.9)), 0.3, 0.9),
                                 (LearnedNRMSE(), 0, math.inf)):
        with neck.run(operation) as run:
            changed, = neck.apply_levels([feature])
        strength = nrmse(changed - feature, feature)
        assert ((strength > low) & (strength < high)).all()
        (measured_on, clean, _), = run.kept
        assert clean is feature and measured_on.requires_grad
    # at its own strength M is measured on the map itself
    assert torch.equal(measured_on, neck.estimators[0](feature))


@pytest.mark.parametrize('build, message', [
    (lambda: LearnedNRMSE('l1'), "magnitude must be one of.*'l1'"),
    (lambda: DrawnNRMSE((0., 1.)), 'nrmse must be'),
    (lambda: DrawnNRMSE((1., 0.5)), 'nrmse must be'),
    (lambda: QuantizationSurrogate(magnitude='bits'), "one of.*'rate'"),
])
def test_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()
