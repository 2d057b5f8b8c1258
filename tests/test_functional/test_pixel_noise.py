import torch

from mmfeatjnd.functional import gaussian_noise, image_keys
from mmfeatjnd.functional.pixel_noise import control, match_power


def test_controls_by_hand():
    jnd = torch.tensor([[[[0.5, -0.25]]], [[[0., 1.]]]])
    keys = image_keys([3, 4])
    noise = gaussian_noise(keys, (1, 1, 2))
    assert torch.equal(control(jnd, 'gaussian', keys), noise)
    assert torch.equal(control(jnd, 'sign-flipped', keys), -jnd)
    assert torch.equal(
        control(jnd, 'random-sign', keys), jnd * noise.sign())


def test_power_by_hand():
    jnd = torch.tensor([[[[0.3, 0.3]]], [[[0., 0.]]]])
    noise = torch.tensor([[[[3., 4.]]], [[[1., 1.]]]])
    matched = match_power(noise, jnd, lambda e: e)
    # 0.3 sqrt(2) / 5 times the noise, and nothing beside no JND
    torch.testing.assert_close(matched[0, 0, 0],
                               torch.tensor([3., 4.]) * 0.3 * 2**0.5 / 5)
    assert not matched[1].any()
    # clipped at 0.31, the other value makes up for it
    matched = match_power(noise[:1], jnd[:1], lambda e: e.clamp(max=0.31))
    torch.testing.assert_close(
        matched.flatten(), torch.tensor([(0.18 - 0.31**2)**0.5, 0.31]))
    # out of reach: as near as it comes
    matched = match_power(noise[:1], jnd[:1], lambda e: e.clamp(max=0.2))
    torch.testing.assert_close(matched.flatten(), torch.tensor([0.2, 0.2]))
