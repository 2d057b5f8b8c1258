"""Sender and receiver by a plan, with the whole host and with a half of
it."""
import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import BaseDataElement
from PIL import Image

from mmfeatjnd.apis import (
    CheckpointError,
    CodecError,
    FeatureCodec,
    build_model,
    feature_codec,
    make_plan,
)
from mmfeatjnd.coding import BitstreamError
from mmfeatjnd.models.codec_plan import save_plan
from mmfeatjnd.models.forward_runs import prepare
from mmfeatjnd.models.host_half import load_half, save_half


def of(given):
    return Config.fromfile(given[0]), str(given[1])


def codec_of(given, split=None, step=None, nats=(1e-6, 1e-5), **kwargs):
    cfg, checkpoint = of(given)
    plan = make_plan(cfg, checkpoint, images=8, split=split, nats=nats,
                     **kwargs)
    return FeatureCodec(cfg, checkpoint, plan, device='cpu',
                     step=step or plan.curve[0][0])


def pictures(given):
    cfg = of(given)[0]
    dataset = cfg.test_dataloader.dataset
    root = dataset.data_root + '/' + (dataset.get('data_prefix')
                                      or dict(img='')).get('img', '')
    return sorted(p for p in Path(root).rglob('*')
                  if p.suffix in ('.png', '.jpg'))


def numbers(prediction):
    """All that a prediction says, as numbers."""
    found = []
    for _, value in sorted(prediction.items()):
        if isinstance(value, BaseDataElement):
            found += numbers(value)
        elif isinstance(value, torch.Tensor):
            found.append(value.double())
        elif isinstance(value, np.ndarray):
            found.append(torch.from_numpy(value).double())
    return found


def whole(codec, picture):
    """The prediction of the whole host with quantized features."""
    inputs, samples = codec.read(picture)
    with torch.no_grad():
        known = prepare(codec.neck, [codec.quantization], inputs, samples)
        with codec.neck.run(codec.quantization, **known) as run:
            prediction, = codec.model.predict(inputs, samples)
    return prediction, run


def check(codec, picture):
    data = codec.encode(picture)
    prediction = codec.decode(data)
    expected, run = whole(codec, picture)
    assert data == codec.quantization.streams(run)[0]
    got, wanted = numbers(prediction), numbers(expected)
    assert len(got) == len(wanted) > 0
    for a, b in zip(got, wanted):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    return data


@pytest.mark.parametrize('split', [
    'backbone', 'backbone.layer1', 'neck', 'backbone.conv1'])
def test_two_parts_of_a_classifier(small, split):
    codec = codec_of(small, split)
    for picture in pictures(small)[:2]:
        data = check(codec, picture)
        with pytest.raises(BitstreamError):
            codec.decode(data[:-1])
    # two pictures of one size need one blank
    assert codec.blank.cache_info().misses == 1


def test_two_parts_of_a_detector(boxes, tmp_path):
    """Pictures of several sizes; what is padded is not sent."""
    codec = codec_of(boxes, nats=(1e-3, 1e-2))
    sizes = []
    for i, picture in enumerate(pictures(boxes)[:2]):
        sizes.append(len(check(codec, picture)))
        cut = tmp_path / f'{i}.png'
        Image.open(picture).crop((0, 0, 30, 64)).save(cut)
        assert len(check(codec, cut)) < sizes[-1]


def test_pixels_and_features_are_as_good_as_a_file(small):
    codec = codec_of(small, 'backbone.layer1')
    picture = pictures(small)[0]
    data = codec.encode(picture)
    pixels = np.asarray(Image.open(picture))[..., ::-1].copy()  # as loaded
    assert codec.encode(pixels) == data
    seen = {}

    def look(feature, level):
        seen[level] = feature
        return feature

    inputs, samples = codec.read(picture)
    with torch.no_grad(), codec.neck.changing(look):
        codec.model.predict(inputs, samples)
    assert codec.encode_features(seen, (32, 32)) == data
    # of half the precision they are nearly the same
    half = codec.encode_features(
        {k: v.half() for k, v in seen.items()}, (32, 32))
    a, b = (codec.decode_features(x)[0] for x in (data, half))
    assert (a - b).abs().mean() < 0.02 * a.abs().mean()
    with pytest.raises(CodecError, match='level 0 is missing'):
        codec.encode_features({}, (32, 32))
    with pytest.raises(CodecError, match='an image of 16 x 32'):
        codec.encode_features(seen, (16, 32))


