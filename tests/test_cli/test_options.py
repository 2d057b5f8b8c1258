import argparse

import pytest

from mmfeatjnd.cli.options import CfgOptions


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
