"""All that waits for a GPU, in stages of a few minutes.

    python benchmarks/gpu.py            # or: make bench-gpu
    python benchmarks/gpu.py --list
    python benchmarks/gpu.py --stages tests cost --out $OUT

A GPU comes for minutes, so the most valuable stage is first, each writes
``gpu_<stage>.json`` into ``--out`` when it ends, and one that is there is not
run again. A stage is stopped at its limit; what its scripts have trained stays
in ``--work-dir``, and they go on from it.
"""
import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional

import torch
from cache import write_json
from common import RESULTS, ROOT, environment

LINES = 400  # of what a script says, in the result of a stage


class Stage(NamedTuple):
    """What runs, and for how long.

    Attributes:
        about (str): What it shows.
        minutes (float): Limit.
        commands (list[list[str]]): Scripts of ``benchmarks``, or modules of
            Python after '-m', with their arguments.
        data (tuple[str]): Folders and files of ``data`` that it needs.
    """
    about: str
    minutes: float
    commands: List[List[str]]
    data: tuple = ()


#: The most valuable first.
STAGES: Dict[str, Stage] = dict(
    tests=Stage('what runs on CUDA computes what runs on a CPU', 4, [
        ['-m', 'pytest', '-q', '-m', 'cuda', '-p', 'no:cacheprovider',
         'tests/test_cuda', 'tests/test_functional/test_fused.py']
    ]),
    cost=Stage(
        'what FeatJND costs as a share of its host, and the quantizer of the '
        "device's copy bandwidth", 4, [['cost.py', '--no-trained-hosts']]),
    dsb2018=Stage(
        'Mask R-CNN on all of DSB2018: noise by the learned map against its '
        'controls', 9,
        [['featjnd.py', 'dsb2018', '--no-signed', '--jobs', '14']],
        ('dsb2018', )),
    cifar10=Stage(
        'ResNet-18 on all of CIFAR-10: the same', 8,
        [['featjnd.py', 'cifar10', '--jobs', '4']], ('cifar10', )),
    yolox=Stage(
        'the real YOLOX-Nano on COCO: the same', 9,
        [['featjnd.py', 'yolox', '--jobs', '14']],
        ('coco_small', 'imagenet_sample', 'hosts/yolox_nano_coco.pth')),
    mobilenet=Stage(
        'the real MobileNetV2 on ImageNet: the same', 8,
        [['featjnd.py', 'mobilenet', '--jobs', '6']],
        ('imagenet_sample', 'hosts/mobilenet_v2_in1k.pth')),
    dmv_jnd=Stage(
        'DMV-JND of four full-size classifiers on all of CIFAR-10, 3 seeds: '
        'hours, a stage for a machine that stays', 600,
        [['dmv_jnd.py', 'full']], ('cifar10', )))
#: What fits into minutes.
SHORT = [name for name, stage in STAGES.items() if stage.minutes < 60]


def parse_args(argv: Optional[List[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--stages',
        nargs='+',
        choices=STAGES,
        default=SHORT,
        help='by default all that take minutes: ' + ' '.join(SHORT))
    parser.add_argument(
        '--out',
        type=Path,
        default=RESULTS,
        help='folder for the results of the stages and of their scripts')
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/benchmarks'))
    parser.add_argument(
        '--minutes',
        type=float,
        default=60.0,
        help='stop after so many, in the middle of a stage if need be')
    parser.add_argument(
        '--list', action='store_true', help='say what there is, and stop')
    return parser.parse_args(argv)


def device() -> dict:
    """What the numbers were measured on."""
    if not torch.cuda.is_available():
        return dict(name='cpu')
    properties = torch.cuda.get_device_properties(0)
    return dict(
        name=properties.name,
        memory_gib=round(properties.total_memory / 2**30, 1),
        capability=f'{properties.major}.{properties.minor}',
        cuda=torch.version.cuda,
        cores=os.cpu_count())


def run(command: List[str], seconds: float) -> dict:
    """Run a script, with all that it starts stopped at its limit.

    Args:
        command (list[str]): See :attr:`Stage.commands`.
        seconds (float): The limit.

    Returns:
        dict: ``command``, ``seconds``, ``exit`` (None where it was stopped)
        and ``output``, the last lines.
    """
    script = command if command[0] == '-m' else [
        str(ROOT / 'benchmarks' / command[0]), *command[1:]
    ]
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, *script],
                               cwd=ROOT,
                               stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT,
                               text=True,
                               errors='replace',
                               start_new_session=True)
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        # a training must be able to end its workers
        os.killpg(process.pid, signal.SIGTERM)
        try:
            output, _ = process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
        process.returncode = None
    # a progress bar writes over its line
    lines = [line.rsplit('\r', 1)[-1] for line in output.splitlines()]
    return dict(
        command=' '.join(command),
        seconds=round(time.monotonic() - start, 1),
        exit=process.returncode,
        output=lines[-LINES:])


