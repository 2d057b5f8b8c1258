import pytest
import torch

from mmfeatjnd.functional.images import (
    crop_images,
    pad_images,
    resize_images,
    resize_maps,
)


def image(*rows, channels=1):
    return torch.tensor([rows] * channels, dtype=torch.float32)


def two_sizes():
    """One of 1x3 and one of 2x2 pixels, three channels each."""
    return [
        image([1., 2., 3.], channels=3),
        image([4., 5.], [6., 7.], channels=3)
    ]


# ---------------------------------------------------------- padding and back
def test_pad_by_hand():
    batch, content = pad_images(two_sizes())
    assert batch.shape == (2, 3, 2, 3)
    for channel in range(3):
        assert batch[:, channel].tolist() == [[[1., 2., 3.], [0., 0., 0.]],
                                              [[4., 5., 0.], [6., 7., 0.]]]
    assert content.dtype == torch.bool and content.shape == (2, 1, 2, 3)
    assert content[:, 0].int().tolist() == [[[1, 1, 1], [0, 0, 0]],
                                            [[1, 1, 0], [1, 1, 0]]]


def test_nothing_to_pad():
    batch = torch.rand(2, 3, 4, 5)
    assert pad_images(batch)[0] is batch
    stacked, content = pad_images([batch[0], batch[1]])
    assert torch.equal(stacked, batch) and content is None


def test_pixels_keep_their_dtype():
    batch, _ = pad_images([x.byte() for x in two_sizes()])
    assert batch.dtype == torch.uint8


def test_crop_undoes_pad():
    images = two_sizes()
    back = crop_images(pad_images(images)[0], images)
    assert all(torch.equal(a, b) for a, b in zip(back, images))
    batch = torch.rand(2, 3, 4, 5)
    assert crop_images(batch, batch) is batch
    assert crop_images(batch, list(batch)) is batch


def test_other_channels():
    with pytest.raises(ValueError, match=r'\(1, 2, 2\), \(3, 2, 2\)'):
        pad_images([torch.rand(3, 2, 2), torch.rand(1, 2, 2)])


# ------------------------------------------------------------------ resizing
def test_resize_by_hand():
    # centres of the new pixels at -0.25, 0.25, 0.75, 1.25 of the old ones
    larger = resize_images(image([0., 4.])[None], (1, 4))
    assert larger.tolist() == [[[[0., 1., 3., 4.]]]]
    # halved with a low-pass filter: a triangle of 4 pixels around 0.5, whose
    # weights 3, 3, 1 (1 lies outside) become 3/7, 3/7, 1/7
    smaller = resize_images(image([7., 7., 0., 0.])[None], (1, 2))
    torch.testing.assert_close(smaller[0, 0, 0], torch.tensor([6., 1.]))


def test_the_same_size_changes_nothing():
    batch = torch.rand(2, 3, 4, 5)
    assert resize_images(batch, [4, 5]) is batch


def test_an_image_is_resized_alone_as_in_a_batch():
    batch = torch.rand(2, 3, 6, 9)
    for size in ((3, 3), (12, 10), (6, 4)):
        together = resize_images(batch, size)
        assert together.shape == (2, 3, *size)
        torch.testing.assert_close(resize_images(list(batch), size), together)
    one, two = two_sizes()
    both = resize_images([one, two], (2, 4))
    torch.testing.assert_close(both[1], resize_images(two[None], (2, 4))[0])


def test_resizing_has_a_gradient():
    images = [x.requires_grad_() for x in two_sizes()]
    resize_images(images, (4, 4)).sum().backward()
    assert all((x.grad > 0).all() for x in images)


# ---------------------------------------------------------------------- maps
def test_maps_are_resized_to_their_images_and_padded():
    maps = torch.stack([image([0., 1.]), image([2., 2.])])  # 1x2 each
    found = resize_maps(maps, two_sizes())
    assert found.shape == (2, 1, 2, 3)
    torch.testing.assert_close(found[0, 0], torch.tensor([[0., 0.5, 1.],
                                                          [0., 0., 0.]]))
    assert found[1, 0].tolist() == [[2., 2., 0.], [2., 2., 0.]]
    assert torch.equal(resize_maps(list(maps), two_sizes()), found)


def test_maps_of_a_batch():
    maps = torch.rand(2, 1, 3, 3)
    like = torch.rand(2, 3, 6, 5)
    found = resize_maps(maps, like)
    torch.testing.assert_close(found, resize_images(maps, (6, 5)))
    # one map an image, of sizes of their own
    apart = resize_maps([maps[0], maps[1][:, :2]], like)
    torch.testing.assert_close(apart[0], found[0])
    torch.testing.assert_close(
        apart[1], resize_images(maps[1:, :, :2], (6, 5))[0])