def test_what_is_decoded_is_near_what_was_sent(small):
    """By half a step in the components."""
    codec = codec_of(small, 'backbone.layer1', step=1e-7)
    picture = pictures(small)[1]
    found = codec.decode_features(codec.encode(picture))[0]
    inputs, samples = codec.read(picture)
    seen = []
    with torch.no_grad(), codec.neck.changing(
            lambda x, i: seen.append(x) or x):
        codec.model.predict(inputs, samples)
    assert found.shape == seen[0].shape
    code = codec.policy.code(0, torch.device('cpu'))
    error = code.components(found)[0] - code.components(seen[0])[0]
    assert error.abs().max() < 0.52e-7


def test_what_is_not_sent_is_found(boxes):
    """FPN reads four levels; of one alone nothing can be told."""
    codec = codec_of(boxes, nats=(1e-3, 1e-2))
    parts = dict(codec.plan.parts)
    del parts[0]
    cfg, checkpoint = of(boxes)
    other = FeatureCodec(cfg, checkpoint, codec.plan._replace(parts=parts),
                      step=codec.quantization.scale, device='cpu')
    for _ in range(2):
        with pytest.raises(CodecError, match='lateral_convs.0.*is not sent'):
            other.encode(pictures(boxes)[0])


def test_bad_arguments(small, tmp_path):
    codec = codec_of(small, 'backbone.layer1')
    with pytest.raises(CodecError, match='no.png: the image cannot be read'):
        codec.encode(tmp_path / 'no.png')
    with pytest.raises(ValueError, match='tolerance and step'):
        FeatureCodec(*of(small), codec.plan, tolerance=1, step=1)
    with pytest.raises(CodecError):
        FeatureCodec(*of(small), codec.plan, step=1, device='nowhere')
    with pytest.raises(CodecError, match='larger than any'):
        codec.blank(1 << 20, 1 << 20)


# ---------------------------------------------------------------- other hosts
def transformer(root, small):
    """A ViT with a class token on pictures of a classifier's test."""
    cfg = of(small)[0]
    cfg.model = dict(
        type='ImageClassifier',
        data_preprocessor=cfg.model.data_preprocessor,
        backbone=dict(
            type='VisionTransformer',
            arch=dict(embed_dims=16, num_layers=2, num_heads=2,
                      feedforward_channels=32),
            img_size=32, patch_size=4),
        head=dict(type='VisionTransformerClsHead', num_classes=4,
                  in_channels=16))
    cfg.work_dir = str(root / 'work')
    cfg.dump(root / 'config.py')
    torch.manual_seed(0)
    torch.save(build_model(copy.deepcopy(cfg)).state_dict(), root / 'm.pth')
    return root / 'config.py', root / 'm.pth'


def test_what_a_receiver_would_refuse_is_not_sent(small, monkeypatch):
    codec = codec_of(small)
    picture = pictures(small)[0]
    data = codec.encode(picture)
    monkeypatch.setattr(feature_codec, 'MAX_PIXELS', 32 * 32 - 1)
    with pytest.raises(CodecError, match='32 x 32 pixels: more than 1023'):
        codec.encode(picture)
    with pytest.raises(CodecError, match='larger than any that is read'):
        codec_of(small).decode(data)


def test_tokens_lie_on_their_grid(small, tmp_path):
    given = transformer(tmp_path, small)
    codec = codec_of(given, 'backbone.layers.0', nats=(1e-9, 1e-8))
    grid, token = codec.plan.parts[0]
    assert grid.block == 8 and token.block == 1  # of 8 x 8, and the class's
    check(codec, pictures(small)[0])


# ------------------------------------------------------------------- halves
CASES = [('small', 'backbone.layer1', (1e-6, 1e-5)),
         ('small', 'backbone', (1e-6, 1e-5)),
         ('boxes', 'backbone', (1e-3, 1e-2)),
         ('boxes', 'neck', (1e-3, 1e-2))]
IDLE = {
    ('small', 'backbone.layer1'):
    ('backbone.layer2', 'neck', 'head'),
    ('small', 'backbone'): ('neck', 'head'),
    ('boxes', 'backbone'): ('neck', 'rpn_head', 'roi_head'),
    ('boxes', 'neck'): ('rpn_head', 'roi_head'),
}


def written(codec, folder):
    """Files of both halves."""
    files = {}
    for side, half in codec.halves().items():
        files[side] = str(folder / f'{side}.safetensors')
        save_half(half, files[side])
    return files


def codecs(given, codec, files):
    return [FeatureCodec(of(given)[0], files[side], codec.plan, device='cpu',
                         step=codec.quantization.scale)
            for side in ('sender', 'receiver')]


