import pytest
import torch
from mmengine.structures import BaseDataElement

from mmfeatjnd.hosts import Answer, adapter_of, run_host, sharing_prefix
from mmfeatjnd.hosts.base import HostAdapter, total_loss
from mmfeatjnd.models import PrefixReplay, find_neck

SIZE = (24, 32)


# ------------------------------------------------------------------ decisions
def test_decisions():
    logits = torch.tensor([[2., 3., 1.], [0., -1., -2.]])
    assert Answer(logits, 'categorical').decisions().tolist() == [1, 0]
    binary = Answer(torch.tensor([[0.3, -0.3], [0., 5.]]), 'binary')
    # a probability of exactly one half is none above it
    assert binary.decisions().tolist() == [[1, 0], [0, 1]]
    # sigmoid(-0.3) = 0.4256
    assert binary._replace(threshold=0.42).decisions().tolist() == [
        [1, 1], [1, 1]]
    maps = torch.zeros(2, 3, 4, 5)
    assert Answer(maps, 'categorical').decisions().shape == (2, 4, 5)
    assert Answer(maps, 'binary').decisions().shape == (2, 3, 4, 5)


def test_total_loss_is_what_mmengine_sums(build):
    losses = dict(
        loss_a=torch.tensor([1., 3.]),
        b_loss=[torch.tensor(2.), torch.tensor([4., 6.])],
        acc=torch.tensor(100.))
    assert total_loss(losses) == 2 + 2 + 5
    assert build('classifier').parse_losses(losses)[0] == 9


# -------------------------------------------------------------------- content
class Adapter(HostAdapter):

    def own_targets(self, host, inputs, data_samples, score_thr):
        raise NotImplementedError


def content(*metas, training=False, size=SIZE):
    samples = [BaseDataElement(metainfo=meta) for meta in metas]
    return Adapter().content(
        None, torch.zeros(len(samples), 3, *size), samples, training)


def test_images_that_fill_the_input():
    assert content(dict(img_shape=SIZE), dict(img_shape=SIZE)) is None
    assert content(dict(), dict()) is None  # nothing is known
    assert Adapter().content(None, torch.zeros(2, 3, 4, 4), None,
                             False) is None
    # lists of images, as a data preprocessor that does not stack leaves them
    assert Adapter().content(None, [torch.zeros(3, 4, 4)],
                             [BaseDataElement()], False) is None


def test_images_beside_larger_ones():
    assert content(
        dict(img_shape=(24, 20)), dict(img_shape=(10, 32, 3)), dict()) == [
            (24, 20, 24, 32), (10, 32, 24, 32), (24, 32, 24, 32)]
    # never larger than what the host gets, nor nothing at all
    assert content(
        dict(img_shape=(30, 8)), dict(img_shape=(0, 40))) == [
            (24, 8, 24, 32), (1, 32, 24, 32)]


@pytest.mark.parametrize('training', [False, True])
def test_a_letterbox(training):
    """The grey border counts as part of `img_shape`: a picture of 30 x 60 in
    an input of 24 x 32 is 16 x 32 of it."""
    meta = dict(
        img_shape=SIZE, ori_shape=(30, 60), scale_factor=(32 / 60, 16 / 30))
    # after augmentation the size on disk says nothing
    expected = None if training else [(16, 32, 24, 32, *SIZE)]
    assert content(meta, training=training) == expected


def test_an_image_that_was_cut_after_resizing():
    meta = dict(img_shape=(20, 20), ori_shape=(50, 50), scale_factor=(1., 1.))
    assert content(meta) == [(20, 20, 24, 32)]
    # sizes on disk round to the nearest pixel, as the pipelines do
    meta = dict(img_shape=SIZE, ori_shape=(99, 99), scale_factor=(.2, .2))
    assert content(meta) == [(20, 20, 24, 32, *SIZE)]


def test_an_image_with_a_border_on_all_sides():
    """It does not begin at the top left."""
    meta = dict(img_shape=(10, 10), border=[4, 4, 14, 14])
    assert content(meta) is None
    assert content(meta, dict(img_shape=(24, 9))) == [
        (24, 32, 24, 32), (24, 9, 24, 32)]


# ----------------------------------------------------------------- the passes
def test_the_methods_are_the_hosts_own(build, batch, configs):
    """Not FeatJND's `loss`, nor somebody's patch of `forward`."""
    model, plain = build('classifier'), build(configs[0]('classifier'))
    model.load_state_dict(plain.state_dict(), strict=False)
    inputs, samples = batch('classifier')
    with torch.no_grad():
        expected = plain.loss(inputs, samples)
        assert run_host(model, 'loss', inputs, samples) == expected
        assert set(model.loss(inputs, samples)) != set(expected)
        model.forward = None
        logits = run_host(model, 'forward', inputs, mode='tensor')
    assert torch.equal(logits, plain(inputs, mode='tensor'))


@pytest.mark.parametrize('before', [False, True])
@pytest.mark.parametrize('training', [False, True])
def test_the_mode_in_a_pass(build, batch, before, training):
    """The host takes itself for in training; its parts stay as they are."""
    model = build('classifier').train(before)
    inputs, _ = batch('classifier')
    seen = []
    model.backbone.register_forward_hook(
        lambda *_: seen.append((model.training, model.backbone.training)))
    run_host(model, 'extract_feat', inputs, training=training)
    assert seen == [(training, False)] and model.training == before
    with pytest.raises(TypeError):
        run_host(model, 'extract_feat', training=training)
    assert model.training == before


def test_passes_over_one_input_share_what_lies_before_the_split(build, batch):
    model = build('classifier')
    inputs, _ = batch('classifier')
    calls = []
    model.backbone.layer1.register_forward_hook(lambda *_: calls.append(1))
    adapter = adapter_of(model)

    def answers():
        return [adapter.answer(model, inputs, None).logits for _ in range(3)]

    with torch.no_grad():
        expected = answers()
        assert len(calls) == 3
        with sharing_prefix(model, PrefixReplay(find_neck(model))):
            shared = answers()
            assert len(calls) == 4
        answers()
        assert len(calls) == 7
    for a, b in zip(shared, expected):
        assert torch.equal(a, b)


def test_a_loss_draws_by_its_seed_alone(build, batch):
    model = build('detector')
    model.rpn_head.sampler.num = model.roi_head.bbox_sampler.num = 6
    inputs, samples = batch('detector')
    adapter = adapter_of(model)
    with torch.no_grad():
        a = adapter.loss(model, inputs, samples, 7)
        state = torch.get_rng_state()
        b = adapter.loss(model, inputs, samples, 7)
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(123)
        assert a == b == adapter.loss(model, inputs, samples, 7)
        assert a != adapter.loss(model, inputs, samples, 8)
