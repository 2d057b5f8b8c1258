"""Configs as the tools open them."""
import argparse

from mmfeatjnd.cli.configs import open_config


def test_a_loader_without_workers_keeps_none(tmp_path):
    file = tmp_path / 'config.py'
    file.write_text('model = dict()\ntest_dataloader = dict(num_workers=2, '
                    'persistent_workers=True)\n')
    args = argparse.Namespace(config=str(file), cfg_options={
        'test_dataloader.num_workers': 0})
    assert open_config(args).test_dataloader == dict(
        num_workers=0, persistent_workers=False)
    assert open_config(args, merge=False).test_dataloader.num_workers == 2
