"""The way into the quantizer, and back."""
import math

import pytest
import torch

from mmfeatjnd.functional import (
    GRANULARITIES,
    Allocation,
    Steps,
    cast_to,
    dequantize,
    make_steps,
    quantize,
)
from mmfeatjnd.functional.symbols import to_symbols

LAYOUTS = [(2, 3, 4, 5), (2, 7, 3), (2, 6)]


def test_by_hand():
    """Clipped to [-2, 3], steps of 1 and 2, rounded towards 0 but for the
    first image."""
    feature = torch.tensor([[1.6, -5.0, 9.0, 0.4], [1.6, -5.0, 9.0, 0.4]])
    steps = Steps(torch.tensor([1.0, 2.0]))
    quantized, value = quantize(
        feature,
        Allocation(
            steps,
            rounding=torch.tensor([[0.5], [0.0]]),
            bounds=torch.tensor([[-2.0, 3.0], [-2.0, 3.0]])))
    assert quantized.symbols.tolist() == [[2, -2, 3, 0], [0, -1, 1, 0]]
    assert value.tolist() == [[2, -2, 3, 0], [0, -2, 2, 0]]
    assert quantized.steps is steps and quantized.dtype == torch.float32
    assert quantized.model is None


def test_rounding_and_deadzone_by_hand():
    feature = torch.tensor([[0.7, 1.6, -0.9]])
    steps = Steps(torch.tensor([1.0]))
    for kwargs, expected in ((dict(), [1, 2, -1]), (dict(rounding=0.0),
                                                    [0, 1, 0]),
                             (dict(deadzone=0.8), [0, 2, -1])):
        quantized, _ = quantize(feature, Allocation(steps, **kwargs))
        assert quantized.symbols.tolist() == [expected]


@pytest.mark.parametrize('granularity', GRANULARITIES)
@pytest.mark.parametrize('shape', LAYOUTS)
def test_the_values_are_those_of_the_receiver(shape, granularity):
    torch.manual_seed(0)
    feature = torch.randn(shape)
    steps = make_steps(torch.randn(shape), granularity)
    quantized, value = quantize(feature, Allocation(steps))
    assert torch.equal(dequantize(quantized), value)
    assert torch.equal(
        quantized.symbols, to_symbols(feature, steps.size(feature)))
    # and of each image alone
    for i in range(2):
        one = quantized.of_image(i)
        assert torch.equal(dequantize(one), value[i:i + 1])


@pytest.mark.parametrize('dtype', [
    torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_quantized_in_float32(dtype):
    x = torch.randn(2, 4, 3, 3).to(dtype)
    allocation = Allocation(make_steps(x, 'channel-token'))
    assert allocation.steps.size(x).dtype == torch.float32
    quantized, value = quantize(x, allocation)
    assert quantized.symbols.dtype == value.dtype == torch.float32
    assert quantized.dtype == dequantize(quantized).dtype == dtype
    expected, _ = quantize(x.float(), allocation)
    assert torch.equal(quantized.symbols, expected.symbols)


@pytest.mark.parametrize('dtype', [
    torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_values_return_to_the_dtype_of_the_features(dtype):
    x = torch.tensor([[1., -2., 3.25]], dtype=dtype)
    quantized, value = quantize(x, Allocation(Steps(torch.tensor([0.25]))))
    value = cast_to(value, dtype)
    assert torch.equal(value, dequantize(quantized))
    assert value.dtype == dtype and torch.equal(value, x)
    # what overflowed ends at the end of the range
    largest = torch.finfo(dtype).max
    largest = min(largest, torch.finfo(torch.float32).max)
    ends = cast_to(torch.tensor([math.inf, -math.inf, math.nan]), dtype)
    assert ends[:2].tolist() == [largest, -largest] and ends[2].isnan()
