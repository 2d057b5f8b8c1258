"""``--cfg-options`` that also takes dicts, such as a hook."""
import argparse
import ast
from typing import Any

from mmengine.config import DictAction


def literal(node: ast.AST) -> Any:
    """The value of an expression that a config may contain.

    Args:
        node (ast.AST): Literals, lists, tuples, ``{...}`` and ``dict(...)``.

    Returns:
        Any: The value; nothing is run for it.

    Raises:
        ValueError: It is another expression.
    """
    if isinstance(node, ast.Call) and isinstance(
            node.func, ast.Name) and node.func.id == 'dict' and not node.args:
        return {k.arg: literal(k.value) for k in node.keywords}
    if isinstance(node, ast.Dict):
        return {
            literal(k): literal(v)
            for k, v in zip(node.keys, node.values)
        }
    if isinstance(node, (ast.List, ast.Tuple)):
        values = [literal(e) for e in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    return ast.literal_eval(node)


class CfgOptions(DictAction):
    """MMEngine's ``DictAction``, plus values written as in a config.

    ``custom_hooks="[dict(type='mmfeatjnd.PerturbationHook', nrmse=0.5)]"``:
    values with a dict are read as Python literals; all others mean what they
    mean in MMEngine.
    """

    def __call__(self, parser, namespace, values, option_string=None):
        """See :class:`argparse.Action`."""
        try:
            for pair in values:
                if not pair.partition('=')[0] or '=' not in pair:
                    raise ValueError(f'{pair!r} is not of the form key=value')
            super().__call__(parser, namespace, values, option_string)
        except (AssertionError, ValueError) as error:
            raise argparse.ArgumentError(self, str(error)) from error

    @staticmethod
    def _parse_iterable(val: str) -> Any:
        if 'dict(' not in val and '{' not in val:
            return DictAction._parse_iterable(val)
        try:
            return literal(ast.parse(val, mode='eval').body)
        except (SyntaxError, TypeError, ValueError) as error:
            raise ValueError(
                f'cannot read {val!r} ({error}). Write it as '
                "in a config, e.g. \"[dict(type='mmfeatjnd.PerturbationHook',"
                'nrmse=0.5)]".') from error
