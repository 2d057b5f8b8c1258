import math

import pytest

METRIC = dict(type='mmfeatjnd.PeakSNR')


def test_by_hand(evaluate, measure):
    # RMSE 25.5 and 2.55 of 255: 20 and 40 dB
    rows = [measure(mse=25.5**2), measure(mse=2.55**2)]
    assert evaluate(METRIC, rows) == pytest.approx(
        dict(
            psnr=30.,
            psnr_of_mean=10 * math.log10(2 / (0.1**2 + 0.01**2))))


def test_the_range_is_a_choice(evaluate, measure, sample):
    metrics = evaluate(
        dict(METRIC, data_range=1.), [measure(mse=0.01)] * 3,
        sample=sample)
    assert metrics == pytest.approx(dict(psnr=20., psnr_of_mean=20.))


def test_the_papers_9_56_db(evaluate, measure):
    """An RMSE of 0.665 in [-1, 1] is one of 84.8 pixels."""
    value = evaluate(METRIC, [measure(mse=(0.6653 * 127.5)**2)])['psnr']
    assert value == pytest.approx(9.56, abs=0.01)


def test_an_unchanged_image_is_infinite(evaluate, measure):
    metrics = evaluate(METRIC, [measure(mse=0.), measure(mse=2 * 25.5**2)])
    assert metrics['psnr'] == math.inf
    assert metrics['psnr_of_mean'] == pytest.approx(20.)


def test_the_range_must_be_positive(evaluate):
    with pytest.raises(ValueError, match='data_range must be > 0.*got 0'):
        evaluate(dict(METRIC, data_range=0), [])
