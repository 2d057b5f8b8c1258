import pytest
import torch
from mmengine.registry import DefaultScope

from mmfeatjnd.apis import host_hash, load_estimator, save_estimator


def estimators(model):
    return model.featjnd_neck.estimators.state_dict()


def test_round_trip_on_the_same_host(build, tmp_path):
    model, other = build('classifier'), build('classifier')
    for p in other.featjnd_neck.estimators.parameters():
        torch.nn.init.normal_(p)
    save_estimator(model, tmp_path / 'e.pth')
    load_estimator(other, tmp_path / 'e.pth')
    for key, value in estimators(model).items():
        assert torch.equal(value, estimators(other)[key]), key
    assert [f.name for f in tmp_path.iterdir()] == ['e.pth']
    assert (tmp_path / 'e.pth').stat().st_size < 5e6


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


def test_another_host_is_refused_and_nothing_changes(build, tmp_path):
    model, other = build('classifier'), build('classifier')
    save_estimator(model, tmp_path / 'e.pth')
    with torch.no_grad():
        other.head.fc.bias.add_(1)
        for p in other.featjnd_neck.estimators.parameters():
            p.fill_(0.5)
    before = {k: v.clone() for k, v in estimators(other).items()}
    with pytest.raises(ValueError, match='another host checkpoint'):
        load_estimator(other, tmp_path / 'e.pth')
    for key, value in estimators(other).items():
        assert torch.equal(value, before[key])


def test_another_split_or_width_is_refused(build, tmp_path):
    model = build('classifier')
    save_estimator(model, tmp_path / 'e.pth')
    other = build('classifier', split='backbone.layer1', in_channels=8)
    with pytest.raises(ValueError, match="split='backbone'"):
        load_estimator(other, tmp_path / 'e.pth')
    wide = build('classifier', estimator=dict(hidden_channels=16))
    host = {
        k: v
        for k, v in model.state_dict().items() if 'estimators' not in k
    }
    wide.load_state_dict(host, strict=False)
    with pytest.raises(ValueError, match='another estimator config'):
        load_estimator(wide, tmp_path / 'e.pth')


@pytest.mark.parametrize('content', [b'', b'no checkpoint', None])
def test_a_foreign_file_is_named(build, tmp_path, content):
    file = tmp_path / 'foreign.pth'
    if content is None:
        torch.save(dict(state_dict={}), file)
    else:
        file.write_bytes(content)
    with pytest.raises(ValueError, match='foreign.pth is no estimator file'):
        load_estimator(build('classifier'), file)


def test_a_failed_write_leaves_the_old_file(build, tmp_path, monkeypatch):
    model = build('classifier')
    save_estimator(model, tmp_path / 'e.pth')
    before = (tmp_path / 'e.pth').read_bytes()

    def fail(*args, **kwargs):
        raise OSError('disk full')

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(OSError, match='disk full'):
        save_estimator(model, tmp_path / 'e.pth')
    assert (tmp_path / 'e.pth').read_bytes() == before
    assert [f.name for f in tmp_path.iterdir()] == ['e.pth']
