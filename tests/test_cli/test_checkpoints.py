"""What is looked at in a checkpoint before a run."""
import pytest
import torch
from mmengine.config import Config

from mmfeatjnd.apis.checkpoints import (
    CheckpointError,
    read_checkpoint,
    weights_of,
)
from mmfeatjnd.cli.checkpoints import ensure_checkpoint


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
