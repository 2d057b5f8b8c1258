"""Values written as in a config, read without running anything."""
import ast
from typing import Any


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
            node.func, ast.Name) and node.func.id == 'dict' and not (
                node.args or any(k.arg is None for k in node.keywords)):
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


def read_literal(text: str) -> Any:
    """:func:`literal` of a text.

    Args:
        text (str): One expression.

    Returns:
        Any: Its value.

    Raises:
        ValueError: It is no such expression; the message says why.

    Example:
        >>> read_literal("dict(type='EMAHook', momentum=1e-3)")
        {'type': 'EMAHook', 'momentum': 0.001}
    """
    try:
        return literal(ast.parse(text, mode='eval').body)
    except (SyntaxError, TypeError, ValueError) as error:
        raise ValueError(f'cannot read {text!r} ({error})') from error
