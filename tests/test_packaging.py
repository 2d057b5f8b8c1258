import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'mmfeatjnd'

# Not requirements: the host libraries, and what each of them brings.
FROM_HOSTS = {
    'cv2', 'mmcv', 'mmdet', 'mmengine', 'mmpretrain', 'mmseg', 'pycocotools',
    'torch', 'torchvision'
}


def requirements(name):
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return {line.split('#')[0].strip() for line in lines} - {''}


@pytest.fixture
def checkout(tmp_path):
    """A copy of what packaging reads; the folder of the tests stays clean."""
    copy = tmp_path / 'checkout'
    ignore = shutil.ignore_patterns('__pycache__', '.mim', '*.egg-info')
    for name in ('mmfeatjnd', 'configs', 'tools', 'requirements'):
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    for name in ('setup.py', 'pyproject.toml', 'MANIFEST.in', 'LICENSE',
                 'model-index.yml'):
        shutil.copy(ROOT / name, copy)
    return copy


def build(kind, checkout, out):
    out.mkdir()
    code = ('import sys; from setuptools import build_meta; '
            'getattr(build_meta, "build_" + sys.argv[1])(sys.argv[2])')
    subprocess.run([sys.executable, '-c', code, kind, str(out)],
                   cwd=checkout, check=True, capture_output=True)
    return next(out.iterdir())


def test_wheel_after_editable_install(checkout, tmp_path):
    build('editable', checkout, tmp_path / 'editable')
    mim = checkout / 'mmfeatjnd' / '.mim'
    for part in ('configs', 'tools', 'model-index.yml'):
        assert (mim / part).is_symlink()
        assert (mim / part).resolve() == (checkout / part).resolve()

    with zipfile.ZipFile(
            build('wheel', checkout, tmp_path / 'wheel')) as wheel:
        names = set(wheel.namelist())
        metadata = wheel.read(
            next(n for n in names if n.endswith('METADATA'))).decode()
    for path in [*PACKAGE.rglob('*.py'), *(ROOT / 'configs').rglob('*.py')]:
        if '.mim' in path.parts:
            continue
        inside = path.relative_to(ROOT)
        if inside.parts[0] == 'configs':
            inside = Path('mmfeatjnd/.mim') / inside
        assert inside.as_posix() in names
    assert 'mmfeatjnd/.mim/model-index.yml' in names
    assert 'mmfeatjnd/.mim/tools/setup_env.py' in names
    assert (mim / 'configs').is_symlink()  # building did not touch them

    required = {line.partition(': ')[2] for line in metadata.splitlines()
                if line.startswith('Requires-Dist')}
    assert {r for r in required if 'extra' not in r} == requirements('runtime')
    for extra in ('onedl', 'upstream', 'tests'):
        assert sum(f'extra == "{extra}"' in r for r in required) == len(
            requirements(extra))
    python = next(line for line in metadata.splitlines()
                  if line.startswith('Requires-Python'))
    assert '>=3.10' in python and '<3.13' in python


def test_every_package_is_importable_from_a_wheel():
    missing = [
        folder for folder in {p.parent for p in PACKAGE.rglob('*.py')}
        if '.mim' not in folder.parts and not (folder /
                                               '__init__.py').is_file()
    ]
    assert missing == []


def test_declared_requirements_cover_the_imports():
    allowed = requirements('runtime') | FROM_HOSTS | {'mmfeatjnd'}
    allowed |= set(sys.stdlib_module_names)
    assert any(x.startswith('pillow') for x in allowed)
    allowed.add('PIL')  # what it is imported by
    for path in PACKAGE.rglob('*.py'):
        if '.mim' in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in names:
                assert name.partition('.')[0] in allowed, f'{path}: {name}'


def test_model_index_names_existing_metafiles():
    lines = (ROOT / 'model-index.yml').read_text().splitlines()
    files = [line.split('- ')[1] for line in lines if '- ' in line]
    assert files
    for name in files:
        assert (ROOT / name).is_file(), name


def test_pins_of_torch_refuse_local_builds():
    assert all('===' in line for line in requirements('torch'))
