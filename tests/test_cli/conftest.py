"""Stock configs of the hosts, and what flags make of them."""
import importlib.util
import os
import os.path as osp
import runpy
import sys

import pytest
from mmengine.runner import Runner

import mmfeatjnd  # noqa: F401
from mmfeatjnd.cli.arguments import parse_train_args
from mmfeatjnd.cli.configs import load_config
from mmfeatjnd.cli.merge_train import merge_train_args

STOCK = dict(
    mmdet='faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    mmpretrain='resnet/resnet18_8xb16_cifar10.py',
    mmseg='pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py')


@pytest.fixture(autouse=True)
def _restore_environment():
    # the parsers set LOCAL_RANK
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def mim(host, path):
    spec = importlib.util.find_spec(host)
    return osp.join(spec.submodule_search_locations[0], '.mim', path)


@pytest.fixture
def stock():
    """Path of a stock config of a host library."""
    return lambda host: mim(host, f'configs/{STOCK[host]}')


@pytest.fixture
def train_cfg(stock):
    """The stock config of a host, with flags of tools/train.py."""

    def train_cfg(host, *flags):
        args = parse_train_args([stock(host), *flags])
        return merge_train_args(load_config(args.config), args)

    return train_cfg


class Captured(Exception):
    pass


@pytest.fixture
def host_cfg(monkeypatch, stock):
    """The config that a host's own tool gives to the Runner."""

    def host_cfg(host, tool, argv):

        def capture(cls, cfg):
            raise Captured(cfg)

        monkeypatch.setattr(Runner, 'from_cfg', classmethod(capture))
        path = mim(host, f'tools/{tool}.py')
        monkeypatch.setattr(sys, 'argv', [path, stock(host), *argv])
        with pytest.raises(Captured) as captured:
            runpy.run_path(path, run_name='__main__')
        return captured.value.args[0]

    return host_cfg
