"""Learning works: on a host whose null space, tolerance and Fisher information
are known.

The host is linear. Its features f are 8 independent unit Gaussians, and its
four logits are g (a, -a, b, -b), a and b two orthonormal components of f: the
rank is 2, and a change of f in the other 6 dimensions, the null space, cannot
be noticed. The predicted class is the quarter of the plane (a, b) that f lies
in, counted from the diagonals.
"""
import math

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS as ROOT
from mmengine.registry import DefaultScope
from torch import nn

from mmfeatjnd.registry import MODELS

CHANNELS, BATCH = 8, 256


@pytest.fixture
def linear_host():
    """Build FeatJND on the host with the readout ``axes``, (2, C), and gain
    g."""

    class Vectors(nn.Module):
        """The input is the feature."""

        def forward(self, x):
            return (x.flatten(1), )

    ROOT.register_module(name='TestVectors', module=Vectors)

    def build(axes, gain, mode=None, training=None, **objective):
        torch.manual_seed(0)
        cfg = dict(
            type='mmfeatjnd.FeatJND',
            host='mmpretrain.ImageClassifier',
            backbone=dict(type='mmengine.TestVectors'),
            neck=dict(
                type='mmfeatjnd.FeatJNDNeck',
                in_channels=CHANNELS,
                estimator=dict(
                    type='mmfeatjnd.TokenEstimator',
                    hidden_channels=32)),
            head=dict(
                type='LinearClsHead', num_classes=4, in_channels=CHANNELS))
        if mode:  # else all is left to the defaults
            cfg['neck']['estimator']['mode'] = mode
            cfg.update(
                training=dict(type=f'mmfeatjnd.{training}'),
                objective=dict(type='mmfeatjnd.FeatJNDLoss', **objective))
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = MODELS.build(ConfigDict(cfg)).train()
        a, b = gain * axes
        model.head.fc.weight.data = torch.stack([a, -a, b, -b])
        model.head.fc.bias.data.zero_()
        return model

    yield build
    del ROOT.module_dict['TestVectors']


def features(step):
    """A batch of another one of infinitely many, 0 for the test."""
    generator = torch.Generator().manual_seed(step)
    return torch.randn(BATCH, CHANNELS, generator=generator)


