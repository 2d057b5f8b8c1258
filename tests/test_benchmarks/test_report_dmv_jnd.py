"""The report of DMV-JND on made-up results."""
import pytest
import report_dmv_jnd as report


def row(rca, psnr, distortion='dmv-jnd', strength=1.0, split='test', **kwargs):
    metrics = {
        'rca/a': rca - 1,
        'rca/b': rca + 1,
        'rca/mean': rca,
        'accuracy_clean/a': 80.,
        'accuracy_clean/b': 90.,
        'psnr': psnr,
        'jnd_magnitude': 0.5,
        'jnd_target': 0.6
    }
    return dict(
        dict(variant='clipped', scale=1.0, seed=2),
        distortion=distortion,
        strength=strength,
        split=split,
        metrics=metrics,
        **kwargs)


@pytest.fixture
def rows():
    """Seeds 2 and 0; the first, 2, has the scales and the homogeneity."""
    rows = []
    for split, shift in (('test', 0), ('train', 5)):
        rows += [
            row(90 + shift, 10, split=split),
            row(92 + shift, 10.2, split=split) | dict(seed=0),
            row(93 + shift, 14, strength=8 / 9, split=split),
            row(12, 10, 'gaussian', split=split),
            row(80, 9, split=split) | dict(scale=1.5),
            row(10, 9, 'gaussian', split=split) | dict(scale=1.5),
        ]
    return rows


def line(text, start):
    found, = (t for t in text.splitlines() if t.startswith(start))
    return [cell.strip() for cell in found.strip('|').split('|')]


def test_section(rows):
    text = report.section(
        dict(
            rows=rows,
            dataset='made up',
            config='some',
            every=5,
            train_every=1,
            reduced=True,
            first_seed=2,
            batch_size=7,
            unseen_host='other',
            unseen=[
                dict(distortion='clean', metrics={'accuracy/top1': 80.4})
            ],
            codec=[
                dict(
                    codec='jpeg',
                    setting=5,
                    bytes=70.4,
                    metrics=rows[0]['metrics'])
            ]), 'made up.', 'curve.png', 'A note.\n')
    # the mean of the seeds and their standard deviation
    assert line(text, '| test RCA, mean')[-1] == '91.00 ± 1.41'
    assert line(text, '| training RCA, mean')[-1] == '96.00 ± 1.41'
    assert line(text, '| test RCA of each')[-1] == '90.00 / 92.00'
    assert line(text, '| test RCA, gaussian')[-1] == '12.00'
    assert line(text, '| test RCA, random-sign')[-1] == 'not measured'
    # between 80 at 9 dB and 90 at 10 dB
    assert line(text, '| test RCA at 9.56 dB')[-1] == '85.60'
    # of one seed: train and test
    assert line(text, '| 9/9')[1:] == ['95.00', '90.00']
    assert line(text, '| 8/9')[1:] == ['98.00', '93.00']
    assert line(text, '| clipped | 1.5')[-3:] == ['9.00', '80.00', '10.00']
    assert line(text, '| `jpeg`') == ['`jpeg`', '5', '70', '10.00', '90.00']
    assert line(text, '| clean') == ['clean', '80.40']
    assert 'one test image in 5' in text and 'all training images' in text
    assert 'how many it drew is not recorded' in text
    assert '\nA note.\n' in text


def test_what_it_was_trained_on():
    assert report.trained_on(dict(estimator_draws=9600, train_images=50000)) \
        == '9,600 draws of 50,000 training images'


def test_curve_that_does_not_reach(rows):
    points = report.pick(rows, split='test', scale=1.0, distortion='dmv-jnd')
    assert report.rca_at(points[:2], 9.56) == \
        'not measured (10.00 to 10.20 dB)'
