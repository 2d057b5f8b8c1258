import argparse

import pytest
from mmengine.config import Config

from mmfeatjnd.cli.console import UsageError
from mmfeatjnd.cli.options import (
    CfgOptions,
    add_featjnd_flag,
    add_hook,
    append_hooks,
    check_hooks,
)
from mmfeatjnd.engine.hooks import PerturbationHook


def parse(*options):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions)
    return parser.parse_args(['--cfg-options', *options]).cfg_options


def test_a_hook():
    options = parse("custom_hooks=[dict(type='mmfeatjnd.PerturbationHook',"
                    " nrmse=0.5, estimator=None), {'type': 'EMAHook'}]")
    assert options == dict(custom_hooks=[
        dict(type='mmfeatjnd.PerturbationHook', nrmse=0.5, estimator=None),
        dict(type='EMAHook')
    ])


def test_everything_else_as_in_mmengine():
    assert parse('a.b=[1,2]', 'c=(x,y)', 'd=true', 'e=1e-3', 'f=x/y.pth') == {
        'a.b': [1, 2],
        'c': ('x', 'y'),
        'd': True,
        'e': 1e-3,
        'f': 'x/y.pth'
    }


def test_nothing_is_run(capsys):
    with pytest.raises(SystemExit):
        parse("a=[dict(b=__import__('os').getcwd())]")
    assert 'Write it as in a config' in capsys.readouterr().err


# ------------------------------------------------------------------- --hook
PERTURB = "dict(type='mmfeatjnd.PerturbationHook',nrmse=0.5)"


def parse_hooks(*texts):
    parser = argparse.ArgumentParser()
    add_hook(parser)
    return parser.parse_args([x for t in texts for x in ('--hook', t)]).hook


def test_hooks_are_read_in_their_order():
    assert parse_hooks() == []
    assert parse_hooks(PERTURB, "{'type': 'EMAHook'}") == [
        dict(type='mmfeatjnd.PerturbationHook', nrmse=0.5),
        dict(type='EMAHook')
    ]


@pytest.mark.parametrize('text', [
    '', 'EMAHook', 'dict(nrmse=1)', 'dict(type=EMAHook)', 'dict(type=3)',
    f'[{PERTURB}]', "dict(type='A', b=__import__('os').getcwd())",
    "dict(type='A'"
])
def test_what_is_no_hook(text, capsys):
    with pytest.raises(SystemExit):
        parse_hooks(text)
    error = capsys.readouterr().err
    assert 'argument --hook: ' in error
    assert 'Write it as in a config, e.g. "dict(type=' in error


@pytest.mark.parametrize('own', [None, [], [dict(type='EMAHook')]])
def test_hooks_are_appended(own):
    cfg = Config(dict(custom_hooks=own) if own is not None else {})
    hooks = parse_hooks(PERTURB, "dict(type='SyncBuffersHook')")
    append_hooks(cfg, hooks)
    assert cfg.custom_hooks == [*(own or []), *hooks]
    cfg.custom_hooks[-1].type = 'changed'  # copies
    assert hooks[-1]['type'] == 'SyncBuffersHook'


def test_no_hook_leaves_the_config_alone():
    cfg = Config({})
    append_hooks(cfg, [])
    assert 'custom_hooks' not in cfg


def test_hooks_that_the_runner_can_build():
    hooks = parse_hooks(PERTURB, "dict(type='EMAHook',priority='LOW')")
    check_hooks(Config(dict(default_scope='mmdet')), hooks)
    check_hooks(Config(dict(custom_hooks=[dict(type='EMAHook')])), hooks)


@pytest.mark.parametrize('own, text, reason', [
    ([], "dict(type='PerturbHook')", "no hook is registered as 'PerturbHook'"),
    ([], PERTURB.replace('nrmse', 'nrsme'),
     "PerturbationHook: .*unexpected keyword argument 'nrsme'"),
    ([dict(type='mmfeatjnd.QuantizationHook')], PERTURB,
     'QuantizationHook and PerturbationHook would operate.*custom_hooks=..'),
    ([dict(type=PerturbationHook)], PERTURB, 'would operate on the features'),
])
def test_hooks_that_cannot_work(own, text, reason):
    cfg = Config(dict(custom_hooks=own, default_scope='mmpretrain'))
    with pytest.raises(UsageError, match=f'--hook: .*{reason}'):
        check_hooks(cfg, parse_hooks(text))


# ---------------------------------------------------------------- --featjnd
def parse_featjnd(*argv):
    parser = argparse.ArgumentParser()
    add_featjnd_flag(parser)
    return parser.parse_args(argv).featjnd


def test_arguments_of_featjnd():
    assert parse_featjnd() is None
    assert parse_featjnd('--featjnd') == {}
    assert parse_featjnd(
        '--featjnd', 'split=backbone.layer2', 'levels=[0,2]',
        "estimator=dict(type='mmfeatjnd.ConvEstimator')") == dict(
            split='backbone.layer2', levels=[0, 2],
            estimator=dict(type='mmfeatjnd.ConvEstimator'))


@pytest.mark.parametrize('text', ['neck', 'spilt=neck', 'cfg=1'])
def test_other_arguments_of_featjnd_are_told(text, capsys):
    with pytest.raises(SystemExit):
        parse_featjnd('--featjnd', text)
    assert 'split, levels, estimator, in_channels' in capsys.readouterr().err
