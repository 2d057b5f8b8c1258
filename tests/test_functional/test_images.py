import torch

from mmfeatjnd.functional.images import group_by_size, resize_images


def image(*rows, channels=1):
    return torch.tensor([rows] * channels, dtype=torch.float32)


# ------------------------------------------------------------ several sizes
def test_groups_by_hand():
    wide, tall = torch.rand(4, 3, 2, 5), torch.rand(3, 3, 5, 2)
    images = [tall[0], wide[0], wide[1], tall[1], wide[2]]
    (first, a), (second, b) = group_by_size(images)
    assert first == [0, 3] and torch.equal(a, tall[:2])
    assert second == [1, 2, 4] and torch.equal(b, wide[:3])


def test_one_size_is_one_group():
    batch = torch.rand(2, 3, 4, 5)
    (where, same), = group_by_size(batch)
    assert where == [0, 1] and same is batch
    (where, stacked), = group_by_size(tuple(batch))
    assert where == [0, 1] and torch.equal(stacked, batch)


def test_pixels_keep_their_dtype():
    (_, batch), = group_by_size([torch.zeros(3, 2, 2, dtype=torch.uint8)])
    assert batch.dtype == torch.uint8


def test_other_channels_are_another_group():
    groups = group_by_size([torch.rand(3, 2, 2), torch.rand(1, 2, 2)])
    assert [len(x) for x, _ in groups] == [1, 1]


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
        torch.testing.assert_close(
            resize_images(batch[1:], size), together[1:])


def test_resizing_has_a_gradient():
    images = torch.rand(2, 3, 2, 3, requires_grad=True)
    resize_images(images, (4, 4)).sum().backward()
    assert (images.grad > 0).all()
