import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image

from mmfeatjnd.models import FeatJNDNeck, JNDMapRecorder
from mmfeatjnd.visualization import draw_heat_maps


def set_envelope(estimator, first, second):
    """The envelope in units of each channel's RMS, by halves of the
    channels."""
    estimator.log_range = 1e6
    half = estimator.in_channels // 2
    with torch.no_grad():
        for p in estimator.parameters():
            p.zero_()
        estimator.expand.bias[:half] = torch.tensor(float(first)).log()
        estimator.expand.bias[half:] = torch.tensor(float(second)).log()


def test_recorder_changes_nothing_and_sees_the_envelope(build, batch):
    model = build('detector', estimator=dict(mode='envelope'))
    neck = model.featjnd_neck
    inputs, _ = batch('detector')
    for estimator in neck.estimators:
        set_envelope(estimator, 2.0, 0.5)
        estimator.channels.mean_square.uniform_(0.1, 10)
    with torch.no_grad():
        clean = model.extract_feat(inputs)
        recorder = JNDMapRecorder()
        with neck.run(recorder):
            same = model.extract_feat(inputs)
    assert all(torch.equal(a, b) for a, b in zip(clean, same))
    assert [tuple(maps.shape) for _, maps in recorder.maps] == [
        (2, 8, 8), (2, 4, 4), (2, 2, 2), (2, 1, 1)]
    for images, jnd in recorder.maps:
        assert images.tolist() == [0, 1]
        # the RMS of 2 and 1 / 2
        torch.testing.assert_close(
            jnd, torch.full_like(jnd, (4.25 / 2)**0.5))
    heat = recorder.heat_map((16, 24))
    torch.testing.assert_close(heat, torch.full((2, 16, 24), (4.25 / 2)**0.5))


def test_the_unit_does_not_depend_on_the_feature():
    """That of the channels, which differ by orders of magnitude."""
    neck = FeatJNDNeck(
        dict(
            type='mmfeatjnd.ConvEstimator', hidden_channels=2,
            mode='envelope'),
        in_channels=[4, 4]).eval()
    for estimator, jnd, unit in zip(neck.estimators, (0.25, 3.0),
                                    (1e-3, 1e4)):
        set_envelope(estimator, jnd, jnd)
        estimator.channels.mean_square.fill_(unit**2)
    recorder = JNDMapRecorder()
    with torch.no_grad(), neck.run(recorder):
        neck.apply_levels(
            [torch.rand(1, 4, 3, 3), 1e4 * torch.rand(1, 4, 2, 2)])
    for (_, maps), jnd in zip(recorder.maps, (0.25, 3.0)):
        torch.testing.assert_close(maps, torch.full_like(maps, jnd))
    # levels count alike, in octaves
    torch.testing.assert_close(
        recorder.heat_map((6, 6)), torch.full((1, 6, 6), 0.75**0.5))


def recorded(*maps):
    recorder = JNDMapRecorder()
    recorder.maps = [(torch.tensor(i), torch.tensor(m)) for i, m in maps]
    return recorder


def test_heat_map_by_hand():
    """The geometric mean of the levels as they are: nothing is stretched."""
    heat = recorded(
        ([0], [[[1.0, 4.0], [1.0, 4.0]]]),
        ([0], [[[64.0, 16.0], [64.0, 16.0]]])).heat_map((2, 2))
    torch.testing.assert_close(heat, torch.full((1, 2, 2), 8.0))
    # in between, bilinear in the logarithm
    heat = recorded(([0], [[[1.0, 16.0]]])).heat_map((1, 4))
    torch.testing.assert_close(heat, torch.tensor([[[1.0, 2.0, 8.0, 16.0]]]))


def test_images_can_be_compared():
    """One that tolerates twice as much has twice the values."""
    one = [[0.5, 1.0], [2.0, 0.25]]
    heat = recorded(
        ([0, 1], [one, (2 * np.array(one)).tolist()])).heat_map((2, 2))
    torch.testing.assert_close(heat[1], 2 * heat[0])
    torch.testing.assert_close(heat[0], torch.tensor(one))


def test_images_of_several_sizes():
    """Each fills the picture with its own part of the map."""
    heat = recorded(
        ([0, 2], [[[1.0, 1.0], [1.0, 1.0]], [[2.0, 2.0], [2.0, 2.0]]]),
        ([1], [[[2.0, 8.0]]]),
        # of another level all are there
        ([0, 1, 2], [[[1.0]], [[8.0]], [[8.0]]])).heat_map((2, 2))
    torch.testing.assert_close(
        heat,
        torch.tensor([
            [[1.0, 1.0], [1.0, 1.0]],
            [[4.0, 8.0], [4.0, 8.0]],
            [[4.0, 4.0], [4.0, 4.0]],
        ]))


def test_padding_is_no_part_of_the_map(build, batch):
    model = build('detector', estimator=dict(mode='envelope'))
    neck = model.featjnd_neck
    inputs, _ = batch('detector')
    recorder, alone = JNDMapRecorder(), JNDMapRecorder()
    with torch.no_grad():
        features = model.backbone(inputs)
        with neck.run(
                recorder, content=[(32, 32, 32, 32), (16, 32, 32, 32)]):
            neck.apply_levels(features)
        with neck.run(alone):
            neck.apply_levels(
                [x[1:, :, :-(-x.size(2) // 2)] for x in features])
    torch.testing.assert_close(
        recorder.heat_map((8, 8))[1], alone.heat_map((8, 8))[0])


def test_tokens_have_no_map():
    with pytest.raises(ValueError, match='B, C, H, W'):
        recorded(([0], [[1.0] * 5])).heat_map((2, 2))


def shade(value):
    """The colour of a value in [0, 1] over a white picture."""
    return 255 * (0.7 * np.array(colormaps['viridis'](value)[:3]) + 0.3)


def area(path, colour):
    pixels = np.asarray(Image.open(path).convert('RGB')).astype(float)
    return (np.abs(pixels - colour).max(-1) < 3).sum()


def test_all_maps_of_a_picture_are_on_one_scale(tmp_path):
    """1, 4 and 16: the ends of the logarithmic scale and its middle."""
    path = tmp_path / 'heat.png'
    white = np.full((8, 8, 3), 255, np.uint8)
    draw_heat_maps([white] * 3,
                   [torch.full((8, 8), v) for v in (1.0, 4.0, 16.0)], path)
    sizes = [area(path, shade(v)) for v in (0.0, 0.5, 1.0)]
    assert min(sizes) > 10000 and max(sizes) < 1.2 * min(sizes)
    assert area(path, shade(0.25)) < 1000  # of the colour bar only
    # beside larger ones, a map of 4 is no longer in the middle
    draw_heat_maps([white] * 3,
                   [np.full((8, 8), v) for v in (1.0, 4.0, 256.0)], path)
    assert area(path, shade(0.25)) > 10000
    # what is 0 has the colour of a thousandth of the largest
    draw_heat_maps([white] * 2, [np.full((8, 8), v) for v in (0.0, 2.0)], path)
    assert min(area(path, shade(v)) for v in (0.0, 1.0)) > 10000


@pytest.mark.parametrize('suffix, begin', [
    ('png', b'\x89PNG'), ('pdf', b'%PDF'), ('svg', b'<?xml')])
def test_the_suffix_gives_the_format(tmp_path, suffix, begin):
    path = tmp_path / f'heat.{suffix}'
    draw_heat_maps([np.zeros((4, 6, 3), np.uint8)], [np.ones((4, 6))], path)
    assert path.read_bytes().startswith(begin)
