"""tools/misc/print_config.py and tools/model_converters/publish_model.py."""
import hashlib
import io
import os
import os.path as osp
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub


# ------------------------------------------------------------- print_config
@pytest.fixture
def config(tmp_path):
    (tmp_path / 'base.py').write_text("a = dict(b=1, c='x')\nd = 2\n")
    (tmp_path / 'child.py').write_text("_base_ = 'base.py'\nd = [3, 4]\n")
    return tmp_path / 'child.py'


def test_print_config(run_tool, config, capsys):
    run_tool('misc/print_config.py', config, '--cfg-options', 'a.b=5',
             '--hook', "dict(type='EMAHook')")
    values = {}
    exec(capsys.readouterr().out, values)  # the output is a config
    assert values['a'] == dict(b=5, c='x') and values['d'] == [3, 4]
    assert values['custom_hooks'] == [dict(type='EMAHook')]


def test_print_config_saves(run_tool, config, tmp_path):
    path = tmp_path / 'new/whole.py'
    run_tool('misc/print_config.py', config, '--save-path', path)
    assert Config.fromfile(path).to_dict() == dict(
        a=dict(b=1, c='x'), d=[3, 4])
    assert os.listdir(path.parent) == ['whole.py']


def test_print_config_refuses(run_tool, config, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_tool('misc/print_config.py', config, '--save-path', 'a.txt')
    assert '--save-path must end with' in capsys.readouterr().err
    for path, option, reason in [
        ('no.py', 'a.b=1', 'does not exist'),
        ('child.py', 'a.b.c=1', r'--cfg-options: a\.b\.c cannot be set'),
        ('child.py', 'd.x=1', r'--cfg-options: d\.x cannot be set'),
    ]:
        with pytest.raises(SystemExit, match=f'error: .*{reason}'):
            run_tool('misc/print_config.py', tmp_path / path, '--cfg-options',
                     option)


@pytest.mark.parametrize('name, text', [
    ('broken.py', 'a = dict('),
    ('fails.py', 'a = 1 / 0'),
    ('orphan.py', "_base_ = './no_such.py'"),
    ('elsewhere.py', "_base_ = 'mmdet::no_such.py'"),
    ('broken.json', '{'),
    ('text.txt', 'a = 1'),
])
def test_a_config_that_cannot_be_read(run_tool, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit, match=f'error: cannot read .*{name}\n  '):
        run_tool('misc/print_config.py', tmp_path / name)


def test_an_option_that_is_none(run_tool, config, capsys):
    for option in ('abc', '=1', 'a=[(1,2)', "a=[dict(b=open('x'))]"):
        with pytest.raises(SystemExit):
            run_tool('misc/print_config.py', config, '--cfg-options', option)
        error = capsys.readouterr().err
        assert 'argument --cfg-options: ' in error
        assert 'Traceback' not in error


# ------------------------------------------------------------ publish_model
@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint as MMEngine writes it during training."""
    hub = MessageHub.get_instance('test_publish')
    hub.update_scalar('train/loss', 0.5)
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(4, 2)).sum().backward()
    optimizer.step()
    weights = net.state_dict()
    weights['view'] = torch.zeros(10000)[:2]
    torch.save(
        dict(
            meta=dict(
                epoch=np.int64(3),
                cfg='model = dict()',
                dataset_meta=dict(
                    classes=('a', 'b'), palette=np.array([[1, 2, 3]]))),
            state_dict=weights,
            ema_state_dict=OrderedDict(),
            optimizer=optimizer.state_dict(),
            message_hub=hub.state_dict(),
            param_schedulers=[]), tmp_path / 'epoch_3.pth')
    return tmp_path / 'epoch_3.pth', weights


def test_publish_model(run_tool, checkpoint, tmp_path, capsys):
    source, weights = checkpoint
    run_tool('model_converters/publish_model.py', source,
             tmp_path / 'out/net.pth')
    path = capsys.readouterr().out.strip().splitlines()[-1]
    name = osp.basename(path)
    digest = hashlib.sha256(open(path, 'rb').read()).hexdigest()
    assert os.listdir(tmp_path / 'out') == [f'net-{digest[:8]}.pth'] == [name]

    result = torch.load(path, weights_only=True)
    assert set(result) == {'meta', 'state_dict'}
    assert result['meta'] == dict(
        epoch=3,
        cfg='model = dict()',
        dataset_meta=dict(classes=('a', 'b'), palette=[[1, 2, 3]]))
    assert list(result['state_dict']) == list(weights)
    for key, value in weights.items():
        assert torch.equal(result['state_dict'][key], value)
    # the version of BatchNorm's state, which decides how it is loaded
    assert result['state_dict']._metadata['1']['version'] == 2
    assert os.path.getsize(path) < 10000  # not the storage behind the view


def test_publish_model_is_reproducible(run_tool, checkpoint, tmp_path, capsys):
    source, _ = checkpoint
    for out in ('a', 'b.pth'):
        run_tool('model_converters/publish_model.py', source, tmp_path / out)
    a, b = capsys.readouterr().out.split()
    assert a[-12:] == b[-12:] and osp.basename(b).startswith('b-')


def test_publish_model_refuses(run_tool, tmp_path):
    tool = 'model_converters/publish_model.py'
    with pytest.raises(SystemExit, match='no.pth\n  there is no such file'):
        run_tool(tool, tmp_path / 'no.pth', 'o')
    source = tmp_path / 'bad.pth'
    for content, reason in [
        (dict(state_dict={}, meta={}), 'there are no weights in it'),
        ({}, 'there are no weights in it'),
        ({'backbone.conv1.weight': 'text'}, 'there are no weights in it'),
        ([torch.ones(1)], 'no weights in it, but a list'),
        (7, 'no weights in it, but a int'),
        (dict(w=torch.ones(1), note='text'), "'note' is no tensor"),
    ]:
        torch.save(content, source)
        with pytest.raises(SystemExit, match=f'bad.pth\n  .*{reason}'):
            run_tool(tool, source, tmp_path / 'out')
    for content in (b'', b'text', make_zip()):
        source.write_bytes(content)
        with pytest.raises(SystemExit, match='error: cannot publish .*bad'):
            run_tool(tool, source, tmp_path / 'out')
    torch.save(dict(w=torch.ones(1)), source)
    with pytest.raises(SystemExit, match='cannot write .*bad.pth is no fold'):
        run_tool(tool, source, source / 'out')
    assert os.listdir(tmp_path) == ['bad.pth']


def make_zip():
    data = io.BytesIO()
    with zipfile.ZipFile(data, 'w') as file:
        file.writestr('a.txt', 'no checkpoint')
    return data.getvalue()
