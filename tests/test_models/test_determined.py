"""Levels that follow from others."""
import logging

import pytest
import torch
from torch import nn

from mmfeatjnd.models import determined, neck_at
from mmfeatjnd.models.determined import determined_levels, tell_determined


class Stages(nn.Module):
    """Three stages one behind the other, and one on its own."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.apart = (
            nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

    def forward(self, x):
        a = self.first(x)
        return a, self.second(a.relu()), self.apart(x)


class Host(nn.Module):

    def __init__(self):
        super().__init__()
        self.backbone = Stages()

    def predict(self, inputs, data_samples=None):
        return sum(x.mean() for x in self.backbone(inputs))


@pytest.fixture
def neck(monkeypatch):
    class Adapter:

        @staticmethod
        def predict(host, inputs, samples):
            return host.predict(inputs, samples)

    monkeypatch.setattr(determined, 'adapter_of', lambda host: Adapter)
    host = Host()
    found = neck_at(host, 'backbone')
    found.in_channels, found.levels = (3, 3, 3), (0, 1, 2)
    return found


def test_a_stage_follows_from_the_one_before(neck):
    assert determined_levels(neck, torch.ones(2, 3, 8, 8), None) == {1: 0}


def test_the_module_to_split_at_is_named(neck, monkeypatch):
    said = []
    monkeypatch.setattr(determined, 'log', lambda *x: said.append(x))
    tell_determined(neck, torch.ones(1, 3, 8, 8), None)
    (text, level), = said
    assert level == logging.WARNING
    assert "level(s) [1] of split='backbone' are computed from level(s) [0]" \
        in text and "split='backbone.first'" in text


def test_one_level_follows_from_nothing(neck):
    neck.levels = (1, )
    assert determined_levels(neck, torch.ones(1, 3, 8, 8), None) == {}
