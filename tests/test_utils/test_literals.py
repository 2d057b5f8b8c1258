"""Values written as in a config."""
import pytest

from mmfeatjnd.utils import read_literal


@pytest.mark.parametrize('text, value', [
    ('dict(a=1, b=[2, (3, 4)])', dict(a=1, b=[2, (3, 4)])),
    ("{'a': dict(b=None), 1: True}", {'a': dict(b=None), 1: True}),
    ('dict()', {}),
    ('-1e-3', -0.001),
    ("'x'", 'x'),
])
def test_read_literal(text, value):
    assert read_literal(text) == value


@pytest.mark.parametrize('text', [
    '', 'x', 'dict(', 'dict([1])', 'dict(**dict(a=1))', '{**{}}', 'f(a=1)',
    "__import__('os').getcwd()", '{[]: 1}', 'a = 1'
])
def test_what_is_none(text):
    with pytest.raises(ValueError, match='cannot read'):
        read_literal(text)
