import json

import pytest
import torch
from mmengine.registry import DefaultScope
from safetensors import safe_open
from safetensors.torch import load, save

from mmfeatjnd.apis import (
    host_hash,
    load_estimator,
    read_estimator,
    save_estimator,
)
from mmfeatjnd.models import tensor_file
from mmfeatjnd.models.estimator_file import FORMAT_VERSION


def estimators(model):
    return model.featjnd_neck.estimators.state_dict()


@pytest.fixture
def trained(build):
    """Build a model with estimators that changed since training began."""

    def make(*args, **kwargs):
        model = build(*args, **kwargs)
        for estimator in model.featjnd_neck.estimators:
            estimator.initial.fill_(1)
        return model

    return make


def edit(path, **changes):
    """Another content of a file; None: without it."""
    with safe_open(str(path), 'pt') as file:
        about = json.loads(file.metadata()['mmfeatjnd'])
        state = {k: file.get_tensor(k) for k in file.keys()}
    state = changes.pop('state_dict', state)
    about.update(changes)
    about = {k: v for k, v in about.items() if v is not None}
    path.write_bytes(save(state, dict(mmfeatjnd=json.dumps(about))))


@pytest.mark.parametrize('mode', ['sensitivity', 'signed', 'envelope'])
def test_round_trip_on_the_same_host(build, trained, tmp_path, mode):
    model, other = (
        make('classifier', estimator=dict(mode=mode))
        for make in (trained, build))
    for b in model.featjnd_neck.estimators.buffers():
        b += 1  # what was counted is stored, too
    for p in other.featjnd_neck.estimators.parameters():
        torch.nn.init.normal_(p)
    save_estimator(model, tmp_path / 'e.st')
    load_estimator(other, tmp_path / 'e.st')
    for key, value in estimators(model).items():
        assert torch.equal(value, estimators(other)[key]), key
    assert [f.name for f in tmp_path.iterdir()] == ['e.st']
    assert (tmp_path / 'e.st').stat().st_size < 5e6


def test_the_tolerance_may_be_another(build, trained, tmp_path):
    """The estimator knows log w; what noise it allows follows from that."""
    models = [
        make('classifier', estimator=dict(mode='sensitivity', tolerance=nats))
        for make, nats in ((trained, 0.02), (build, 0.08))]
    save_estimator(models[0], tmp_path / 'e.st')
    load_estimator(models[1], tmp_path / 'e.st')
    x = torch.rand(2, 32, 8, 8)
    a, b = (m.eval().featjnd_neck.estimators[0](x) for m in models)
    torch.testing.assert_close(2 * a, b)


def test_hash_is_the_hosts_alone(build, configs):
    host_cfg, featjnd_cfg = configs
    with DefaultScope.overwrite_default_scope('mmdet'):
        plain = build(host_cfg('detector'))
    model = build('detector')
    model.load_state_dict(plain.state_dict(), strict=False)
    assert host_hash(plain) == host_hash(model)
    for p in model.featjnd_neck.estimators.parameters():
        torch.nn.init.zeros_(p)
    assert host_hash(plain) == host_hash(model)
    with torch.no_grad():
        next(plain.backbone.parameters()).add_(1e-6)
    assert host_hash(plain) != host_hash(model)


def test_another_host_is_refused_and_nothing_changes(build, trained,
                                                     tmp_path):
    model, other = trained('classifier'), build('classifier')
    save_estimator(model, tmp_path / 'e.st')
    with torch.no_grad():
        other.head.fc.bias.add_(1)
        for p in other.featjnd_neck.estimators.parameters():
            p.fill_(0.5)
    before = {k: v.clone() for k, v in estimators(other).items()}
    with pytest.raises(ValueError, match='another host checkpoint'):
        load_estimator(other, tmp_path / 'e.st')
    for key, value in estimators(other).items():
        assert torch.equal(value, before[key])


def test_another_split_or_width_is_refused(build, trained, tmp_path):
    model = trained('classifier')
    save_estimator(model, tmp_path / 'e.st')
    other = build('classifier', split='backbone.layer1', in_channels=8)
    with pytest.raises(ValueError, match="split='backbone'"):
        load_estimator(other, tmp_path / 'e.st')
    wide = build('classifier', estimator=dict(hidden_channels=16))
    host = {
        k: v
        for k, v in model.state_dict().items() if 'estimators' not in k
    }
    wide.load_state_dict(host, strict=False)
    with pytest.raises(ValueError, match='another estimator config'):
        load_estimator(wide, tmp_path / 'e.st')


@pytest.mark.parametrize('content', [b'', b'no checkpoint', None])
def test_a_foreign_file_is_named(build, tmp_path, content):
    file = tmp_path / 'foreign.pth'
    if content is None:
        torch.save(dict(state_dict={}), file)
    else:
        file.write_bytes(content)
    with pytest.raises(ValueError, match='foreign.pth is no estimator file'):
        load_estimator(build('classifier'), file)


def test_a_failed_write_leaves_the_old_file(trained, tmp_path, monkeypatch):
    model = trained('classifier')
    save_estimator(model, tmp_path / 'e.st')
    before = (tmp_path / 'e.st').read_bytes()

    def fail(*args, **kwargs):
        raise OSError('disk full')

    monkeypatch.setattr(tensor_file, 'save', fail)
    with pytest.raises(OSError, match='disk full'):
        save_estimator(model, tmp_path / 'e.st')
    assert (tmp_path / 'e.st').read_bytes() == before
    assert [f.name for f in tmp_path.iterdir()] == ['e.st']


