"""A host in two parts, with files between them."""
import binascii
import copy
import functools
import importlib
import json
import pickle
import re
import runpy
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from PIL import Image

import mmfeatjnd  # noqa: F401
from mmfeatjnd.apis import (
    CodecError,
    ConfigError,
    FeatureCodec,
    build_model,
    build_runner,
)
from mmfeatjnd.apis.codec_images import image_pipeline
from mmfeatjnd.cli.predictions import write_predictions
from mmfeatjnd.coding import BitstreamError
from mmfeatjnd.evaluation.predictions import same_prediction
from mmfeatjnd.functional import identity_transform
from mmfeatjnd.models import host_hash, neck_at
from mmfeatjnd.models.codec_plan import CodecPlan, rounded_part, save_plan
from mmfeatjnd.models.forward_runs import every_forward

LIBRARY = dict(
    classifier='mmpretrain', segmentor='mmseg', detector='mmdet')
PIPELINES = dict(
    classifier=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
    segmentor=[
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(32, 32)),
        dict(type='LoadAnnotations', reduce_zero_label=True),
        dict(type='PackSegInputs')
    ],
    detector=[
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(48, 32), keep_ratio=True),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
        dict(
            type='PackDetInputs',
            meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                       'scale_factor'))
    ])
SPLITS = [
    ('classifier', dict(split='backbone')),
    ('classifier', dict(split='backbone.layer2', in_channels=16)),
    ('segmentor', dict(split='backbone')),
    ('segmentor', dict(split='backbone', levels=[3])),
    ('segmentor', dict(split='backbone.layer2', in_channels=16)),
    ('detector', dict(split='backbone')),
    ('detector', dict(split='neck')),
    ('detector', dict(split='c2', in_channels=[16] * 4)),
    ('detector', dict(split='backbone.layer1', in_channels=8)),
]
IDS = [f'{k}-{v["split"]}-{v.get("levels", "")}' for k, v in SPLITS]


@pytest.fixture
def make(configs, tmp_path):
    """A config and the checkpoint of its plain host, without estimators."""

    def make(kind, **neck):
        host, featjnd = configs
        neck['estimator'] = dict(mode='envelope')
        cfg = Config(
            dict(
                model=featjnd(kind, **neck),
                default_scope=LIBRARY[kind],
                test_dataloader=dict(dataset=dict(pipeline=PIPELINES[kind]))))
        torch.manual_seed(0)
        model = build_model(cfg.copy()).eval()
        for m in model.modules():  # what batch norm learns from data
            if hasattr(m, 'running_mean') and m.running_mean is not None:
                torch.nn.init.uniform_(m.running_mean, -0.2, 0.2)
                torch.nn.init.uniform_(m.running_var, 0.5, 1.5)
        for name, p in model.named_parameters():
            if 'neck.estimators' not in name:
                torch.nn.init.normal_(p, std=1 / max(p[0].numel(), 4)**0.5)
        state = {
            k.replace('neck.neck.', 'neck.'): v
            for k, v in model.state_dict().items()
            if not k.startswith(('neck.estimators', 'featjnd_objective'))
        }
        checkpoint = tmp_path / f'{kind}.pth'
        torch.save(dict(state_dict=state), checkpoint)
        return cfg, str(checkpoint)

    return make


def plan_of(cfg, checkpoint):
    """One step for all levels, and scales that fit nothing much."""
    model = build_model(cfg.copy()).eval()
    state = torch.load(checkpoint)['state_dict']
    model.load_state_dict(state, strict=False)
    neck = neck_at(model)
    parts = {
        i: (rounded_part(identity_transform(neck.in_channels[i]), 'shared'), )
        for i in neck.levels
    }
    return CodecPlan(parts, 'uniform', neck.split, neck.levels,
                     host_hash(model), 0, 0)


def codec_of(cfg, checkpoint, step=0.5, levels=None):
    plan = plan_of(cfg, checkpoint)
    if levels is not None:
        plan = plan._replace(parts={i: plan.parts[i] for i in levels})
    return FeatureCodec(cfg, checkpoint, plan, step=step, device='cpu')


