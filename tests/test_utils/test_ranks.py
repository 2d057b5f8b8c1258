"""Work that one process does for all."""
import os
import socket

import pytest
import torch
import torch.distributed as torch_dist
import torch.multiprocessing as mp

from mmfeatjnd.apis import WorkDirError
from mmfeatjnd.utils import WriteError, on_first_rank


def test_alone():
    assert on_first_rank(lambda: 3) == 3
    with pytest.raises(WorkDirError, match='why'):
        on_first_rank(lambda: fail(WorkDirError('why')))


def fail(error):
    raise error


def work(rank, port, folder):
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch_dist.init_process_group('gloo', rank=rank, world_size=2)
    calls = []
    assert on_first_rank(lambda: calls.append(1) or 'a') == 'a'
    assert len(calls) == (rank == 0)
    for error in (WorkDirError('why'), WriteError('cannot write')):
        try:
            on_first_rank(lambda: fail(error))
        except type(error) as raised:
            assert str(raised) == str(error)
        else:
            raise AssertionError('nothing is raised')
    torch_dist.destroy_process_group()
    open(f'{folder}/{rank}', 'w').close()


@pytest.mark.slow
def test_in_two_processes(tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    context = mp.get_context('fork')
    processes = [
        context.Process(target=work, args=(rank, port, tmp_path))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert sorted(os.listdir(tmp_path)) == ['0', '1']
