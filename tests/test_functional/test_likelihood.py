"""Divergences of answers by hand, and the gradients that make their Fisher
information."""
import math

import pytest
import torch

from mmfeatjnd.functional import Distribution, image_keys, nats, score

P = torch.tensor([[0.5, 0.25, 0.25]])
Q = torch.tensor([[0.25, 0.25, 0.5]])
KINDS = ('categorical', 'bernoulli', 'gaussian')


def distance(kind, a, b, size=None, **kwargs):
    return nats({'': Distribution(kind, a, **kwargs)},
                {'': Distribution(kind, b)}, len(a) if size is None else size)


# ----------------------------------------------------------------- divergence
def test_categorical_by_hand():
    # 0.5 ln 2 + 0 - 0.25 ln 2; logits may have any offset
    got = distance('categorical', P.log() + 3, Q.log() - 7)
    assert got.tolist() == pytest.approx([0.25 * math.log(2)])
    # it is directed
    p, q = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()
    forward = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    backward = -0.5 * math.log(4 * 0.9 * 0.1)
    assert distance('categorical', p, q).item() == pytest.approx(forward)
    assert distance('categorical', q, p).item() == pytest.approx(backward)


def test_bernoulli_is_that_of_two_classes():
    z, w = torch.randn(2, 6, 3)
    two = [torch.stack([x, torch.zeros_like(x)], 1) for x in (z, w)]
    torch.testing.assert_close(
        distance('bernoulli', z, w), distance('categorical', *two))


def test_gaussian_by_hand():
    a, b = torch.tensor([[0.0, 1.0]]), torch.tensor([[3.0, 1.5]])
    weight = torch.tensor([[2.0, 4.0]])  # precisions
    assert distance('gaussian', a, b).item() == (9 + 0.25) / 2
    assert distance('gaussian', a, b, weight=weight).item() == 9 + 0.5


def test_all_that_an_image_says_is_summed():
    """Over places, rows and kinds, and nothing over images."""
    maps = torch.randn(2, 2, 3, 4, 5)
    whole = distance('categorical', *maps)
    by_hand = [
        distance('categorical', a.flatten(1).T, b.flatten(1).T).sum()
        for a, b in zip(*maps)
    ]
    torch.testing.assert_close(whole, torch.stack(by_hand))
    rows = torch.randn(2, 5, 3)
    images = torch.tensor([0, 0, 2, 2, 2])
    weight = torch.rand(5, 1)
    each = distance('categorical', *rows) * weight[:, 0]
    got = distance('categorical', *rows, size=3, images=images, weight=weight)
    torch.testing.assert_close(
        got, torch.stack([each[:2].sum(), each[:0].sum(), each[2:].sum()]))
    both = nats(
        dict(a=Distribution('categorical', maps[0]),
             b=Distribution('gaussian', maps[0])),
        dict(a=Distribution('categorical', maps[1]),
             b=Distribution('gaussian', maps[1])), 2)
    torch.testing.assert_close(both, whole + distance('gaussian', *maps))


def test_small_divergences_are_not_rounding():
    """Of very many terms, each of which single precision would lose."""
    logits = torch.randn(1, 1000, 50, 20)
    step = 1e-5 * torch.randn_like(logits)
    p = logits.double().softmax(1)
    mean = (p * step).sum(1, keepdim=True)
    expected = 0.5 * (p * (step - mean).square()).sum()
    got = distance('categorical', logits.double(), logits.double() + step)
    assert got.item() == pytest.approx(expected.item(), rel=1e-3)


def test_gradient_of_a_divergence():
    """d KL / d logits = softmax(other) - softmax(clean)."""
    q = Q.log().requires_grad_()
    grad, = torch.autograd.grad(distance('categorical', P.log(), q).sum(), q)
    torch.testing.assert_close(grad, Q - P)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('side', [0, 1])
def test_nothing_is_known_of_what_is_broken(kind, side):
    pair = torch.randn(2, 3, 4, 2, 2)
    pair[side, 1, 2, 0, 1] = math.nan
    found = distance(kind, *pair)
    assert found.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize('kind', KINDS[:2])
