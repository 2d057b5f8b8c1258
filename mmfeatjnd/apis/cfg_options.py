"""``--cfg-options`` that also takes dicts, such as a hook."""
import ast
from typing import Any

from mmengine.config import DictAction


def _value(node: ast.AST) -> Any:
    """Literals, lists, tuples, ``{...}`` and ``dict(...)``; nothing runs."""
    if isinstance(node, ast.Call) and isinstance(
            node.func, ast.Name) and node.func.id == 'dict' and not node.args:
        return {k.arg: _value(k.value) for k in node.keywords}
    if isinstance(node, ast.Dict):
        return {
            _value(k): _value(v)
            for k, v in zip(node.keys, node.values)
        }
    if isinstance(node, (ast.List, ast.Tuple)):
        values = [_value(e) for e in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    return ast.literal_eval(node)


class CfgOptions(DictAction):
    """MMEngine's ``DictAction``, plus values written as in a config.

    ``custom_hooks="[dict(type='mmfeatjnd.PerturbationHook', nrmse=0.5)]"``:
    values with a dict are read as Python literals; all others mean what they
    mean in MMEngine.
    """

    @staticmethod
    def _parse_iterable(val: str) -> Any:
        if 'dict(' not in val and '{' not in val:
            return DictAction._parse_iterable(val)
        try:
            return _value(ast.parse(val, mode='eval').body)
        except (SyntaxError, ValueError) as error:
            raise ValueError(
                f'--cfg-options: cannot read {val!r} ({error}). Write it as '
                "in a config, e.g. \"[dict(type='mmfeatjnd.PerturbationHook',"
                'nrmse=0.5)]".') from error
