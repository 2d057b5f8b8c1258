import doctest
import json
import runpy
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mmfeatjnd.apis import host_hash
from mmfeatjnd.models import (
    CheckpointError,
    find_neck,
    metric_file,
    tensor_file,
)
from mmfeatjnd.models.hosts import OWN_KEYS, host_key
from mmfeatjnd.models.metric_file import (
    FORMAT_VERSION,
    FrequencyMetric,
    LevelMetric,
    TaskMetric,
    load_metric,
    save_metric,
)
from mmfeatjnd.version import __version__


def level_metric(channels, block=None, grid=(2, 3)):
    generator = torch.Generator().manual_seed(channels)

    def square(*lead):
        x = torch.randn(*lead, channels, channels, generator=generator)
        return x @ x.mT

    frequencies = None
    if block is not None:
        number = block**2
        frequencies = FrequencyMetric(
            block, 1.5, torch.randn(number, channels, generator=generator),
            square(number), square(number))
    covariance = square()
    return LevelMetric(
        tokens=12.5,
        elements_per_pixel=0.1,
        pooled=0.25,
        log_w=-3.5,
        log_w_map=torch.randn(grid, generator=generator),
        mean=torch.randn(channels, generator=generator),
        std=covariance.diagonal().sqrt(),
        covariance=covariance,
        metric=square(),
        frequencies=frequencies)


def metric_of(model=None, split='backbone', configured=(0, 2, 3)):
    return TaskMetric(
        levels={
            0: level_metric(4, block=2),
            2: level_metric(3, grid=(5, ))
        },
        split=split,
        configured=configured,
        host_hash='0' * 64 if model is None else host_hash(model),
        images=7,
        draws=2,
        seed=1)


def edit(path, tensors=None, **changes):
    """Change the metadata of a file, or its tensors."""
    with safe_open(str(path), 'pt') as file:
        about = json.loads(file.metadata()['mmfeatjnd'])
        old = {k: file.get_tensor(k) for k in file.keys()}
    about.update(changes)
    save_file(dict(old, **tensors or {}), path, dict(
        mmfeatjnd=json.dumps(about)))


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'm.safetensors'


def test_what_is_written_is_read(path, equal):
    metric = metric_of()
    save_metric(metric, path)
    found = load_metric(path)
    equal(found, metric)
    assert found.version == __version__
    assert found.levels[0].channels == 4 and found.levels[2].channels == 3
    assert found.levels[2].frequencies is None
    assert [f.name for f in path.parent.iterdir()] == ['m.safetensors']


def test_others_may_read_it(path, tmp_path):
    save_metric(metric_of(), path)
    (tmp_path / 'any').touch()
    assert path.stat().st_mode == (tmp_path / 'any').stat().st_mode


def test_the_same_metric_is_the_same_file(path, tmp_path):
    for name in ('a', 'b'):
        save_metric(metric_of(), tmp_path / name)
    assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()


def test_any_reader_of_the_format_finds_the_tensors(path):
    metric = metric_of()
    save_metric(metric, path)
    with safe_open(str(path), 'np') as file:
        assert set(file.keys()) == {
            f'{i}.{k}' for i in (0, 2) for k in
            ('log_w_map', 'mean', 'std', 'covariance', 'metric')
        } | {f'0.frequencies.{k}' for k in ('mean', 'covariance', 'metric')}
        assert (file.get_tensor('0.metric') == metric.levels[0].metric.numpy()
                ).all()
        about = json.loads(file.metadata()['mmfeatjnd'])
    assert about['levels']['0']['frequencies'] == dict(block=2, blocks=1.5)
    assert about['host_hash'] == metric.host_hash


def test_the_host_it_is_of(build, configs, path):
    host, featjnd = configs
    plain = build(host('detector'))
    ours = build(featjnd('detector', plain=True))
    plain.load_state_dict({
        host_key(k): v
        for k, v in ours.state_dict().items() if not k.startswith(OWN_KEYS)
    })
    save_metric(metric_of(ours, configured=(0, 1, 2, 3)), path)
    for model in (plain, ours):  # the same host
        assert load_metric(path, model).split == 'backbone'
    with torch.no_grad():
        plain.rpn_head.rpn_cls.bias.add_(1)
    before = {k: v.clone() for k, v in plain.state_dict().items()}
    with pytest.raises(CheckpointError, match='m.safetensors is of another '
                       'host checkpoint'):
        load_metric(path, plain)
    for key, value in plain.state_dict().items():
        assert torch.equal(value, before[key])
    assert load_metric(path)  # nobody asked