def images(folder, *names, size=(40, 32)):
    for i, name in enumerate(names):
        rng = np.random.default_rng(i)
        low = rng.integers(0, 256, (4, 5, 3), np.uint8)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(low).resize(size).save(path)
    return folder


def whole(codec, path):
    """The host in one piece, under the same quantization."""
    inputs, samples = codec.read(path)
    with torch.no_grad(), every_forward(codec.neck, codec.quantization):
        return codec.model(inputs, samples, mode='predict')[0]


def convolutions(monkeypatch, model, function):
    """Result, and the names of the convolutions that really run."""
    names, seen = {m: n for n, m in model.named_modules()}, []
    original = torch.nn.Conv2d._conv_forward

    def counted(self, *args):
        seen.append(names[self])
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Conv2d, '_conv_forward', counted)
        result = function()
    return result, seen


@pytest.mark.parametrize('kind, neck', SPLITS, ids=IDS)
def test_two_parts_equal_the_whole(make, tmp_path, kind, neck):
    folder = images(tmp_path / 'images', 'a.png', 'b.png')
    cfg, checkpoint = make(kind, **neck)
    levels = neck.get('levels') or (kind == 'segmentor' and
                                    neck['split'] == 'backbone' and [3])
    sender, receiver = (
        codec_of(cfg, checkpoint, levels=levels or None) for _ in range(2))
    for name in ('a.png', 'b.png'):
        expected = whole(sender, folder / name)
        got = receiver.decode(sender.encode(folder / name), name)
        assert same_prediction(got, expected)
        assert got.img_path == name
        for key in expected.metainfo_keys():
            if key != 'img_path':
                value = getattr(expected, key)
                assert getattr(got, key) == value
                assert type(getattr(got, key)) is type(value)
    # the distortion is real
    clean = whole(codec_of(cfg, checkpoint, 1e-5), folder / 'b.png')
    assert not same_prediction(got, clean)


BEFORE = [
    'backbone.', r'backbone\.(conv1|layer[12]\.)', 'backbone.', 'backbone.',
    r'backbone\.(stem|layer[12]\.)', 'backbone.',
    r'backbone\.|neck\.neck\.', r'backbone\.|neck\.neck\.lateral',
    r'backbone\.(conv1|layer1\.)'
]


@pytest.mark.parametrize('case, before', zip(SPLITS, BEFORE), ids=IDS)
def test_each_part_runs_only_its_modules(make, monkeypatch, tmp_path, case,
                                         before):
    kind, neck = case
    folder = images(tmp_path / 'images', 'a.png', 'b.png')
    levels = [3] if kind == 'segmentor' and neck['split'] == 'backbone' \
        else None
    codec = codec_of(*make(kind, **neck), levels=levels)
    codec.encode(folder / 'a.png')  # and check
    data, first = convolutions(
        monkeypatch, codec.model, lambda: codec.encode(folder / 'b.png'))
    _, second = convolutions(monkeypatch, codec.model,
                             lambda: codec.decode(data))
    assert first and all(re.match(before, n) for n in first)
    assert kind == 'classifier' or second
    assert not [n for n in second if re.match(before, n)]


def test_what_is_not_sent_is_found(make, tmp_path):
    folder = images(tmp_path / 'images', 'a.png')
    for neck, match in (
            (dict(split='r3', in_channels=16),
             "split='backbone.layer2'.*not sent.*Use split='backbone' with"),
            (dict(split='backbone', levels=[0, 1]), 'not sent.*with all')):
        codec = codec_of(*make('detector', **neck))
        with pytest.raises(CodecError, match=match):
            codec.encode(folder / 'a.png')
    # the shortcut of a residual block
    codec = codec_of(*make(
        'classifier', split='backbone.layer2.0.conv1', in_channels=16))
    with pytest.raises(CodecError, match='is not sent'):
        codec.encode(folder / 'a.png')


