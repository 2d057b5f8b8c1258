"""The fused kernel computes what the plain functions compute."""
import os
import shutil

import pytest
import torch

from mmfeatjnd.functional.fused import compiled, symbols_and_values
from mmfeatjnd.functional.symbols import from_symbols, to_symbols

COMPILERS = [os.environ.get('CXX', 'g++'), 'c++', 'clang++']


def inputs(shape=(2, 5, 4, 3)):
    generator = torch.Generator().manual_seed(0)
    feature = torch.randn(shape, generator=generator)
    step = torch.rand(shape[0], shape[1], 1, 1, generator=generator) + 0.1
    rounding = torch.rand(shape, generator=generator) / 2
    return feature, step, rounding


def test_cpu_runs_the_plain_functions():
    feature, step, rounding = inputs()
    symbols, value = symbols_and_values(feature, step, rounding, 0.7)
    expected = to_symbols(feature, step, rounding, 0.7)
    assert symbols.equal(expected)
    assert value.equal(from_symbols(expected, step))


@pytest.mark.slow
@pytest.mark.skipif(
    not any(map(shutil.which, COMPILERS)), reason='needs a C++ compiler')
def test_compiled_kernel_agrees():
    feature, step, rounding = inputs()
    symbols, value = compiled()(feature, step, rounding, 0.5)
    expected = to_symbols(feature, step, rounding)
    assert symbols.equal(expected)
    assert value.equal(from_symbols(expected, step))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_cuda_agrees_with_the_cpu():
    feature, step, rounding = inputs((4, 64, 32, 32))
    symbols, value = symbols_and_values(feature.cuda(), step.cuda(),
                                        rounding.cuda(), 0.5)
    expected = to_symbols(feature, step, rounding)
    # the division may differ in its last bit
    assert (symbols.cpu() != expected).float().mean() < 1e-5
    assert value.equal(symbols * step.cuda())
