import math

import pytest
import torch

from mmfeatjnd.functional import (
    binary_cross_entropy,
    binary_kl_divergence,
    cross_entropy,
    kl_divergence,
)

P = torch.tensor([0.5, 0.25, 0.25])
Q = torch.tensor([0.25, 0.25, 0.5])
ALL = [kl_divergence, cross_entropy, binary_kl_divergence,
       binary_cross_entropy]


def test_kl_by_hand():
    # 0.5 ln 2 + 0 - 0.25 ln 2; logits may have any offset
    got = kl_divergence(P.log()[None] + 3, Q.log()[None] - 7)
    assert got.item() == pytest.approx(0.25 * math.log(2), rel=1e-5)
    assert kl_divergence(P.log()[None], P.log()[None]).abs() < 1e-7


def test_kl_is_directed():
    p = torch.tensor([[0.9, 0.1]]).log()
    q = torch.tensor([[0.5, 0.5]]).log()
    forward = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    backward = -0.5 * math.log(4 * 0.9 * 0.1)
    assert kl_divergence(p, q).item() == pytest.approx(forward, rel=1e-5)
    assert kl_divergence(q, p).item() == pytest.approx(backward, rel=1e-5)


def test_kl_temperature_divides_the_logits():
    a, b = torch.randn(4, 5), torch.randn(4, 5)
    assert torch.equal(kl_divergence(a, b, 2.), kl_divergence(a / 2, b / 2))


def test_means_are_over_images_and_pixels():
    maps = torch.randn(2, 2, 3, 4, 5)  # clean and perturbed (2, 3, 4, 5)
    flat = maps.permute(0, 1, 3, 4, 2).reshape(2, -1, 3)
    for function in (kl_divergence, cross_entropy):
        torch.testing.assert_close(function(*maps), function(*flat))


def test_cross_entropy_by_hand():
    got = cross_entropy(P.log()[None], Q.log()[None])
    assert got.item() == pytest.approx(math.log(4), rel=1e-6)


def test_half_precision_and_extreme_logits():
    logits = torch.tensor([[60000., -60000.], [0., 1.]], dtype=torch.half)
    for function in (kl_divergence, cross_entropy):
        value = function(logits, logits.flip(0))
        assert value.dtype == torch.float32 and torch.isfinite(value)


def test_gradient_of_kl():
    """d KL / d logits = softmax(perturbed) - softmax(clean)."""
    q = Q.log()[None].requires_grad_()
    grad, = torch.autograd.grad(kl_divergence(P.log()[None], q), q)
    torch.testing.assert_close(grad[0], Q - P)


# --------------------------------------------------------------------- sigmoid
def test_binary_kl_is_that_of_two_classes():
    """A sigmoid on z is a softmax over (z, 0)."""
    z, w = torch.randn(2, 6, 3)
    zero = torch.zeros(6)
    expected = sum(
        kl_divergence(
            torch.stack([z[:, k], zero], 1), torch.stack([w[:, k], zero], 1))
        for k in range(3))
    torch.testing.assert_close(binary_kl_divergence(z, w), expected)
    assert binary_kl_divergence(z, z) == 0
    torch.testing.assert_close(
        binary_kl_divergence(z, w, 2.), binary_kl_divergence(z / 2, w / 2))


def test_binary_kl_by_hand():
    """Of two labels an image, and two images."""
    p = torch.tensor([[0.5, 0.9], [0.5, 0.25]])
    q = torch.tensor([[0.25, 0.9], [0.5, 0.75]])
    first = 0.5 * math.log(2) + 0.5 * math.log(0.5 / 0.75)
    second = 0.25 * math.log(1 / 3) + 0.75 * math.log(3)
    got = binary_kl_divergence(p.logit(), q.logit())
    assert got.item() == pytest.approx((first + second) / 2, rel=1e-5)


def test_binary_cross_entropy_by_hand():
    p = torch.tensor([[0.9, 0.2]])  # yes, no
    q = torch.tensor([[0.6, 0.7]])
    got = binary_cross_entropy(p.logit(), q.logit())
    assert got.item() == pytest.approx(-math.log(0.6) - math.log(0.3))
    # of a host that says yes above 0.1
    got = binary_cross_entropy(p.logit(), q.logit(), 0.1)
    assert got.item() == pytest.approx(-math.log(0.6) - math.log(0.7))


@pytest.mark.parametrize('function',
                         [binary_kl_divergence, binary_cross_entropy])
def test_binary_means_are_over_images_and_pixels(function):
    maps = torch.randn(2, 2, 3, 4, 5)
    flat = maps.permute(0, 1, 3, 4, 2).reshape(2, -1, 3)
    torch.testing.assert_close(function(*maps), function(*flat))


# ------------------------------------------------------- what is no prediction
@pytest.mark.parametrize('function', ALL)
@pytest.mark.parametrize('side', [0, 1])
def test_no_discrepancy_of_what_is_broken(function, side):
    """A NaN is the largest logit to arg-max, and says no to a threshold."""
    pair = torch.randn(2, 3, 4, 2, 2)
    assert function(*pair).isfinite()
    pair[side, 1, 2, 0, 1] = math.nan
    assert function(*pair).isnan()


@pytest.mark.parametrize('function', [kl_divergence, cross_entropy,
                                      binary_kl_divergence])
def test_a_class_that_is_ruled_out_adds_nothing(function):
    clean, perturbed = torch.randn(2, 3, 4)
    clean[:, 2] = perturbed[:, 2] = -math.inf
    perturbed.requires_grad_()
    value = function(clean, perturbed)
    keep = [0, 1, 3]
    torch.testing.assert_close(
        value, function(clean[:, keep], perturbed[:, keep]))
    grad, = torch.autograd.grad(value, perturbed)
    assert grad.isfinite().all() and not grad[:, 2].any()
    assert (grad[:, keep] != 0).all()


@pytest.mark.parametrize('function', [kl_divergence, cross_entropy])
@pytest.mark.parametrize('shape', [(2, 1), (2, 1, 3, 3)])
def test_a_softmax_over_one_class_is_refused(function, shape):
    """It is always 1: nothing would ever seem to change."""
    with pytest.raises(ValueError, match='one class is always 1.*binary_kl'):
        function(torch.randn(shape), torch.randn(shape))
