"""Bits of codes where they cost alike, by rows made by hand."""
import math

import numpy as np
import pytest

from mmfeatjnd.evaluation.codes import (
    bd_rate,
    code_curves,
    label_of,
    plot,
    size_at_loss,
    size_at_nats,
    times,
)

CLEAN = dict(policy='clean', seed=0, metrics=dict(acc=80.0, kl=0.0),
             draws=dict(acc=[80.0, 40.0]))


def row(policy, size, kl, acc=80.0, split='layer', seed=0, **kwargs):
    """Of 100 pixels and 50 elements; in the draw twice the bytes."""
    return dict(
        policy=policy, split=split, seed=seed, coded_bytes=size,
        bits_per_pixel=8 * size / 100, coded_bits_per_element=8 * size / 50,
        metrics=dict(kl=kl, acc=acc),
        draws=dict(coded_bytes=[size, 2 * size], kl=[kl, kl],
                   acc=[acc, acc / 2]), **kwargs)


def test_bits_at_nats_lie_on_a_line_of_logarithms():
    rows = [CLEAN, row('task', 64, 0.01), row('task', 16, 0.16)]
    curve = code_curves(rows)['layer', 'task']
    assert curve.size.tolist() == [[64, 128], [16, 32]]
    found = size_at_nats(curve, 0.04)  # half-way
    assert [f.value for f in found] == pytest.approx([5, 6])
    assert 2**5 * curve.per_pixel == pytest.approx(8 * 32 / 100)
    assert 2**5 * curve.per_element == pytest.approx(8 * 32 / 50)
    # beyond what was measured: at most the fewest bits, at least the most
    assert size_at_nats(curve, 0.5)[0] == (4.0, '<')
    assert size_at_nats(curve, 0.001)[0] == (6.0, '>')


def test_bits_at_a_loss_of_the_draws_own_clean_metric():
    rows = [CLEAN, row('task', 64, 0.01, 80.0), row('task', 16, 0.1, 72.0)]
    curve = code_curves(rows)['layer', 'task']
    found = size_at_loss(curve, 'acc', np.array([80.0, 40.0]), 0.05)
    assert [f.value for f in found] == pytest.approx([5, 6])


def test_a_ratio_is_paired():
    rows = [row('task', 32, 0.01), row('task', 8, 0.04),
            row('uniform', 128, 0.01), row('uniform', 32, 0.04)]
    curves = code_curves(rows)
    ours, theirs = (size_at_nats(curves['layer', n], 0.02)
                    for n in ('task', 'uniform'))
    # both take twice the bytes in the draw: the ratio is the same
    assert list(times(ours, theirs)) == pytest.approx([0.25] * 3)
    assert times(size_at_nats(curves['layer', 'task'], 9), theirs) is None


def test_seeds_are_means():
    rows = [row('task-adapted', size, kl, seed=seed) for seed, pairs in (
        (0, ((16, 0.1), (64, 0.01))), (1, ((32, 0.3), (96, 0.03))))
        for size, kl in pairs]
    curve = code_curves(rows)['layer', 'task-adapted']
    assert curve.size[:, 0].tolist() == [80, 24]
    assert curve.costs['kl'][:, 0] == pytest.approx([0.02, 0.2])


def test_bd_rate_of_half_the_bytes():
    points = [(400, 0.001), (200, 0.004), (100, 0.02), (50, 0.1)]
    rows = [row(name, size / factor, kl)
            for name, factor in (('task', 2), ('uniform', 1))
            for size, kl in points]
    curves = code_curves(rows)
    ours, theirs = curves['layer', 'task'], curves['layer', 'uniform']
    assert bd_rate(ours, theirs) == pytest.approx(-50)
    assert bd_rate(theirs, ours) == pytest.approx(100)
    far = code_curves([row('x', 10, 5.0), row('x', 5, 9.0)])['layer', 'x']
    assert math.isnan(bd_rate(ours, far))


def test_pictures_have_a_place(tmp_path):
    picture = dict(row('webp', 50, 0.1), place='input')
    del picture['split'], picture['coded_bits_per_element']
    rows = [CLEAN, picture, row('task', 64, 0.01), row('task', 32, 0.1)]
    curve = code_curves(rows)['input', 'webp']
    assert curve.per_element is None
    assert label_of('input', 'webp') == 'webp, as the host takes it'
    plot(rows, tmp_path / 'codes.png', 'acc')
    assert (tmp_path / 'codes.png').stat().st_size > 10_000
