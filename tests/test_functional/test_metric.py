import numpy as np
import pytest
import torch
from scipy.fft import dctn

from mmfeatjnd.functional import (
    block_dct,
    block_idct,
    channel_moments,
    dct_matrix,
    expected_nats,
    frequency_moments,
    hidden_part,
    metric,
    visible_basis,
    visible_part,
    visible_rank,
    volume_bits,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def blocks_of(x, block):
    """The blocks of one map (C, H, W) in rows, by scipy."""
    below, right = (-n % block for n in x.shape[1:])
    x = np.pad(x, [(0, 0), (0, below), (0, right)], 'edge')
    return [
        dctn(x[:, i:i + block, j:j + block], axes=(1, 2), norm='ortho')
        for i in range(0, x.shape[1], block)
        for j in range(0, x.shape[2], block)
    ]


# ------------------------------------------------------------------- moments
def test_moments_by_hand():
    x = torch.tensor([[[1., 0.], [3., 0.], [2., 6.]]])  # (B, N, C)
    found = channel_moments(x)
    assert found.count == 3
    assert found.mean.tolist() == [2, 2]
    torch.testing.assert_close(found.second, torch.tensor(
        [[14., 12.], [12., 36.]]).double() / 3)
    torch.testing.assert_close(found.covariance, torch.tensor(
        [[2., 0.], [0., 24.]]).double() / 3)
    torch.testing.assert_close(found.std.square(),
                               found.covariance.diagonal())


@pytest.mark.parametrize('shape', [(2, 5, 3, 4), (3, 7, 5), (6, 5)])
@pytest.mark.parametrize('chunk', [1, 12, 1 << 20])
def test_any_layout_in_any_chunks(shape, chunk, monkeypatch):
    monkeypatch.setattr(metric, '_CHUNK', chunk)
    x = torch.randn(shape)
    tokens = x.movedim(1, -1) if x.dim() == 4 else x
    tokens = tokens.reshape(-1, 5).double().numpy()
    found = channel_moments(x)
    assert found.count == len(tokens)
    np.testing.assert_allclose(found.mean, tokens.mean(0), atol=1e-12)
    np.testing.assert_allclose(found.covariance,
                               np.cov(tokens.T, bias=True), atol=1e-12)


def test_moments_add_up():
    x = torch.randn(6, 4, 3, 3)
    parts = channel_moments(x[:1]).merged(channel_moments(x[1:]))
    whole = channel_moments(x)
    assert parts.count == whole.count == 54
    for a, b in zip(parts[1:], whole[1:]):
        torch.testing.assert_close(a, b)


def test_nothing_is_lost_beside_a_large_mean():
    """In float32 the variance would be 0, or negative."""
    x = 1e4 + torch.randint(0, 2, (1, 2, 50, 50)).float() / 64
    expected = np.cov(x.double().numpy().reshape(2, -1), bias=True)
    np.testing.assert_allclose(channel_moments(x).covariance, expected,
                               rtol=1e-2, atol=1e-7)


def test_a_constant_channel_has_no_deviation():
    x = torch.full((1, 2, 50, 50), 0.1)
    assert channel_moments(x).std.tolist() == [0, 0]


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    x = torch.randn(2, 3, 4, 4).to(dtype)
    found = channel_moments(x)
    assert found.outer.dtype == torch.float64
    torch.testing.assert_close(found.outer, channel_moments(x.float()).outer)
    assert block_dct(x, 4).dtype == torch.float32


def test_no_tokens_add_nothing():
    found = channel_moments(torch.zeros(0, 3, 4, 4))
    x = channel_moments(torch.randn(1, 3, 4, 4))
    assert found.count == 0
    assert torch.equal(x.merged(found).outer, x.outer)


# ----------------------------------------------------------------------- DCT
@pytest.mark.parametrize('size', [1, 2, 5, 8])
def test_the_dct_is_orthonormal(size):
    matrix = dct_matrix(size, torch.float64)
    torch.testing.assert_close(matrix @ matrix.T,
                               torch.eye(size, dtype=torch.float64),
                               atol=1e-14, rtol=0)
    expected = dctn(np.eye(size), axes=[0], norm='ortho')
    np.testing.assert_allclose(matrix, expected, atol=1e-14)


@pytest.mark.parametrize('size, block', [((8, 8), 4), ((5, 7), 4), ((3, 9), 8),
                                         ((4, 6), 1), ((1, 1), 5)])
def test_blocks_against_scipy(size, block):
    x = torch.randn(2, 3, *size)
    found = block_dct(x, block)
    for image, own in zip(x.numpy(), found):
        own = own.flatten(2).permute(2, 1, 0)  # blocks, channels, frequencies
        expected = np.stack(blocks_of(image, block))
        np.testing.assert_allclose(
            own, expected.reshape(*expected.shape[:2], -1), atol=1e-5)


def test_the_frequencies_lie_row_by_row():
    x = torch.zeros(1, 1, 4, 4)
    x[..., 2:] = 1  # a vertical edge: horizontal frequencies alone
    found = block_dct(x, 4)[0, :, 0, 0, 0]
    assert (found[:4].abs() > 1e-6).tolist() == [True, True, False, True]
    assert found[4:].abs().max() < 1e-6


@pytest.mark.parametrize('size, block', [((5, 7), 4), ((6, 4), 3),
                                         ((2, 2), 8)])
def test_there_and_back(size, block):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(block_idct(block_dct(x, block), size), x)


def test_energy_is_kept():
    x = torch.randn(2, 3, 8, 12)
    torch.testing.assert_close(block_dct(x, 4).square().sum(),
                               x.square().sum())


def test_zeros_make_the_gradient_of_the_coefficients():
    """d/dz of anything that the decoded feature is used for."""
    z = torch.randn(1, 16, 3, 2, 2, requires_grad=True)
    gradient = torch.randn(1, 3, 5, 7)
    (block_idct(z, (5, 7)) * gradient).sum().backward()
    torch.testing.assert_close(z.grad, block_dct(gradient, 4, 'zero'))
    assert not torch.allclose(z.grad, block_dct(gradient, 4), atol=0.1)


def test_moments_of_every_frequency():
    x = torch.randn(3, 2, 5, 7)
    found = frequency_moments(x, 4)
    rows = np.stack([b for image in x.numpy() for b in blocks_of(image, 4)])
    assert found.count == len(rows) == 12
    for w in range(16):
        own = rows[:, :, w // 4, w % 4]
        np.testing.assert_allclose(found.mean[w], own.mean(0), atol=1e-5)
        np.testing.assert_allclose(
            found.covariance[w], np.cov(own.T, bias=True), atol=1e-5)


def test_frequencies_share_what_a_token_has():
    """E[g g^T] of tokens is the mean over the frequencies of a whole
    block."""
    g = torch.randn(3, 2, 8, 12)
    torch.testing.assert_close(
        frequency_moments(g, 4, 'zero').second.mean(0),
        channel_moments(g).second)


@pytest.mark.parametrize('x, padding, message', [
    (torch.zeros(2, 3, 4), 'zero', r'needs a map .* \(2, 3, 4\)'),
    (torch.zeros(1, 3, 4, 4), 'reflect', "got 'reflect'"),
])
def test_what_has_no_blocks(x, padding, message):
    with pytest.raises(ValueError, match=message):
        block_dct(x, 2, padding)


# ---------------------------------------------------------------------- nats
def test_the_cost_of_noise_on_gaussian_answers():
    """Where KL is a square, the closed form is exact: y = W f, of unit
    variance."""
    w, root = torch.randn(3, 5), torch.randn(5, 4)
    noise = root * 2  # 4 equally probable distortions, in columns
    measured = 0.5 * (w @ noise).square().sum(0).mean()
    covariance = noise @ noise.T / 4
    torch.testing.assert_close(
        expected_nats(w.T @ w, covariance), measured)
    torch.testing.assert_close(
        expected_nats(w.T @ w, covariance, tokens=7), 7 * measured)


def test_kinds_of_tokens_add_up():
    metrics = torch.stack([torch.eye(2), 2 * torch.eye(2)])
    covariance = 0.1 * torch.eye(2)
    found = expected_nats(metrics, covariance, torch.tensor([10., 1.]))
    torch.testing.assert_close(found, torch.tensor(1.0 + 0.2))


def test_the_cost_of_noise_on_a_softmax():
    """Small noise on logits that are the feature: M = diag(p) - p p^T."""
    f = torch.tensor([0.3, -1.0, 2.0, 0.1], dtype=torch.float64)
    p = f.softmax(0)
    info = p.diag() - p[:, None] * p
    noise = torch.cat([torch.eye(4), -torch.eye(4)]).double() * 0.05
    kl = (p * (p.log() - (f + noise).log_softmax(1))).sum(1).mean()
    found = expected_nats(info, noise.T @ noise / 8)
    assert found == pytest.approx(kl.item(), rel=1e-2)


# ------------------------------------------------------------------- visible
@pytest.mark.parametrize('shape', [(2, 6, 3, 4), (2, 5, 6), (3, 6)])
def test_a_reader_with_a_null_space(shape):
    reader = torch.randn(2, 6)
    basis = visible_basis(reader.T @ reader)
    assert basis.shape == (6, 2)
    torch.testing.assert_close(basis.T @ basis, torch.eye(2))
    x = torch.randn(shape)
    seen, hidden = visible_part(x, basis), hidden_part(x, basis)
    assert seen.shape == hidden.shape == shape
    torch.testing.assert_close(seen + hidden, x)
    torch.testing.assert_close(visible_part(seen, basis), seen)
    axis = 2 if x.dim() == 3 else 1
    read = torch.tensordot(hidden, reader, ([axis], [1]))
    assert read.abs().max() < 1e-5
    torch.testing.assert_close(
        x.square().sum(), seen.square().sum() + hidden.square().sum())


def test_the_tolerance_is_of_the_largest():
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    values = torch.tensor([5.0, 1e-2, 1e-5, 0.0], dtype=torch.float64)
    info = turn @ values.diag() @ turn.T
    for tolerance, rank in ((0.5, 1), (1e-3, 2), (1e-7, 3)):
        assert visible_rank(info, tolerance) == rank
        basis = visible_basis(info, tolerance)
        assert basis.shape == (4, rank)
        torch.testing.assert_close((basis.T @ info @ basis).diagonal(),
                                   values[:rank])  # what is seen best first
    both = torch.stack([info, torch.eye(4).double()])
    assert visible_rank(both).tolist() == [2, 4]


def test_where_nothing_is_seen():
    info = torch.zeros(3, 3)
    assert visible_rank(info) == 0
    basis = visible_basis(info)
    assert basis.shape == (3, 0)
    x = torch.randn(2, 3, 4, 4)
    assert not visible_part(x, basis).any()
    assert torch.equal(hidden_part(x, basis), x)


# -------------------------------------------------------------------- volume
def test_volume_by_hand():
    noise = torch.tensor([[3., 15.], [0., 0.]])
    assert volume_bits(noise, torch.tensor([1., 1.])).tolist() == [1.5, 0]
    assert volume_bits(noise, torch.tensor([1., 5.])).tolist() == [1.0, 0]


def test_volume_is_half_the_log_of_a_determinant():
    s, r = torch.rand(4) + 0.1, torch.rand(4) + 0.1
    gain = torch.logdet(torch.eye(4) + r.diag().inverse() @ s.diag())
    torch.testing.assert_close(volume_bits(s[None], r)[0],
                               0.5 * gain / np.log(2) / 4)


def test_nothing_hides_in_one_direction():
    """Of a given power, an even spread has the most volume, and a dead
    channel adds none, whatever is put there."""
    power = torch.tensor([
        [1., 1., 1., 1.],
        [2., 2., 0., 0.],
        [4., 0., 0., 0.],
    ])
    found = volume_bits(power, torch.ones(4))
    assert (found[:-1] > found[1:]).all()
    dead = torch.tensor([1., 1., 1., 0.])
    none = torch.tensor([[1., 1., 1., 0.], [1., 1., 1., 1e6]])
    a, b = volume_bits(none, dead)
    assert a == b == 0.75 * 0.5


def test_volume_of_maps():
    noise = torch.full((2, 3, 4, 4), 3.0)
    assert volume_bits(noise, torch.ones(1, 3, 1, 1)).tolist() == [1, 1]
