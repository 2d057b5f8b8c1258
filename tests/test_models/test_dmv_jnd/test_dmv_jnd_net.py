import pytest
import torch

from mmfeatjnd.registry import MODELS


def build(**kwargs):
    torch.manual_seed(0)
    return MODELS.build(
        dict(type='mmfeatjnd.DMVJNDNet', widths=(4, 8, 8), **kwargs))


@pytest.mark.parametrize('size', [(32, 32), (8, 8), (37, 50)])
def test_the_jnd_has_the_shape_of_the_image(size):
    net = build()
    e = net(torch.randn(2, 3, *size), torch.rand(2, 1, *size))
    assert e.shape == (2, 3, *size)
    assert e.abs().max() < 1 and e.std() > 0


def test_the_bound():
    net = build(bound=0.1)
    torch.nn.init.constant_(net.decoder[-1].bias, 50.)
    e = net(torch.randn(2, 3, 16, 16), torch.rand(2, 1, 16, 16))
    torch.testing.assert_close(e, torch.full_like(e, 0.1))


def test_it_sees_image_and_attention():
    net = build().eval()
    x, c = torch.randn(1, 3, 16, 16), torch.rand(1, 1, 16, 16)
    e = net(x, c)
    assert not torch.allclose(e, net(x + 1, c))
    assert not torch.allclose(e, net(x, 1 - c))


def test_what_the_paper_names():
    kinds = [type(m).__name__ for m in build().modules()]
    assert kinds.count('MaxPool2d') == 3 and kinds.count('BatchNorm2d') == 8
    strides = [m.stride[0] for m in build().modules()
               if isinstance(m, torch.nn.ConvTranspose2d)]
    assert strides == [4, 2]


def test_check():
    net = build()
    for shape in ((2, 3, 8, 8), (3, 8, 9)):  # a batch, an image
        net.check(torch.rand(shape))
    for shape in ((2, 1, 8, 8), (4, 8, 8)):
        with pytest.raises(ValueError, match='expects 3 channels.*color_type'):
            net.check(torch.rand(shape))
    for shape in ((2, 3, 8, 7), (3, 7, 8)):
        with pytest.raises(ValueError, match='divides images by 8'):
            net.check(torch.rand(shape))
    build(in_channels=1).check(torch.rand(2, 1, 8, 8))


def test_errors():
    net = build()
    with pytest.raises(ValueError, match='expects 3 channels.*with 1'):
        net(torch.rand(2, 1, 16, 16), torch.rand(2, 1, 16, 16))
    with pytest.raises(ValueError, match=r'divides images by 8.*\(7, 16\)'):
        net(torch.rand(2, 3, 7, 16), torch.rand(2, 1, 7, 16))
    with pytest.raises(ValueError, match='divide the image by 8.*by 4'):
        build(strides=(4, ))