def test_a_sliding_window_is_refused(make, tmp_path):
    folder = images(tmp_path / 'images', 'a.png')
    cfg, checkpoint = make('segmentor')
    cfg.model.test_cfg = dict(
        mode='slide', crop_size=(16, 16), stride=(16, 16))
    codec = codec_of(cfg, checkpoint, levels=[3])
    with pytest.raises(CodecError, match='several times.*mode=.whole'):
        codec.encode(folder / 'a.png')


def test_bytes_do_not_depend_on_other_images(make, tmp_path):
    folder = images(tmp_path / 'images', 'a.png', 'b.png', 'c.png')
    codec = codec_of(*make('classifier'))
    names = ('a.png', 'b.png', 'c.png')
    one = [codec.encode(folder / n) for n in names]
    other = [codec.encode(folder / n) for n in names[::-1]]
    assert one == other[::-1] and len(set(one)) == 3


# ------------------------------------------------------------------ pipeline
def test_pipeline_loads_no_annotations():
    cfg = Config(
        dict(
            test_dataloader=dict(
                dataset=dict(
                    type='RepeatDataset',
                    dataset=dict(pipeline=PIPELINES['detector'])))))
    names = [t['type'] for t in image_pipeline(cfg)]
    assert names == ['LoadImageFromFile', 'Resize', 'PackDetInputs']


@pytest.mark.parametrize('cfg', [
    dict(), dict(test_dataloader=None),
    dict(test_dataloader=dict(dataset=dict(pipeline=[dict(type='Pack')])))
])
def test_pipeline_must_read_files(cfg):
    with pytest.raises(ConfigError, match='must begin with LoadImageFromFile'):
        image_pipeline(Config(cfg))


# ------------------------------------------------------------------- the tool
@pytest.fixture
def run(run_tool):
    return functools.partial(run_tool, 'feature_codec.py')


@pytest.fixture
def project(make, tmp_path):
    cfg, checkpoint = make('detector')
    config = tmp_path / 'config.py'
    cfg.dump(config)
    plan = tmp_path / 'plan.safetensors'
    save_plan(plan_of(cfg, checkpoint), plan)
    folder = images(tmp_path / 'images', 'a.png', 'sub/a.png', 'sub/b.png',
                    'sub/b.bmp')
    (folder / 'notes.txt').write_text('no image')
    return config, checkpoint, plan, folder, tmp_path / 'features'


@pytest.fixture
def encode(run, project):
    return functools.partial(run, 'encode', *project, '--device', 'cpu')


def files_below(folder):
    return sorted(
        f.relative_to(folder).as_posix() for f in folder.rglob('*')
        if f.is_file())


def test_encode_info_decode(run, encode, project, tmp_path, capsys):
    config, checkpoint, plan, folder, out = project
    encode('--step', '0.1')
    text = capsys.readouterr().out
    names = ['a.png.fjnd', 'sub/a.png.fjnd', 'sub/b.bmp.fjnd',
             'sub/b.png.fjnd']
    assert files_below(out) == names
    total = sum((out / n).stat().st_size for n in names)
    assert f'4 images: {total} bytes, {8 * total / 5120:.4f} bits' in text
    encode('--step', '0.5')  # overwrites
    assert files_below(out) == names
    assert sum((out / n).stat().st_size for n in names) < total
    (out / '.a.4711.fjnd').touch()  # of a run that was killed
    capsys.readouterr()
    encode('--step', '0.5')
    assert f'unfinished: {out}/.a.4711.fjnd. Delete it' in \
        capsys.readouterr().out

    run('info', plan, out / 'sub')
    text = capsys.readouterr().out
    size = (out / 'sub/a.png.fjnd').stat().st_size
    assert f'sub/a.png.fjnd: {size} bytes' in text
    assert "split='backbone', code 'uniform'" in text
    assert '32 x 40 pixels, step 0.5' in text

    predictions = tmp_path / 'p.pkl'
    run('decode', config, checkpoint, plan, out, '--out', predictions,
        '--device', 'cpu')
    rows = pickle.loads(predictions.read_bytes())
    assert [r['img_path'] for r in rows] == [
        'a.png', 'sub/a.png', 'sub/b.bmp', 'sub/b.png'
    ]
    assert rows[0]['ori_shape'] == (32, 40)
    # the same rows as from the host in one piece
    codec = codec_of(Config.fromfile(config), checkpoint)
    expected = whole(codec, folder / 'a.png')
    write_predictions(codec.cfg, [expected], tmp_path / 'q.pkl')
    row, = pickle.loads((tmp_path / 'q.pkl').read_bytes())
    assert len(rows[0]['pred_instances']['bboxes'])
    assert same_prediction(rows[0], row)


