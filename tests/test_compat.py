import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmfeatjnd import compat

ROOT = Path(__file__).resolve().parent.parent


def add_distribution(folder, name, version):
    info = folder / f'{name.replace("-", "_")}-{version}.dist-info'
    info.mkdir(parents=True)
    (info / 'METADATA').write_text(
        f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')


def mirror(package, folder, leave_out):
    """An installed package as links, without some of its files."""
    source = Path(__import__(package).__file__).parent
    target = folder / package
    target.mkdir()
    for entry in source.iterdir():
        if not entry.name.startswith(leave_out):
            (target / entry.name).symlink_to(entry)
    return target


def run(code, path, *flags):
    """The last line that some code prints in a fresh interpreter."""
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(path), str(ROOT)]))
    out = subprocess.run([sys.executable, *flags, '-c', code],
                         capture_output=True, text=True, env=env)
    assert out.returncode == 0, out.stderr
    return out.stdout.strip().splitlines()[-1]


CHECK = """
from mmfeatjnd import compat
try:
    compat.check_environment()
    print('fine')
except compat.EnvironmentProblem as error:
    print(error)
"""


def test_this_environment_is_fine():
    compat.check_environment()
    assert compat.host_line() in ('onedl', 'upstream')


def test_both_lines(tmp_path, monkeypatch):
    add_distribution(tmp_path, 'onedl-mmdetection', '3.5.1')
    add_distribution(tmp_path, 'mmdet', '3.3.0')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(compat.EnvironmentProblem) as caught:
        compat.check_environment()
    text = str(caught.value)
    assert 'mmdet: onedl-mmdetection and mmdet' in text
    assert 'pip uninstall -y mmdet onedl-mmdetection' in text
    assert 'mmseg' not in text  # only what is installed twice
    assert isinstance(caught.value, RuntimeError)


def test_line_from_distributions(tmp_path):
    code = 'from mmfeatjnd.compat import host_line; print(host_line())'
    assert run(code, tmp_path, '-S') == 'None'
    add_distribution(tmp_path / 'a', 'mmengine', '0.10.7')
    assert run(code, tmp_path / 'a', '-S') == 'upstream'
    add_distribution(tmp_path / 'b', 'onedl-mmengine', '0.10.12')
    assert run(code, tmp_path / 'b', '-S') == 'onedl'


def test_mmcv_without_operators(tmp_path):
    mirror('mmcv', tmp_path, '_ext')
    text = run(CHECK, tmp_path)
    assert 'has no compiled operators' in text
    assert '--no-build-isolation' in text


def test_mmcv_operators_of_another_torch(tmp_path):
    suffix = '.so' if os.name == 'posix' else '.pyd'
    (mirror('mmcv', tmp_path, '_ext') / f'_ext{suffix}').write_text('broken')
    text = run(CHECK, tmp_path)
    assert 'built for another torch' in text
    assert '--force-reinstall' in text


def test_torchvision_that_does_not_match(tmp_path):
    # Without its library no operator is registered, as with a wrong build.
    mirror('torchvision', tmp_path, '_C')
    text = run(CHECK, tmp_path)
    assert 'operator torchvision::nms does not exist' in text
    assert '"torchvision===0.28.0"' in text


def test_mmengine_without_pkg_resources(tmp_path):
    add_distribution(tmp_path, 'mmengine', '0.10.7')
    (tmp_path / 'mmengine' / 'config').mkdir(parents=True)
    (tmp_path / 'mmengine' / '__init__.py').touch()
    (tmp_path / 'mmengine' / 'version.py').write_text(
        "__version__ = '0.10.7'\n")
    (tmp_path / 'mmengine' / 'config' / '__init__.py').touch()
    (tmp_path / 'mmengine' / 'config' / 'utils.py').write_text(
        'MODULE2PACKAGE = {}\n')
    # -S: no site-packages, so no setuptools
    assert 'setuptools<82' in run(CHECK, tmp_path, '-S')


def test_nothing_installed(tmp_path):
    assert 'MMEngine is not installed' in run(CHECK, tmp_path, '-S')
    code = CHECK.replace('check_environment()', "require('mmseg')")
    text = run(code, tmp_path, '-S')
    assert 'mmseg is not installed' in text and '.[onedl]' in text


def test_require():
    import mmpretrain
    assert compat.require('mmpretrain') is mmpretrain
    with pytest.raises(ValueError, match='mmdet.*mmtrack'):
        compat.require('mmtrack')


def test_require_a_broken_library(tmp_path):
    (tmp_path / 'mmdet').mkdir()
    (tmp_path / 'mmdet' / '__init__.py').write_text(
        'assert False, "MMCV==9 is used but incompatible"\n')
    code = CHECK.replace('check_environment()', "require('mmdet')")
    text = run(code, tmp_path)
    assert 'MMCV==9 is used but incompatible' in text
    assert 'requirements/' in text


def test_host_library():
    from mmpretrain.models import ImageClassifier
    from mmseg.models import EncoderDecoder

    class Extended(ImageClassifier):
        pass

    for cls, name in ((ImageClassifier, 'mmpretrain'),
                      (Extended, 'mmpretrain'), (EncoderDecoder, 'mmseg'),
                      (torch.nn.Module, None)):
        assert compat.host_library(cls.__new__(cls)) == name


@pytest.mark.parametrize('base, model', [
    ('mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py',
     'EncoderDecoder'),
    ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'RetinaNet'),
    ('mmpretrain::resnet/resnet18_8xb16_cifar10.py', 'ImageClassifier')])
def test_configs_of_every_host(tmp_path, base, model):
    (tmp_path / 'config.py').write_text(f'_base_ = {base!r}\n')
    assert Config.fromfile(tmp_path / 'config.py').model.type == model


@pytest.mark.skipif(
    not (ROOT / 'mmfeatjnd' / '.mim').is_dir(), reason='not installed')
def test_configs_of_this_package(tmp_path):
    base = 'mmfeatjnd::hosts/resnet18_1xb128-5e_cifar10.py'
    (tmp_path / 'config.py').write_text(f'_base_ = {base!r}\n')
    config = Config.fromfile(tmp_path / 'config.py')
    assert config.model.type == 'ImageClassifier'


@pytest.mark.parametrize('text, numbers', [('0.10.7', (0, 10, 7)),
                                           ('2.13.0+cpu', (2, 13, 0)),
                                           ('0.11.0rc3', (0, 11, 0))])
def test_release(text, numbers):
    assert compat._release(text) == numbers
