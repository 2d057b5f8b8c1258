"""The report of where noise costs the least, on made-up results."""
import json

import common
import pytest
import report
import report_featjnd
import report_readme


def rows_of(name, strength, metric, kl, seeds=(0, 1), definition='channel',
            valid=False):
    return [
        dict(
            distortion=name,
            definition=definition,
            valid=valid,
            nrmse=strength,
            nrmse_measured=strength * 1.01,
            participation_ratio=0.3,
            seed=seed,
            metrics={'coco/bbox_mAP': metric + 0.02 * seed, 'kl': kl})
        for seed in seeds
    ]


def compared(strength, white, control, ours, valid=False, spread=0.01,
             metric='coco/bbox_mAP'):
    """What ``compare`` says, with intervals as wide as ``spread``."""
    def around(value):
        return [value, value - spread, value + spread]

    return dict(
        definition='channel', valid=valid, nrmse=strength, metric=metric,
        best_control='static', ours=around(ours), control=around(control),
        reference=around(white), difference=around(control - ours),
        share=around(ours / control), share_of_reference=around(ours / white))


def octaves(name, value, valid=False):
    return dict(nats=0.02, valid=valid, distortion=name, against='gaussian',
                octaves=None if value is None else [value, value - 0.1, None])


ROWS = [
    *rows_of('featjnd', 2.0, 0.38, 0.5),
    *rows_of('gaussian', 2.0, 0.18, 8.0),
    *rows_of('permuted', 2.0, 0.28, 4.0),
    *rows_of('fisher', 2.0, 0.39, 0.25, seeds=(0, )),
    *rows_of('featjnd', 4.0, 0.3, 0.75),
    *rows_of('featjnd', 2.0, 0.36, 1.0, valid=True),
    *rows_of('featjnd-signed', 0.5, 0.35, 1.0, definition='rms'),
    *rows_of('static-learned', 0.5, 0.34, 1.0, definition='rms'),
    *rows_of('gaussian', 0.5, 0.14, 1.0, definition='rms'),
]
COMPARISONS = {
    'coco/bbox_mAP': [
        compared(2.0, 0.5, 0.12, 0.03),
        compared(4.0, 0.9, 0.4, 0.1),
        compared(2.0, 0.5, 0.12, 0.05, valid=True, spread=0.2)
    ],
    'kl': [
        compared(2.0, 8.0, 2.0, 1.5, metric='kl'),
        compared(4.0, 1234.5, 200., 10., metric='kl')
    ],
    'octaves_at_nats': [octaves('static', None), octaves('featjnd', None)]
}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a result that the report finds."""
    monkeypatch.setattr(report, 'RESULTS', tmp_path)
    monkeypatch.setattr(report, 'IMAGES', tmp_path)

    def write(name='featjnd_coco', **kwargs):
        result = dict(
            dict(
                claim='Some claim.', command='make it', host='some-host',
                host_checkpoint='sha256:' + 64 * 'a', split_point='backbone',
                dataset='made up', train_split='train', estimator_draws=600,
                test_split='val, all 8 images', clean={'coco/bbox_mAP': 0.4},
                reduced=False, protocol=common.PROTOCOL,
                versions=dict(mmfeatjnd='9'), device='cpu',
                comparisons=COMPARISONS, rows=ROWS), **kwargs)
        (tmp_path / f'{name}.json').write_text(json.dumps(result))
        return report.load(name)

    return write


def lines(text, *titles):
    """The table of which the head has these titles."""
    head = '| ' + ' | '.join(titles) + ' |\n'
    assert head in text
    return text.split(head)[1].split('\n\n')[0]


def test_a_section_has_a_table_of_each_metric_and_setting(write, tmp_path):
    write()
    text = report.featjnd_section('featjnd_coco', plots=True)
    assert '## Where noise costs the least: made up\n\nClaim: Some' in text
    assert '`coco/bbox_mAP` (clean 0.4), any features; RMS in the head, ' \
        'measured within 1.0% of what was asked:' in text
    table = lines(text, 'distortion', '2', '4', 'participation ratio')
    # white noise first; those of the signed map are not among them
    assert table.splitlines()[1:] == [
        '| `gaussian` | 0.19 ± 0.014 |  | 0.30 |',
        '| `permuted` | 0.29 ± 0.014 |  | 0.30 |',
        '| `featjnd` | 0.39 ± 0.014 | 0.31 ± 0.014 | 0.30 |',
        '| `fisher` | 0.39 |  | 0.30 |'
    ]
    valid = text.split('features kept valid;')[1].split('\n\n')[1]
    assert valid.splitlines()[2:] == ['| `featjnd` | 0.37 ± 0.014 | 0.30 |']
    assert '`kl` (nats), any features;' in text
    signed = text.split('### The signed map of the paper')[1]
    assert '| `gaussian` | 0.15 ± 0.014 | 0.30 |\n| `featjnd-signed` | ' \
        '0.36 ± 0.014 | 0.30 |\n| `static-learned` |' in signed
    for metric in ('bbox_mAP', 'kl'):
        assert f'(images/featjnd_coco_{metric}.png)' in text
        assert (tmp_path / f'featjnd_coco_{metric}.png').stat().st_size > 9999


HEAD = ('RMS', 'white noise', 'best control', 'it loses', 'learned map',
        'share', 'share of white')


def test_the_goal_counts_where_the_best_control_loses_some(write):
    write()
    text = report.featjnd_section('featjnd_coco', plots=False)
    task, nats = text.split('### kl')
    assert lines(task, *HEAD, 'goal').splitlines()[1:] == [
        '| 2 | 50.0 [49.0, 51.0] | `static` | 12.0 [11.0, 13.0] | 3.0 [2.0, '
        '4.0] | 0.25 [0.24, 0.26] | 0.06 | yes |',
        # beyond the range: no goal
        '| 4 | 90.0 [89.0, 91.0] | `static` | 40.0 [39.0, 41.0] | 10.0 [9.0, '
        '11.0] | 0.25 [0.24, 0.26] | 0.11 |  |',
        '| 2, valid | 50.0 [30.0, 70.0] | `static` | 12.0 [-8.0, 32.0] | 5.0 '
        '[-15.0, 25.0] | 0.42 [0.22, 0.62] | 0.10 | by the values |'
    ]
    # nats count where the task's own metric does
    assert lines(nats, *HEAD, 'goal').splitlines()[1:] == [
        '| 2 | 8 [7.99, 8.01] | `static` | 2 [1.99, 2.01] | 1.5 [1.49, 1.51] '
        '| 0.75 [0.74, 0.76] | 0.19 | no |',
        '| 4 | 1,234 [1,234, 1,235] | `static` | 200 [200, 200] | 10 [9.99, '
        '10] | 0.05 [0.04, 0.06] | 0.01 |  |'
    ]


@pytest.mark.parametrize('control, ours, expected', [
    (0.1, 0.05, 'yes'), (0.1, 0.06, 'no'), (0.2, -0.01, 'yes'),
    (0.2, 0.06, 'no')])
def test_a_goal_is_a_share_of_both(control, ours, expected):
    row = compared(2.0, 0.2, control, ours, spread=0)
    assert report_featjnd.goal_of(row) == expected


def test_a_share_without_a_bound(write):
    row = dict(compared(2.0, 0.5, 0.1, 0.01), share=[0.1, -0.5, None])
    assert report_featjnd.goal_of(row) == 'by the values'
    # of results that lack the share of white noise
    row.pop('share_of_reference')
    assert report_featjnd.share_of_white(row) == [
        0.02, None, pytest.approx(0.02 / 0.49)]
    row['reference'] = None
    assert report_featjnd.goal_of(row) == 'no'
    write(comparisons={'coco/bbox_mAP': [row]})
    text = report.featjnd_section('featjnd_coco', plots=False)
    assert '| 2 | not measured | `static` | 10.0 [9.0, 11.0] | 1.0 [0.0, ' \
        '2.0] | 0.10 [-0.50, ?] | ? | no |' in text


def classifier(write, name='featjnd_in1k', **kwargs):
    rows = [dict(r, metrics={'accuracy/top1': 100 * r['metrics'][
        'coco/bbox_mAP'], 'kl': r['metrics']['kl']}) for r in ROWS]
    comparisons = {
        'accuracy/top1': [compared(2.0, 0.5, 0.1, 0.03),
                          compared(4.0, 0.5, 0.3, 0.03)],
        'octaves_at_nats': [
            octaves('static', 0.2), octaves('featjnd', 0.5),
            octaves('static', None, valid=True),
            octaves('featjnd', 1.0, valid=True)]
    }
    return write(name, clean={'accuracy/top1': 40.0}, rows=rows,
                 comparisons=dict(comparisons, **kwargs))


def test_octaves_of_classifiers(write):
    classifier(write)
    text = report.featjnd_section('featjnd_in1k', plots=False)
    assert '### Noise tolerated at 0.02 nats' in text
    table = lines(text, 'map', 'any features', 'features kept valid',
                  'bits freed').splitlines()[1:]
    assert table == [
        '| `gaussian` | 0 | not measured |  |',
        '| `static` | +0.20 [+0.10, ?], 1.15 times | not measured |  |',
        '| `featjnd` | +0.50 [+0.40, ?], 1.41 times | +1.00 [+0.90, ?], 2.00 '
        'times |  |',
        '| goal: `featjnd` at least 2 times `static` | yes (2.5 times) | not '
        'known |  |'
    ]
    # shares are a goal of detectors
    assert lines(text, *HEAD)
    classifier(write, octaves_at_nats=[octaves('static', 0.2),
                                       octaves('featjnd', 0.3)])
    text = report.featjnd_section('featjnd_in1k', plots=False)
    assert '| no (1.5 times) | not known |  |' in text
    write()
    text = report.featjnd_section('featjnd_coco', plots=False)
    assert 'Noise tolerated' not in text


def tables(*results):
    return report_readme.tables(
        dict(featjnd=list(results), quantization=[], dmv_jnd=[]),
        report.task_metrics, report.outdated)


def test_readme_shows_the_strength_nearest_to_ten_percent(write):
    detector = write()
    text = tables(detector, classifier(write))
    assert '| `some-host`, made up, `backbone` | `coco/bbox_mAP` 0.4 | 2 | ' \
        '50.0 [49.0, 51.0] | 12.0 [11.0, 13.0] (`static`) | **3.0 [2.0, ' \
        '4.0]** |' in text
    assert '| `accuracy/top1` 40 | 2 | 50.0 [49.0, 51.0] | 10.0 [' in text
    assert '(docs/images/featjnd_coco_bbox_mAP.png)' in text
    assert 'mean over 2\nestimators' in text and 'reduced' not in text
    assert 'nearest to 10 %' in text.replace('\n', ' ')
    assert '| `some-host`, made up, `backbone` | 0.20 [0.10, ?] | 0.50 [' \
        '0.40, ?] | not known | 1.00 [0.90, ?] |' in text
    text = tables(write(reduced=True))
    assert 'reduced' in text and 'octaves' not in text


def test_readme_shows_nothing_that_was_not_measured(write):
    assert tables() == ''
    # only features kept valid
    result = write(comparisons={
        'coco/bbox_mAP': [compared(2.0, 0.5, 0.1, 0.03, valid=True)]})
    assert '50.0' not in tables(result)


def test_newer_results_stand_before_what_was_published(write):
    write()
    write('featjnd_cifar10', protocol=1, dataset='something old')
    text = report.document(plots=False)
    assert text.index('costs the least: made up') < text.index(
        '## What was published before')
    assert 'costs the least: something old' not in text
    assert 'stands here:\nsomething old.' in text