def test_encode_refuses(run, encode, project, tmp_path):
    config, checkpoint, plan, folder, out = project
    with pytest.raises(SystemExit, match='beyond what the plan has measured'):
        encode()
    with pytest.raises(SystemExit, match='is no plan'):
        run('encode', config, checkpoint, checkpoint, folder, out)
    with pytest.raises(SystemExit, match='does not exist'):
        run('encode', config, checkpoint, plan, folder / 'x', out)
    with pytest.raises(SystemExit, match='holds no file that ends with'):
        (tmp_path / 'empty').mkdir()
        run('encode', config, checkpoint, plan, tmp_path / 'empty', out)
    with pytest.raises(SystemExit, match='cannot read the checkpoint'):
        run('encode', config, tmp_path / 'no.pth', plan, folder, out,
            '--step', 1)
    with pytest.raises(SystemExit, match='is no estimator file'):
        encode('--estimator', checkpoint, '--step', 1)
    (tmp_path / 'file').touch()
    with pytest.raises(SystemExit, match='is not a folder'):
        run('encode', config, checkpoint, plan, folder, tmp_path / 'file')
    state = torch.load(checkpoint)['state_dict']
    torch.save({k: v for k, v in state.items() if 'rpn' not in k},
               tmp_path / 'part.pth')
    with pytest.raises(SystemExit, match='lacks 6 of .* weights .*rpn_head'):
        run('encode', config, tmp_path / 'part.pth', plan, folder, out,
            '--step', 1)
    assert not out.exists()


def test_a_broken_image_is_named(encode, project, capsys):
    *_, folder, out = project
    (folder / 'sub/a.png').write_bytes(b'no image')
    with pytest.raises(SystemExit, match=r'sub/a\.png: the image cannot'):
        encode('--step', 1)
    assert files_below(out) == ['a.png.fjnd']


def test_decode_refuses(run, encode, project, tmp_path, make):
    config, checkpoint, plan, folder, out = project
    encode('--step', 1)
    target = tmp_path / 'p.pkl'
    target.write_text('old')

    def refused(match, plan=plan, checkpoint=checkpoint):
        with pytest.raises(SystemExit, match=match):
            run('decode', config, checkpoint, plan, out, '--out', target,
                '--device', 'cpu')
        assert target.read_text() == 'old'

    good = (out / 'sub/a.png.fjnd').read_bytes()
    for bad, match in ((good[:-1], 'checksum'), (good + b'x', 'checksum'),
                       (good[:99] + b'?' + good[100:], 'checksum'),
                       (b'', 'truncated'), (b'PK' + good[2:], 'version 40')):
        (out / 'sub/a.png.fjnd').write_bytes(bad)
        refused(f'sub/a.png.fjnd: .*{match}')
    (out / 'sub/a.png.fjnd').write_bytes(good)

    state = torch.load(checkpoint)
    state['state_dict']['backbone.conv1.weight'] += 1
    torch.save(state, tmp_path / 'other.pth')
    refused('the plan is of another host checkpoint',
            checkpoint=tmp_path / 'other.pth')
    save_plan(plan_of(Config.fromfile(config), tmp_path / 'other.pth'),
              tmp_path / 'other')
    refused('was made with another plan', plan=tmp_path / 'other')
    with pytest.raises(SystemExit, match='whose name ends with .pkl'):
        run('decode', config, checkpoint, plan, out, '--out',
            tmp_path / 'p.json')
    assert target.read_text() == 'old'


