"""Create the environment that MMFeatJND's demo and tests run in.

    python3 tools/setup_env.py [--venv .venv] [--python PY] [--dry-run]

Needs nothing but the standard library. Each finished step is recorded in the
environment, so an interrupted run goes on where it stopped and a complete
one returns at once. The versions come from ``requirements/``.

The syntax is kept old on purpose: an unsupported Python has to get as far as
printing which one is needed.
"""
import argparse
import glob
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SUPPORTED = ((3, 12), (3, 11), (3, 10))
STAMP = '.mmfeatjnd-setup.json'
FREE_GB = 12  # environment ~6 GB, pip's downloads and cache about the same
HEARTBEAT = 30  # seconds between progress lines when not on a terminal

# Set by a user's shell, each would make pip or Python look elsewhere.
FOREIGN_ENV = ('PYTHONHOME', 'PYTHONPATH', 'PIP_PREFIX', 'PIP_TARGET',
               'PIP_USER', 'PIP_ROOT', 'PIP_REQUIREMENT', 'PIP_CONSTRAINT')

OFFLINE = ('Check the connection. Behind a proxy set HTTPS_PROXY=http://HOST:'
           'PORT; for a mirror set PIP_INDEX_URL. Without network, fill a '
           'folder with the wheels on a machine that has it (CONTRIBUTING.md, '
           '"Without network") and run with PIP_NO_INDEX=1 '
           'PIP_FIND_LINKS=/path/to/folder.')

# First match wins, so the specific causes stand before the general ones.
DIAGNOSES = (
    (r'No space left on device',
     'The disk is full.',
     'Free about {} GB, or put pip\'s temporary files on another disk with '
     'TMPDIR=/path.'.format(FREE_GB)),
    (r'Killed signal terminated program|internal compiler error: Killed|'
     r'virtual memory exhausted|Cannot allocate memory',
     'The machine ran out of memory while compiling.',
     'Compile fewer files at a time: MAX_JOBS=1.'),
    (r'fatal error: Python\.h',
     'The Python headers are missing.',
     'Install those of the Python in use, for example: apt-get install '
     'python3-dev, or python3.12-dev.'),
    (r'CERTIFICATE_VERIFY_FAILED|SSLCertVerificationError|SSLError',
     'The package index was reached, but its certificate was not accepted.',
     'If a proxy of your network re-signs traffic, point PIP_CERT at its '
     'certificate file; else check the system\'s date and its '
     'ca-certificates package.'),
    (r'ProxyError|Tunnel connection failed',
     'The proxy refused the connection to the package index.',
     'Check HTTP_PROXY and HTTPS_PROXY. ' + OFFLINE),
    (r'NewConnectionError|NameResolutionError|Name or service not known|'
     r'Temporary failure in name resolution|Connection refused|'
     r'ConnectTimeoutError|ReadTimeoutError|timed out|'
     r'Network is unreachable|Connection reset by peer|Max retries exceeded|'
     r'Failed to establish a new connection|Could not fetch URL',
     'The package index cannot be reached (no network?).',
     OFFLINE),
    (r'from versions: none\)',
     'No package index or wheel folder offers this package for this Python '
     'and platform (no network, PIP_NO_INDEX set, or a platform without '
     'wheels).',
     OFFLINE),
    (r'No matching distribution found|Could not find a version',
     'The package index does not offer the required version for this Python '
     'and platform.',
     'Supported are Linux on x86-64 and Python 3.10 to 3.12; a mirror '
     '(PIP_INDEX_URL) may be out of date.'),
    (r'DO NOT MATCH THE HASHES',
     'A download was damaged.',
     'Empty pip\'s cache (pip cache purge) and run again.'),
    (r'Permission denied',
     'A file or folder cannot be written.',
     'Check who owns the environment\'s folder and pip\'s cache folder.'),
    (r'lib(GL|gthread-2\.0|glib-2\.0)\.so',
     'OpenCV needs system libraries that are missing.',
     'Install them, for example: apt-get install libgl1 libglib2.0-0'),
    (r'ninja: build stopped|error: command .* failed',
     'mmcv did not compile.',
     'The first "error:" in the log says why. The compiler must know C++17 '
     '(g++ 9 or later).'),
)


class SetupError(Exception):
    """A failure the user can act on: what is wrong and what to do."""

    def __init__(self, cause, remedy, details=''):
        Exception.__init__(self, cause)
        self.cause, self.remedy, self.details = cause, remedy, details

    def __str__(self):
        text = 'ERROR: {}\n  What to do: {}'.format(self.cause, self.remedy)
        return self.details + '\n\n' + text if self.details else text


