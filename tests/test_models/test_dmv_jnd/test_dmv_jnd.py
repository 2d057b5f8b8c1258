import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmpretrain.structures import DataSample

from mmfeatjnd.functional.dmv_jnd import merge_attention
from mmfeatjnd.functional.images import resize_images


def mse(e):
    return e.square().mean((1, 2, 3))


def distorted(model, pixels, samples=None, **kwargs):
    """Equal sizes; the JND itself without further arguments."""
    return model.distort(model.estimate(pixels, samples), **kwargs)


def named(number, first=0):
    """Data samples as a data pipeline names them."""
    return [
        DataSample(metainfo=dict(img_path=f'data/x/{i}.png'))
        for i in range(first, first + number)
    ]


# ----------------------------------------------------------------- estimate
@torch.no_grad()
def test_estimate_by_hand(build_dmv_jnd, images):
    model, pixels = build_dmv_jnd(clip=False), images(3)
    found = model.estimate(pixels, named(3))
    references = [task.reference(pixels.float()) for task in model.tasks]
    for one, other in zip(found.references, references):
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.attention, other.attention)
    attention = merge_attention(
        [resize_images(r.attention, (32, 32)) for r in references])
    assert torch.equal(found.attention, attention)
    x = pixels / 127.5 - 1
    e = model.net(x, attention)
    torch.testing.assert_close(found.clean, x)
    torch.testing.assert_close(found.jnd, e)
    assert found.ids == ['x/0.png', 'x/1.png', 'x/2.png']
    assert model.estimate(pixels).ids == [0, 1, 2]
    images = model.distort(found).images
    torch.testing.assert_close(
        images, 127.5 * (x + e + 1), rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_each_task_sees_pixels_normalized_its_own_way(build_dmv_jnd, images):
    model, pixels = build_dmv_jnd(), images(8)
    row = [s.dmv_jnd['tasks'] for s in model.predict(pixels)]
    images = distorted(model, pixels).images
    for task in model.tasks:
        host = task.host
        for key, seen in (('reference_label', pixels), ('label', images)):
            inputs = host.data_preprocessor(dict(inputs=seen))['inputs']
            labels = [int(r[task.name][key]) for r in row]
            assert labels == host(inputs).argmax(1).tolist()
    a, b = (t.host.data_preprocessor for t in model.tasks)
    assert a.mean.flatten()[0] == 120 and b.mean.flatten()[0] == 0


@torch.no_grad()
def test_a_list_of_equal_sizes_is_a_batch(build_dmv_jnd, images):
    model, pixels = build_dmv_jnd(), images(3)
    assert torch.equal(model(list(pixels)), model(pixels))
    torch.testing.assert_close(
        model(pixels[1:2])[0], model(pixels)[1], rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------- clip
@torch.no_grad()
def test_clip(build_dmv_jnd, images):
    pixels = images(4)
    model = build_dmv_jnd(strong=True)
    free = distorted(build_dmv_jnd(strong=True, clip=False), pixels)
    literal = (free.estimate.clean + free.change) * 127.5 + 127.5
    torch.testing.assert_close(free.images, literal)
    assert free.images.min() < -1 and free.images.max() > 256
    found = distorted(model, pixels)
    torch.testing.assert_close(
        found.images, literal.clamp(0, 255), rtol=0, atol=1e-3)
    # what is measured is what is left
    left = (found.images - pixels) / 127.5
    for e in (found.change, found.estimate.jnd):
        torch.testing.assert_close(e, left, rtol=0, atol=1e-5)
    row = model.predict(pixels)[0].dmv_jnd
    assert float(row['magnitude']) == pytest.approx(
        float(left[0].abs().mean()), rel=1e-4)
    assert float(row['mse']) == pytest.approx(
        float((found.images - pixels)[0].square().mean()), rel=1e-4)


@torch.no_grad()
def test_another_normalization(build_dmv_jnd, images):
    """The image that comes out is in pixels, whatever the net sees."""
    model, pixels = build_dmv_jnd(mean=0., std=255., strong=True), images(2)
    found = distorted(model, pixels)
    torch.testing.assert_close(found.estimate.clean, pixels / 255)
    assert found.images.min() > -1e-3 and found.images.max() < 255 + 1e-3
    torch.testing.assert_close(
        found.images, pixels + 255 * found.change, rtol=0, atol=1e-3)


# ----------------------------------------------------------------- strength
@torch.no_grad()
@pytest.mark.parametrize('clip', [True, False])
def test_strength(build_dmv_jnd, images, clip):
    model, pixels = build_dmv_jnd(strong=True, clip=clip), images(3)
    found = model.estimate(pixels)
    for k in (8 / 9, 1 / 9, 0., 1.):
        part = model.distort(found, strength=k)
        torch.testing.assert_close(
            part.change, k * found.jnd, rtol=0, atol=1e-6)
        torch.testing.assert_close(
            part.images, pixels + 127.5 * k * found.jnd, rtol=0, atol=1e-3)
    each = model.distort(found, strength=torch.tensor([0.5, 0., 1.]))
    for e, k, whole in zip(each.change, (0.5, 0., 1.), found.jnd):
        torch.testing.assert_close(e, k * whole, rtol=0, atol=1e-6)
    twice = model.distort(found, strength=2.)
    if clip:
        assert twice.images.min() > -1e-3 and twice.images.max() < 255.001
        assert (mse(twice.change) > mse(found.jnd)).all()
    else:
        torch.testing.assert_close(twice.change, 2 * found.jnd)


# -------------------------------------------------------------------- noise
@torch.no_grad()
@pytest.mark.parametrize('clip', [True, False])
@pytest.mark.parametrize('strength', [1., 0.25])
def test_noise_has_the_power_of_the_jnd(build_dmv_jnd, images, clip,
                                        strength):
    model, pixels = build_dmv_jnd(strong=True, clip=clip), images(4)
    found = model.estimate(pixels)
    jnd = model.distort(found, strength=strength).change
    noise = model.distort(found, distortion='gaussian', strength=strength)
    torch.testing.assert_close(
        mse(noise.change), mse(jnd), rtol=1e-3, atol=0)
    assert mse(jnd).std() > 1e-4  # image by image, not on average
    assert noise.estimate is found
    if clip:
        assert noise.images.min() > -1e-3 and noise.images.max() < 255.001
    else:
        unit = noise.change / mse(noise.change)[:, None, None, None].sqrt()
        # normal: mean 0, and a fourth moment of 3
        assert unit.mean().abs() < 0.03
        assert float(unit.pow(4).mean()) == pytest.approx(3, abs=0.2)


@torch.no_grad()
def test_no_noise_where_there_is_no_jnd(build_dmv_jnd, images):
    pixels = images(2)
    found = distorted(
        build_dmv_jnd(),
        pixels,
        distortion='gaussian',
        strength=torch.tensor([0., 1.]))
    assert found.change[0].abs().max() == 0 < found.change[1].abs().max()
    torch.testing.assert_close(found.images[0], pixels[0].float())


@torch.no_grad()
@pytest.mark.parametrize('clip', [True, False])
def test_noise_belongs_to_the_image(build_dmv_jnd, images, clip):
    model, pixels = build_dmv_jnd(clip=clip), images(4)

    def noise(pixels, samples, **kwargs):
        return distorted(
            model, pixels, samples, distortion='gaussian', **kwargs).change

    batch = noise(pixels, named(4))
    for i in (0, 3):
        alone = noise(pixels[i:i + 1], named(1, i))[0]
        torch.testing.assert_close(alone, batch[i], rtol=0, atol=1e-5)
    assert torch.equal(noise(pixels, named(4)), batch)  # no random state
    for other in (noise(pixels, named(4), seed=1), noise(pixels, named(4, 4))):
        assert not torch.allclose(other, batch, atol=1e-2)


# ------------------------------------------------------------ several sizes
def several_sizes(images, number=3):
    sizes = [(16, 24), (32, 32), (17, 9), (16, 24)]
    return [
        images(1, size, seed=i)[0] for i, size in enumerate(sizes[:number])
    ]


@torch.no_grad()
@pytest.mark.parametrize('distortion', ['dmv-jnd', 'gaussian', 'random-sign'])
def test_an_image_does_not_depend_on_the_batch(build_dmv_jnd, task_config,
                                               images, distortion):
    """In no size, and in no measurement: nothing is padded."""
    model = build_dmv_jnd(
        [task_config('a', input_size=16),
         task_config('b', input_size=(24, 32))],  # yapf: disable
        test_cfg=dict(distortion=distortion, strength=0.5))
    pixels, samples = several_sizes(images, 4), named(4)
    rows = model.predict(pixels, samples)
    for i, (row, image) in enumerate(zip(rows, pixels)):
        assert row is samples[i]
        alone = model.predict([image], named(1, i))[0].dmv_jnd
        for name in ('mse', 'magnitude', 'target'):
            torch.testing.assert_close(row.dmv_jnd[name], alone[name])
        assert row.dmv_jnd['tasks'].keys() == {'a', 'b'}
        for name, task in row.dmv_jnd['tasks'].items():
            assert task == alone['tasks'][name]
    # the first and the last have one size
    groups = [g for g, _ in model.estimate_batch(pixels, samples)]
    assert [g.positions for g in groups] == [[0, 3], [1], [2]]
    assert groups[0].data_samples == [samples[0], samples[3]]
    jnd = model(pixels)
    assert [x.shape for x in jnd] == [x.shape for x in pixels]
    torch.testing.assert_close(jnd[3], model(pixels[3:])[0])


@torch.no_grad()
def test_unnamed_images_of_several_sizes_differ_in_noise(build_dmv_jnd,
                                                         images):
    """Their position is in the batch, not among those of their size."""
    model = build_dmv_jnd(clip=False)
    small, large = several_sizes(images, 2)
    (_, one), (_, two) = model.estimate_batch([small, large])
    assert one.ids == [0] and two.ids == [1]
    noise, again, other = (
        model.distort(x, 'gaussian').change
        for x in (one, model.estimate(small[None]),
                  model.estimate(small[None], ids=[1])))
    assert torch.equal(noise, again) and not torch.allclose(noise, other)


def test_training_on_several_sizes(build_dmv_jnd, task_config, images):
    """Every term is the mean over the images."""
    model = build_dmv_jnd([task_config('a', input_size=16)])
    pixels = several_sizes(images, 4)
    losses = model.loss(pixels)
    each = [model.loss([image]) for image in pixels]
    for name, value in losses.items():
        mean = sum(part[name] for part in each) / 4
        torch.testing.assert_close(value, mean)
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    grads = [p.grad for p in model.net.parameters()]
    assert all(g.isfinite().all() and g.abs().sum() > 0 for g in grads)


def test_classifiers_of_any_size_need_no_input_size(build_dmv_jnd, images):
    model, pixels = build_dmv_jnd(), several_sizes(images)
    rows = model.predict(pixels)
    alone = model.predict([pixels[2]])
    assert rows[2].dmv_jnd['tasks'] == alone[0].dmv_jnd['tasks']


# ---------------------------------------------------------------- MMEngine
def test_loss(build_dmv_jnd, images):
    model = build_dmv_jnd(objective=dict(
        type='mmfeatjnd.DMVJNDLoss', beta=2., target_scale=0.5))
    pixels = images(4)
    losses = model(pixels, named(4), mode='loss')
    assert set(losses) == {
        'loss_task', 'loss_magnitude', 'loss_distribution',
        'jnd_magnitude', 'jnd_target'
    }
    found = model.estimate(pixels)
    task_losses = [
        task.loss(model.distort(found).images, reference)
        for task, reference in zip(model.tasks, found.references)
    ]
    torch.testing.assert_close(losses['loss_task'], sum(task_losses) / 2)
    torch.testing.assert_close(
        losses['jnd_target'], (1 - found.attention.mean()) / 2)
    torch.testing.assert_close(
        losses['jnd_magnitude'], found.jnd.detach().abs().mean())
    total, _ = model.parse_losses(losses)
    torch.testing.assert_close(
        total, sum(v for k, v in losses.items() if k.startswith('loss')))


def test_only_the_net_trains(build_dmv_jnd, images):
    model = build_dmv_jnd()
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {f'net.{n}' for n, _ in model.net.named_parameters()}
    model.train()
    assert all(m.training for m in model.net.modules())
    assert not any(
        m.training for task in model.tasks for m in task.host.modules())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    wrapper = build_optim_wrapper(
        model,
        dict(optimizer=dict(type='Adam', lr=1e-3, weight_decay=1e-3)))
    for _ in range(2):
        log = model.train_step(
            dict(inputs=images(4), data_samples=named(4)), wrapper)
    assert log['loss'].isfinite()
    assert {p for p in model.parameters() if p in wrapper.optimizer.state} == \
        set(model.net.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith('net.'), \
            name


def test_predict(build_dmv_jnd, images):
    model = build_dmv_jnd(
        test_cfg=dict(distortion='gaussian', strength=0.5, seed=3),
        objective=dict(type='mmfeatjnd.DMVJNDLoss', target_scale=0.5))
    pixels, samples = images(3), named(3)
    # as MMPretrain's data loaders give them, and as MMDetection's
    predicted = model.test_step(dict(inputs=pixels, data_samples=samples))
    listed = model.test_step(
        dict(inputs=list(pixels), data_samples=named(3)))
    assert [s.img_path for s in predicted] == [s.img_path for s in samples]
    found = distorted(
        model,
        pixels,
        named(3),
        distortion='gaussian',
        strength=0.5,
        seed=3)
    e = found.change.detach()
    attention, references = found.estimate[2:4]
    for i, (sample, other) in enumerate(zip(predicted, listed)):
        row = sample.dmv_jnd
        assert set(row) == {'mse', 'magnitude', 'target', 'tasks'}
        torch.testing.assert_close(row['mse'], mse(e)[i] * 127.5**2)
        torch.testing.assert_close(row['magnitude'], e[i].abs().mean())
        torch.testing.assert_close(
            row['target'], 0.5 * (1 - attention[i].mean()))
        assert list(row['tasks']) == ['a', 'b']
        for task, reference in zip(model.tasks, references):
            result = row['tasks'][task.name]
            expected = task.compare(found.images, reference)
            assert {k: float(v) for k, v in result.items()} == {
                k: float(v[i]) for k, v in expected.items()
            }
        assert not row['mse'].requires_grad
        assert row['mse'] == other.dmv_jnd['mse']
    assert 'dmv_jnd' in model.predict(pixels)[0]  # without data samples
    with pytest.raises(RuntimeError, match='Invalid mode "train"'):
        model(pixels, mode='train')


# -------------------------------------------------------------- checkpoints
def test_a_checkpoint_holds_everything(build_dmv_jnd, task_config, images,
                                       tmp_path):
    def build(seed):
        return build_dmv_jnd(
            [
                task_config('a', checkpoint='there/is/no.pth'),
                task_config('b', checkpoint='nor/here.pth', input_size=16)
            ],
            seed=seed)

    first, second, pixels = build(0), build(1), images(4)
    torch.save(first.state_dict(), tmp_path / 'all.pth')

    def predictions(model):
        return [
            [float(row['mse']), float(row['target'])] +
            [int(task['label']) for task in row['tasks'].values()]
            for row in (s.dmv_jnd for s in model.predict(pixels))
        ]

    assert predictions(second) != predictions(first)
    second.load_state_dict(torch.load(tmp_path / 'all.pth'))
    assert predictions(second) == predictions(first)


def test_init_weights_loads_the_tasks(build_dmv_jnd, task_config, tmp_path):
    path = str(tmp_path / 'host.pth')
    source = build_dmv_jnd([task_config('a')]).tasks[0].host.state_dict()
    torch.save(dict(state_dict=source), path)
    tasks = [task_config('a', checkpoint=path), task_config('b')]
    model = build_dmv_jnd(tasks, seed=1)
    model.init_weights()
    state = model.tasks[0].host.state_dict()
    assert all(torch.equal(state[k], v) for k, v in source.items())
    missing = str(tmp_path / 'none.pth')
    model = build_dmv_jnd([task_config('a', checkpoint=missing)])
    with pytest.raises(FileNotFoundError, match="'a'.*none.pth"):
        model.init_weights()


# ------------------------------------------------------------------- errors
def test_tasks_that_do_not_go_together(build_dmv_jnd, task_config,
                                       classifier):
    with pytest.raises(ValueError, match='`tasks` is empty'):
        build_dmv_jnd([])
    with pytest.raises(ValueError, match="2 tasks are called 'a'"):
        build_dmv_jnd([task_config('a'), task_config('a')])
    with pytest.raises(ValueError, match="'a': 4, 'b': 5.*same data set"):
        build_dmv_jnd(
            [task_config('a'), task_config('b', classifier(classes=5))])


@pytest.mark.parametrize('shape, error', [
    ((1, 32, 32), 'expects 3 channels.*with 1'),
    ((4, 32, 32), 'expects 3 channels.*with 4'),
    ((3, 32, 7), r'divides images by 8.*\(32, 7\)'),
])
def test_images_that_do_not_fit(build_dmv_jnd, shape, error):
    model, image = build_dmv_jnd(), torch.zeros(shape)
    good = torch.zeros(3, 32, 32)
    for images in (image[None], [image], [good, image]):
        with pytest.raises(ValueError, match=error):
            model.loss(images)


def test_estimate_takes_one_size(build_dmv_jnd):
    for images in ([torch.zeros(3, 32, 32)], torch.zeros(3, 32, 32)):
        with pytest.raises(ValueError, match=r'\(B, C, H, W\).*_batch'):
            build_dmv_jnd().estimate(images)


@torch.no_grad()
def test_other_images_in_the_place_of_the_distorted_ones(build_dmv_jnd,
                                                         images):
    model, pixels = build_dmv_jnd(), images(2)
    found = model.estimate(pixels)
    black = model.with_images(found, torch.zeros_like(pixels))
    torch.testing.assert_close(
        black.images, torch.zeros(pixels.shape), rtol=0, atol=1e-4)
    torch.testing.assert_close(black.change, -pixels.float() / 127.5)
    row = model.to_data_samples(black)[1].dmv_jnd
    torch.testing.assert_close(row['mse'], mse(pixels.float())[1])


def test_controls_keep_the_size_of_the_jnd(build_dmv_jnd, images):
    """Where nothing is clipped they differ from e by signs only."""
    model = build_dmv_jnd(clip=False)
    found = model.estimate(images(2))

    def change(distortion, **kwargs):
        return model.distort(found, distortion, **kwargs).change

    torch.testing.assert_close(change('sign-flipped'), -found.jnd)
    random = change('random-sign')
    torch.testing.assert_close(random.abs(), found.jnd.abs())
    same = (random.sign() == found.jnd.sign()).float().mean()
    assert 0.4 < same < 0.6
    assert torch.equal(random, change('random-sign'))
    assert not torch.equal(random, change('random-sign', seed=1))


def test_an_unknown_distortion(build_dmv_jnd, images):
    with pytest.raises(ValueError, match="'dmv-jnd', .*'gaussian'.*'blur'"):
        distorted(build_dmv_jnd(), images(1), distortion='blur')