def test_a_stream_that_lies_is_refused(make, tmp_path):
    """Its checksum fits, but it is not what this host wrote."""
    folder = images(tmp_path / 'images', 'a.png')
    codec = codec_of(*make('classifier'))
    data = codec.encode(folder / 'a.png')

    def sealed(body):
        found = binascii.crc_hqx(body, binascii.crc_hqx(
            codec.policy.digest, 0))
        return body + struct.pack('<H', found)

    assert sealed(data[:-2]) == data
    for body in (data[:1] + b'\x00' + data[2:-2],  # no height
                 data[:1] + b'\xff' * 4 + b'\x01' + data[2:-2],
                 data[:-2] + b'\x55' * 40, data[:1] + b'\xff' * 9):
        with pytest.raises((BitstreamError, CodecError)):
            codec.decode(sealed(body))
    generator = np.random.default_rng(0)
    for _ in range(20):  # any garbage is an error or a prediction
        body = data[:4] + generator.bytes(60)
        try:
            codec.decode(sealed(body))
        except (BitstreamError, CodecError):
            pass


def test_names_of_files_are_printed_escaped(run, make, tmp_path, capsys):
    cfg, checkpoint = make('classifier')
    cfg.dump(tmp_path / 'config.py')
    codec = codec_of(cfg, checkpoint)
    save_plan(codec.plan, tmp_path / 'plan')
    folder = images(tmp_path / 'images', 'a.png')
    file = tmp_path / 'a\x1b.png.fjnd'
    file.write_bytes(codec.encode(folder / 'a.png'))
    run('info', tmp_path / 'plan', file)
    text = capsys.readouterr().out
    assert r'a\x1b.png.fjnd: ' in text
    assert text.isascii() and '\x1b' not in text
    run('decode', tmp_path / 'config.py', checkpoint, tmp_path / 'plan', file,
        '--out', tmp_path / 'p.pkl')
    assert r'a\x1b.png.fjnd: a\x1b.png' in capsys.readouterr().out
    file.write_bytes(b'')
    with pytest.raises(SystemExit, match=r'a\\x1b.png.fjnd: truncated'):
        run('info', tmp_path / 'plan', file)


# ----------------------------------------------- what the rest of a host needs
def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def photo(size=(40, 32), seed=1):
    rng = np.random.default_rng(seed)
    return np.array(Image.fromarray(
        rng.integers(0, 256, (4, 5, 3), np.uint8)).resize(size))


def grey(size=(40, 32)):
    return np.full((*size[::-1], 3), 128, np.uint8)


YOLOX_PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='Pad', pad_to_square=True, pad_val=dict(img=(114.,) * 3)),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs',
         meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                    'scale_factor'))
]


@pytest.fixture
def yolox(tmp_path):
    """A tiny YOLOX with its letterbox, and the checkpoint of the host."""

    def make(**neck):
        from mmengine.hub import get_config
        cfg = get_config('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py').model
        cfg.data_preprocessor.batch_augments = None
        cfg.backbone.widen_factor = 0.125
        cfg.neck.update(
            in_channels=[32, 64, 128], out_channels=16, num_csp_blocks=1)
        cfg.bbox_head.update(in_channels=16, feat_channels=16, num_classes=3)
        cfg.test_cfg.update(score_thr=0.2, max_per_img=5)
        model = cfg.to_dict()
        model['neck'] = dict(
            type='mmfeatjnd.FeatJNDNeck',
            neck=model['neck'],
            estimator=dict(type='mmfeatjnd.ConvEstimator', hidden_channels=8),
            **neck)
        model.update(type='mmfeatjnd.FeatJND', host='mmdet.YOLOX')
        cfg = Config(
            dict(
                model=model,
                default_scope='mmdet',
                test_dataloader=dict(dataset=dict(pipeline=YOLOX_PIPELINE))))
        torch.manual_seed(0)
        host = build_model(cfg.copy()).eval()
        for name, p in host.named_parameters():
            if 'neck.estimators' not in name:
                torch.nn.init.normal_(p, std=1.5 / max(p[0].numel(), 4)**0.5)
        torch.save(dict(state_dict=host.state_dict()), tmp_path / 'yolox.pth')
        return cfg, str(tmp_path / 'yolox.pth')

    return make