def test_another_split_is_refused(build, configs, path):
    save_metric(metric_of(split='neck'), path)
    for name in ('neck', 'fpn', None):
        assert load_metric(path, split=name).split == 'neck'
    with pytest.raises(CheckpointError, match="m.safetensors is of "
                       "split='neck', but split='r3' is wanted"):
        load_metric(path, split='r3')
    model = build(configs[1]('classifier', plain=True))
    assert find_neck(model).split == 'backbone'
    with pytest.raises(CheckpointError, match="split='backbone' is wanted"):
        load_metric(path, model)


def test_other_levels_are_refused(path):
    save_metric(metric_of(), path)
    # 3 was asked for, and nothing reads it
    assert load_metric(path, levels=[3, 0]).levels.keys() == {0, 2}
    with pytest.raises(CheckpointError, match=r'levels=\[0, 2, 3\], but level '
                       '1 is wanted'):
        load_metric(path, levels=[0, 1])


@pytest.mark.parametrize('version', [None, 0, FORMAT_VERSION + 1, '1'])
def test_another_version_is_refused(path, version):
    save_metric(metric_of(), path)
    edit(path, format_version=version, version='7.8.9')
    with pytest.raises(CheckpointError, match=rf'has version {version} .*'
                       rf'mmfeatjnd 7.8.9.*reads version {FORMAT_VERSION}'):
        load_metric(path)


@pytest.mark.parametrize('content', [
    b'', b'no tensors', bytes(100), b'\xff' * 100, None, 'foreign'])
def test_a_foreign_file_is_named(path, content):
    if content == 'foreign':
        save_file(dict(x=torch.zeros(2)), path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match='m.safetensors is no metric '
                       'file.*tools/estimate_metric.py'):
        load_metric(path)


def test_half_a_file(path):
    save_metric(metric_of(), path)
    whole = path.read_bytes()
    for size in (4, 100, len(whole) - 8):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match='is no metric file'):
            load_metric(path)


def test_a_file_without_all_of_it(path):
    save_metric(metric_of(), path)
    edit(path, levels={'0': dict(tokens=1.0)})
    with pytest.raises(CheckpointError, match='is no whole metric file'):
        load_metric(path)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_broken_values_are_neither_written_nor_read(path, value):
    metric = metric_of()
    save_metric(metric, path)
    before = path.read_bytes()
    broken = metric.levels[0].metric.clone()
    broken[1, 2] = value
    bad = metric._replace(levels={
        0: metric.levels[0]._replace(metric=broken)})
    with pytest.raises(CheckpointError, match="NaN or infinite.*'0.metric'"):
        save_metric(bad, path)
    assert path.read_bytes() == before
    edit(path, {'0.metric': broken})
    with pytest.raises(CheckpointError, match="m.safetensors: NaN or infinite"
                       ".*'0.metric'"):
        load_metric(path)


def test_a_failed_write_leaves_the_old_file(path, monkeypatch):
    save_metric(metric_of(), path)
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError('disk full')

    monkeypatch.setattr(tensor_file, 'save', fail)
    with pytest.raises(OSError, match='disk full'):
        save_metric(metric_of(), path)
    assert path.read_bytes() == before
    assert [f.name for f in path.parent.iterdir()] == [path.name]


def test_the_golden_file_is_read(path, equal):
    """See ``tests/golden/make.py``."""
    golden = Path(__file__).resolve().parents[1] / 'golden'
    metric = runpy.run_path(str(golden / 'make.py'))['task_metric']()
    equal(load_metric(golden / 'metric.safetensors'), metric)
    save_metric(metric, path)
    equal(load_metric(path), metric)


def test_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(
        metric_file, extraglobs=dict(metric=metric_of()))
    assert found.attempted and not found.failed
