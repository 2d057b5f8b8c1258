"""Which stock configs FeatJND works on: all of the installed host libraries.

    python benchmarks/stock_configs.py
    python benchmarks/stock_configs.py --libraries mmseg --sample
    python benchmarks/stock_configs.py --again failed

Every config gets FeatJND as by ``--featjnd``, one step of its training on a
tiny input, and a prediction, which must be that of the plain host. A model
that several configs have is run once, in another process with limits of time
and memory. Writes benchmarks/results/coverage.json, and goes on from what is
there.
"""
import argparse
import copy
import hashlib
import json
import multiprocessing
import os
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Optional

import torch
from cache import content
from common import RESULTS, environment, publish
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope
from mmengine.utils import get_installed_path
from tiny_inputs import tiny_batch
from torch import nn

import mmfeatjnd
from mmfeatjnd.apis import add_featjnd, build_model
from mmfeatjnd.apis.add_featjnd import sizes_of
from mmfeatjnd.apis.curve import progress_bar
from mmfeatjnd.cli.arguments import count
from mmfeatjnd.evaluation.predictions import same_prediction

LIBRARIES = ('mmdet', 'mmpretrain', 'mmseg')
STATUSES = ('ok', 'refused', 'failed', 'host-cannot', 'too-large')
#: Limits of one config.
SECONDS = 180
GIGABYTES = 10
#: Size that crops of segmentors are padded to.
TINY = 96
#: Configs after which what is known is written.
OFTEN = 25


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--libraries', nargs='+', choices=LIBRARIES, default=LIBRARIES)
    parser.add_argument(
        '--limit', type=count, help='only so many configs that are not known')
    parser.add_argument(
        '--sample', action='store_true', help='only the first of each folder')
    parser.add_argument(
        '--again', nargs='+', choices=STATUSES, default=[],
        help='run those again that had this status')
    return parser.parse_args(argv)


def stock_configs(library: str) -> List[str]:
    """Paths of all configs of a library, below its folder of configs."""
    root = Path(get_installed_path(library), '.mim', 'configs')
    return sorted(
        str(path.relative_to(root)) for path in root.rglob('*.py')
        if '_base_' not in path.relative_to(root).parts)


def read(library: str, name: str) -> Config:
    root = Path(get_installed_path(library), '.mim', 'configs')
    return Config.fromfile(root / name)


# -------------------------------------------------------------- in the worker
class _Outcome(Exception):
    """Status and message of a config."""


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines() or ['']
    return f'{type(error).__name__}: {text[0]}'[:240]


def _ours(error: BaseException) -> bool:
    """Whether the package has raised it, and nothing below."""
    frames = traceback.extract_tb(error.__traceback__)
    package = Path(mmfeatjnd.__file__).parent
    return bool(frames) and package in Path(frames[-1].filename).parents


def _blame(error: BaseException) -> _Outcome:
    return _Outcome('refused' if _ours(error) else 'failed',
                    _first_line(error))


def _settle(host: nn.Module) -> None:
    """Numbers in place of what nobody has initialized."""
    with torch.no_grad():
        for x in host.state_dict().values():
            if x.is_floating_point() and not (
                    x.isfinite().all() and x.abs().max() < 1e3):
                x.normal_(std=0.02)


def _run(host: nn.Module, batch: dict, mode: str):
    # as a runner tells it: some losses change with the training
    MessageHub.get_current_instance().update_info_dict(
        dict(epoch=0, iter=0, max_epochs=1, max_iters=1))
    data = host.data_preprocessor(copy.deepcopy(batch), mode == 'loss')
    torch.manual_seed(0)
    return host(**data, mode=mode)


def _said(samples: list) -> List[dict]:
    """What is predicted, of data samples that hold more."""
    return [{k: v for k, v in s.to_dict().items()
             if k.startswith(('pred', 'seg_logits'))} for s in samples]


def _look(cfg: Config) -> None:
    torch.manual_seed(0)
    cfg = copy.deepcopy(cfg)
    for part in (cfg.get('data_preprocessor'),
                 cfg.model.get('data_preprocessor')):
        if part and part.get('size'):  # of crops, which the tiny input is not
            part.size = (TINY, TINY)
    try:
        host = build_model(copy.deepcopy(cfg))
    except Exception as error:
        raise _Outcome('host-cannot', _first_line(error)) from error
    _settle(host)
    try:
        model = build_model(add_featjnd(cfg))
    except Exception as error:
        raise _blame(error) from error
    problem: Optional[Exception] = None
    for size in sizes_of(cfg):
        batch = tiny_batch(cfg, size)
        try:
            _run(host.train(), batch, 'loss')
            with torch.no_grad():
                expected = _run(host.eval(), batch, 'predict')
            break
        except Exception as error:
            problem = problem or error
    else:
        raise _Outcome('host-cannot', _first_line(problem))
    try:
        model.load_state_dict(host.state_dict(), strict=False)
        with torch.no_grad():
            expected = _run(host, batch, 'predict')
            found = _run(model.eval(), batch, 'predict')
        if not same_prediction(_said(found), _said(expected)):
            raise _Outcome('failed', 'another prediction than the host')
        losses = _run(model.train(), batch, 'loss')
        loss = sum(v for k, v in losses.items() if 'loss' in k)
        loss.backward()
        if not loss.isfinite():
            raise _Outcome('failed', f'the loss is {float(loss)}')
    except _Outcome:
        raise
    except Exception as error:
        raise _blame(error) from error