def diagnose(text):
    """Name the cause of a failed pip run and its remedy.

    Args:
        text (str): The end of pip's output.

    Returns:
        tuple[str, str] | None: Cause and remedy, None if nothing known is
        found.
    """
    for pattern, cause, remedy in DIAGNOSES:
        if re.search(pattern, text):
            return cause, remedy
    return None


def run_quiet(cmd, env=None):
    """Run a short command. Returns (exit status, stdout and stderr)."""
    try:
        proc = subprocess.run(
            cmd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True)
    except OSError as error:
        return 127, str(error)
    return proc.returncode, proc.stdout


def read_requirements(name):
    """Requirement lines of ``requirements/<name>.txt``, no comments."""
    with open(os.path.join(ROOT, 'requirements', name + '.txt')) as file:
        lines = [line.split('#')[0].strip() for line in file]
    return [line for line in lines if line]


# --------------------------------------------------------------- the checks
def python_version(python):
    """(major, minor) of an interpreter, None if it does not run."""
    # A pyenv shim exists on PATH even for versions that do not run, and its
    # error ends with lines that are not a version.
    status, out = run_quiet([
        python, '-c', 'import sys; print("%d.%d" % sys.version_info[:2])'
    ])
    match = re.match(r'(\d+)\.(\d+)\s*$', out)
    if status or not match:
        return None
    return int(match.group(1)), int(match.group(2))


def find_python(asked=None):
    """The interpreter to build the environment with.

    Args:
        asked (str | None): What ``--python`` names. Defaults to None: the
            running interpreter if it is supported, else one from PATH.

    Returns:
        tuple[str, tuple[int, int]]: Its path and version.
    """
    names = ', '.join('{}.{}'.format(*version) for version in SUPPORTED[::-1])
    remedy = ('Install one of Python {} (for example: apt-get install '
              'python3.12 python3.12-venv python3.12-dev), or name one with '
              '--python /path/to/python.'.format(names))
    if asked:
        version = python_version(asked)
        if version in SUPPORTED:
            return shutil.which(asked) or asked, version
        raise SetupError(
            '--python {} {}; supported are {}.'.format(
                asked, 'is Python {}.{}'.format(*version)
                if version else 'does not run', names), remedy)
    if sys.version_info[:2] in SUPPORTED:
        return sys.executable, tuple(sys.version_info[:2])
    for version in SUPPORTED:
        path = shutil.which('python{}.{}'.format(*version))
        if path and python_version(path) == version:
            print('Python {}.{} is not supported, using {}'.format(
                sys.version_info[0], sys.version_info[1], path))
            return path, version
    raise SetupError(
        'Python {}.{} ({}) is not supported; supported are {}, and none of '
        'them is on PATH.'.format(sys.version_info[0], sys.version_info[1],
                                  sys.executable, names), remedy)


def check_compiler(python):
    """Compile a file that includes Python.h.

    Args:
        python (str): Whose headers are meant.

    Returns:
        str: The compiler, as a value for ``CXX``.
    """
    asked = os.environ.get('CXX')
    choices = [asked] if asked else ['c++', 'g++', 'clang++']
    compiler = next(
        (c for c in choices if shutil.which(shlex.split(c)[0])), None)
    remedy = ('Install one, for example: apt-get install g++ (or set CXX to '
              'the one to use). mmcv\'s operators are compiled here, because '
              'no ready-made build exists for this PyTorch.')
    if compiler is None:
        raise SetupError(
            'No C++ compiler: {} not found on PATH.'.format(
                'CXX={} was'.format(asked) if asked else
                'c++, g++ and clang++ were'), remedy)
    include = run_quiet([
        python, '-c',
        'import sysconfig; print(sysconfig.get_path("include"))'
    ])[1].strip()
    folder = tempfile.mkdtemp()
    try:
        source = os.path.join(folder, 'probe.cpp')
        with open(source, 'w') as file:
            file.write('#include <Python.h>\n#include <optional>\n'
                       'std::optional<int> probe() { return 1; }\n')
        status, out = run_quiet(
            shlex.split(compiler) + [
                '-std=c++17', '-I', include, '-c', source, '-o',
                os.path.join(folder, 'probe.o')
            ])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if status:
        cause, remedy = diagnose(out) or (
            'The C++ compiler "{}" cannot compile a C++17 file.'.format(
                compiler), remedy)
        raise SetupError(cause, remedy, tail(out, 8))
    return compiler


