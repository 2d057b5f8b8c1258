"""Perturbations that need the metric of a split."""
import pytest
import torch

from mmfeatjnd.functional import gaussian_noise, image_keys, nrmse
from mmfeatjnd.models import (
    CheckpointError,
    FeatJNDNeck,
    LevelMetric,
    Perturbation,
    TaskMetric,
    save_metric,
)
from mmfeatjnd.models.estimator_file import host_hash
from mmfeatjnd.models.forward_runs import prepare
from mmfeatjnd.utils import ConfigError

C = 4


def level_metric(matrix):
    zero = torch.zeros(len(matrix))
    return LevelMetric(20.0, 1.0, 0.0, 0.0, torch.zeros(1), zero, zero + 1,
                       torch.eye(len(matrix)), matrix)


def task_metric(*matrices, host='', split='backbone'):
    return TaskMetric(
        {i: level_metric(m) for i, m in enumerate(matrices)}, split,
        tuple(range(len(matrices))), host, 4, 2, 0)


#: Sees three directions of four, and one of them little.
SEEN = torch.diag(torch.tensor([4.0, 1.0, 0.02, 0.0]))


def changed(operation, levels=1):
    neck = FeatJNDNeck(None, in_channels=[C] * levels).eval()
    x = [2 + gaussian_noise(image_keys('ab', i), (C, 5, 6))
         for i in range(levels)]
    with torch.no_grad(), neck.run(operation, images=['a', 'b']) as run:
        out = neck.apply_levels(x)
    return [b - a for a, b in zip(x, out)], x, run


@pytest.mark.parametrize('tolerance, seen', [(1e-3, 3), (1e-2, 2)])
def test_visible_strength(tolerance, seen):
    (delta, ), (x, ), run = changed(
        Perturbation('gaussian', 0.7, 'visible', task_metric=task_metric(SEEN),
                     tolerance=tolerance))
    strength = nrmse(delta[:, :seen].contiguous(), x[:, :seen].contiguous())
    torch.testing.assert_close(strength, torch.full((2, ), 0.7))
    torch.testing.assert_close(run.measured['nrmse'].float(), strength)
    # all directions are changed alike
    assert delta[:, 3].std() == pytest.approx(float(delta[:, 0].std()), rel=.2)


def test_null_space_and_closed_form():
    (delta, ), (x, ), _ = changed(
        Perturbation('null-space', 3.0, task_metric=task_metric(SEEN)))
    assert delta[:, :3].abs().max() < 1e-5
    torch.testing.assert_close(nrmse(delta, x), torch.full((2, ), 3.0))
    (delta, ), _, _ = changed(Perturbation(
        'closed-form', 0.1, task_metric=task_metric(SEEN)))
    std = delta.transpose(0, 1).flatten(1).std(1)
    # 1 / sqrt(4), 1, 1 / sqrt(0.02) and what the tolerance leaves of 1 / 0
    expected = torch.tensor([0.5, 1.0, 0.02**-0.5, (4e-3)**-0.5])
    torch.testing.assert_close(std / std[1], expected, rtol=0.3, atol=0)


def test_what_is_missing(tmp_path):
    for kwargs in (dict(distortion='closed-form'),
                   dict(distortion='null-space'),
                   dict(distortion='gaussian', definition='visible')):
        with pytest.raises(ValueError, match='estimate_metric.py'):
            Perturbation(nrmse=1.0, **kwargs)
    with pytest.raises(ValueError, match='nothing is seen'):
        Perturbation('null-space', 1.0, 'visible',
                     task_metric=task_metric(SEEN))
    with pytest.raises(ConfigError, match='know_readers'):
        changed(Perturbation('lateral', 1.0))


def test_files_belong_to_a_host(build, batch, tmp_path):
    model = build('detector')
    wrong = task_metric(*[torch.eye(8 * 2**i) for i in range(4)],
                        host='0' * 64)
    save_metric(wrong, tmp_path / 'wrong.safetensors')
    operation = Perturbation('closed-form', 1.0,
                             task_metric=str(tmp_path / 'wrong.safetensors'))
    with pytest.raises(CheckpointError, match='another host'):
        prepare(model.neck, [operation], *batch('detector'))
    right = wrong._replace(host_hash=host_hash(model))
    save_metric(right, tmp_path / 'right.safetensors')
    path = str(tmp_path / 'right.safetensors')
    # a white metric makes white noise
    inputs, samples = batch('detector')
    found = []
    for operation in (Perturbation('closed-form', 0.5, task_metric=path),
                      Perturbation('gaussian', 0.5),
                      Perturbation('gaussian', 0.5, 'visible',
                                   task_metric=path)):
        known = prepare(model.neck, [operation], inputs, samples)
        with torch.no_grad(), model.neck.run(operation, **known):
            found.append(model.extract_feat(inputs))
    for a, b, c in zip(*found):
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(a, c)


def test_laterals_are_read_from_the_host(build, batch):
    model = build('detector')
    inputs, samples = batch('detector')
    operation = Perturbation('lateral', 0.5)
    assert operation.needs_readers
    known = prepare(model.neck, [operation], inputs, samples)
    assert not operation.needs_readers
    with torch.no_grad(), model.neck.run(operation, **known) as run:
        model.extract_feat(inputs)
    assert run.measured['nrmse'].tolist() == pytest.approx([0.5, 0.5])
