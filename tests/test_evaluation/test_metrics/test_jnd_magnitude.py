def test_by_hand(evaluate, measure, sample):
    rows = [
        measure(magnitude=0.25, target=0.75),
        measure(magnitude=0.5, target=0.5),
        measure(magnitude=0.75, target=0.25),
        measure(magnitude=0.75, target=0.),
    ]
    metrics = evaluate(
        dict(type='mmfeatjnd.JNDMagnitude'), rows, sample=sample)
    assert metrics == dict(jnd_magnitude=0.5625, jnd_target=0.375)


def test_all_metrics_together(evaluate, measure):
    kinds = ('RelativeAccuracy', 'PeakSNR', 'JNDMagnitude')
    metrics = evaluate([dict(type=f'mmfeatjnd.{kind}') for kind in kinds],
                       [measure(a=(1, 1))], truth=[1])
    assert set(metrics) == {
        'rca/a', 'rca/mean', 'accuracy/a', 'accuracy_clean/a', 'psnr',
        'psnr_of_mean', 'jnd_magnitude', 'jnd_target'
    }
