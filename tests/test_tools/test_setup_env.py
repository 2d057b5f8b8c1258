import importlib.util
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / 'tools' / 'setup_env.py'

spec = importlib.util.spec_from_file_location('setup_env', SCRIPT)
setup_env = importlib.util.module_from_spec(spec)
spec.loader.exec_module(setup_env)


def run(*args, **env):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, args)],
        capture_output=True,
        text=True,
        env={**os.environ, **env})


def executable(path, text):
    path.write_text('#!/bin/sh\n' + text)
    path.chmod(0o755)
    return path


def test_dry_run_prints_the_plan(tmp_path):
    out = run('--venv', tmp_path / 'venv', '--dry-run')
    assert out.returncode == 0, out.stderr
    lines = out.stdout.splitlines()
    order = [next(i for i, line in enumerate(lines) if text in line)
             for text in ('-m venv', 'setuptools', 'torch===2.13.0',
                          '--no-build-isolation onedl-mmcv==2.3.6',
                          'onedl-mmdetection==3.5.1', 'ruff', '-e')]
    assert order == sorted(set(order))
    build = next(line for line in lines if 'MAX_JOBS=' in line)
    assert '-g0' in build and 'onedl-mmcv' in build
    assert ('FORCE_CUDA=1' in build) != ("CUDA_VISIBLE_DEVICES=''" in build)
    assert not (tmp_path / 'venv').exists()


def test_no_compiler(tmp_path):
    out = run('--venv', tmp_path / 'venv', PATH=str(tmp_path), CXX='')
    assert out.returncode == 1
    assert 'No C++ compiler' in out.stderr
    assert 'apt-get install g++' in out.stderr
    assert not (tmp_path / 'venv').exists()


def test_compiler_that_does_not_compile(tmp_path):
    compiler = executable(tmp_path / 'cc', 'echo "cc1plus is gone"; exit 1\n')
    out = run('--venv', tmp_path / 'venv', CXX=str(compiler))
    assert out.returncode == 1
    assert 'cannot compile a C++17 file' in out.stderr
    assert 'cc1plus is gone' in out.stderr


@pytest.mark.parametrize('text, reason', [
    ('echo 3.9\n', 'is Python 3.9'),
    ('echo "no such version"; exit 127\n', 'does not run')])
def test_unsupported_python(tmp_path, text, reason):
    python = executable(tmp_path / 'python3', text)
    out = run('--venv', tmp_path / 'venv', '--python', python)
    assert out.returncode == 1
    assert reason in out.stderr
    assert '3.10, 3.11, 3.12' in out.stderr


def test_python_from_path_skips_what_does_not_run(tmp_path, monkeypatch):
    # As an unsupported interpreter would see it.
    monkeypatch.setattr(sys, 'version_info', (3, 9, 0))
    monkeypatch.setenv('PATH', str(tmp_path))
    executable(tmp_path / 'python3.12', 'exit 127\n')  # a pyenv shim
    with pytest.raises(setup_env.SetupError, match='3.9 .*none of them is'):
        setup_env.find_python()
    found = executable(tmp_path / 'python3.10', 'echo 3.10\n')
    assert setup_env.find_python() == (str(found), (3, 10))


def test_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / 'thesis.tex').write_text('years of work')
    out = run('--venv', tmp_path)
    assert out.returncode == 1
    assert 'was not made by this script' in out.stderr
    assert [p.name for p in tmp_path.iterdir()] == ['thesis.tex']


def test_unreachable_index_and_resume(tmp_path):
    venv = tmp_path / 'venv'
    offline = dict(
        PIP_CONFIG_FILE=os.devnull,
        PIP_INDEX_URL='http://127.0.0.1:9/simple',
        PIP_EXTRA_INDEX_URL='',
        PIP_FIND_LINKS='',
        PIP_RETRIES='1')
    out = run('--venv', venv, **offline)
    assert out.returncode == 1
    assert 'ERROR: The package index cannot be reached' in out.stderr
    assert 'HTTPS_PROXY' in out.stderr and 'PIP_FIND_LINKS' in out.stderr
    log = re.search(r'Full output: (.*)', out.stderr).group(1)
    assert 'Connection refused' in Path(log).read_text()

    (venv / 'kept').touch()  # the second run goes on, it does not start over
    out = run('--venv', venv, **dict(offline, PIP_NO_INDEX='1'))
    assert out.returncode == 1
    assert 'PIP_NO_INDEX set' in out.stderr
    assert (venv / 'kept').exists()


