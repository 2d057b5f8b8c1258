"""A rehearsal of what waits for a GPU: every stage, with tiny sizes."""
import io
import json
from contextlib import redirect_stdout

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def gpu(tiny, monkeypatch):
    """The module, whose stages have made-up data and run in this process."""
    import common
    import cost
    import featjnd
    import gpu
    for name in ('cifar10', 'dsb2018', 'yolox', 'mobilenet'):
        monkeypatch.setitem(common.BENCHMARKS, name,
                            common.BENCHMARKS['tiny'])
    monkeypatch.setattr(featjnd, 'SEEDS', common.SEEDS)  # it has imported it
    few = dict(
        featjnd=['--nrmse', '0.5', '--jobs', '1'],
        cost=['--repeats', '1', '--cases', '1'])
    scripts = dict(featjnd=featjnd, cost=cost)
    ran = []

    def run(command, seconds):
        ran.append(command)
        if command[0] == '-m':
            return dict(command=' '.join(command), seconds=0.0, exit=0,
                        output=['== 3 passed, 2 skipped in 0.1s =='])
        name = command[0].removesuffix('.py')
        with redirect_stdout(io.StringIO()) as output:
            scripts[name].main([*command[1:], *few[name]])
        return dict(command=' '.join(command), seconds=seconds, exit=0,
                    output=output.getvalue().splitlines())

    for stage in gpu.STAGES.values():
        for name in stage.data:
            (tiny / 'data' / name).mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(gpu, 'ROOT', tiny)
    monkeypatch.setattr(gpu, 'RESULTS', common.RESULTS)
    gpu.ran, gpu.in_process, gpu.tiny = ran, run, tiny
    return gpu


@pytest.mark.slow
def test_every_stage(gpu):
    args = gpu.parse_args(['--out', str(gpu.tiny / 'out'), '--work-dir',
                           str(gpu.tiny / 'work')])
    for name in args.stages:
        assert gpu.run_stage(name, args, 1e3, gpu.in_process), name
        result = json.loads((args.out / f'gpu_{name}.json').read_text())
        assert result['complete'] and result['gpu']['name']
        for file in result['results']:
            assert (args.out / file).is_file()
        assert gpu.is_done(name, args.out)
    assert result['results'] == ['featjnd_tiny.json']
    tests = json.loads((args.out / 'gpu_tests.json').read_text())
    assert tests['tests'] == dict(passed=3, skipped=2)


def test_a_stage_that_is_done_is_not_run_again(gpu, monkeypatch, capsys):
    monkeypatch.setattr(
        gpu, 'run_stage', lambda name, args, seconds: pytest.fail(name))
    out = gpu.tiny / 'out'
    done = dict(complete=True, gpu=gpu.device())
    out.mkdir()
    for name in gpu.SHORT:
        (out / f'gpu_{name}.json').write_text(json.dumps(done))
    assert gpu.main(['--out', str(out)]) == 0
    assert capsys.readouterr().out.count('done before') == len(gpu.SHORT)


def test_what_is_missing_or_fails_is_told(gpu, capsys):
    (gpu.tiny / 'data/cifar10').rmdir()
    args = ['--out', str(gpu.tiny / 'out'), '--stages', 'cifar10']
    assert gpu.main(args) == 1
    result = json.loads((gpu.tiny / 'out/gpu_cifar10.json').read_text())
    assert result['missing_data'] == ['cifar10'] and not result['complete']
    assert gpu.main([*args, '--minutes', '0.1']) == 1
    assert 'no time left' in capsys.readouterr().out


def test_a_script_is_stopped_at_its_limit(gpu):
    code = 'import time; print("begun", flush=True); time.sleep(60)'
    (gpu.tiny / 'sleeper.py').write_text(code)
    stopped = gpu.run(['-m', 'sleeper'], 3)
    assert stopped['exit'] is None and stopped['seconds'] < 20
    assert stopped['output'] == ['begun']
    ended = gpu.run(['-m', 'this'], 30)
    assert ended['exit'] == 0 and 'Zen of Python' in ended['output'][0]


@pytest.fixture
def shared(tmp_path):
    """Folders as those that the bundle is made of."""
    wheels = tmp_path / 'gpu/wheels'
    wheels.mkdir(parents=True)
    (tmp_path / 'gpu/setup.sh').write_text('echo set up')
    (wheels / 'a.whl').write_bytes(bytes(1 << 20))
    folder = tmp_path / 'data/cifar10'
    folder.mkdir(parents=True)
    meta = dict(
        grid=2, tile=32, classes=['a', 'b'], train=dict(n=7), test=dict(n=4))
    (folder / 'meta.json').write_text(json.dumps(meta))
    rng = np.random.default_rng(0)
    for split, n in (('train', 7), ('test', 4)):
        np.save(folder / f'labels_{split}.npy', np.arange(n) % 2)
        for i in range(-(-n // 4)):
            Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(
                folder / f'{split}_{i:04d}.webp', lossless=True)
    return tmp_path


def test_the_bundle(shared, monkeypatch, tmp_path, capsys):
    """In two pieces, unpacked one over the other, as on the machine."""
    import gpu_bundle
    root = tmp_path / 'checkout'
    root.mkdir()
    monkeypatch.setattr(gpu_bundle, 'ROOT', root)
    monkeypatch.setattr(gpu_bundle, 'checkout_size', lambda: 1 << 20)
    known = ['cifar10', '--gpu', str(shared / 'gpu'), '--data',
             str(shared / 'data')]
    for more, wheels in ((['--images', '0', '4'], 1),
                         (['--images', '4', '7', '--no-wheels'], 0)):
        assert gpu_bundle.main([*known, *more]) == 0
        assert len(list((root / '.gpu').rglob('*.whl'))) == wheels
        code = (root / '.gpu/unpack.py').read_text()
        exec(compile(code, 'unpack.py', 'exec'),
             dict(__file__=str(root / '.gpu/unpack.py')))
    assert '--stages cifar10' in capsys.readouterr().out
    for split, n in (('train', 7), ('test', 4)):
        files = sorted((root / 'data/cifar10' / split).rglob('*.png'))
        assert sorted(f.stem for f in files) == [f'{i:05d}' for i in range(n)]
        assert all('ab'[int(f.stem) % 2] == f.parent.name for f in files)
    mosaic = np.asarray(Image.open(shared / 'data/cifar10/train_0001.webp'))
    cell = np.asarray(Image.open(root / 'data/cifar10/train/b/00005.png'))
    assert np.array_equal(cell, mosaic[:32, 32:])
    with pytest.raises(SystemExit, match='more than 1: take fewer stages'):
        gpu_bundle.main([*known, '--limit-mib', '1'])
    assert not (root / '.gpu').exists()
    with pytest.raises(SystemExit, match='no folder'):
        gpu_bundle.main([*known[:2], str(tmp_path / 'nowhere')])