@pytest.mark.parametrize('name, split, nats', CASES)
def test_two_halves_do_as_the_whole(request, tmp_path, name, split, nats):
    given = request.getfixturevalue(name)
    codec = codec_of(given, split, nats=nats)
    halves = codec.halves()
    assert halves['sender'].idle == IDLE[name, split]
    # the mask head, which this picture may not have needed, is there
    assert not set(halves['sender'].state) & set(halves['receiver'].state) - {
        k for k in halves['receiver'].state if 'data_preprocessor' in k}
    sender, receiver = codecs(given, codec, written(codec, tmp_path))
    for picture in pictures(given)[:2]:
        data = sender.encode(picture)
        assert data == codec.encode(picture)
        for a, b in zip(numbers(receiver.decode(data)),
                        numbers(codec.decode(data))):
            assert torch.equal(a, b)
    # nothing is there of the other side
    there = {n.partition('.')[0] for n, p in sender.model.named_parameters()
             if not p.is_meta}
    assert there == {'backbone', *['neck'] * (split == 'neck')}
    with pytest.raises(CodecError, match='this is the receiver'):
        receiver.encode(pictures(given)[0])
    with pytest.raises(CodecError, match='this is the sender'):
        sender.decode(data)


def test_halves_know_their_host_and_split(small, boxes, tmp_path):
    codec = codec_of(small, 'backbone.layer1')
    files = written(codec, tmp_path)
    cfg = of(small)[0]
    other = codec_of(small, 'backbone')
    with pytest.raises(CheckpointError, match="of split='backbone.layer1'"):
        FeatureCodec(cfg, files['sender'], other.plan, step=1, device='cpu')
    wrong = codec.plan._replace(host_hash='0' * 64)
    with pytest.raises(CheckpointError, match='another host'):
        FeatureCodec(cfg, files['sender'], wrong, step=1, device='cpu')
    half = load_half(files['receiver'])
    save_half(half._replace(state=dict(list(half.state.items())[:2])),
              tmp_path / 'cut.safetensors')
    with pytest.raises(CheckpointError, match='lacks .* of the receiver'):
        FeatureCodec(cfg, str(tmp_path / 'cut.safetensors'), codec.plan,
                     step=1, device='cpu')


def test_steps_by_the_answer_need_the_whole_host(small, tmp_path):
    codec = codec_of(small, 'backbone.layer1')
    files = written(codec, tmp_path)
    plan = codec.plan._replace(image_power=0.25)
    with pytest.raises(CodecError, match='--no-tail'):
        FeatureCodec(of(small)[0], files['sender'], plan, step=1,
                     device='cpu')
    whole = FeatureCodec(*of(small), plan, step=codec.quantization.scale,
                         device='cpu')
    features = codec.decode_features(codec.encode(pictures(small)[0]))
    with pytest.raises(CodecError, match='--no-tail'):
        whole.encode_features(features, (32, 32))


def test_half_precision_changes_little(small):
    plan = codec_of(small, 'backbone.layer1').plan
    # so fine that rounding adds little to the error of half precision
    step = plan.curve[0][0] / 100
    codecs = [FeatureCodec(*of(small), plan, device='cpu', amp=amp, step=step)
              for amp in (False, True)]
    picture = pictures(small)[0]
    a, b = (c.decode_features(c.encode(picture))[0] for c in codecs)
    assert 0 < (a - b).abs().mean() < 0.02 * a.abs().mean()


def test_the_tools(small, tmp_path, run_tool, capsys):
    codec = codec_of(small, 'backbone.layer1')
    plan = tmp_path / 'plan.safetensors'
    save_plan(codec.plan, plan)
    config, checkpoint = small
    files = [tmp_path / f'{side}.safetensors'
             for side in ('sender', 'receiver')]
    run_tool('model_converters/split_host.py', config, checkpoint, plan,
             *files)
    assert 'without backbone.layer2, neck, head' in capsys.readouterr().out
    source = pictures(small)[0].parent
    step = codec.quantization.scale
    run_tool('feature_codec.py', 'encode', config, files[0], plan, source,
             tmp_path / 'coded', '--step', step, '--jobs', 2, '--device',
             'cpu')
    run_tool('feature_codec.py', 'decode', config, files[1], plan,
             tmp_path / 'coded', '--out', tmp_path / 'found.pkl', '--device',
             'cpu')
    found = pickle.loads((tmp_path / 'found.pkl').read_bytes())
    assert len(found) == len(list(source.iterdir()))
    # bytes are those of this process
    first = sorted(source.iterdir())[0]
    assert codec.encode(first) == (
        tmp_path / 'coded' / f'{first.name}.fjnd').read_bytes()
