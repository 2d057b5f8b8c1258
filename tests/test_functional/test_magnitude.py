import math

import pytest
import torch

from mmfeatjnd.functional import bits_per_element, l2_magnitude, log_magnitude


def test_l2_is_the_mean_nrmse():
    feature = torch.ones(2, 3, 2, 2)
    delta = torch.stack([torch.full((3, 2, 2), 0.5), torch.zeros(3, 2, 2)])
    assert l2_magnitude(delta, feature).item() == pytest.approx(0.25)


def test_log_by_hand():
    delta = torch.tensor([[[1., -2.], [4., 8.]]])  # (B, N, C)
    rms = torch.tensor([[[2., 4.]]])
    expected = (math.log(0.5) + math.log(0.5) + math.log(2) + math.log(2)) / 4
    assert log_magnitude(delta, rms, 0).item() == pytest.approx(
        expected, abs=1e-6)
    floored = sum(math.log(v + 0.1) for v in (0.5, 0.5, 2, 2)) / 4
    assert log_magnitude(delta, rms, 0.1).item() == pytest.approx(floored)


def test_log_has_a_floor():
    delta = torch.zeros(1, 2, 3, 3, requires_grad=True)
    value = log_magnitude(delta, torch.ones(1, 2, 1, 1))
    assert value.item() == pytest.approx(math.log(1e-3))
    assert torch.isfinite(torch.autograd.grad(value, delta)[0]).all()


def test_log_rewards_spread_where_l2_does_not():
    feature, rms = torch.ones(1, 16, 1), torch.ones(1, 1, 1)
    even, spike = torch.full((1, 16, 1), 0.25), torch.zeros(1, 16, 1)
    spike[0, 0] = 1
    torch.testing.assert_close(
        l2_magnitude(even, feature), l2_magnitude(spike, feature))
    assert log_magnitude(even, rms) > log_magnitude(spike, rms) + 1


def test_dead_channels_are_left_out_of_log():
    delta = torch.rand(2, 4, 3, 3)
    rms = torch.tensor([1., 0., 2., 0.]).view(1, 4, 1, 1)
    torch.testing.assert_close(
        log_magnitude(delta, rms), log_magnitude(delta[:, ::2], rms[:, ::2]))
    assert log_magnitude(delta, torch.zeros_like(rms)) == 0


def test_bits_per_element_are_those_of_all_levels():
    features = [torch.zeros(2, 3, 2, 2), torch.zeros(2, 8)]  # 24 + 16
    bits = [torch.tensor([10., 20.]), torch.tensor([30., 40.])]
    assert bits_per_element(bits, features).item() == pytest.approx(100 / 40)


def test_bits_per_element_have_a_gradient_to_every_image():
    bits = [torch.ones(2, requires_grad=True)]
    bits_per_element(bits, [torch.zeros(2, 5)]).backward()
    assert bits[0].grad.tolist() == pytest.approx([0.1, 0.1])


# ------------------------------------------------------------------ odd images
def test_images_without_energy_are_left_out_of_l2():
    """A black image may leave a whole level at 0: nothing to be relative to,
    and no reason for an infinite loss."""
    feature = torch.ones(3, 2, 2)
    feature[1] = 0
    delta = torch.full((3, 2, 2), 0.5, requires_grad=True)
    value = l2_magnitude(delta, feature)
    assert value.item() == pytest.approx(0.5)
    grad, = torch.autograd.grad(value, delta)
    assert grad.isfinite().all() and not grad[1].any()
    assert (grad[::2] > 0).all()
    assert l2_magnitude(delta, torch.zeros_like(feature)) == 0


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_no_magnitude_hides_what_is_broken(value):
    whole = torch.ones(3, 4, 5)
    broken = whole.clone()
    broken[1, 2, 3] = value
    assert l2_magnitude(broken, whole).isnan()
    assert l2_magnitude(whole, broken).isnan()
    # an image without energy hides nothing of its distortion
    assert l2_magnitude(broken, whole * torch.tensor([1., 0., 1.])[
        :, None, None]).isnan()
    rms = torch.ones(1, 1, 5)
    assert not log_magnitude(broken, rms).isfinite()
    rms[..., 3] = math.nan
    assert log_magnitude(whole, rms).isnan()
    assert log_magnitude(broken, torch.zeros(1, 1, 5)).isnan()
    assert not bits_per_element([torch.tensor([1., value])],
                                [torch.zeros(2, 5)]).isfinite()