def check_disk(venv):
    folder = os.path.abspath(venv)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    free = shutil.disk_usage(folder).free / 1e9
    if free < FREE_GB:
        raise SetupError(
            'Only {:.1f} GB are free on the disk of {}; the environment and '
            'its downloads need about {} GB.'.format(free, folder, FREE_GB),
            'Free some space, or put the environment on another disk: '
            '--venv /path/on/it (with make: VENV=/path/on/it).')


def find_gpu():
    """True if an NVIDIA GPU is visible, told without any library."""
    return bool(
        glob.glob('/proc/driver/nvidia/gpus/*') or
        glob.glob('/dev/nvidia[0-9]*') or
        (os.path.exists('/dev/dxg') and shutil.which('nvidia-smi')))


def find_cuda_home():
    """The CUDA toolkit's folder, None without nvcc and headers."""
    nvcc = shutil.which('nvcc')
    for home in (os.environ.get('CUDA_HOME'), os.environ.get('CUDA_PATH'),
                 nvcc and os.path.dirname(
                     os.path.dirname(os.path.realpath(nvcc))),
                 '/usr/local/cuda'):
        if home and os.path.isfile(os.path.join(home, 'bin', 'nvcc')) and (
                os.path.isfile(
                    os.path.join(home, 'include', 'cuda_runtime.h'))):
            return home
    return None


def count_jobs():
    """Compiler processes that fit the cores and the memory (2 GB each)."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return max(1, min(cores, int(memory / 2e9)))


# ---------------------------------------------------------------- the steps
class Step(object):
    """One command of the set-up.

    Args:
        name (str): Key in the stamp file and name of the log.
        title (str): What the user reads.
        args (list[str]): Arguments of the environment's Python.
        env (dict[str, str] | None): Variables to set. Defaults to None.
        files (Sequence[str]): Files whose content is part of the step.
            Defaults to ().
    """

    def __init__(self, name, title, args, env=None, files=()):
        self.name, self.title, self.args = name, title, args
        self.env, self.files = env or {}, files

    def digest(self, previous):
        """A hash that changes when this step or one before it does."""
        # MAX_JOBS and CXX say how a result is reached, not which.
        env = {k: v for k, v in self.env.items()
               if k not in ('MAX_JOBS', 'CXX', 'CFLAGS', 'CUDA_HOME')}
        content = [previous, self.name, self.args, env]
        for path in self.files:
            with open(os.path.join(ROOT, path), 'rb') as file:
                content.append(hashlib.sha256(file.read()).hexdigest())
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


PROBE_MMCV = """
# Loads the compiled operators alone: mmcv itself would import OpenCV, which
# has needs of its own.
import glob, importlib.util, os, torch
from importlib.machinery import ExtensionFileLoader
folder = importlib.util.find_spec('mmcv').submodule_search_locations[0]
path = glob.glob(os.path.join(folder, '_ext.*'))[0]
loader = ExtensionFileLoader('mmcv._ext', path)
spec = importlib.util.spec_from_loader('mmcv._ext', loader, origin=path)
ext = importlib.util.module_from_spec(spec)
loader.exec_module(ext)
print('CUDA:' + ext.get_compiling_cuda_version())
"""

VERIFY = """
import torch, torchvision
from mmcv.ops import nms
boxes = torch.tensor([[0., 0, 4, 4], [0, 0, 4, 3.9], [8, 8, 9, 9]])
scores = torch.tensor([.9, .8, .7])
assert torchvision.ops.nms(boxes, scores, .5).tolist() == [0, 2]
assert nms(boxes, scores, .5)[1].tolist() == [0, 2]
import mmdet, mmpretrain, mmseg
import mmdet.models, mmpretrain.models, mmseg.models
import mmfeatjnd
from mmfeatjnd.compat import check_environment
check_environment()
print('torch', torch.__version__, '| mmdet', mmdet.__version__,
      '| mmpretrain', mmpretrain.__version__, '| mmseg', mmseg.__version__,
      '| mmfeatjnd', mmfeatjnd.__version__)
