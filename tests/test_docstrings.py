"""Examples in docstrings run, and every public function has one."""
import doctest
import importlib
import inspect
import pkgutil

import pytest

from mmfeatjnd import coding, functional

MODULES = [
    f'{package.__name__}.{module.name}' for package in (functional, coding)
    for module in pkgutil.iter_modules(package.__path__)
]
PUBLIC = [(package, name) for package in (functional, coding)
          for name in package.__all__ if callable(getattr(package, name))]


@pytest.mark.parametrize('name', MODULES)
def test_examples_run(name):
    if name.startswith(coding.__name__):
        pytest.importorskip('constriction')
    # not an attribute of the package, which may be a function of that name
    found = doctest.testmod(importlib.import_module(name))
    assert not found.failed


@pytest.mark.parametrize('package, name', PUBLIC,
                         ids=[name for _, name in PUBLIC])
def test_everything_public_has_an_example(package, name):
    text = inspect.getdoc(getattr(package, name))
    assert '>>> ' in text, f'{package.__name__}.{name}: give an example'


def test_public_lists_are_flat_and_complete():
    for package in (functional, coding):
        assert package.__all__ == sorted(package.__all__)
        assert len(set(package.__all__)) == len(package.__all__)
        for name in package.__all__:
            assert hasattr(package, name), name
