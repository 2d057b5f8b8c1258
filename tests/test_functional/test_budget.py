import math

import pytest
import torch

from mmfeatjnd.functional import (
    Steps,
    bisect_scale,
    make_steps,
    modelled_noise,
    nrmse,
    quantize_dequantize,
    scale_to_modelled_noise,
)


def test_closed_form_by_hand():
    # steps 1 and 2: mean square 2.5; the feature's RMS is 5
    feature = torch.tensor([[5., -5.]])
    steps = Steps(torch.ones(1), channel=torch.tensor([[0, 2]]))
    scaled = scale_to_modelled_noise(steps, feature, 0.1)
    assert scaled.base.item() == pytest.approx(0.5 / math.sqrt(2.5 / 12))
    assert scaled.channel is steps.channel


@pytest.mark.parametrize('shape', [(3, 4, 5, 6), (3, 9, 4), (3, 12)])
def test_closed_form_meets_the_budget_of_every_image(shape):
    torch.manual_seed(0)
    feature = torch.randn(shape) * 3
    steps = make_steps(torch.randn(shape), 'channel-token')
    budget = torch.tensor([0.01, 0.1, 1.0])
    scaled = scale_to_modelled_noise(steps, feature, budget)
    noise = modelled_noise(scaled, feature).sqrt()
    rms = feature.square().flatten(1).mean(1).sqrt()
    torch.testing.assert_close(noise / rms, budget, rtol=1e-4, atol=0)


def test_image_without_energy_keeps_its_steps():
    steps = Steps(torch.tensor([3.0, 3.0]))
    feature = torch.stack([torch.zeros(4), torch.ones(4)])
    base = scale_to_modelled_noise(steps, feature, 0.1).base
    assert base[0] == 3 and torch.isfinite(base).all() and base[1] != 3


def test_bisection_finds_known_scales():
    target = torch.tensor([0.01, 1.0, 700.0])
    scale = bisect_scale(lambda s: s**2, target)
    torch.testing.assert_close(scale, target.sqrt(), rtol=1e-4, atol=0)
    scale = bisect_scale(lambda s: 1 / s, target, increasing=False)
    torch.testing.assert_close(scale, 1 / target, rtol=1e-4, atol=0)


def test_bisection_out_of_reach_ends_at_the_nearest_end():
    target = torch.tensor([0.0, 1e9])
    scale = bisect_scale(lambda s: s, target, finest=1 / 8, coarsest=4)
    torch.testing.assert_close(scale, torch.tensor([1 / 8, 4.0]), rtol=1e-3,
                               atol=0)
    scale = bisect_scale(
        lambda s: -s, -target, increasing=False, finest=1 / 8, coarsest=4)
    torch.testing.assert_close(scale, torch.tensor([1 / 8, 4.0]), rtol=1e-3,
                               atol=0)


def test_bisection_meets_the_measured_noise():
    torch.manual_seed(1)
    feature = torch.randn(3, 8, 12, 12)
    steps = make_steps(torch.randn(3, 8, 12, 12) * 0.3, 'token')

    def measure(scale):
        value = quantize_dequantize(feature,
                                    steps.scaled(scale).size(feature))
        return nrmse(value - feature, feature)

    target = torch.tensor([0.02, 0.2, 0.6])
    scale = bisect_scale(measure, target)
    torch.testing.assert_close(measure(scale), target, rtol=0.01, atol=0)
    # images do not mix
    other = bisect_scale(measure, torch.tensor([0.5, 0.2, 0.6]))
    assert torch.equal(scale[1:], other[1:]) and scale[0] < other[0]