"""


def make_steps(compiler, cuda_home):
    """The set-up in order.

    Args:
        compiler (str): Value for ``CXX``.
        cuda_home (str | None): The CUDA toolkit to compile with, None for
            the CPU operators only.
    """
    pip = ['-m', 'pip', 'install', '--disable-pip-version-check',
           '--no-input']
    torch, onedl = read_requirements('torch'), read_requirements('onedl')
    mmcv = [line for line in onedl if line.startswith('onedl-mmcv')]
    cflags = (os.environ.get('CFLAGS', '') + ' -g0').strip()
    env = {
        'CFLAGS': cflags,  # without debug symbols it is faster and smaller
        'CXX': compiler,
        'FORCE_CUDA': '1' if cuda_home else '0',
        'MAX_JOBS': os.environ.get('MAX_JOBS') or str(count_jobs()),
        'MMCV_WITH_OPS': '1',
    }
    if cuda_home:
        env['CUDA_HOME'] = cuda_home
        time_needed = '10 to 40 minutes, with the CUDA operators'
    else:
        # mmcv ignores FORCE_CUDA=0 where torch sees a GPU.
        env['CUDA_VISIBLE_DEVICES'] = ''
        time_needed = 'about 7 minutes on 2 cores, CPU operators only'
    return [
        Step('build', 'build tools',
             pip + ['--upgrade'] + read_requirements('build')),
        Step('torch', 'PyTorch (a download of about 3 GB)', pip + torch),
        # The pins of torch are repeated so that no dependency moves it.
        Step('mmcv', 'mmcv, compiled here (%s)' % time_needed,
             pip + ['-v', '--no-build-isolation'] + mmcv + torch, env),
        Step('hosts', 'MMDetection, MMPretrain, MMSegmentation',
             pip + onedl + torch),
        Step('tests', 'test tools', pip + read_requirements('tests')),
        Step('project', 'mmfeatjnd', pip +
             ['--no-build-isolation', '-e', ROOT],
             files=('setup.py', 'pyproject.toml', 'mmfeatjnd/version.py',
                    'requirements/runtime.txt')),
        Step('verify', 'a test of what was installed', ['-c', VERIFY]),
    ]


def tail(text, lines=20):
    return '\n'.join('  | ' + line for line in text.splitlines()[-lines:])


def read_text(path):
    with open(path, errors='replace') as file:
        return file.read()


def progress(log):
    """What a build has reached, from ninja's ``[3/78]`` lines."""
    with open(log, 'rb') as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 100000))
        text = file.read().decode(errors='replace')
    found = re.findall(r'^\s*\[(\d+)/(\d+)\]', text, re.MULTILINE)
    return ', {} of {} files'.format(*found[-1]) if found else ''


def run_logged(cmd, env, log, title):
    """Run a long command, its output in a file, a sign of life on screen.

    Returns:
        int: The exit status.
    """
    terminal = sys.stdout.isatty()
    start = beat = time.time()
    with open(log, 'w') as file:
        proc = subprocess.Popen(
            cmd,
            env=env,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT)
        try:
            while proc.poll() is None:
                time.sleep(.2)
                now = time.time()
                if now - beat < (1 if terminal else HEARTBEAT):
                    continue
                beat = now
                line = '  {}: {:d} min {:02d} s{}'.format(
                    title.split(' (')[0].split(',')[0],
                    *divmod(int(now - start), 60), progress(log))
                print('\r' + line.ljust(78) if terminal else line,
                      end='' if terminal else '\n', flush=True)
        finally:
            if proc.poll() is None:  # interrupted
                proc.terminate()
                proc.wait()
            if terminal:
                print('\r' + ' ' * 78 + '\r', end='', flush=True)
    return proc.returncode


class Environment(object):
    """The virtual environment and the record of the finished steps.

    Args:
        path (str): Its folder.
    """

    def __init__(self, path):
        self.path = os.path.abspath(path)
        self.python = os.path.join(self.path, 'bin', 'python')
        self.stamp = os.path.join(self.path, STAMP)
        try:
            with open(self.stamp) as file:
                self.record = json.load(file)
        except (OSError, ValueError):
            self.record = {}

    @property
    def ours(self):
        """Whether this script has made the folder."""
        return os.path.exists(self.stamp)

    @property
    def version(self):
        """(major, minor) from pyvenv.cfg, None if it is not usable."""
        if not os.path.exists(self.python):
            return None
        try:
            text = read_text(os.path.join(self.path, 'pyvenv.cfg'))
        except OSError:
            return None
        match = re.search(r'^version\s*=\s*(\d+)\.(\d+)', text, re.MULTILINE)
        return (int(match.group(1)), int(match.group(2))) if match else None

    def usable(self, version=None):
        """Whether its Python can be kept: ours, complete, not moved."""
        return (self.record.get('path') == self.path
                and self.version in SUPPORTED
                and version in (None, self.version))

    def save(self):
        # Written aside and renamed: a stamp is never half a stamp.
        with open(self.stamp + '.tmp', 'w') as file:
            json.dump(self.record, file, indent=1)
        os.replace(self.stamp + '.tmp', self.stamp)

    def check_replaceable(self):
        if os.path.isdir(self.path) and os.listdir(self.path) and (
                not self.ours):
            raise SetupError(
                '{} exists and was not made by this script.'.format(
                    self.path),
                'Delete or rename it, or choose another folder with --venv '
                '(with make: VENV=...).')

    def create(self, python):
        self.check_replaceable()
        shutil.rmtree(self.path, ignore_errors=True)
        os.makedirs(os.path.join(self.path, 'logs'))
        self.record = {}  # marks the folder as ours before anything is in it
        self.save()
        status, out = run_quiet([python, '-m', 'venv', self.path],
                                clean_env())
        if status:
            raise SetupError(
                'The environment could not be created in {}.'.format(
                    self.path),
                'On Debian and Ubuntu install the venv module of that Python, '
                'for example: apt-get install python3-venv, or '
                'python3.12-venv.',
                tail(out))
        self.record = {'path': self.path, 'done': {}}
        self.save()