def test_a_class_that_is_ruled_out_adds_nothing(kind):
    clean, other = torch.randn(2, 3, 4)
    clean[:, 2] = other[:, 2] = -math.inf
    other.requires_grad_()
    value = distance(kind, clean, other)
    keep = [0, 1, 3]
    torch.testing.assert_close(
        value, distance(kind, clean[:, keep], other[:, keep]))
    grad, = torch.autograd.grad(value.sum(), other)
    assert grad.isfinite().all() and not grad[:, 2].any()


def test_half_precision_and_extreme_logits():
    logits = torch.tensor([[60000., -60000.], [0., 1.]], dtype=torch.half)
    for kind in KINDS[:2]:
        value = distance(kind, logits, logits.flip(0))
        assert value.dtype == torch.float32 and value.isfinite().all()


# ---------------------------------------------------------------------- score
def covariance(kind, value, draws=20000, **kwargs):
    """E[g g^T] of one image, over many draws in rows of their own."""
    rows = value.expand(draws, *value.shape[1:]).clone().requires_grad_()
    answer = Distribution(kind, rows, **kwargs)
    score({'': answer}, image_keys(range(draws))).backward()
    g = rows.grad.flatten(1).double()
    return g.T @ g / draws


def test_fisher_of_a_softmax():
    p = P[0].double()
    torch.testing.assert_close(
        covariance('categorical', P.log()), p.diag() - p.outer(p),
        atol=0.01, rtol=0)


def test_fisher_of_yes_and_no():
    z = torch.tensor([[0.0, 2.0]])
    p = z[0].sigmoid().double()
    torch.testing.assert_close(
        covariance('bernoulli', z), (p * (1 - p)).diag(), atol=0.01, rtol=0)


def test_fisher_of_a_gaussian():
    weight = torch.tensor([[4.0, 0.25]])  # precisions
    torch.testing.assert_close(
        covariance('gaussian', torch.zeros(1, 2), weight=weight),
        weight[0].double().diag(), atol=0.12, rtol=0)


def test_the_score_is_that_of_the_divergence():
    """By the second derivative of the nats at the clean answer."""
    z = torch.randn(1, 3, 2)
    weight = torch.rand(1, 1, 2)

    def cost(x):
        clean = Distribution('categorical', z, weight=weight)
        return nats({'': clean}, {'': Distribution('categorical', x)}, 1)[0]

    hessian = torch.autograd.functional.hessian(cost, z).view(6, 6)
    torch.testing.assert_close(
        covariance('categorical', z, weight=weight).float(), hessian,
        atol=0.02, rtol=0)


def test_draws_belong_to_the_image():
    z = torch.randn(3, 4)

    def gradient(rows, ids, stream=0, images=None):
        x = z[rows].clone().requires_grad_()
        answer = Distribution('categorical', x, images)
        score({'': answer}, image_keys(ids), stream).backward()
        return x.grad

    whole = gradient([0, 1, 2], ['a', 'b', 'c'])
    torch.testing.assert_close(gradient([1], ['b']), whole[1:2])
    assert not torch.allclose(gradient([1], ['b'], stream=1), whole[1:2])
    # several proposals of an image have noise of their own
    x = z[:1].expand(3, -1).clone().requires_grad_()
    answer = Distribution('categorical', x, torch.tensor([0, 0, 1]))
    score({'': answer}, image_keys(['a', 'b'])).backward()
    assert not torch.allclose(x.grad[0], x.grad[1])
    alone = gradient([0], ['a'], images=torch.tensor([0]))
    torch.testing.assert_close(alone, x.grad[:1])


def test_no_proposals():
    nothing = Distribution('categorical', torch.zeros(0, 4),
                           torch.zeros(0, dtype=torch.long))
    assert nats({'': nothing}, {'': nothing}, 2).tolist() == [0, 0]
    assert score({'': nothing}, image_keys(['a', 'b'])) == 0
