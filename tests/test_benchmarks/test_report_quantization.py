"""Tables of codes, from comparisons made by hand."""
import report_quantization as report

FIRST, PICTURE = ('backbone', 'task'), ('full', 'avif')


def bits(place, code, value, relation='', target=0.02):
    found = dict(value=value, relation=relation, low=value, high=2 * value)
    return dict(metric='kl', target=target, place=place, code=code,
                per_pixel=found,
                per_element=None if place == 'full' else found)


def times(ours, theirs, value):
    return dict(metric='kl', target=0.02, ours=list(ours),
                theirs=list(theirs), ratio=[value, value - 0.01, value + 0.1])


RESULT = dict(
    name='quantization_in1k',
    macs=dict(backbone=[3e8, 1e8], unknown=[1, 1]),
    comparisons=dict(
        bits=[bits(*FIRST, 0.5), bits('backbone', 'uniform', 2.0),
              bits('backbone', 'pca-dct', 0.6), bits(*PICTURE, 3.0),
              bits('full', 'webp', 2.0, '>'), bits('full', 'jpeg', 4.0)],
        times=[times(FIRST, ('backbone', 'uniform'), 0.25),
               times(FIRST, ('backbone', 'pca-dct'), 0.83),
               times(FIRST, PICTURE, 0.17)],
        bd_rate=[dict(ours=FIRST, theirs=PICTURE, percent=-80.0),
                 dict(ours=FIRST, theirs=('full', 'jpeg'), percent=None)]))


def test_the_best_picture_is_one_that_gets_there():
    # WebP takes more than 2, nobody knows how many
    assert report.best_picture(RESULT, 'kl', 0.02) == PICTURE


def test_goals_say_what_is_met():
    table = report.goals(RESULT)
    assert '| 0.25 [0.24, 0.35], yes |' in table
    assert '| 0.83 [0.82, 0.93], no |' in table
    assert 'at most 0.17 | 0.17 [0.16, 0.27], no (avif) |' in table


def test_bits_of_features_alone_are_per_element():
    table = report.bits_table(RESULT, 'per_element')
    assert 'uniform, backbone | 2 |' in table and 'webp' not in table
    assert 'webp | > 2 |' in report.bits_table(RESULT, 'per_pixel')


def test_nats_asked_and_measured():
    rows = [dict(policy='task', split='a', expected_nats=n,
                 metrics=dict(kl=2 * n)) for n in (0.4, 0.1)]
    rows += [dict(policy='uniform', split='a', expected_nats=1,
                  metrics=dict(kl=1)), dict(policy='clean', metrics={})]
    assert '| a | 0.1: 0.2, 0.4: 0.8 |' in report.asked_table(rows)


def test_what_has_no_bd_rate_is_left_out():
    assert report.bd_table(RESULT).count('\n') == 3


def test_the_guide_names_what_is_cheaper():
    table = report.guide(RESULT)
    assert 'the best codec: avif, 3 bits per pixel' in table
    assert ('| `backbone` | 300 (75%) | 100 | task | 0.5 [0.5, 1] | '
            '0.17 [0.16, 0.27] | features |') in table
    assert 'unknown' not in table


def test_readme_shows_the_bits_of_every_split():
    table = report.readme_table([RESULT], lambda result, split: split)
    assert ('| backbone | **0.5 [0.5, 1]** | 0.6 | 2 | 3 (avif) | '
            '0.17 [0.16, 0.27] |') in table
    assert 'unknown' not in table


def test_the_picture_shows_ours_of_other_splits():
    rows = [dict(policy='clean'),
            *(dict(policy=p, split=s) for s in ('backbone', 'unknown')
              for p in ('task', 'uniform')),
            *(dict(policy=p, place='tokens') for p in ('featjnd', 'range')),
            dict(policy='webp', place='full')]
    left = [(r.get('split', r.get('place')), r['policy'])
            for r in report.plotted(dict(RESULT, rows=rows))]
    assert left == [(None, 'clean'), ('backbone', 'task'),
                    ('backbone', 'uniform'), ('unknown', 'task'),
                    ('tokens', 'featjnd'), ('full', 'webp')]
