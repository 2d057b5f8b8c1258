"""The fused kernel computes what the plain functions compute."""
import os
import shutil

import pytest
import torch

from mmfeatjnd.functional import dequantize, quantize, quantize_fused
from mmfeatjnd.functional.fused import compiled

COMPILERS = [os.environ.get('CXX', 'g++'), 'c++', 'clang++']


def inputs(shape=(2, 5, 4, 3)):
    generator = torch.Generator().manual_seed(0)
    feature = torch.randn(shape, generator=generator)
    step = torch.rand(shape[0], shape[1], 1, 1, generator=generator) + 0.1
    rounding = torch.rand(shape, generator=generator) / 2
    return feature, step, rounding


def test_cpu_runs_the_plain_functions():
    feature, step, rounding = inputs()
    level, value = quantize_fused(feature, step, rounding, 0.7)
    expected = quantize(feature, step, rounding, 0.7)
    assert level.equal(expected) and value.equal(dequantize(expected, step))


@pytest.mark.slow
@pytest.mark.skipif(
    not any(map(shutil.which, COMPILERS)), reason='needs a C++ compiler')
def test_compiled_kernel_agrees():
    feature, step, rounding = inputs()
    level, value = compiled()(feature, step, rounding, 0.5)
    expected = quantize(feature, step, rounding)
    assert level.equal(expected)
    assert value.equal(dequantize(expected, step))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_cuda_agrees_with_the_cpu():
    feature, step, rounding = inputs((4, 64, 32, 32))
    level, value = quantize_fused(feature.cuda(), step.cuda(),
                                  rounding.cuda())
    expected = quantize(feature, step, rounding)
    # the division may differ in its last bit
    assert (level.cpu() != expected).float().mean() < 1e-5
    assert value.equal(level * step.cuda())