@pytest.mark.parametrize('neck', [
    dict(levels=[2]),
    dict(split='backbone.stage4', in_channels=128),
], ids=['levels', 'named'])
@pytest.mark.parametrize('score_thr', [0.2, 1.1])
def test_every_picture_is_refused_alike(yolox, tmp_path, neck, score_thr):
    """Where nothing is found, two empty predictions are equal: with a grey
    picture first, files were written that decode to nothing."""
    cfg, checkpoint = yolox(**neck)
    cfg.model.test_cfg.score_thr = score_thr
    pictures = [write(tmp_path / 'grey.png', grey()),
                write(tmp_path / 'photo.png', photo())]
    for order in (pictures, pictures[::-1]):
        codec = codec_of(cfg, checkpoint)
        for path in order:
            with pytest.raises(CodecError, match="module 'neck.* reads what "
                               'comes before split=.* and is not sent'):
                codec.encode(path)


@pytest.mark.parametrize('neck', [
    dict(), dict(split='neck'),
    dict(split='backbone.stage2', in_channels=32)
], ids=['backbone', 'neck', 'named'])
def test_letterboxes_are_not_sent(yolox, tmp_path, neck):
    """Two parts are the whole, whose padding is filled alike; files are the
    smaller the less picture there is."""
    cfg, checkpoint = yolox(**neck)
    sender, receiver = (codec_of(cfg, checkpoint) for _ in range(2))
    sizes, found = {}, 0
    for name, size in (('grey', (64, 64)), ('square', (64, 64)),
                       ('wide', (64, 20)), ('tall', (7, 50)),
                       ('line', (200, 3)), ('dot', (1, 1))):
        pixels = (grey if name == 'grey' else photo)(size)
        path = write(tmp_path / f'{name}.png', pixels)
        expected = whole(sender, path)
        data = sender.encode(path)
        assert same_prediction(receiver.decode(data), expected)
        found += len(expected.pred_instances)
        sizes[name] = len(data)
    assert found > 3
    assert sizes['line'] < sizes['wide'] < sizes['square']
    assert sizes['tall'] < sizes['square']


