import numpy as np
import pytest
import torch


@pytest.fixture
def equal():
    """Raise unless two values are equal, of the same types all the way down,
    to the last bit."""

    def equal(a, b):
        assert type(a) is type(b)
        if isinstance(a, torch.Tensor):
            assert a.shape == b.shape and a.dtype == b.dtype
            assert b.is_meta if a.is_meta else torch.equal(a, b)
        elif isinstance(a, (np.ndarray, np.generic)):
            assert a.dtype == b.dtype and np.array_equal(a, b)
        elif isinstance(a, dict):
            assert list(a) == list(b)
            for key in a:
                equal(a[key], b[key])
        elif isinstance(a, (list, tuple)):
            assert len(a) == len(b)
            for x, y in zip(a, b):
                equal(x, y)
        else:
            assert a == b

    return equal
