"""Which part of the package may import which; lazy imports count as well."""
import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / 'mmfeatjnd'

#: Of every part (a folder, or a file of the package itself), what it may
#: import beside itself.
BASE = {'version', 'compat', 'registry', 'utils'}
CORE = BASE | {'functional', 'hosts', 'coding', 'models'}
API = CORE | {'engine', 'evaluation', 'visualization', 'datasets', 'apis'}
MAY_IMPORT = {
    '__init__': {'version', 'compat'},
    'version': set(),
    'compat': set(),
    'registry': set(),
    'utils': {'version', 'compat'},
    # needs torch alone
    'functional': set(),
    'hosts': BASE | {'functional'},
    'coding': BASE | {'functional'},
    'models': CORE - {'models'},
    'datasets': BASE | {'functional'},
    'evaluation': BASE | {'functional'},
    'visualization': CORE | {'evaluation'},
    'engine': CORE,
    'apis': API - {'apis', 'engine', 'datasets'},
    'cli': API,
}


def modules(path):
    """Names of the modules of the package that a file imports."""
    package = ('mmfeatjnd', *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level \
                else ()
            base = '.'.join([*base, *([node.module] if node.module else [])])
            # `from mmfeatjnd import x` may name a part, or what is in one
            names = [base] if base != 'mmfeatjnd' else [
                f'mmfeatjnd.{alias.name}' for alias in node.names
            ]
        else:
            continue
        yield from (n for n in names if n.startswith('mmfeatjnd.'))


def imports():
    """Pairs of a file and a part that it imports."""
    for path in PACKAGE.rglob('*.py'):
        if '.mim' not in path.parts:
            for name in modules(path):
                yield path.relative_to(PACKAGE), name.split('.')[1]


def test_every_part_has_a_place():
    parts = {
        p.stem if p.suffix else p.name
        for p in PACKAGE.iterdir()
        if p.suffix == '.py' or (p / '__init__.py').is_file()
    }
    assert parts == set(MAY_IMPORT)


def test_parts_import_downwards():
    wrong = [
        f'{file} imports {part}' for file, part in imports()
        if part in MAY_IMPORT and part != Path(file.parts[0]).stem
        and part not in MAY_IMPORT[Path(file.parts[0]).stem]
    ]
    assert not wrong, wrong


def test_no_two_parts_import_each_other():
    order = []
    while len(order) < len(MAY_IMPORT):
        ready = [
            part for part, below in MAY_IMPORT.items()
            if part not in order and below - {part} <= set(order)
        ]
        assert ready, set(MAY_IMPORT) - set(order)
        order += ready
    assert order.index('functional') < order.index('models') < order.index(
        'engine')
    assert order.index('models') < order.index('apis') < order.index('cli')


@pytest.mark.parametrize('line, found', [
    ('import mmfeatjnd.apis.curve', ['mmfeatjnd.apis.curve']),
    ('from mmfeatjnd import apis, compat', [
        'mmfeatjnd.apis', 'mmfeatjnd.compat'
    ]),
    ('from ..apis import x', ['mmfeatjnd.apis']),
    ('from .. import apis', ['mmfeatjnd.apis']),
    ('from . import x', ['mmfeatjnd.engine']),
    ('def f():\n    from mmfeatjnd.apis import x', ['mmfeatjnd.apis']),
    ('import torch', []),
])
def test_what_counts_as_an_import(tmp_path, monkeypatch, line, found):
    monkeypatch.setattr(f'{__name__}.PACKAGE', tmp_path)
    (tmp_path / 'engine').mkdir()
    file = tmp_path / 'engine/hook.py'
    file.write_text(line)
    assert list(modules(file)) == found
