"""Importing the package must not drag in the host libraries."""
import subprocess
import sys

HOSTS = ('mmdet', 'mmpretrain', 'mmseg')


def loaded_by(code, names):
    code += (f'\nimport sys; print([n for n in {names!r} '
             'if n in sys.modules])')
    out = subprocess.run([sys.executable, '-c', code],
                         capture_output=True, text=True, check=True)
    return out.stdout.strip().splitlines()[-1]


def test_import_loads_no_host():
    names = HOSTS + ('mmcv', 'torch', 'matplotlib', 'cv2')
    assert loaded_by('import mmfeatjnd', names) == '[]'


def test_pure_functions_load_no_framework():
    code = 'import mmfeatjnd.functional'
    assert loaded_by(code, HOSTS + ('mmcv', 'mmengine.runner')) == '[]'


def test_registered_classes_load_no_host():
    # What a prefixed type imports under another library's default scope.
    code = """
import importlib
from mmengine.registry import Registry
import mmfeatjnd.registry as ours
locations = [location for child in vars(ours).values()
             if isinstance(child, Registry) and child.scope == 'mmfeatjnd'
             for location in child._locations]
assert len(locations) >= 4, locations
for location in locations:
    importlib.import_module(location)
"""
    assert loaded_by(code, HOSTS) == '[]'
