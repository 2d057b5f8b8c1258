"""The flags of tools/test.py against those of the hosts' own."""
import argparse

import pytest
from mmengine.config import Config

from mmfeatjnd.cli.arguments import parse_test_args
from mmfeatjnd.cli.configs import load_config
from mmfeatjnd.cli.console import UsageError
from mmfeatjnd.cli.merge_test import (
    enable_tta,
    enable_visualization,
    merge_test_args,
)


@pytest.mark.parametrize('host, argv', [
    ('mmdet', ['--work-dir', 'a', '--out', 'p.pkl']),
    ('mmdet', ['--show', '--wait-time', '0.5', '--show-dir', 'd', '--tta']),
    ('mmpretrain', ['--no-pin-memory', '--amp', '--out', 'p.pkl']),
    ('mmpretrain', ['--show-dir', 'd', '--interval', '3', '--tta']),
    ('mmseg', ['--out', 'preds', '--show-dir', 'd']),
    ('mmseg', ['--show', '--wait-time', '0.5', '--tta']),
])  # yapf: disable
def test_test_merges_like_the_host(
        monkeypatch, tmp_path, host, argv, stock, host_cfg):
    monkeypatch.chdir(tmp_path)
    argv = ['epoch.pth', *argv]
    theirs = host_cfg(host, 'test', argv).to_dict()
    args = parse_test_args([stock(host), *argv])
    ours = merge_test_args(load_config(args.config), args)
    ours = ours.to_dict()
    for cfg in (ours, theirs):
        cfg.pop('tta_model', None)  # mmseg's tool also writes into this one
    assert ours == theirs


def test_tta_keeps_the_models_own_preprocessor(tmp_path, stock):
    args = parse_test_args([
        stock('mmseg'), 'epoch.pth', '--tta', '--cfg-options',
        'model.data_preprocessor.size="(64,64)"'
    ])
    cfg = merge_test_args(load_config(args.config), args)
    assert cfg.model.type == 'SegTTAModel'
    assert cfg.model.module.data_preprocessor.size == (64, 64)
    # what BaseTTAModel gives to the model in place of the top-level one
    assert cfg.model.data_preprocessor.size == (64, 64)


@pytest.mark.parametrize('host, out, flags', [
    ('mmdet', 'p.json', []),
    ('mmpretrain', 'p.json', ['--out-item', 'pred']),
    ('mmseg', 'p.txt', ['--out-item', 'metrics']),
])
def test_out_suffix(host, out, flags, stock):
    args = parse_test_args([stock(host), 'c.pth', '--out', out, *flags])
    with pytest.raises(UsageError, match=out):
        merge_test_args(load_config(args.config), args)


def test_tta_of_a_detector_in_no_scope(stock):
    """Names that only MMDetection knows are written with it."""
    from mmdet.models import FasterRCNN
    args = parse_test_args([stock('mmdet'), 'epoch.pth', '--tta'])
    for scope, prefix in ((None, 'mmdet.'), ('mmdet', '')):
        cfg = load_config(args.config)
        cfg.default_scope = scope
        cfg.model.type = FasterRCNN
        merge_test_args(cfg, args)
        assert cfg.model.type == f'{prefix}DetTTAModel'
        flips = cfg.test_dataloader.dataset.pipeline[-1].transforms[0]
        assert [flip.type for flip in flips] == 2 * [f'{prefix}RandomFlip']


def test_show_needs_a_host():
    cfg = Config(
        dict(
            model=dict(type='Mine'),
            default_hooks=dict(visualization=dict(type='X'))))
    args = argparse.Namespace(show=True, show_dir=None, wait_time=2)
    with pytest.raises(UsageError, match='which library its model'):
        enable_visualization(cfg, args)


def test_show_needs_the_hook():
    args = argparse.Namespace(show=True, show_dir=None, wait_time=2)
    with pytest.raises(UsageError, match='visualization hook'):
        enable_visualization(Config(dict(default_hooks={})), args)


def test_tta_without_a_default():
    cfg = Config(
        dict(
            default_scope='mmdet',  # the model decides
            model=dict(type='mmseg.EncoderDecoder'),
            tta_model=dict(type='x')))
    with pytest.raises(UsageError, match='add tta_pipeline to'):
        enable_tta(cfg)