def clean_env(extra=None, bin_dir=None):
    env = {k: v for k, v in os.environ.items() if k not in FOREIGN_ENV}
    env['PYTHONUNBUFFERED'] = '1'
    env.update(extra or {})
    if bin_dir:  # torch looks for ninja on PATH
        env['PATH'] = bin_dir + os.pathsep + env.get('PATH', '')
    return env


def mmcv_fault(venv, want_cuda):
    """Why the installed mmcv cannot be used, None if it can."""
    status, out = run_quiet([venv.python, '-c', PROBE_MMCV], clean_env())
    if status:
        return (out.strip() or 'unknown error').splitlines()[-1]
    if want_cuda and 'CUDA:not available' in out:
        return 'it has no CUDA operators'
    return None


def replace_opencv(venv, log):
    """Swap in the OpenCV without windows where libGL is missing.

    The hosts' requirements bring in two packages that both own the folder
    ``cv2``; which one wins is the order of installation.
    """
    status, out = run_quiet([venv.python, '-c', 'import cv2'], clean_env())
    if not status or not re.search(r'lib(GL|gthread|glib)', out):
        return
    print('  libGL is missing: using OpenCV without windows')
    find = ('from importlib.metadata import version; '
            'print(version("opencv-python-headless"))')
    version = run_quiet([venv.python, '-c', find], clean_env())[1].strip()
    pip = [venv.python, '-m', 'pip']
    with open(log, 'a') as file:
        for args in (['uninstall', '-y', 'opencv-python'],
                     ['install', '--force-reinstall', '--no-deps',
                      'opencv-python-headless==' + version]):
            subprocess.call(
                pip + args, env=clean_env(), stdout=file,
                stderr=subprocess.STDOUT)


def run_step(step, venv, label):
    """Run a step; raise SetupError with the end of its output."""
    log = os.path.join(venv.path, 'logs', step.name + '.log')
    if not os.path.isdir(os.path.dirname(log)):
        os.makedirs(os.path.dirname(log))
    env = clean_env(step.env, os.path.dirname(venv.python))
    print('{} {}'.format(label, step.title), flush=True)
    start = time.time()
    cmd = [venv.python] + step.args
    status = run_logged(cmd, env, log, step.title)
    if step.name == 'mmcv' and status == 0:
        want_cuda = step.env['FORCE_CUDA'] == '1'
        if mmcv_fault(venv, want_cuda):
            # pip kept or reused a build made for another torch.
            print('  an older build does not fit this PyTorch, compiling')
            status = run_logged(
                cmd + ['--force-reinstall', '--no-deps', '--no-cache-dir'],
                env, log, step.title)
            fault = status == 0 and mmcv_fault(venv, want_cuda)
            if fault:
                raise SetupError(
                    'mmcv was installed, but cannot be used: ' + fault,
                    'See {}; on a machine with a GPU check that nvcc and '
                    'PyTorch are of the same CUDA version.'.format(log),
                    tail(read_text(log)))
    if step.name == 'hosts' and status == 0:
        replace_opencv(venv, log)
    if status == 0:
        print('  done in {:d} min {:02d} s'.format(
            *divmod(int(time.time() - start), 60)), flush=True)
        return
    text = read_text(log)
    # A retry that succeeded also prints network errors: look at the end.
    known = diagnose('\n'.join(text.splitlines()[-60:]))
    if step.name == 'verify':
        cause = 'What was installed does not work: {}'.format(
            (text.strip() or 'no output').splitlines()[-1])
        remedy = 'Delete {} and run again.'.format(venv.path)
        if known:
            cause, remedy = known
    else:
        cause, remedy = known or (
            'The step "{}" failed (exit status {}).'.format(
                step.name, status),
            'Read the log; running again goes on from this step.')
    raise SetupError(cause, remedy + '\n  Full output: ' + log, tail(text))