def finished(path):
    """An environment in which every step is recorded as done."""
    (path / 'bin').mkdir(parents=True)
    (path / 'bin' / 'python').symlink_to(sys.executable)
    (path / 'pyvenv.cfg').write_text(
        'version = {}.{}.0\n'.format(*sys.version_info))
    venv = setup_env.Environment(path)
    cuda_home = setup_env.choose_cuda()
    digest, venv.record = '', {'path': str(path), 'done': {}}
    for step in setup_env.make_steps('c++', cuda_home):
        digest = venv.record['done'][step.name] = step.digest(digest)
    venv.save()
    return venv


def test_second_run_is_free(tmp_path):
    finished(tmp_path / 'venv')
    # Processor time: the machine may be busy with something else.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = run('--venv', tmp_path / 'venv', PATH='')  # nothing is started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert out.returncode == 0
    assert 'is complete' in out.stdout
    assert after.ru_utime + after.ru_stime < (
        before.ru_utime + before.ru_stime + 1)


def test_changed_step_and_what_follows_run_again(tmp_path):
    venv = finished(tmp_path / 'venv')
    venv.record['done']['hosts'] = 'another list of versions'
    venv.save()
    out = run('--venv', tmp_path / 'venv', '--dry-run')
    assert out.returncode == 0, out.stderr
    lines = out.stdout.splitlines()
    assert 'onedl-mmdetection' in lines[0]  # no venv, no torch, no mmcv
    assert len(lines) == 4


@pytest.mark.parametrize('file, first', [
    ('build', 'build'), ('torch', 'torch'), ('onedl', 'hosts'),
    ('tests', 'tests')])
def test_other_requirements_are_installed(monkeypatch, file, first):
    """From the step that reads the file on, nothing counts as done."""

    def digests():
        found = {}
        for step in setup_env.make_steps('c++', None):
            found[step.name] = step.digest(''.join([*found.values()][-1:]))
        return found

    before, read = digests(), setup_env.read_requirements
    monkeypatch.setattr(
        setup_env, 'read_requirements',
        lambda name: read(name) + ['another'] * (name == file))
    after = digests()
    names = list(before)
    assert [n for n in names if after[n] != before[n]] == names[
        names.index(first):]


def test_moved_environment_is_made_again(tmp_path):
    finished(tmp_path / 'venv')
    (tmp_path / 'venv').rename(tmp_path / 'moved')
    out = run('--venv', tmp_path / 'moved', '--dry-run')
    assert '-m venv' in out.stdout


@pytest.mark.parametrize('output, cause', [
    ('OSError: [Errno 28] No space left on device', 'disk is full'),
    ("ProxyError('Cannot connect to proxy.', timeout())", 'proxy refused'),
    ('SSLError(SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED',
     'certificate'),
    ('ERROR: Could not find a version that satisfies the requirement '
     'torch===2.13.0 (from versions: 2.1.0, 2.2.0)\n'
     'ERROR: No matching distribution found for torch===2.13.0',
     'does not offer the required version'),
    ('c++: fatal error: Killed signal terminated program cc1plus\n'
     'ninja: build stopped: subcommand failed.', 'out of memory'),
    ('ImportError: libGL.so.1: cannot open shared object file: No such file '
     'or directory', 'OpenCV needs system libraries'),
    ('ninja: build stopped: subcommand failed.', 'did not compile')])
def test_diagnose(output, cause):
    found, remedy = setup_env.diagnose(output)
    assert cause in found
    assert remedy


def test_diagnose_of_something_new():
    assert setup_env.diagnose('a failure of a kind never seen') is None


def test_disk_check(tmp_path, monkeypatch):
    monkeypatch.setattr(setup_env, 'FREE_GB', 1e9)
    with pytest.raises(setup_env.SetupError, match='GB are free'):
        setup_env.check_disk(str(tmp_path / 'not' / 'yet'))


def test_progress_of_a_build(tmp_path):
    log = tmp_path / 'log'
    log.write_text('Collecting\n  [1/78] c++ a\n  [2/78] c++ b\nwarning')
    assert setup_env.progress(str(log)) == ', 2 of 78 files'
    log.write_text('Collecting\n')
    assert setup_env.progress(str(log)) == ''
