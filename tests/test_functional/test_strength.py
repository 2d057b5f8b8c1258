import math

import pytest
import torch

from mmfeatjnd.functional import (
    DEFINITIONS,
    gaussian_noise,
    image_keys,
    l2_magnitude,
    nrmse,
    participation_ratio,
    scale_to_nrmse,
)

# RMS 5, mean 3.5, variance 12.25, range 7
FEATURE = torch.tensor([0., 7., 0., 7.]).view(1, 1, 2, 2)
DELTA = torch.tensor([1., -1., 3., -3.]).view(1, 1, 2, 2)  # RMS sqrt(5)


@pytest.mark.parametrize('definition, denominator', [
    ('rms', math.sqrt(24.5)),
    ('std', 3.5),
    ('range', 7.),
])
def test_nrmse_by_hand(definition, denominator):
    got = nrmse(DELTA, FEATURE, definition)
    assert got.shape == (1, )
    assert got.item() == pytest.approx(math.sqrt(5) / denominator, rel=1e-6)


def test_nrmse_is_of_each_image():
    feature = torch.stack([torch.full((2, 3), 2.), torch.full((2, 3), 4.)])
    got = nrmse(torch.ones(2, 2, 3), feature)
    torch.testing.assert_close(got, torch.tensor([0.5, 0.25]))


def test_nrmse_of_zero_images():
    """No distortion counts as 0, a distorted zero image as infinite."""
    feature = torch.zeros(2, 3, 4, 4)
    delta = torch.zeros(2, 3, 4, 4)
    delta[1, 0, 0, 0] = 1
    for definition in DEFINITIONS:
        got = nrmse(delta, feature, definition)
        assert got.tolist() == [0, math.inf]


def test_definition_is_checked():
    with pytest.raises(ValueError, match="'rms', 'std', 'range'.*'mean'"):
        nrmse(DELTA, FEATURE, 'mean')
    with pytest.raises(ValueError, match="'mean'"):
        scale_to_nrmse(DELTA, FEATURE, 1., 'mean')


@pytest.mark.parametrize('definition', DEFINITIONS)
@pytest.mark.parametrize('shape', [(3, 5, 4, 6), (3, 7, 5), (3, 8)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_scaled_to_what_was_asked(definition, shape, dtype):
    keys = image_keys(range(3))
    feature = (3 * gaussian_noise(keys, shape[1:]) + 1).to(dtype)
    delta = gaussian_noise(keys, shape[1:], 1).to(dtype)
    target = torch.tensor([0.25, 1., 30.])
    scaled = scale_to_nrmse(delta, feature, target, definition)
    assert scaled.dtype == torch.float32 and scaled.shape == shape
    torch.testing.assert_close(
        nrmse(scaled, feature, definition), target, rtol=1e-5, atol=0)
    # only the strength changes
    cosine = torch.cosine_similarity(scaled.flatten(1),
                                     delta.float().flatten(1))
    torch.testing.assert_close(cosine, torch.ones(3))


def test_scaling_a_zero_distortion_or_a_zero_feature_gives_zero():
    delta = torch.stack([torch.zeros(4), torch.ones(4)])
    feature = torch.stack([torch.ones(4), torch.zeros(4)])
    assert scale_to_nrmse(delta, feature, 0.5).abs().sum() == 0


def test_gradient_stays_finite_at_zero():
    """One image without distortion must not make the others' gradient NaN."""
    feature = torch.ones(2, 4)
    for function in (lambda d: l2_magnitude(d, feature), lambda d:
                     scale_to_nrmse(d, feature, 0.5)[:, 0].sum()):
        delta = torch.tensor([[0., 0., 0., 0.], [1., 2., 0., 1.]],
                             requires_grad=True)
        grad, = torch.autograd.grad(function(delta), delta)
        assert torch.isfinite(grad).all()
        assert grad[1].abs().sum() > 0


def test_participation_ratio_by_hand():
    m = 64
    constant = torch.full((m, ), 3.)
    constant[::2] *= -1
    spike = torch.zeros(m)
    spike[5] = -2
    half = torch.zeros(m)
    half[:m // 2] = 1
    uneven = torch.zeros(m)
    uneven[0], uneven[1] = 1, 2  # (1 + 4)^2 / (64 * (1 + 16))
    delta = torch.stack([constant, spike, half, uneven, torch.zeros(m)])
    expected = [1, 1 / m, 0.5, 25 / (64 * 17), 0]
    torch.testing.assert_close(
        participation_ratio(delta.view(5, 4, 4, 4)), torch.tensor(expected))


def test_participation_ratio_of_noise_and_scale():
    noise = gaussian_noise(image_keys([0]), (200000, ))
    for scale in (1e-12, 1., 1e12):  # fourth powers leave float32's range
        assert participation_ratio(noise * scale).item() == pytest.approx(
            1 / 3, rel=0.02)
