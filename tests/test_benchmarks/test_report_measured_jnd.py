"""Goals of measured thresholds, from rows made by hand."""
import pytest
import report_measured_jnd as report


def row(unit, nats, predictor='fisher', seed=0, **kwargs):
    return dict(unit=unit, predictor=predictor, nats=nats, seed=seed, count=8,
                **kwargs)


def token(spearman, seed, **kwargs):
    return row('token', 0.01, seed=seed, censored_share=0.1,
               spearman=spearman, spearman_interval=[0.7, 0.95],
               spearman_within_image=None, bias_log2=0.1, rmse_log2=0.5,
               **kwargs)


def test_means_over_the_seeds():
    rows = [token(0.8, 0), token(0.94, 1),
            dict(token(0.2, 0), predictor='static')]
    first, second = report.over_seeds(rows)
    assert first['spearman'] == pytest.approx(0.87)
    assert first['predictor'] == 'fisher' and second['spearman'] == 0.2
    assert first['spearman_within_image'] != first['spearman_within_image']


def test_goals():
    rows = report.over_seeds([
        token(0.8, 0), token(0.94, 1),
        # 1.6 and 1.2 times as predicted, and one beyond the range
        row('all images', 0.008, log2=-2.0, measured_nats=0.0128),
        row('all images', 0.03, log2=-1.0, measured_nats=0.036),
        row('all images', 0.12, log2=0.0, measured_nats=0.5),
        dict(token(0.9, 0), unit='image', nats=0.05, bias_log2=-0.25)
    ])
    (_, rank, met), (_, same, not_met), (_, median, near) = report.goals(rows)
    assert rank == '0.87 [0.70, 0.95]' and met
    assert same == '1.20 to 1.60' and not not_met
    # a threshold 2^-0.25 as large: the noise costs 2^0.5 times as much
    assert median == '1.41 to 1.41' and near