def published(since: float) -> List[Path]:
    """The results that scripts have written since a time."""
    return [f for f in sorted(RESULTS.glob('*.json'))
            if f.stat().st_mtime >= since]


def summary(output: List[str]) -> Dict[str, int]:
    """What pytest counts: passed, failed, skipped, error."""
    counts: Dict[str, int] = {}
    for line in output:
        if re.search(r'\b(passed|failed|error)', line) and ' in ' in line:
            counts = {
                name.rstrip('s'): int(number)
                for number, name in re.findall(r'(\d+) (\w+)', line)
                if name in ('passed', 'failed', 'skipped', 'error', 'errors')
            }
    return counts


def run_stage(name: str, args: argparse.Namespace, seconds: float,
              run: Callable[[List[str], float], dict] = run) -> bool:
    """Run a stage, and write its result.

    Args:
        name (str): Key of ``STAGES``.
        args (argparse.Namespace): The arguments.
        seconds (float): What is left of the time.
        run (Callable): See :func:`run`.

    Returns:
        bool: Whether all its scripts ended well.
    """
    stage = STAGES[name]
    missing = [d for d in stage.data if not (ROOT / 'data' / d).exists()]
    limit = min(60 * stage.minutes, seconds)
    start, began, runs = time.monotonic(), time.time(), []
    for command in stage.commands if not missing else ():
        if command[0] != '-m':
            command = [*command, '--work-dir', str(args.work_dir)]
        runs.append(run(command, limit - (time.monotonic() - start)))
        if runs[-1]['exit'] != 0:
            break
    complete = bool(runs) and len(runs) == len(
        stage.commands) and all(r['exit'] == 0 for r in runs)
    args.out.mkdir(parents=True, exist_ok=True)
    results = published(began)
    for file in results:
        if file.parent != args.out:
            shutil.copy(file, args.out)
    write_json(
        args.out / f'gpu_{name}.json',
        dict(
            environment(),
            stage=name,
            about=stage.about,
            gpu=device(),
            command='python benchmarks/gpu.py ' + ' '.join(sys.argv[1:]),
            missing_data=missing,
            complete=complete,
            minutes=round((time.monotonic() - start) / 60, 2),
            tests=summary(runs[0]['output']) if name == 'tests' and runs
            else None,
            results=[file.name for file in results],
            runs=runs),
        indent=1)
    return complete


def is_done(name: str, out: Path) -> bool:
    """Whether a stage has ended well before, on this kind of device."""
    file = out / f'gpu_{name}.json'
    if not file.is_file():
        return False
    result = json.loads(file.read_text())
    return result['complete'] and result['gpu']['name'] == device()['name']


def main(argv: Optional[List[str]] = None) -> int:
    args = parse_args(argv)
    if args.list:
        for name, stage in STAGES.items():
            print(f'{name:8} at most {stage.minutes:g} min  {stage.about}')
        return 0
    end = time.monotonic() + 60 * args.minutes
    failed = []
    for name in args.stages:
        left = end - time.monotonic()
        if is_done(name, args.out):
            print(f'{name}: done before, skipped', flush=True)
        elif left < 20:
            print(f'{name}: no time left', flush=True)
            failed.append(name)
        else:
            print(f'{name}: {STAGES[name].about} ...', flush=True)
            good = run_stage(name, args, left)
            print(f'{name}: ' + ('done' if good else 'NOT complete, see '
                                 f'{args.out / f"gpu_{name}.json"}'),
                  flush=True)
            if not good:
                failed.append(name)
    return int(bool(failed))


if __name__ == '__main__':
    sys.exit(main())