def _work(pipe) -> None:
    """Answer with the status and the message of every config that comes."""
    # nothing is fetched
    os.environ.update(HF_HUB_OFFLINE='1', TRANSFORMERS_OFFLINE='1')
    torch.set_num_threads(1)
    while True:
        try:
            library, name = pipe.recv()
        except EOFError:  # the parent has ended
            return
        outcome = 'ok', ''
        try:
            with DefaultScope.overwrite_default_scope(library):
                _look(read(library, name))
        except _Outcome as found:
            outcome = found.args
        except BaseException as error:
            outcome = 'failed', _first_line(error)
        pipe.send(outcome)


# -------------------------------------------------------------- in the parent
class Worker:
    """Another process, which is replaced where it takes too much."""

    def __init__(self) -> None:
        self.process = None

    def examine(self, library: str, name: str) -> tuple:
        """Status and message of a config."""
        if self.process is None:
            context = multiprocessing.get_context('spawn')
            self.pipe, other = context.Pipe()
            self.process = context.Process(target=_work, args=(other, ),
                                           daemon=True)
            self.process.start()
            other.close()
        self.pipe.send((library, name))
        begun = time.monotonic()
        try:
            while not self.pipe.poll(0.2):
                if time.monotonic() - begun > SECONDS:
                    return self.stop('failed', f'more than {SECONDS} s')
                if self.memory() > GIGABYTES * 2**30:
                    return self.stop('too-large', f'more than {GIGABYTES} GiB')
            return self.pipe.recv()
        except (EOFError, OSError):
            return self.stop('failed', 'the process died')

    def memory(self) -> int:
        """Bytes that it holds."""
        pages = Path(f'/proc/{self.process.pid}/statm').read_text().split()[1]
        return int(pages) * os.sysconf('SC_PAGE_SIZE')

    def stop(self, *outcome: str) -> tuple:
        self.process.kill()
        self.process.join()
        self.process = None
        return outcome


def digest(cfg: Config) -> str:
    """Of all that the outcome of a config depends on."""
    key = content(dict(model=cfg.model.to_dict(),
                       data_preprocessor=cfg.get('data_preprocessor')))
    return hashlib.sha256(
        json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]


def known(again: Iterable[str]) -> Dict[tuple, dict]:
    """What is published of the same versions."""
    file = RESULTS / 'coverage.json'
    if not file.is_file():
        return {}
    result = json.loads(file.read_text())
    if result['versions'] != environment()['versions']:
        return {}
    return {(r['library'], r['config']): r for r in result['rows']
            if r['status'] not in again}


def sweep(names: List[tuple], rows: Dict[tuple, dict],
          limit: Optional[int]) -> Iterator[None]:
    """Fill in rows; yields after each config that was run."""
    by_model = {r['model']: r for r in rows.values() if 'model' in r}
    worker, ran = Worker(), 0
    with progress_bar(len(names)) as step:
        for library, name in names:
            step()
            if (library, name) in rows:
                continue
            row = dict(library=library, config=name)
            try:
                cfg = read(library, name)
                row['model'] = digest(cfg)
            except Exception as error:
                row.update(status='host-cannot', message=_first_line(error))
            if row.get('model') in by_model:
                same = by_model[row['model']]
                row.update(status=same['status'], message=same['message'])
            elif 'status' not in row:
                if limit is not None and ran == limit:
                    continue
                ran += 1
                row['status'], row['message'] = worker.examine(library, name)
            rows[library, name] = row
            if 'model' in row:
                by_model.setdefault(row['model'], row)
            yield


def write(rows: Dict[tuple, dict], complete: bool) -> None:
    counted = Counter(r['status'] for r in rows.values())
    tried = sum(counted[s] for s in ('ok', 'refused', 'failed'))
    publish('coverage', dict(
        claim='FeatJND works on at least 97 % of the stock configs that the '
        'plain host can run, and refuses the rest by name.',
        command='python benchmarks/stock_configs.py', reduced=not complete,
        clean={}, counts=dict(counted),
        share_ok=counted['ok'] / tried if tried else None,
        rows=[rows[key] for key in sorted(rows)]))


def main(argv=None):
    args = parse_args(argv)
    names = [(library, name) for library in LIBRARIES
             for name in stock_configs(library)]
    asked = [n for n in names if n[0] in args.libraries]
    if args.sample:
        folders = {(n[0], Path(n[1]).parts[0]): n for n in reversed(asked)}
        asked = sorted(folders.values())
    rows = known(args.again)
    try:
        for i, _ in enumerate(sweep(asked, rows, args.limit), 1):
            if i % OFTEN == 0:
                write(rows, len(rows) == len(names))
    finally:
        write(rows, len(rows) == len(names))


if __name__ == '__main__':
    main()