def test_padded_pictures_round_trip(make, tmp_path):
    """The input is padded to multiples of 32, the maps with it."""
    cfg, checkpoint = make('detector')
    cfg.model.data_preprocessor.pad_size_divisor = 32
    sender, receiver = (codec_of(cfg, checkpoint) for _ in range(2))
    lengths = {}
    for size in ((48, 32), (40, 32), (20, 32), (48, 6)):
        path = write(tmp_path / f'{size}.png', photo(size))
        expected = whole(sender, path)
        data = sender.encode(path)
        assert same_prediction(receiver.decode(data), expected)
        assert len(expected.pred_instances)
        lengths[size] = len(data)
        # 48 x 32 at most within 64 x 32
        feature = receiver.decode_features(data)[0]
        height, width = expected.img_shape
        assert feature.shape == (1, 8, -(-height // 4), -(-width // 4))
    assert lengths[48, 6] < lengths[48, 32]


# ------------------------------------------------------------------- precision
def test_a_sender_of_half_the_precision(make, tmp_path):
    """What is sent has no precision of its own."""
    path = write(tmp_path / 'a.png', photo())
    sender, receiver = (codec_of(*make('classifier'), 0.05)
                        for _ in range(2))
    expected = receiver.decode(sender.encode(path)).pred_score
    with torch.autocast('cpu', torch.bfloat16):
        data = sender.encode(path)
    got = receiver.decode(data).pred_score
    torch.testing.assert_close(got, expected, rtol=0.1, atol=0.05)
    assert got.dtype == torch.float32
    receiver.model.bfloat16()
    receiver.decode(data)


def test_a_picture_that_the_host_cannot_take(make, tmp_path):
    """Its own error, with the picture's name."""
    codec = codec_of(*make('classifier'))
    path = write(tmp_path / 'a.png', photo())

    def small(module, args):
        assert args[0].shape[2] > 999, 'smaller than the window'

    codec.model.backbone.layer2.register_forward_pre_hook(small)
    with pytest.raises(CodecError, match=r'a\.png: the host fails on this '
                       r'image \(smaller than the window'):
        codec.encode(path)
    assert codec.neck.change is None and not codec.neck.attached


# -------------------------------------------------------------------- scoring
def score(capsys, monkeypatch, library, *argv):
    """What the host's own tools/analysis_tools/eval_metric.py prints."""
    tool = Path(importlib.import_module(library).__file__).parent.joinpath(
        '.mim/tools/analysis_tools/eval_metric.py')
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(sys, 'argv', [str(tool), *map(str, argv)])
        runpy.run_path(str(tool), run_name='__main__')
    return capsys.readouterr().out


def operating(cfg, checkpoint, folder, **kwargs):
    """The metrics of tools/test.py under the same quantization."""
    cfg = copy.deepcopy(cfg)
    cfg.load_from, cfg.work_dir = checkpoint, str(folder / 'work')
    cfg.test_cfg, cfg.val_evaluator = dict(), None
    cfg.log_level = 'ERROR'
    cfg.custom_hooks = [dict(type='mmfeatjnd.QuantizationHook', **kwargs)]
    return build_runner(cfg).test()


def code(run, cfg, checkpoint, folder, tmp_path, levels=None):
    """Encode a folder, decode it, and dump."""
    config, out = tmp_path / 'config.py', tmp_path / 'features'
    cfg.dump(config)
    plan = plan_of(cfg, checkpoint)
    if levels is not None:
        plan = plan._replace(parts={i: plan.parts[i] for i in levels})
    save_plan(plan, tmp_path / 'plan')
    args = config, checkpoint, tmp_path / 'plan'
    run('encode', *args, folder, out, '--step', '0.5', '--device', 'cpu')
    run('decode', *args, out, '--out', tmp_path / 'p.pkl', '--device', 'cpu')
    return config, tmp_path / 'p.pkl'


def by_plan(tmp_path):
    """The same for the hook."""
    return dict(policy=dict(type='plan', plan=str(tmp_path / 'plan')),
                scale=0.5)


def test_classifiers_are_scored_by_the_hosts_tool(
        run, make, tmp_path, capsys, monkeypatch):
    cfg, checkpoint = make('classifier')
    folder = tmp_path / 'images'
    for i in range(12):
        write(folder / 'abcd'[i % 4] / f'{i}.png', photo(seed=i))
    cfg.test_dataloader = dict(
        batch_size=3, num_workers=0,
        dataset=dict(type='CustomDataset', data_root=str(folder),
                     pipeline=PIPELINES['classifier']),
        sampler=dict(type='DefaultSampler', shuffle=False))
    cfg.test_evaluator = dict(type='Accuracy', topk=(1, 2))
    _, dump = code(run, cfg, checkpoint, folder, tmp_path)
    rows = pickle.loads(dump.read_bytes())
    assert [int(r['gt_label']) for r in rows] == [
        'abcd'.index(r['img_path'][0]) for r in rows]
    printed = score(capsys, monkeypatch, 'mmpretrain', dump, '--metric',
                    'type=Accuracy', 'topk=1,2')
    expected = operating(cfg, checkpoint, tmp_path, **by_plan(tmp_path))
    for name in ('accuracy/top1', 'accuracy/top2'):
        found = float(re.search(f"{name}'?: ([0-9.]+)", printed)[1])
        assert found == pytest.approx(expected[name])
    assert 0 < expected['accuracy/top2'] < 100


def test_detectors_are_scored_by_the_hosts_tool(
        run, make, tmp_path, capsys, monkeypatch):
    """The truth is what the host finds without quantization."""
    cfg, checkpoint = make('detector')
    folder = tmp_path / 'images'
    names = [write(folder / f'{i}.png', photo(seed=i)) for i in range(4)]
    codec = codec_of(cfg, checkpoint)
    truth = dict(
        images=[], annotations=[],
        categories=[dict(id=c, name='xyz'[c]) for c in range(3)])
    for i, path in enumerate(names):
        truth['images'].append(dict(
            id=70 + i, file_name=path.name, height=32, width=40))
        inputs, samples = codec.read(path)
        with torch.no_grad():
            result, = codec.model(inputs, samples, mode='predict')
        for box, label in zip(result.pred_instances.bboxes.tolist(),
                              result.pred_instances.labels.tolist()):
            x, y, w, h = box[0], box[1], box[2] - box[0], box[3] - box[1]
            truth['annotations'].append(dict(
                id=len(truth['annotations']) + 1, image_id=70 + i,
                category_id=label, bbox=[x, y, w, h], area=w * h, iscrowd=0,
                segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]]))
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    dataset = dict(
        type='CocoDataset', ann_file=str(tmp_path / 'truth.json'),
        data_prefix=dict(img=str(folder)), test_mode=True,
        metainfo=dict(classes=('x', 'y', 'z')),
        pipeline=PIPELINES['detector'])
    cfg.test_dataloader = dict(
        batch_size=1, num_workers=0, dataset=dataset,
        sampler=dict(type='DefaultSampler', shuffle=False))
    cfg.test_evaluator = cfg.val_evaluator = dict(
        type='CocoMetric', ann_file=str(tmp_path / 'truth.json'),
        metric='bbox')
    config, dump = code(run, cfg, checkpoint, folder, tmp_path)
    rows = pickle.loads(dump.read_bytes())
    assert [(r['img_id'], r['img_path']) for r in rows] == [
        (70 + i, f'{i}.png') for i in range(4)]
    printed = score(capsys, monkeypatch, 'mmdet', config, dump)
    expected = operating(cfg, checkpoint, tmp_path, **by_plan(tmp_path))
    found = float(re.search(r"'coco/bbox_mAP': ([0-9.]+)", printed)[1])
    assert found == pytest.approx(expected['coco/bbox_mAP'])
    assert 0.05 < found < 1.0


