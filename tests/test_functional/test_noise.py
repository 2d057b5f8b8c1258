import math

import pytest
import torch
from scipy import stats

from mmfeatjnd.functional import (
    gaussian_noise,
    image_keys,
    random_permutation,
    shuffle_tokens,
    step_seed,
    to_tokens,
    uniform_noise,
    view_keys,
)

NOISES = [gaussian_noise, uniform_noise]
# of the strength of training, and of a permutation: far beyond any level
STREAMS = [0, 1, 4, 1 << 20, (1 << 20) + 3, 1 << 21]


def _moments(x):
    z = (x - x.mean()) / x.std()
    return x.mean().item(), x.var().item(), z.pow(4).mean().item()


@pytest.mark.parametrize('stream', STREAMS)
def test_gaussian_noise_is_standard_normal(stream):
    n = 200000
    x = gaussian_noise(image_keys(['a']), (n, ), stream)[0].double()
    mean, var, kurtosis = _moments(x)
    assert abs(mean) < 4 / math.sqrt(n)
    assert abs(var - 1) < 4 * math.sqrt(2 / n)
    assert abs(kurtosis - 3) < 4 * math.sqrt(24 / n)
    assert stats.kstest(x.numpy(), 'norm').pvalue > 1e-3
    assert torch.isfinite(x).all() and x.abs().max() < 6


@pytest.mark.parametrize('stream', STREAMS)
def test_uniform_noise_is_uniform(stream):
    n = 200000
    x = uniform_noise(image_keys(['a']), (n, ), stream)[0].double()
    mean, var, kurtosis = _moments(x)
    assert abs(mean) < 4 * math.sqrt(1 / 3 / n)
    assert abs(var - 1 / 3) < 4 * math.sqrt(4 / 45 / n)
    assert abs(kurtosis - 9 / 5) < 0.02
    assert stats.kstest(x.numpy(), 'uniform', (-1, 2)).pvalue > 1e-3
    assert x.abs().max() < 1


def test_unit_numbers_stay_inside_the_open_interval():
    from mmfeatjnd.functional.noise import _unit
    ends = _unit(torch.tensor([0, (1 << 23) - 1]))
    assert 0 < ends[0] and ends[1] < 1
    assert -1 < 2 * ends[0] - 1 and 2 * ends[1] - 1 < 1


@pytest.mark.parametrize('noise', NOISES)
def test_noises_are_uncorrelated(noise):
    """Along the elements, between images, seeds and streams."""
    n = 100000
    bound = 5 / math.sqrt(n)
    keys = torch.cat([image_keys([0, 1, 2]), image_keys([0], seed=1)])
    rows = torch.cat([noise(keys, (n, ), s) for s in (0, 1, 1 << 20)])
    matrix = torch.corrcoef(rows.double())
    off = matrix - torch.eye(len(matrix))
    assert off.abs().max() < bound
    for lag in (1, 2, 3, 8, 32, 64, 1024):
        a, b = rows[0, :-lag], rows[0, lag:]
        assert torch.corrcoef(torch.stack([a, b]))[0, 1].abs() < bound


@pytest.mark.parametrize('noise', NOISES)
@pytest.mark.parametrize('stream', [0, 3])
def test_noise_belongs_to_the_image(noise, stream):
    """Not to the batch, the order in it, or the global random state."""
    ids, shape = ['a', 7, 'c', 8, 9], (3, 4, 5)
    state = torch.get_rng_state()
    batch = noise(image_keys(ids), shape, stream)
    assert torch.equal(torch.get_rng_state(), state)
    assert batch.shape == (5, *shape) and batch.dtype == torch.float32
    torch.manual_seed(123)
    for i, name in enumerate(ids):
        assert torch.equal(
            noise(image_keys([name]), shape, stream)[0], batch[i])
    backwards = noise(image_keys(ids[::-1]), shape, stream)
    assert torch.equal(backwards.flip(0), batch)


