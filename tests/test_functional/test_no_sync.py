"""Nothing waits for the device: tensors without values have none to read."""
import pytest
import torch

from mmfeatjnd import functional as F

LAYOUTS = [(2, 3, 4, 5), (2, 7, 3), (2, 6)]


def _empty(*shape):
    return torch.empty(*shape, device='meta')


def test_reading_a_value_would_be_noticed():
    with pytest.raises(RuntimeError):
        bool(_empty(3).isnan().any())


@pytest.mark.parametrize('shape', LAYOUTS)
@pytest.mark.parametrize('definition', F.DEFINITIONS)
def test_nrmse(shape, definition):
    delta, feature = _empty(shape), _empty(shape)
    assert F.nrmse(delta, feature, definition).shape == (2, )
    assert F.scale_to_nrmse(delta, feature, 0.3, definition).shape == shape
    assert F.participation_ratio(delta).shape == F.rms(delta).shape == (2, )
    assert F.l2_magnitude(delta, feature).shape == ()


@pytest.mark.parametrize('shape', LAYOUTS)
def test_steps_and_clipping(shape):
    x = _empty(shape)
    uniform = F.make_steps(F.uniform_log_steps(x), 'tensor')
    for steps in (uniform, F.water_filling_steps(uniform, x),
                  F.make_steps(F.range_log_steps(x), 'token'),
                  F.make_steps(F.gradient_log_steps(x, x), 'element'),
                  F.make_steps(F.jnd_log_steps(x), 'channel-token'),
                  F.clip_steps(F.clip_range(x, 4), 4)):
        assert steps.size(x).expand(shape).shape == shape
    assert F.clip_cover(x, F.clip_range(x, 4)).shape == (2, )


@pytest.mark.parametrize('shape', LAYOUTS)
def test_search(shape):
    feature = _empty(shape)
    steps = F.make_steps(F.jnd_log_steps(_empty(shape)), 'channel-token')
    finest, coarsest = F.scale_limits(feature, steps)

    def rate(scale):
        quantized, value = F.quantize(feature,
                                      F.Allocation(steps.scaled(scale)))
        assert F.dequantize(quantized).shape == value.shape == shape
        assert F.saturated(quantized.symbols).shape == (2, )
        return F.code_length(quantized)

    scale = F.bisect_scale(rate, _empty(2), False, finest, coarsest)
    assert F.meets_target(rate(scale), 3.0).shape == (2, )
    assert F.scale_to_modelled_noise(steps, feature, 0.3).base.shape == (2, )
    size = steps.size(feature)
    assert F.soft_code_length(feature.abs(), feature, size).shape == (2, )


@pytest.mark.parametrize('kind', ['categorical', 'bernoulli', 'gaussian'])
def test_likelihood(kind):
    answer = dict(x=F.Distribution(kind, _empty(2, 3, 4, 4)))
    distance = F.nats(answer, answer, 2)
    assert distance.shape == (2, )
    F.dual_ascent(_empty(()), distance.mean(), 0.1)
