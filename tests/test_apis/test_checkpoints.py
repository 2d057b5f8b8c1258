"""How checkpoints are read."""
import pytest
import torch

from mmfeatjnd.apis.checkpoints import (
    CheckpointError,
    read_weights,
    weights_of,
)


def test_files_older_than_the_zip_format(tmp_path):
    path = tmp_path / 'old.pth'
    weights = {'w': torch.arange(3.)}
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    assert torch.equal(read_weights(str(path))['w'], weights['w'])


@pytest.mark.parametrize('content, reason', [
    ({}, 'no weights in it'),
    ({'w': 'text'}, 'no weights in it'),
    (dict(state_dict=[]), 'no weights in it'),
])
def test_no_weights(content, reason):
    with pytest.raises(CheckpointError, match=reason):
        weights_of(content)


@pytest.mark.parametrize('content', [b'', b'text', b'PK\x05\x06' + bytes(18)])
def test_no_checkpoint(tmp_path, content):
    """The last is a zip file with nothing in it."""
    path = tmp_path / 'bad.pth'
    path.write_bytes(content)
    with pytest.raises(
            CheckpointError, match='cannot read the checkpoint .*bad'):
        read_weights(str(path))
