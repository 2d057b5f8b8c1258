import pytest
import torch

from mmfeatjnd.functional import (
    channel_dim,
    check_layout,
    from_channels_first,
    from_tokens,
    to_channels_first,
    to_tokens,
)


@pytest.mark.parametrize('shape, tokens, axis', [
    ((2, 5, 3, 4), 12, 1),
    ((2, 7, 5), 7, 2),
    ((2, 5), 1, 1),
])
def test_round_trip(shape, tokens, axis):
    feature = torch.arange(torch.Size(shape).numel()).float().view(shape)
    view = to_tokens(feature)
    assert view.shape == (2, tokens, 5)
    assert torch.equal(from_tokens(view, feature), feature)
    assert channel_dim(feature) == axis
    # one channel of the feature is one channel of the view
    channel = feature.select(axis, 3)
    assert torch.equal(view[..., 3].flatten(1), channel.reshape(2, -1))


def test_a_token_is_a_position_across_channels():
    feature = torch.arange(24.).view(1, 2, 3, 4)
    assert torch.equal(to_tokens(feature)[0, 6], feature[0, :, 1, 2])


def test_token_statistics_broadcast_back():
    feature = torch.rand(2, 5, 3, 4)
    weak = torch.rand(2, 12, 1).expand(2, 12, 5)
    back = from_tokens(weak, feature)
    assert back.shape == feature.shape
    assert torch.equal(back[:, 0], back[:, 4])
    assert torch.equal(back[1, 2, 2, 1], weak[1, 9, 0])


def test_check_layout():
    for shape in ((1, 2), (1, 2, 3), (1, 2, 3, 4)):
        check_layout(torch.zeros(shape, dtype=torch.float16))
    with pytest.raises(TypeError, match='level 3.*floating.*int64'):
        check_layout(torch.zeros(1, 2, dtype=torch.int64), 'level 3')
    with pytest.raises(TypeError, match='got list'):
        check_layout([1.])
    for shape in ((3, ), (1, 2, 3, 4, 5)):
        with pytest.raises(ValueError, match=r'\(B, C, H, W\).*got shape'):
            check_layout(torch.zeros(shape))


def test_channels_last_and_back():
    feature = torch.arange(120.).view(1, 4, 5, 6)  # 6 channels
    first = to_channels_first(feature, 'NHWC')
    assert first.shape == (1, 6, 4, 5)
    assert torch.equal(first[0, 2], feature[0, :, :, 2])
    assert first.data_ptr() == feature.data_ptr()  # a view
    assert torch.equal(from_channels_first(first, 'NHWC'), feature)
    # whatever has its channels in the second axis, and what is no map
    for x in (feature, feature[0], feature[0, 0]):
        assert to_channels_first(x, 'NCHW') is x
        assert from_channels_first(x, 'NCHW') is x
    for x in (feature[0], feature[0, 0]):
        assert to_channels_first(x, 'NHWC') is x
        assert from_channels_first(x, 'NHWC') is x
