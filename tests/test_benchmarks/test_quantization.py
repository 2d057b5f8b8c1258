"""What rows of codes say, and a whole benchmark on made-up data."""
import json

import pytest
import quantization
import tokens

CLEAN = dict(policy='clean', metrics=dict(acc=80.0),
             draws=dict(acc=[80.0, 80.0]))


def row(policy, size, kl, **kwargs):
    return dict(
        dict(policy=policy, protocol='rate', seed=0, coded_bytes=size,
             bits_per_pixel=size / 10, coded_bits_per_element=size / 5,
             nrmse_measured=0.3,
             draws=dict(coded_bytes=[size, size], kl=[kl, 2 * kl],
                        acc=[80.0 - kl, 80.0 - kl])), **kwargs)


def noisy(policy, kl, **kwargs):
    return dict(row(policy, 9, kl, place='tokens', noise_budget=0.3,
                    **kwargs), protocol='equal-noise')


def test_codes_of_one_split_are_compared_and_ours_with_pictures():
    rows = [CLEAN, *(row(name, size * k, 0.02 / k, **place)
                     for name, size, place in (
                         ('task', 1, dict(split='a')),
                         ('uniform', 4, dict(split='a')),
                         ('task', 2, dict(split='b')),
                         ('webp', 8, dict(place='full')),
                         ('featjnd', 3, dict(place='tokens')),
                         ('one-step', 6, dict(place='tokens')))
                     for k in (0.5, 1, 2, 4))]
    found = quantization.comparisons(rows, 1.0)
    at = {(tuple(r['ours']), tuple(r['theirs'])): r['ratio'][0]
          for r in found['times']
          if (r['metric'], r['target']) == ('kl', 0.02)}
    assert at == {
        (('tokens', 'featjnd'), ('tokens', 'one-step')): 0.5,
        (('a', 'task'), ('a', 'uniform')): 0.25,
        (('a', 'task'), ('full', 'webp')): 0.125,
        (('b', 'task'), ('full', 'webp')): 0.25,
    }
    bits = {(r['place'], r['code']): r['per_pixel']['value']
            for r in found['bits']
            if (r['metric'], r['target']) == ('kl', 0.02)}
    assert bits['b', 'task'] == pytest.approx(0.2)
    # of two objects an image 0.02 each are 0.04
    both = quantization.comparisons(rows, 2.0)
    assert both['bits'][0]['per_pixel']['value'] == pytest.approx(0.05)


def test_steps_are_compared_at_noise_that_they_have():
    rows = [CLEAN, noisy('featjnd', 0.1), noisy('one-step', 0.4),
            noisy('permuted-steps', 0.9, nrmse_measured=0.5)]
    kl, acc = quantization.comparisons(rows, 1.0)['equal_noise']
    assert (kl['nrmse'], kl['best_control']) == (0.3, 'one-step')
    assert kl['difference'][0] == pytest.approx(0.3)
    assert acc['difference'][0] == pytest.approx(0.3 / 80)


def test_bits_that_a_seed_cannot_take_are_left_out():
    rows = [CLEAN] + [
        row('p', 9, 1, mean_bits=bits, noise_budget=None, seed=seed)
        for seed, bits in ((0, 1), (0, 2), (1, 1))
    ]
    assert [tokens.of_all_seeds(r, rows) for r in rows] == [
        True, True, False, True]


@pytest.mark.slow
def test_a_whole_benchmark(tiny, monkeypatch):
    import codes
    for module in (codes, tokens):  # they have imported it
        monkeypatch.setattr(module, 'SEEDS', (0, ))
    monkeypatch.setattr(codes, 'IMAGES', 8)
    monkeypatch.setattr(codes, 'QUALITIES', dict(webp=(90, 50)))
    monkeypatch.setattr(codes, 'BINS', (4, 8))
    for name, value in (('SPLITS', dict(tiny=('backbone.layer2',
                                              'backbone.layer1'))), ):
        for module in (codes, quantization):
            monkeypatch.setitem(getattr(module, name), 'tiny', value['tiny'])
    quantization.main([
        'tiny', '--work-dir', str(tiny / 'work'), '--codes', 'task',
        'uniform', '--nats', '1e-4', '1e-3', '--policies', 'featjnd',
        'one-step', '--mean-bits', '0.5', '1', '--noise-budgets', '0.3'])
    result = json.loads(
        (tiny / 'results/quantization_tiny.json').read_text())
    assert result['reduced']
    codes_found = {(r.get('split_point') or r['place'], r['policy'])
                   for r in result['rows']}
    assert codes_found == {
        ('backbone.layer2', 'task'), ('backbone.layer2', 'uniform'),
        ('backbone.layer2', 'clip-uniform'),
        ('backbone.layer2', 'task-adapted'),
        ('backbone.layer2', 'task-adapted-permuted'),
        ('backbone.layer1', 'task'), ('backbone.layer1', 'uniform'),
        ('full', 'image-webp'), ('tokens', 'featjnd'), ('tokens', 'uniform')}
    for r in result['rows']:
        assert r['bits_per_pixel'] > 0 and 'kl' in r['metrics']
        assert ('macs_before' in r) == ('split_point' in r)
    assert {'bits', 'times', 'bd_rate', 'equal_noise'} == set(
        result['comparisons'])
