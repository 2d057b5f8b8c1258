"""What is looked at in a checkpoint before a run."""
import functools
import http.server
import threading
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmfeatjnd.apis.checkpoints import (
    CheckpointError,
    read_checkpoint,
    weights_of,
)
from mmfeatjnd.cli.checkpoints import drop_pretrained, ensure_checkpoint


def is_mapped(path):
    with open('/proc/self/maps') as maps:
        return str(path) in maps.read()


def test_tensors_are_left_to_the_runner(tmp_path):
    path = tmp_path / 'net.pth'
    weights = {'backbone.w': torch.arange(100000.)}
    torch.save(dict(state_dict=weights), path)
    cfg = Config(dict(load_from=str(path)))
    assert ensure_checkpoint(cfg) == {'backbone.w'}
    checkpoint = read_checkpoint(str(path))
    assert is_mapped(path)
    assert torch.equal(weights_of(checkpoint)['backbone.w'],
                       weights['backbone.w'])
    del checkpoint
    assert not is_mapped(path)


def test_what_a_training_pickles_is_read_safely(tmp_path, capfd):
    """Without the fallback to a reader that runs code."""
    from mmengine.logging import MessageHub
    hub = MessageHub.get_instance('test_checkpoints')
    hub.update_scalar('train/loss', 0.5)
    path = str(tmp_path / 'iter_1.pth')
    torch.save(
        dict(
            state_dict=dict(w=torch.ones(1)),
            meta=dict(epoch=0, iter=1),
            message_hub=hub.state_dict()), path)
    cfg = Config(dict(load_from=path, resume=True))
    assert ensure_checkpoint(cfg) == {'w'}
    assert 'weights_only=False' not in ''.join(capfd.readouterr())


def test_a_resumed_run_needs_its_state(tmp_path):
    path = str(tmp_path / 'bare.pth')
    state = dict(w=torch.ones(1))
    whole = dict(state_dict=state, meta=dict(epoch=0, iter=1), message_hub={})
    for content in (state, dict(state_dict=state),
                    dict(whole, meta=dict(epoch=0)), dict(whole, meta=None)):
        torch.save(content, path)
        cfg = Config(dict(load_from=path, resume=True))
        with pytest.raises(
                CheckpointError, match='not the state of a training'):
            ensure_checkpoint(cfg)
        assert ensure_checkpoint(Config(dict(load_from=path))) == {'w'}
    torch.save(whole, path)
    assert ensure_checkpoint(cfg) == {'w'}


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server of a folder, and an empty cache of downloads."""
    folder = tmp_path / 'served'
    folder.mkdir()
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *args: None
    web = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    web.folder, web.url = folder, f'http://127.0.0.1:{web.server_port}'
    yield web
    web.shutdown()
    web.server_close()
    thread.join()


def test_checkpoint_of_a_url(server):
    weights = {'module.backbone.w': torch.ones(2), 'head.w': torch.ones(1)}
    torch.save(dict(state_dict=weights), server.folder / 'net-1234.pth')
    cfg = Config(dict(load_from=f'{server.url}/net-1234.pth'))
    names = {'backbone.w', 'head.w'}
    assert ensure_checkpoint(cfg) == names
    (server.folder / 'net-1234.pth').unlink()
    assert ensure_checkpoint(cfg) == names  # from the cache


def test_checkpoint_that_cannot_be_had(server):
    url = f'{server.url}/sub/gone-5678.pth?x=1'
    with pytest.raises(CheckpointError) as error:
        ensure_checkpoint(Config(dict(load_from=url)))
    message = str(error.value)
    assert url in message and 'HTTPError' in message and '404' in message
    assert '--cfg-options load_from=/path/to/gone-5678.pth' in message
    assert 'damaged' not in message

    server.shutdown()
    server.server_close()
    with pytest.raises(CheckpointError, match='ConnectionError'):
        ensure_checkpoint(Config(dict(load_from=url)))


def test_damaged_download(server):
    (server.folder / 'net.pth').write_bytes(b'<html>moved</html>')
    cfg = Config(dict(load_from=f'{server.url}/net.pth'))
    with pytest.raises(CheckpointError, match='damaged: delete it'):
        ensure_checkpoint(cfg)


def test_an_estimator_file_is_no_checkpoint(tmp_path):
    path = str(tmp_path / 'jnd.safetensors')
    Path(path).touch()
    with pytest.raises(CheckpointError, match='no checkpoint: an estimator'):
        ensure_checkpoint(Config(dict(load_from=path)))


def test_nothing_to_load(train_cfg):
    assert ensure_checkpoint(Config(dict(load_from=None))) is None
    cfg = train_cfg('mmdet')
    assert drop_pretrained(cfg, None) == []
    assert cfg.model.backbone.init_cfg.type == 'Pretrained'


def test_drop_pretrained_of_stock_configs(train_cfg):
    names = {'backbone.conv1.weight', 'rpn_head.conv.weight'}
    cfg = train_cfg('mmdet')
    assert drop_pretrained(cfg, names) == ['model.backbone.init_cfg']
    assert 'init_cfg' not in cfg.model.backbone
    cfg = train_cfg('mmseg')
    assert drop_pretrained(cfg, names) == ['model.pretrained']
    assert cfg.model.pretrained is None


def test_drop_pretrained_only_where_the_checkpoint_has_weights():
    pretrained = dict(type='Pretrained', checkpoint='torchvision://resnet50')
    kaiming = dict(type='Kaiming', layer='Conv2d')
    cfg = Config(
        dict(
            model=dict(
                init_cfg=dict(pretrained),
                backbone=dict(
                    type='X',
                    init_cfg=[dict(kaiming), dict(pretrained)],
                    pretrained=True),
                neck=dict(
                    neck=[dict(init_cfg=dict(kaiming))],
                    estimator=dict(init_cfg=dict(pretrained))),
                heads=[dict(init_cfg=dict(pretrained))])))
    names = {'backbone.conv1.weight', 'neck.neck.0.w', 'heads.0.fc.weight'}
    assert drop_pretrained(cfg, names) == [
        'model.init_cfg', 'model.backbone.init_cfg', 'model.heads.0.init_cfg'
    ]
    model = cfg.model
    assert model.backbone == dict(
        type='X', init_cfg=[kaiming], pretrained=True)
    assert model.neck.neck[0].init_cfg == kaiming
    # the host's checkpoint does not hold the estimator
    assert model.neck.estimator.init_cfg == pretrained
    # a checkpoint of an estimator alone does not hold the host
    cfg = Config(dict(model=dict(init_cfg=pretrained, backbone=dict())))
    assert not drop_pretrained(cfg, {'neck.estimator.w'})