def choose_cuda():
    """The CUDA toolkit to compile mmcv with, None for CPU operators."""
    if not find_gpu():
        return None
    home = find_cuda_home()
    if home is None:
        print('NOTE: a GPU is there, but no nvcc: mmcv\'s operators are built '
              'for the CPU only, and detectors will run only there. Install '
              'the CUDA toolkit and run again to get both.')
        return None
    return home


def check_cuda_match(venv, home):
    """Fail early where nvcc and torch are of different CUDA versions."""
    torch_cuda = run_quiet(
        [venv.python, '-c', 'import torch; print(torch.version.cuda)'],
        clean_env())[1].strip().splitlines()[-1]
    out = run_quiet([os.path.join(home, 'bin', 'nvcc'), '--version'])[1]
    match = re.search(r'release (\d+)\.', out)
    if match and torch_cuda.split('.')[0] != match.group(1):
        raise SetupError(
            'nvcc in {} is CUDA {}, PyTorch was built with CUDA {}: mmcv '
            'does not compile with both.'.format(home, match.group(1),
                                                 torch_cuda),
            'Install the CUDA {} toolkit and set CUDA_HOME to it, or build '
            'for the CPU only by hiding the GPU\'s toolkit: '
            'MMFEATJND_CPU_ONLY=1.'.format(torch_cuda.split('.')[0]))


def set_up(args):
    venv = Environment(args.venv)
    cpu_only = os.environ.get('MMFEATJND_CPU_ONLY') == '1'
    cuda_home = None if cpu_only else choose_cuda()

    python, keep = None, False
    if venv.usable() and not args.python:
        keep = True
    else:
        python, version = find_python(args.python)
        keep = venv.usable(version)
    done = venv.record.get('done', {}) if keep else {}

    steps, pending, previous = make_steps('c++', cuda_home), [], ''
    for step in steps:
        previous = step.digest(previous)
        if done.get(step.name) != previous or pending:
            pending.append((step, previous))
    if not pending:
        print('{} is complete'.format(args.venv))
        return
    names = [step.name for step, _ in pending]

    base, version = (python, version) if not keep else (venv.python,
                                                        venv.version)
    if not keep:
        venv.check_replaceable()
    if 'mmcv' in names:
        compiler = check_compiler(base)
        for step, _ in pending:
            if step.name == 'mmcv':
                step.env['CXX'] = compiler
    if 'torch' in names:
        check_disk(venv.path)

    if args.dry_run:
        if not keep:
            print('{} -m venv {}'.format(base, venv.path))
        for step, _ in pending:
            env = ['{}={}'.format(k, shlex.quote(v))
                   for k, v in sorted(step.env.items())]
            cmd = [venv.python] + step.args
            if step.name == 'verify':
                cmd[-1] = '<import and try the operators and the hosts>'
            print(' '.join(env + [shlex.quote(word) for word in cmd]))
        return

    print('Setting up {} with {} (Python {}.{}). Interrupt at any time: the '
          'next run goes on from there.'.format(args.venv, base, *version),
          flush=True)
    if not keep:
        venv.create(base)
    for step, digest in pending:
        if step.name == 'mmcv' and cuda_home:
            check_cuda_match(venv, cuda_home)
        label = '[{}/{}]'.format(
            [s.name for s in steps].index(step.name) + 1, len(steps))
        run_step(step, venv, label)
        venv.record['done'][step.name] = digest
        venv.save()
    print('{} is complete'.format(args.venv))


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description='Create the environment of the demo and the tests')
    parser.add_argument(
        '--venv', default='.venv', help='its folder (default: %(default)s)')
    parser.add_argument(
        '--python', help='the Python to use (default: this one if it is '
        'supported, else one from PATH)')
    parser.add_argument(
        '--dry-run', action='store_true',
        help='make the checks and print the commands, change nothing')
    return parser.parse_args(argv)


def main(argv=None):
    # Ends pip too when this script is told to end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        set_up(parse_args(argv))
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nInterrupted. Run the same command again to go on.',
              file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
