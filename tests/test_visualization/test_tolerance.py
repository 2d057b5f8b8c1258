import pytest
import torch

from mmfeatjnd.visualization import ToleranceRecorder


def test_recorder_changes_nothing_and_sees_the_envelope(build, batch):
    model = build('detector', estimator=dict(mode='envelope'))
    neck = model.featjnd_neck
    inputs, _ = batch('detector')
    with torch.no_grad():
        for estimator in neck.estimators:
            for p in estimator.parameters():
                p.zero_()
            # log sigma = +-log 2 by halves of the channels, in units of the
            # channel's RMS: the RMS over the channels is known
            half = estimator.in_channels // 2
            estimator.log_range = 1e6
            estimator.expand.bias[:half] = torch.tensor(2.0).log()
            estimator.expand.bias[half:] = -torch.tensor(2.0).log()
        clean = model.extract_feat(inputs)
        recorder = ToleranceRecorder()
        with neck.operating(recorder):
            same = model.extract_feat(inputs)
    assert all(torch.equal(a, b) for a, b in zip(clean, same))
    assert sorted(recorder.levels) == [0, 1, 2, 3]
    for tolerance in recorder.levels.values():
        assert tolerance.dim() == 3  # (B, H, W)
        torch.testing.assert_close(
            tolerance, torch.full_like(tolerance, (4.25 / 2)**0.5))


def test_heatmap_scales_every_level_to_its_range():
    recorder = ToleranceRecorder()
    recorder.levels = {
        0: torch.tensor([[[1.0, 3.0], [1.0, 3.0]]]),
        1: torch.tensor([[[50.0, 10.0], [50.0, 10.0]]])
    }
    heat = recorder.heatmap((2, 2))
    assert torch.equal(heat, torch.full((1, 2, 2), 0.5))
    recorder.levels = {0: torch.ones(1, 5)}
    with pytest.raises(ValueError, match='B, C, H, W'):
        recorder.heatmap((2, 2))
