"""Running the tools in this process."""
import os
import runpy
import sys
from pathlib import Path

import pytest
from mmengine.logging import MessageHub, MMLogger
from mmengine.visualization import Visualizer

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


@pytest.fixture(autouse=True)
def _restore_environment():
    # the parsers set LOCAL_RANK
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def _runs_apart():
    """MMEngine names what a run logs to by config and second: two runs of one
    process within a second would share it."""
    for kept in (MessageHub, MMLogger, Visualizer):
        kept._instance_dict.clear()


@pytest.fixture
def run_tool(monkeypatch):
    """Run a tool by its path below tools/, with arguments."""

    def run(name, *argv):
        path = str(TOOLS / name)
        with monkeypatch.context() as patch:
            patch.setattr(sys, 'argv', [path, *map(str, argv)])
            runpy.run_path(path, run_name='__main__')

    return run
