import math

import pytest
import torch

from mmfeatjnd.functional import dmv_jnd


def image(*rows):
    """One image of one channel."""
    return torch.tensor(rows, dtype=torch.float32)[None, None]


# ---------------------------------------------------------------- attention
def test_cam_by_hand():
    feature = torch.tensor([[[[1., 0.], [0., 2.]], [[0., 3.], [1., 0.]]]])
    weight = torch.tensor([[9., 9.], [2., -1.]])
    cam = dmv_jnd.class_activation_map(feature, weight, torch.tensor([1]))
    assert cam.tolist() == [[[[2., -3.], [-1., 4.]]]]


def test_the_mean_of_a_cam_is_the_logit():
    torch.manual_seed(0)
    feature, label = torch.rand(4, 8, 3, 5), torch.tensor([0, 2, 1, 2])
    linear = torch.nn.Linear(8, 3, bias=False)
    logits = linear(feature.mean((2, 3)))
    cam = dmv_jnd.class_activation_map(feature, linear.weight, label)
    torch.testing.assert_close(
        cam.mean((1, 2, 3)), logits.gather(1, label[:, None])[:, 0])


def test_attention_is_stretched():
    maps = torch.cat([image([-1., 3.], [0., 1.]), image([5., 5.], [5., 5.])])
    assert dmv_jnd.normalize_attention(maps).tolist() == [
        [[[0., 1.], [0.25, 0.5]]], [[[0., 0.], [0., 0.]]]]


def test_merged_attention_is_the_mean():
    maps = [image([0., 1.]), image([1., 1.]), image([0., 0.]), image([0., 1.])]
    assert dmv_jnd.merge_attention(maps).tolist() == [[[[0.25, 0.75]]]]


# ------------------------------------------------------------------- losses
def test_target_and_magnitude_by_hand():
    attention = torch.cat([image([0., 0.5]), image([1., 1.])])
    assert dmv_jnd.target_magnitude(attention).tolist() == [0.75, 0.]
    assert dmv_jnd.target_magnitude(attention, 0.5).tolist() == [0.375, 0.]
    assert dmv_jnd.mean_magnitude(image([1., -0.5])).tolist() == [0.75]


def test_magnitude_loss_by_hand():
    loss = dmv_jnd.magnitude_loss
    one = torch.ones(1)
    assert float(loss(one / 2, one / 2)) == pytest.approx(0, abs=1e-6)
    # N = 0.5, N0 = 0.25: (1/4 + 1/16) / (1/4)
    assert float(loss(one / 4, one / 2)) == pytest.approx(math.log(1.25))
    assert float(loss(one, one / 2)) == pytest.approx(math.log(1.25))
    # no magnitude yet: large, and finite
    assert float(loss(0 * one, one)) == pytest.approx(-math.log(dmv_jnd.Q))
    pair = loss(torch.tensor([0.25, 0.5]), torch.tensor([0.5, 0.5]))
    assert float(pair) == pytest.approx(math.log(1.25) / 2, rel=1e-5)


def test_distribution_loss_by_hand():
    attention = image([0., math.log(3.)])  # softmax: 1/4, 3/4
    jnd = image([0.8, -0.4])
    loss = dmv_jnd.distribution_loss
    assert float(loss(jnd, attention)) == pytest.approx(0.5)
    # 0.8 / 4 - 0.4 * 3 / 4, and 0.5 less the mean of |e|, 0.6
    assert float(loss(jnd, attention, 'signed')) == pytest.approx(-0.1)
    assert float(loss(jnd, attention, 'centred')) == pytest.approx(-0.1)
    # the same JND costs less where nothing attends
    assert loss(jnd.flip(3), attention) > loss(jnd, attention)
    # channels: the mean
    colour = torch.cat([jnd, 0 * jnd], 1)
    assert float(loss(colour, attention)) == pytest.approx(0.25)


# ------------------------------------------------------------------ metrics
def test_agreement():
    a, b = torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 0, 4])
    # three of four: an RCA of 75 %
    assert dmv_jnd.agreement(a, b).mean() == 0.75


def test_mean_squared_error_by_hand():
    jnd = torch.cat([image([1., -0.5], [0., 0.5]), image([0.] * 2, [0.] * 2)])
    assert dmv_jnd.mean_squared_error(jnd).tolist() == [0.375, 0.]
    colour = torch.cat([jnd, 0 * jnd], 1)
    assert dmv_jnd.mean_squared_error(colour).tolist() == [0.1875, 0.]


def test_psnr_by_hand():
    mse = torch.tensor([0.04, 1., 0.])
    # R^2 / MSE: 4 / 0.04 and 4
    torch.testing.assert_close(
        dmv_jnd.psnr(mse), torch.tensor([20., 10 * math.log10(4), math.inf]))
    torch.testing.assert_close(
        dmv_jnd.psnr(127.5**2 * mse, 255.), dmv_jnd.psnr(mse))


def test_the_papers_psnr_in_normalized_units():
    # 9.56 dB is an RMSE of 0.665 in [-1, 1]
    mse = dmv_jnd.mean_squared_error(torch.full((1, 3, 8, 8), -0.6653))
    assert float(dmv_jnd.psnr(mse)) == pytest.approx(9.56, abs=0.01)
