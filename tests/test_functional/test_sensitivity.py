"""What noise on a token costs, and what it tolerates."""
import math

import pytest
import torch

from mmfeatjnd.functional import (
    Distribution,
    gaussian_noise,
    image_keys,
    log_sensitivity,
    nats,
    over_channels,
    relative_energy,
    resize_map,
    to_grid,
    token_sensitivity,
    tolerated_log_std,
)

TINY = math.log(torch.finfo(torch.float32).tiny)


def as_layouts(x):
    """Tokens (B, N, C) as the maps and the vectors that hold the same."""
    b, n, c = x.shape
    return {
        'map': x.transpose(1, 2).reshape(b, c, 1, n),
        'tokens': x,
        'vector': x.reshape(b * n, c)
    }


def test_one_number_a_channel():
    values = torch.tensor([1., 2., 3.])
    for like, shape in ((torch.zeros(2, 3, 4, 5), (1, 3, 1, 1)),
                        (torch.zeros(2, 4, 3), (1, 1, 3)),
                        (torch.zeros(2, 3), (1, 3))):
        out = over_channels(values, like)
        assert out.shape == shape and out.flatten().tolist() == [1, 2, 3]


@pytest.mark.parametrize('layout', ['map', 'tokens', 'vector'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_token_sensitivity_by_hand(layout, dtype):
    information = torch.tensor([[[1., 3.], [2., 4.]]], dtype=dtype)
    found = token_sensitivity(
        as_layouts(information)[layout], torch.tensor([2., 0.5]))
    # 4 * 1 + 3 / 4, and 4 * 2 + 4 / 4
    assert found.flatten().tolist() == [4.75, 9.]
    assert found.dtype == torch.float32
    shapes = dict(map=(1, 1, 1, 2), tokens=(1, 2, 1), vector=(2, 1))
    assert found.shape == shapes[layout]


@pytest.mark.parametrize('layout', ['map', 'tokens', 'vector'])
def test_a_token_that_nothing_depends_on(layout):
    """A millionth of the mean, and where all is 0 the least number."""
    information = as_layouts(torch.tensor([[[3.], [0.], [0.]]]))[layout]
    found = log_sensitivity(information, torch.ones(1)).flatten()
    assert found.tolist() == pytest.approx(
        [math.log(3 + 1e-6), math.log(1e-6), math.log(1e-6)], rel=1e-6)
    found = log_sensitivity(0 * information, torch.ones(1))
    assert found.flatten().tolist() == pytest.approx([TINY] * 3)
    # so does what never changes
    found = log_sensitivity(information, torch.zeros(1))
    assert found.flatten().tolist() == pytest.approx([TINY] * 3)


def test_no_token_at_all():
    assert log_sensitivity(torch.zeros(0, 3, 2, 2),
                           torch.ones(3)).shape == (0, 1, 2, 2)


def test_white_noise_costs_half_of_w_times_its_variance():
    """That of every token, and the sum over tokens: the KL divergence of a
    softmax of linear logits, whose Fisher information is known. It is no
    diagonal, but white noise does not see the rest."""
    weight = gaussian_noise(image_keys(range(3)), (2, 4)).double()  # (K, N, C)
    std = torch.tensor([0.5, 1., 2., 4.])
    feature = gaussian_noise(image_keys([0], seed=1), (2, 4)).double()

    def logits(x):
        return torch.einsum('knc,bnc->bk', weight, x)

    p = logits(feature).softmax(1)[0]
    fisher = torch.einsum('knc,kl,lnc->nc', weight, p.diag() - p.outer(p),
                          weight)
    w = token_sensitivity(fisher[None].float(), std)
    count = 20000
    s = torch.tensor([[0.02], [0.005]])
    noise = gaussian_noise(image_keys(range(count), seed=2), (2, 4)).double()
    clean, changed = (
        dict(cls=Distribution('categorical', x))
        for x in (logits(feature).expand(count, -1),
                  logits(feature + s * std * noise)))
    cost = nats(clean, changed, count).double().mean()
    expected = (0.5 * w * s**2).sum()
    assert float(cost) == pytest.approx(float(expected), rel=0.03)


# ------------------------------------------------------------------ tolerance
def test_tolerated_noise_by_hand():
    log_w = torch.tensor([[[4.], [1.]]]).log()
    s = tolerated_log_std(log_w, 0.02, 2).exp()
    # 0.02 / 2 nats a token: s^2 = 2 * 0.01 / w
    assert s.flatten().tolist() == pytest.approx([0.005**0.5, 0.02**0.5])
    # so many tokens of other levels share the tolerance
    more = tolerated_log_std(log_w, 0.02, torch.tensor(8.)).exp()
    torch.testing.assert_close(more, s / 2)


def test_equal_costs_have_the_largest_volume():
    log_w = torch.linspace(-3, 3, 7)[None, :, None]
    log_s = tolerated_log_std(log_w, 0.02, 7)

    def cost(log_s):
        return 0.5 * (log_w + 2 * log_s).exp().sum()

    assert float(cost(log_s)) == pytest.approx(0.02, rel=1e-5)
    for i in range(20):
        other = log_s + 0.3 * gaussian_noise(image_keys([i]), (7, 1))
        other = other + 0.5 * (0.02 / cost(other)).log()
        assert float(cost(other)) == pytest.approx(0.02, rel=1e-5)
        assert other.sum() < log_s.sum()


# ----------------------------------------------------------------------- maps
def test_maps_of_another_size_by_hand():
    grid = torch.tensor([[0., 1.]])
    out = resize_map(grid, torch.zeros(1, 4, 3))
    assert out.shape == (1, 4, 1)
    assert out.flatten().tolist() == [0, 0.25, 0.75, 1]
    out = resize_map(grid[:, None], torch.zeros(1, 3, 2, 4))
    assert out.shape == (1, 1, 2, 4)
    assert out[0, 0].tolist() == [[0, 0.25, 0.75, 1]] * 2
    out = resize_map(grid, torch.zeros(1, 3))
    assert out.tolist() == [[0.5]]


def test_maps_on_a_grid_by_hand():
    values = torch.tensor([1., 3., 5., 7.])
    assert to_grid(values.view(1, 1, 2, 2), (1, 1)).tolist() == [[[4]]]
    assert to_grid(values.view(1, 4, 1), (2, )).tolist() == [[2, 6]]
    # one number everywhere
    assert to_grid(values.view(4, 1), (2, )).tolist() == [
        [1, 1], [3, 3], [5, 5], [7, 7]]


@pytest.mark.parametrize('shape, grid, like', [
    ((2, 1, 3, 5), (3, 5), (2, 8, 3, 5)),
    ((2, 6, 1), (6, ), (2, 6, 8)),
    ((2, 1), (4, ), (2, 8)),
])
def test_there_and_back(shape, grid, like):
    x = gaussian_noise(image_keys(range(2)), shape[1:])
    torch.testing.assert_close(
        resize_map(to_grid(x, grid), torch.zeros(like)), x)


# --------------------------------------------------------------------- energy
@pytest.mark.parametrize('layout', ['map', 'tokens', 'vector'])
def test_relative_energy_by_hand(layout):
    x = as_layouts(torch.tensor([[[1., 4., 9.], [3., -2., 9.]]]))[layout]
    found = relative_energy(
        x, torch.tensor([1., 0., 5.]), torch.tensor([1., 2., 0.]), floor=0.5)
    # (0 + 4) / 2 and (4 + 1) / 2; the last channel never changed
    assert found.flatten().tolist() == [2.5, 3.0]
    assert found.dim() == x.dim()
    found = relative_energy(x, torch.zeros(3), torch.zeros(3))
    assert found.flatten().tolist() == pytest.approx([1e-6, 1e-6])
