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
    rms,
    scale_to_nrmse,
)

# RMS 5, mean 3.5, variance 12.25, range 7
FEATURE = torch.tensor([0., 7., 0., 7.]).view(1, 1, 2, 2)
DELTA = torch.tensor([1., -1., 3., -3.]).view(1, 1, 2, 2)  # RMS sqrt(5)
BROKEN = [math.nan, math.inf, -math.inf]


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


# ------------------------------------------------------------ what is broken
def _broken_in_the_middle(value, position):
    x = torch.arange(36.).view(3, 3, 2, 2) - 10
    x[1].view(-1)[position] = value
    return x


@pytest.mark.parametrize('position', [0, 7])
@pytest.mark.parametrize('value', BROKEN)
def test_a_broken_image_has_no_strength_and_the_others_have(value, position):
    whole = _broken_in_the_middle(1., position)
    broken = _broken_in_the_middle(value, position)

    def agree(function, *cases):
        expected = function(whole, whole)
        assert expected.isfinite().all()
        for case in cases:
            got = function(*case)
            assert got[1].isnan().all()
            assert torch.equal(got[::2], expected[::2])

    pairs = (broken, whole), (whole, broken), (broken, broken)
    agree(lambda d, f: rms(d), pairs[0])
    agree(lambda d, f: participation_ratio(d), pairs[0])
    for definition in DEFINITIONS:
        agree(lambda d, f: nrmse(d, f, definition), *pairs)
        agree(lambda d, f: scale_to_nrmse(d, f, 0.5, definition), *pairs)
        # not even where nothing was distorted
        nothing = torch.zeros_like(whole)
        got = nrmse(nothing, broken, definition)
        assert got[1].isnan() and not got[::2].any()
        scaled = scale_to_nrmse(nothing, broken, 0.5, definition)
        assert scaled[1].isnan().all() and not scaled[::2].any()


def test_one_broken_element_of_four():
    delta = torch.tensor([[1., math.nan, 0., 0.]])
    assert nrmse(delta, torch.ones(1, 4)).isnan()


# ----------------------------------------------------- the ends of the range
@pytest.mark.parametrize('scale', [3e38, 1e37, 1e19, 1e-19, 1e-30, 1e-37])
@pytest.mark.parametrize('definition', DEFINITIONS)
def test_strength_does_not_depend_on_the_unit(definition, scale):
    """The square of 1e19 is infinite in float32, and that of 1e-30 is 0."""
    feature = torch.tensor([[0.5, -1., 0.25, 0.]])
    delta = torch.tensor([[0.1, 0.3, -0.3, 0.1]])
    expected = nrmse(delta, feature, definition)
    torch.testing.assert_close(
        nrmse(delta * scale, feature * scale, definition), expected,
        rtol=1e-5, atol=0)
    torch.testing.assert_close(
        participation_ratio(delta * scale), participation_ratio(delta),
        rtol=1e-5, atol=0)
    torch.testing.assert_close(
        rms(feature * scale), rms(feature) * scale, rtol=1e-5, atol=0)
    for unit in (1., scale):  # of the distortion, before it is scaled
        scaled = scale_to_nrmse(delta * unit, feature * scale, 0.25,
                                definition)
        torch.testing.assert_close(
            nrmse(scaled, feature * scale, definition), torch.tensor([0.25]),
            rtol=1e-5, atol=0)


def test_a_range_beyond_that_of_float32():
    feature = torch.tensor([[3e38, -3e38]])
    assert nrmse(feature, feature, 'range').item() == pytest.approx(0.5)


@pytest.mark.parametrize('value', [60000., 65504., 6e-8])
def test_half_precision(value):
    feature = torch.full((1, 64), value).half()
    delta = torch.full((1, 64), value / 2)
    assert nrmse(delta, feature).item() == pytest.approx(0.5, rel=0.02)


def test_ordinary_strengths_are_bit_equal_to_the_plain_formula():
    """A power of two costs no precision: no published number moves."""
    feature = gaussian_noise(image_keys(range(3)), (8, 7, 7)) * 3
    delta = gaussian_noise(image_keys(range(3)), (8, 7, 7), 1)

    def root(x):
        return x.square().flatten(1).mean(1).sqrt()

    assert torch.equal(rms(feature), root(feature))
    assert torch.equal(nrmse(delta, feature), root(delta) / root(feature))
    factor = 0.3 * root(feature) / root(delta)
    assert torch.equal(
        scale_to_nrmse(delta, feature, 0.3),
        delta * factor.view(-1, 1, 1, 1))


@pytest.mark.parametrize('value', [0.1, 1e5 / 3])
def test_a_constant_has_no_spread(value):
    """Its standard deviation is 0, not the rounding error of its mean."""
    feature = torch.full((1, 4097), value)
    for definition in ('std', 'range'):
        assert nrmse(torch.ones(1, 4097), feature, definition) == math.inf
        assert not scale_to_nrmse(
            torch.ones(1, 4097), feature, 0.5, definition).any()


@pytest.mark.parametrize('scale', [1e37, 1., 1e-30])
def test_the_gradient_is_that_of_the_root_mean_square(scale):
    x = (torch.tensor([[1., -2., 3.], [0., 0., 0.]]) * scale).requires_grad_()
    grad, = torch.autograd.grad(rms(x).sum(), x)
    # x / (M RMS)
    torch.testing.assert_close(
        grad[0], torch.tensor([1., -2., 3.]) / (3 * math.sqrt(14 / 3)))
    assert not grad[1].any()


def test_one_element_and_no_image():
    one = torch.tensor([[-3.]])
    assert rms(one) == 3 and participation_ratio(one) == 1
    assert nrmse(one, one) == 1 and nrmse(one, one, 'std') == math.inf
    none = torch.zeros(0, 3, 2, 2)
    for definition in DEFINITIONS:
        assert nrmse(none, none, definition).shape == (0, )
        scaled = scale_to_nrmse(none, none, 0.5, definition)
        assert scaled.shape == none.shape
    assert participation_ratio(none).shape == rms(none).shape == (0, )


def test_images_without_elements_are_named():
    with pytest.raises(ValueError, match=r'no elements.*\(3, 0, 4\)'):
        nrmse(torch.zeros(2, 3, 0, 4), torch.zeros(2, 3, 0, 4))