def train(model, steps, lr=0.02):
    """As a Runner does; returns what is logged of every step."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    logged = []
    for step in range(1, steps + 1):
        losses = model.loss(features(step)[..., None, None], None)
        loss, log = model.parse_losses(losses)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        logged.append({k: v.item() for k, v in log.items()})
    return logged


def jnd_map(model, feature):
    estimator, = model.neck.estimators
    with torch.no_grad():
        return estimator.eval()(feature)


def agreement(model, feature, delta, nrmse):
    """How often the host predicts the same, and the distortion's share of
    energy outside the null space."""
    norm = [x.norm(dim=1, keepdim=True) for x in (feature, delta)]
    delta = delta * nrmse * norm[0] / norm[1]
    weight = model.head.fc.weight
    same = (feature @ weight.T).argmax(1) == (
        (feature + delta) @ weight.T).argmax(1)
    axes = nn.functional.normalize(weight[[0, 2]])
    noticed = (delta @ axes.T).square().sum() / delta.square().sum()
    return same.float().mean().item(), noticed.item()


def test_the_default_knows_what_noise_costs(linear_host):
    """Of one token an image: how sure the host is of it."""
    generator = torch.Generator().manual_seed(1)
    axes = torch.linalg.qr(
        torch.randn(CHANNELS, 2, generator=generator))[0].T
    model = linear_host(axes, 1.5)
    train(model, 300)

    estimator, = model.neck.estimators
    feature, weight = features(0), model.head.fc.weight.detach()
    p = (feature @ weight.T).softmax(1)
    # F = W^T (diag p - p p^T) W, and all deviations are 1
    log_w = (p @ weight.square() - (p @ weight).square()).sum(1).log()
    with torch.no_grad():
        found = estimator.eval().log_sensitivity(feature)[:, 0]
    assert torch.corrcoef(torch.stack([log_w, found]))[0, 1] > 0.95
    # what cannot be learned: the draws of an image, whose mean logarithm is
    # below that of the mean, by 0.27 nats where both components count alike
    # and by 0.58 where one does
    assert -0.58 < float((found - log_w).mean()) < -0.2

    def cost(sigma):
        """KL of noise inside the bound, nats of each image."""
        total = 0
        for _ in range(50):
            noise = sigma * (2 * torch.rand(
                feature.shape, generator=generator) - 1)
            q = ((feature + noise) @ weight.T).log_softmax(1)
            total = total + (p * (p.log() - q)).sum(1)
        return total / 50

    # the bound costs the tolerance of 0.02 nats, on every image
    bound = jnd_map(model, feature)
    nats = cost(bound)
    assert float(nats.mean()) == pytest.approx(0.02, rel=0.1)
    assert nats.std() < 0.25 * nats.mean()
    # the same noise on all images costs some of them far more
    nats = cost(bound.square().mean().sqrt())
    assert nats.std() > 0.35 * nats.mean()


def test_a_signed_map_moves_into_the_null_space(linear_host):
    # any rotation, so that no channel alone is harmless
    generator = torch.Generator().manual_seed(1)
    axes = torch.linalg.qr(
        torch.randn(CHANNELS, 2, generator=generator))[0].T
    model = linear_host(axes, 4.0, 'signed', 'DrawnNRMSE')
    train(model, 200)

    feature = features(0)
    noise = torch.randn(
        feature.shape, generator=torch.Generator().manual_seed(2))
    # Noise of NRMSE s has 2/8 of its energy where it is noticed. It turns
    # the sign of one unit Gaussian with probability arctan(s) / pi, and the
    # class stays where both signs (a + b, a - b) stay: for s = 1.5 that is
    # (1 - 0.313)^2 = 0.47.
    same, noticed = agreement(model, feature, noise, 1.5)
    assert noticed == pytest.approx(2 / 8, abs=0.05)
    assert same == pytest.approx(
        (1 - math.atan(1.5) / math.pi)**2, abs=0.08)
    # The share p of the estimator's acts like noise of s sqrt(8 p / 2): for
    # p = 0.002 of NRMSE 0.13, which keeps (1 - 0.043)^2 = 0.92 of the
    # classes.
    same, noticed = agreement(model, feature, jnd_map(model, feature), 1.5)
    assert noticed < 0.002
    assert same > 0.92


def test_an_envelope_meets_its_tolerance(linear_host):
    # channels 0 and 1 are all that the host sees
    tolerance, gain = 0.02, 0.5
    model = linear_host(
        torch.eye(CHANNELS)[:2], gain, 'envelope',
        'LearnedNRMSE', magnitude_weight=1.0, multiplier=1.0,
        tolerance=tolerance, adapt=0.05)
    logged = train(model, 300)
    last = logged[-50:]
    discrepancy, multiplier = (
        sum(x[k] for x in last) / len(last)
        for k in ('jnd_discrepancy', 'jnd_multiplier'))
    assert discrepancy == pytest.approx(tolerance, rel=0.1)

    # Uniform noise in (-sigma, sigma) has the variance sigma^2 / 3, so to
    # second order D = sum_c F_c sigma_c^2 / 6 with the Fisher information
    # F_c = g^2 / 2 = 0.125 of both channels (near four equal classes), and
    # M = sum_c log(sigma_c) / 8. The derivative of lambda D - M vanishes for
    # lambda F_c sigma_c^2 / 3 = 1/8, so D = 2 * 1 / (16 lambda) = eps for
    # lambda = 1 / (8 eps) = 6.25, and sigma^2 = 3 eps / F = 0.48.
    assert multiplier == pytest.approx(1 / (8 * tolerance), rel=0.1)
    sigma = jnd_map(model, features(0)).square().mean(0).sqrt()
    assert sigma[:2].tolist() == pytest.approx([0.69, 0.69], rel=0.15)
    # The others may be as large as the estimator can: exp(4) = 55 times
    # their RMS.
    assert (sigma[2:] > 20).all() and (sigma[2:] < 60).all()