def _split_mix(x):
    """The finalizer of SplitMix64 in plain integers."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


@pytest.mark.parametrize('stream', STREAMS)
def test_noise_against_plain_integers(stream):
    """Published numbers must stay reproducible."""
    golden = 0x9E3779B97F4A7C15
    keys = image_keys(['000000000139', 7], seed=3)
    uniform = uniform_noise(keys, (2, 3), stream).flatten(1)
    gaussian = gaussian_noise(keys, (2, 3), stream).flatten(1)
    for row, key in enumerate(keys.tolist()):
        key = _split_mix((key + (2 * stream + 1) * golden) % 2**64)
        for i in range(6):
            bits = _split_mix((key + (i + 1) * golden) % 2**64)
            first = ((bits >> 41) + 0.5) / 2**23
            second = (bits % 2**23 + 0.5) / 2**23
            assert uniform[row, i].item() == 2 * first - 1
            assert gaussian[row, i].item() == pytest.approx(
                math.sqrt(-2 * math.log(first)) *
                math.cos(2 * math.pi * second),
                abs=1e-5)


def test_keys_do_not_change_between_versions():
    key = image_keys(['000000000139'], seed=3).item()
    assert key == 5714945760490936245


def test_a_batch_of_none():
    assert gaussian_noise(image_keys([]), (3, 2)).shape == (0, 3, 2)
    assert uniform_noise(image_keys([0]), (3, 0)).shape == (1, 3, 0)


def test_image_keys():
    keys = image_keys([1, '1', 2, 'x'], seed=0)
    assert keys.dtype == torch.int64 and keys.shape == (4, )
    assert keys[0] == keys[1]  # ids are compared as text
    assert len(set(keys.tolist())) == 3
    assert not set(keys.tolist()) & set(image_keys([1, 2, 'x'], 1).tolist())


# -------------------------------------------------------------------- views
def test_views_of_an_image():
    keys = image_keys(['a', 'a', 'a', 'b', 'b', 'b'])
    views = torch.tensor([0, 1, 2, 0, 1, 2])
    got = view_keys(keys, views)
    assert got.dtype == torch.int64 and len(set(got.tolist())) == 6
    # the first view is the image itself
    assert torch.equal(got[::3], keys[::3])
    assert torch.equal(view_keys(keys[3:], views[3:]), got[3:])
    for i in (1, 2):
        counter = keys[3].item() + i * 0xD1B54A32D192ED03
        assert got[3 + i].item() % 2**64 == _split_mix(counter % 2**64)


@pytest.mark.parametrize('noise', NOISES)
def test_noise_of_views_is_uncorrelated(noise):
    """Nor is it that of the image's levels."""
    n = 100000
    keys = image_keys(['a']).expand(4)
    keys = view_keys(keys, torch.tensor([0, 1, 2, 255]))
    rows = torch.cat([noise(keys, (n, ), s) for s in (0, 1, 1 << 24)])
    off = torch.corrcoef(rows.double()) - torch.eye(len(rows))
    assert off.abs().max() < 5 / math.sqrt(n)
    for lag in (1, 2, 64):
        pair = torch.stack([rows[0, :-lag], rows[1, lag:]])
        assert torch.corrcoef(pair)[0, 1].abs() < 5 / math.sqrt(n)


# -------------------------------------------------------------------- steps
def test_the_seed_of_a_step():
    seeds = [step_seed(step, call, seed) for step in (None, 0, 1, 2, 10)
             for call in (0, 1, 10) for seed in (0, 1)]
    assert len(set(seeds)) == len(seeds)
    assert all(isinstance(s, int) and 0 <= s < 2**63 for s in seeds)
    assert seeds == [step_seed(step, call, seed)
                     for step in (None, 0, 1, 2, 10)
                     for call in (0, 1, 10) for seed in (0, 1)]
    # step 1, call 11 is not step 11, call 1
    assert step_seed(1, 11) != step_seed(11, 1)
    # trainings that were begun must be continued alike
    assert step_seed(7) == 7320632408897571577
    assert step_seed(7, 1, 3) == 3148006136795487417


def test_any_generator_takes_the_seed_of_a_step():
    for step in range(20):
        seed = step_seed(step)
        torch.Generator().manual_seed(seed)
        image_keys(['a'], seed)


@pytest.mark.parametrize('n', [1, 2, 7, 500])
def test_permutations_are_permutations(n):
    keys = image_keys(range(4))
    order = random_permutation(keys, n, 1 << 20)
    assert order.shape == (4, n) and order.dtype == torch.int64
    assert torch.equal(order.sort(1).values,
                       torch.arange(n).expand(4, n))
    assert torch.equal(random_permutation(keys[2:3], n, 1 << 20)[0], order[2])
    if n == 500:
        assert (order != torch.arange(n)).float().mean() > 0.9
        assert not torch.equal(order[0], order[1])
        other = random_permutation(keys, n, (1 << 20) + 1)
        assert not torch.equal(other, order)


def test_permutations_are_uniform():
    """Each of the 3! orders comes up equally often."""
    order = random_permutation(image_keys(range(6000)), 3)
    code = order[:, 0] * 3 + order[:, 1]
    counts = torch.unique(code, return_counts=True)[1]
    assert len(counts) == 6
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


# ------------------------------------------------------------------- tokens
@pytest.mark.parametrize('shape', [(2, 3, 4, 5), (2, 20, 3), (2, 3)])
def test_whole_tokens_move_within_an_image(shape):
    x = torch.randn(shape)
    moved = shuffle_tokens(x, image_keys(['a', 'b']))
    assert moved.shape == x.shape
    for before, after in zip(to_tokens(x), to_tokens(moved)):
        assert sorted(before.tolist()) == sorted(after.tolist())
    assert torch.equal(x, moved) == (len(shape) == 2)  # a vector is one token


def test_the_order_depends_on_the_key_only():
    x = torch.randn(3, 4, 5, 6)
    keys = image_keys(['a', 'b', 'c'])
    moved = shuffle_tokens(x, keys)
    assert torch.equal(moved.flip(0), shuffle_tokens(x.flip(0), keys.flip(0)))
    assert torch.equal(moved[1:2], shuffle_tokens(x[1:2], keys[1:2]))
    assert not torch.equal(moved, shuffle_tokens(x, keys, 1))
    assert not torch.equal(moved, shuffle_tokens(x, image_keys('abc', seed=1)))