def test_segmentors_are_scored_as_by_a_test(run, make, tmp_path):
    """MMSegmentation has no such tool, but MMEngine's evaluators are one."""
    cfg, checkpoint = make('segmentor')
    folder = tmp_path / 'images'
    for i in range(4):
        write(folder / f'{i}.png', photo((32, 32), seed=i))
        write(tmp_path / 'maps' / f'{i}.png', photo((32, 32), i)[..., 0] // 86)
    cfg.test_dataloader = dict(
        batch_size=2, num_workers=0,
        dataset=dict(
            type='BaseSegDataset', img_suffix='.png', test_mode=True,
            data_prefix=dict(img_path=str(folder),
                             seg_map_path=str(tmp_path / 'maps')),
            metainfo=dict(classes=('x', 'y', 'z'), palette=[[0] * 3] * 3),
            pipeline=[dict(type='LoadImageFromFile'),
                      dict(type='LoadAnnotations'),
                      dict(type='PackSegInputs')]),
        sampler=dict(type='DefaultSampler', shuffle=False))
    cfg.test_evaluator = dict(type='IoUMetric')
    _, dump = code(run, cfg, checkpoint, folder, tmp_path, levels=[3])
    expected = operating(cfg, checkpoint, tmp_path, **by_plan(tmp_path))
    rows = pickle.loads(dump.read_bytes())
    with DefaultScope.overwrite_default_scope('mmseg'):
        evaluator = Evaluator(cfg.test_evaluator)
    evaluator.dataset_meta = dict(classes=('x', 'y', 'z'))
    found = evaluator.offline_evaluate(rows)
    assert found and found == {k: expected[k] for k in found}
    assert 5 < found['mIoU'] < 95


def test_pictures_of_no_data_set(run, make, tmp_path, capfd):
    """They are dumped as they are, and the tool says so."""
    MMLogger.get_instance('codec')  # not one that an earlier test silenced
    cfg, checkpoint = make('classifier')
    folder = images(tmp_path / 'images', 'a.png', 'b.png')
    _, dump = code(run, cfg, checkpoint, folder, tmp_path)
    said = capfd.readouterr()
    assert '2 of 2 images are not in the test set' in said.out + said.err
    rows = pickle.loads(dump.read_bytes())
    assert all('gt_label' not in r and 'pred_score' in r for r in rows)
