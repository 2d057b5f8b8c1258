import math

import pytest
import torch

from mmfeatjnd.functional import (
    Allocation,
    Steps,
    block_dct,
    component_gains,
    expected_nats,
    frequency_groups,
    frequency_moments,
    from_components,
    group_means,
    make_transform,
    metric_basis,
    quantize,
    shrunk,
    to_components,
)


def spd(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, shape[-1], generator=generator)
    return x @ x.mT


def drawn(block, channels, grouping, seed=0):
    """Any transform, of a metric and a covariance for each frequency."""
    metric, covariance = (
        spd(block**2, channels, seed=seed + i) for i in (0, 1))
    group = frequency_groups(block, grouping)
    basis = metric_basis(group_means(metric, group),
                         group_means(covariance, group))
    gain = component_gains(basis, group, metric)
    mean = torch.randn(block**2, channels)
    return make_transform(block, mean, basis, group, gain), metric, covariance


@pytest.mark.parametrize('grouping, groups', [
    ('frequency', 9), ('radius', 5), ('shared', 1)])
@pytest.mark.parametrize('size', [(6, 9), (7, 5), (1, 2)])
def test_what_goes_in_comes_out(grouping, groups, size):
    transform, _, _ = drawn(3, 4, grouping)
    assert len(transform.basis) == groups
    feature = torch.randn(2, 4, *size)
    z = to_components(feature, transform)
    assert z.shape == (2, 36, -(-size[0] // 3), -(-size[1] // 3))
    back = from_components(z, transform, size)
    torch.testing.assert_close(back, feature, rtol=1e-3, atol=1e-3)


def test_components_by_hand():
    """A 2 x 2 block of one channel, frequency by frequency."""
    mean = torch.tensor([[1.0], [0.0], [0.0], [0.5]])
    basis = torch.tensor([[[2.0]], [[4.0]], [[4.0]], [[8.0]]])
    gain = torch.tensor([[1.0], [1.0], [0.5], [1.0]])
    transform = make_transform(2, mean, basis, torch.arange(4), gain)
    feature = torch.tensor([[[[1.0, 2.0], [3.0, 5.0]]]])
    # DCT of 2: sums and differences over sqrt(2), each way
    dct = torch.tensor([11.0, -3.0, -5.0, 1.0]) / 2
    expected = torch.stack([
        2 * (dct[0] - 1), 4 * dct[1], 2 * dct[2], 8 * (dct[3] - 0.5)])
    z = to_components(feature, transform)
    torch.testing.assert_close(z.flatten(), expected)
    # a half-precision feature is no other
    assert torch.equal(to_components(feature.half(), transform), z)


def test_the_basis_makes_metric_and_covariance_plain():
    metric, covariance = spd(3, 6), spd(3, 6, seed=1)
    a = metric_basis(metric, covariance, floor=0)
    torch.testing.assert_close(
        a.mT @ a, metric.double(), rtol=1e-6, atol=1e-6)
    variance = a @ covariance.double() @ a.mT
    diagonal = variance.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(
        variance, torch.diag_embed(diagonal), rtol=1e-6, atol=1e-5)
    assert (diagonal.diff(dim=-1) <= 1e-6).all()  # the strongest first


def test_with_the_identity_it_is_the_principal_components():
    covariance = spd(5)
    a = metric_basis(torch.eye(5), covariance)
    torch.testing.assert_close(
        a @ a.mT, torch.eye(5, dtype=torch.float64))
    values = torch.linalg.eigvalsh(covariance.double()).flip(0)
    torch.testing.assert_close(
        (a @ covariance.double() @ a.mT).diagonal(), values)


def test_what_nobody_sees_keeps_the_floor():
    metric = torch.diag(torch.tensor([3.0, 0.0, 0.0]))
    a = metric_basis(metric, torch.eye(3), floor=0.01)
    values = torch.linalg.eigvalsh(a.mT @ a)
    torch.testing.assert_close(
        values, torch.tensor([0.01, 0.01, 3.0], dtype=torch.float64))
    # of nothing at all there is a basis, too
    assert metric_basis(torch.zeros(2, 2), torch.eye(2)).isfinite().all()


def test_gains_are_one_where_the_basis_is_the_metrics_own():
    metric, covariance = spd(4, 5), spd(4, 5, seed=1)
    group = frequency_groups(2, 'frequency')
    basis = metric_basis(metric, covariance, floor=0)
    gain = component_gains(basis, group, metric)
    torch.testing.assert_close(
        gain, torch.ones_like(gain), rtol=1e-5, atol=1e-5)


def test_gains_of_a_shared_basis_make_noise_cost_alike():
    transform, metric, _ = drawn(3, 4, 'shared')
    for frequency in (0, 4, 8):
        for i in (0, 3):
            e = torch.zeros(1, 36, 1, 1)
            e[0, 4 * frequency + i] = 1
            zero = torch.zeros_like(e)
            d = from_components(e, transform, (3, 3)) - from_components(
                zero, transform, (3, 3))
            c = block_dct(d, 3)[0, :, :, 0, 0]
            cost = torch.einsum('fi,fij,fj', c, metric, c)
            assert cost.item() == pytest.approx(1, rel=1e-3)


def test_rounding_costs_half_its_square():
    """The closed form that a step is chosen by."""
    generator = torch.Generator().manual_seed(0)
    feature = torch.randn(8, 5, 8, 8, generator=generator)
    metric = spd(16, 5)
    found = frequency_moments(feature, 4)
    group = frequency_groups(4, 'frequency')
    basis = metric_basis(metric, found.covariance, floor=0)
    transform = make_transform(4, found.mean, basis, group,
                               component_gains(basis, group, metric))
    z = to_components(feature, transform)
    _, value = quantize(z, Allocation(Steps(torch.full((8, ), 0.3))))
    back = from_components(value, transform, (8, 8))
    error = frequency_moments(back - feature, 4, 'zero').second
    in_nats = expected_nats(metric.double(), error, tokens=4)
    ours = 0.5 * (value - z).square().flatten(1).sum(1).mean()
    assert ours.item() == pytest.approx(in_nats.item(), rel=1e-3)


def test_shrinking_by_hand():
    moments = torch.stack([torch.diag(torch.tensor([2.0, 0.0])),
                           torch.diag(torch.tensor([0.0, 4.0]))])
    # the common shape: diag(1, 2) / 3; a half of each at n = C
    expected = torch.stack([torch.diag(torch.tensor([1 + 1 / 3, 2 / 3])),
                            torch.diag(torch.tensor([2 / 3, 2 + 4 / 3]))])
    torch.testing.assert_close(shrunk(moments, 2), expected)
    torch.testing.assert_close(shrunk(moments, 1e9), moments)
    assert not shrunk(0 * moments, 2).any()


def test_groups():
    assert frequency_groups(2, 'frequency').tolist() == [0, 1, 2, 3]
    assert frequency_groups(2, 'shared').tolist() == [0] * 4
    with pytest.raises(ValueError, match="'row'"):
        frequency_groups(2, 'row')


def test_a_basis_without_an_inverse():
    one = torch.ones(1, 2)
    group = torch.tensor([0])
    for basis in (torch.ones(1, 2, 2), torch.full((1, 2, 2), math.nan)):
        with pytest.raises(ValueError, match='inverse'):
            make_transform(1, one, basis, group, one)
    with pytest.raises(ValueError, match='inverse'):
        make_transform(1, one, torch.eye(2)[None], group, 0 * one)
