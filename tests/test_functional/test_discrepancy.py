import math

import pytest
import torch

from mmfeatjnd.functional import cross_entropy, kl_divergence

P = torch.tensor([0.5, 0.25, 0.25])
Q = torch.tensor([0.25, 0.25, 0.5])


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
