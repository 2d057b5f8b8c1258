"""Training in two processes follows training in one.

Run as a script, this file is one of the processes.
"""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS

STEPS, BATCH = 4, 4


def train(path, kind, mode, rank=0, world_size=1):
    """A few steps on this rank's share of fixed batches; save the result."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from conftest import featjnd_cfg, make_batch
    torch.manual_seed(0)
    discrepancy = dict(
        type='mmfeatjnd.Annotation') if kind == 'detector' and (
            mode == 'signed') else None
    model = MODELS.build(
        ConfigDict(featjnd_cfg(
            kind, discrepancy=discrepancy, estimator=dict(mode=mode))))
    estimators = model.featjnd_neck.estimators
    before = estimators.state_dict()['0.expand.weight'].clone()
    optimizer = OptimWrapper(torch.optim.SGD(
        estimators.parameters(), 0.1 if mode == 'signed' else 0.001))
    if world_size > 1:
        model = MMDistributedDataParallel(model)
    model.train()
    share = BATCH // world_size
    for step in range(STEPS):
        inputs, samples = make_batch(kind, share, BATCH * step + share * rank)
        if kind == 'detector' and rank == 0:
            # images of two sizes, of which the other rank has one
            samples[0].set_metainfo(dict(img_shape=(16, 32)))
        model.train_step(
            dict(inputs=list(inputs), data_samples=samples), optimizer)
    if rank == 0:
        assert not torch.equal(before, estimators[0].expand.weight)
        torch.save(estimators.state_dict(), path)


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['signed', 'sensitivity'])
@pytest.mark.parametrize('kind', ['classifier', 'detector'])
def test_two_processes_follow_one(tmp_path, kind, mode):
    env = dict(
        os.environ,
        OMP_NUM_THREADS='1',
        PYTHONPATH=str(Path(__file__).parents[2]))
    result = subprocess.run([
        sys.executable, '-m', 'torch.distributed.run', '--standalone',
        '--nproc_per_node=2', __file__, tmp_path / 'two.pth', kind, mode
    ],
                            env=env,
                            capture_output=True,
                            text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    MessageHub._instance_dict.clear()  # nobody counts steps there, either
    train(tmp_path / 'one.pth', kind, mode)
    one, two = (torch.load(tmp_path / f'{n}.pth') for n in ('one', 'two'))
    assert one.keys() == two.keys()
    for key, value in one.items():
        if key.endswith('known.others'):  # every process keeps its own
            continue
        # the loss of a detector is a mean over what the batch has
        if kind == 'classifier' or key.endswith(
            ('channels.mean', 'channels.mean_square', 'channels.low',
             'channels.high', 'channels.updates', 'initial')):
            torch.testing.assert_close(value, two[key], rtol=1e-4, atol=1e-6)
    assert one['0.channels.updates'] == STEPS


if __name__ == '__main__':
    torch.distributed.init_process_group('gloo')
    train(*sys.argv[1:], torch.distributed.get_rank(), 2)
    torch.distributed.destroy_process_group()