def test_what_was_never_trained_is_no_estimator(build, batch, tmp_path):
    model, path = build('classifier'), tmp_path / 'e.st'
    with pytest.raises(ValueError, match='were never trained'):
        save_estimator(model, path)
    # nor is what ran only
    model.train()
    for _ in range(3):
        model.loss(*batch('classifier'))
    with pytest.raises(ValueError, match='were never trained'):
        save_estimator(model, path)
    assert list(tmp_path.iterdir()) == []
    with torch.no_grad():
        model.neck.estimators[0].expand.bias += 1e-3
    save_estimator(model, path)
    other = build('classifier')
    load_estimator(other, path)
    assert other.neck.estimators[0].trained


def test_one_level_that_nothing_reads(trained, tmp_path):
    """Its estimator never begins; the others are worth their file."""
    model = trained('detector')
    model.neck.estimators[0].initial.zero_()
    save_estimator(model, tmp_path / 'e.st')
    assert len(read_estimator(model, tmp_path / 'e.st')) == len(
        estimators(model))


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('key', ['0.convs.1.weight', '0.channels.mean_square'])
def test_a_diverged_estimator_is_neither_written_nor_read(
        build, trained, tmp_path, key, value):
    model, path = trained('classifier'), tmp_path / 'e.st'
    save_estimator(model, path)
    state = load(path.read_bytes())
    state[key].view(-1)[3] = value
    model.neck.estimators.load_state_dict(state)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"the model: NaN or infinite.*'{key}'"
                       '.*has diverged'):
        save_estimator(model, path)
    assert path.read_bytes() == before
    edit(path, state_dict=state)
    other = build('classifier')
    with pytest.raises(ValueError, match=f"e.st: NaN or infinite.*'{key}'"):
        load_estimator(other, path)
    assert all(v.isfinite().all() for v in estimators(other).values())


@pytest.mark.parametrize('ours, theirs, message', [
    (dict(estimator=dict(mode='envelope')), dict(),
     r"mode=\['signed'\], but the config has mode=\['envelope'\]"),
    (dict(), dict(estimator=dict(mode='envelope')),
     r"mode=\['envelope'\], but the config has mode=\['signed'\]"),
])
def test_another_mode_is_refused(build, trained, tmp_path, ours, theirs,
                                 message):
    """A direction that is harmless is not how much noise is harmless."""
    save_estimator(trained('classifier', **theirs), tmp_path / 'e.st')
    with pytest.raises(ValueError, match=f'e.st was trained with {message}'):
        load_estimator(build('classifier', **ours), tmp_path / 'e.st')


def test_other_levels_are_refused(build, trained, tmp_path):
    """Their estimators have the same shapes."""
    split = dict(split='c2', in_channels=[16] * 4)
    save_estimator(
        trained('detector', levels=[0, 1], **split), tmp_path / 'e.st')
    other = build('detector', levels=[1, 2], **split)
    with pytest.raises(
            ValueError, match=r'levels=\[0, 1\], but the .* levels=\[1, 2\]'):
        load_estimator(other, tmp_path / 'e.st')


def test_another_kind_of_estimator_is_refused(build, trained, tmp_path):
    path = tmp_path / 'e.st'
    save_estimator(trained('classifier'), path)
    edit(path, types=['TokenEstimator'])
    with pytest.raises(ValueError, match=r"types=\['TokenEstimator'\], but "
                       r"the config has types=\['ConvEstimator'\]"):
        load_estimator(build('classifier'), path)


@pytest.mark.parametrize('version', [None, 1, FORMAT_VERSION + 1, '2'])
def test_another_version_is_refused(build, trained, tmp_path, version):
    path = tmp_path / 'e.st'
    save_estimator(trained('classifier'), path)
    edit(path, format_version=version, version='7.8.9')
    with pytest.raises(ValueError, match=rf'e.st has version {version} .*'
                       rf'mmfeatjnd 7.8.9.*reads version {FORMAT_VERSION}'):
        load_estimator(build('classifier'), path)


def test_reading_changes_nothing(build, trained, tmp_path):
    model, other = trained('classifier'), build('classifier')
    with torch.no_grad():
        for p in model.neck.estimators.parameters():
            p.add_(1)
    save_estimator(model, tmp_path / 'e.st')
    before = {k: v.clone() for k, v in other.state_dict().items()}
    state = read_estimator(other, tmp_path / 'e.st')
    for key, value in other.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert state.keys() == estimators(model).keys()
    for key, value in estimators(model).items():
        assert torch.equal(value, state[key]), key


def test_another_range_of_the_envelope_is_refused(build, tmp_path):
    """Equal weights are another map with another bound."""
    narrow = dict(mode='envelope', log_range=2.0)
    model = build('classifier', estimator=dict(mode='envelope'))
    model.neck.estimators[0].initial.fill_(1)
    save_estimator(model, tmp_path / 'e.st')
    other = build('classifier', estimator=narrow)
    with pytest.raises(ValueError, match=r'log_range=\[4.0\], but'):
        load_estimator(other, tmp_path / 'e.st')
