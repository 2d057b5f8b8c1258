"""Packaging of MMFeatJND.

``tools``, ``configs`` and ``model-index.yml`` travel inside the package as
``mmfeatjnd/.mim``, as in the other OpenMMLab packages, so that
``mmfeatjnd::...`` configs and ``mim`` commands work after installation.
"""
import os
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.develop import develop

ROOT = Path(__file__).resolve().parent
MIM_PARTS = ('tools', 'configs', 'model-index.yml')


def read_version():
    scope = {}
    exec((ROOT / 'mmfeatjnd' / 'version.py').read_text(), scope)
    return scope['__version__']


def read_requirements(name):
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    lines = [line.split('#')[0].strip() for line in lines]
    return [line for line in lines if line]


def read_readme():
    readme = ROOT / 'README.md'
    return readme.read_text(encoding='utf-8') if readme.is_file() else ''


def fill_mim(package_dir, link):
    """Put the parts below ``package_dir/.mim``, as links or as copies."""
    mim = Path(package_dir) / '.mim'
    if mim.is_symlink():
        mim.unlink()
    elif mim.is_dir():
        shutil.rmtree(mim)  # removes links, not what they point at
    mim.mkdir(parents=True)
    for part in MIM_PARTS:
        source, target = ROOT / part, mim / part
        if not source.exists():
            continue
        if link:
            try:
                target.symlink_to(os.path.relpath(source, mim))
                continue
            except OSError:  # a file system without links: copy
                pass
        if source.is_dir():
            shutil.copytree(
                source, target, ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copy(source, target)


class BuildPy(build_py):
    """Wheels get copies; editable installs (PEP 660) get links.

    pip's editable installs never run ``develop``, and a wheel may be built
    from a checkout that already holds links. Hence neither is told from
    ``sys.argv``, and copies go to the build folder, not to the checkout.
    """

    def run(self):
        super().run()
        if getattr(self, 'editable_mode', False):
            fill_mim(ROOT / 'mmfeatjnd', link=True)
        else:
            fill_mim(Path(self.build_lib) / 'mmfeatjnd', link=False)


class Develop(develop):
    """``python setup.py develop`` of older setuptools."""

    def run(self):
        fill_mim(ROOT / 'mmfeatjnd', link=True)
        super().run()


setup(
    name='mmfeatjnd',
    version=read_version(),
    description='Just noticeable difference of deep features as a plugin for '
    'OpenMMLab models',
    long_description=read_readme(),
    long_description_content_type='text/markdown',
    author='The MMFeatJND Contributors',
    license='Apache-2.0',
    keywords='computer vision, just noticeable difference, deep features, '
    'feature coding, quantization',
    packages=find_packages(include=['mmfeatjnd', 'mmfeatjnd.*']),
    python_requires='>=3.10,<3.13',
    install_requires=read_requirements('runtime'),
    extras_require={
        name: read_requirements(name)
        for name in ('onedl', 'upstream', 'tests')
    },
    cmdclass=dict(build_py=BuildPy, develop=Develop),
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    zip_safe=False)
