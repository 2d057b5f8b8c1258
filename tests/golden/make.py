"""Make the golden files: one of every format that is stored or sent.

    python tests/golden/make.py

What users have stored must stay readable, bit for bit, so these files are
made once for each version of a format. If a test says that they differ, raise
the version of the format first (its readers then refuse the old files by
name), and only then run this. Inputs are whole numbers from closed formulas:
no generator, and no library's arithmetic, is behind them.

``NAME.bin`` holds the bytes. What a reader must return beside these inputs,
features and pixels, is in ``values.npz``. How safetensors packs the files of
an estimator and of a metric is its own affair; what is in them counts.
"""
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mmfeatjnd.apis import save_estimator
from mmfeatjnd.coding import (
    decode_images,
    decode_planned,
    encode_image,
    encode_images,
    encode_planned,
)
from mmfeatjnd.functional import (
    EntropyModel,
    QuantizedLevel,
    Steps,
    dequantize,
)
from mmfeatjnd.models import FeatJNDNeck
from mmfeatjnd.models.metric_file import (
    FrequencyMetric,
    LevelMetric,
    TaskMetric,
    save_metric,
)

FOLDER = Path(__file__).resolve().parent


def numbers(shape, spread, zeros=0):
    """Whole numbers within +-spread without a pattern, int64; about one of
    ``zeros`` is kept, and the others are 0."""
    i = torch.arange(1, 1 + int(np.prod(shape)))
    x = (i * i * 7919 + i * 104729) % 10007  # primes
    value = x % (2 * spread + 1) - spread
    if zeros:
        value = value * (x // 97 % zeros == 0)
    return value.view(shape)


# ------------------------------------------------------------ feature stream
def levels():
    """Three levels: every layout, dtype and granularity."""
    image = QuantizedLevel(
        numbers((1, 4, 5, 6), 9, 2).float(),
        Steps(torch.tensor([0.25]),
              token=numbers((1, 1, 5, 6), 3),
              channel=numbers((1, 4, 1, 1), 8)), torch.float16)
    tokens = QuantizedLevel(
        numbers((1, 7, 5), 900).float(),
        Steps(torch.tensor([1.5]), element=numbers((1, 7, 5), 2)),
        torch.bfloat16)
    vector = QuantizedLevel(
        numbers((1, 9), 32767, 3).float(),
        Steps(torch.tensor([2.0**-10])))
    return [image, tokens, vector]


def bits(item):
    """What the host goes on with, to the last bit."""
    value = dequantize(item).contiguous()
    kind = torch.int32 if value.dtype == torch.float32 else torch.int16
    return value.view(kind).numpy()


# --------------------------------------------------------------- plan stream
DIGEST = b'a plan'


def parts():
    """Components of two parts, with models of all kinds, and half octaves of
    the blocks of one of them."""

    def model(components, rectified):
        scale, centre = (numbers((1, components), n).int() for n in (30, 40))
        return EntropyModel(scale, centre * rectified, torch.tensor(
            [[rectified]], dtype=torch.int32))

    base = torch.tensor([2.0**(-28 / 28)])
    return [
        QuantizedLevel(
            numbers((1, 36, 3, 4), 40, 3).float(),
            Steps(base, token=numbers((1, 1, 3, 4), 5).int()),
            model=model(36, 0)),
        QuantizedLevel(
            numbers((1, 5, 1, 1), 700).abs().float(),
            Steps(base, token=torch.zeros(1, 1, 1, 1, dtype=torch.int32)),
            model=model(5, 1))
    ]


def plan_stream():
    """Of an image of 427 x 640."""
    return encode_planned(parts(), (427, 640), -28, DIGEST)


def read_plan_stream(data):
    """What a receiver with the plan reads."""
    known = parts()
    return decode_planned(data, DIGEST, [x.symbols.shape[1:] for x in known],
                          [x.model for x in known], 0.5)


# -------------------------------------------------------------- pixel stream
def pictures(count, channels, height, width):
    """Slopes with something on them, uint8."""
    y, x = torch.meshgrid(
        torch.arange(height), torch.arange(width), indexing='ij')
    slope = 90 + 5 * x - 3 * y
    things = numbers((count, channels, height, width), 40, 5)
    return (slope + things).clamp(0, 255).byte()


def pixel_streams():
    """Streams of images: blocks with steps of their own, whole and in
    parts; several images in one stream; and a plain quantizer of pixels."""
    photo = pictures(1, 3, 13, 18)
    token = numbers((1, 1, 2, 3), 4)
    pair = pictures(2, 3, 9, 8)
    grey = pictures(1, 1, 7, 5)
    return dict(
        pixels=encode_images(photo, Steps(torch.tensor([16.0]), token)),
        # of steps that grow with what is in a block
        pixels_two_levels=encode_images(
            pictures(1, 1, 16, 32) // (1 + torch.arange(32) // 8 * 3),
            Steps(torch.tensor([4.0]),
                  -2 * torch.arange(4).expand(1, 1, 2, 4))),
        pixels_together=encode_images(
            pair, Steps(torch.tensor([12.0, 12.0])), 4, together=True),
        pixels_plain=encode_images(
            grey, Steps(torch.tensor([8.0])), 1, colour=False))


# ------------------------------------------------------------------ estimator
def host():
    """A host of whole numbers, and an estimator of eighths."""
    model = nn.Module()
    model.backbone = nn.Linear(4, 3)
    model.neck = FeatJNDNeck(
        dict(
            type='mmfeatjnd.TokenEstimator',
            hidden_channels=2,
            num_layers=1,
            mode='envelope'),
        in_channels=3)
    estimators = model.neck.estimators
    for part, unit in ((model.backbone, 1), (estimators, 8)):
        for i, (name, value) in enumerate(part.state_dict().items()):
            if 'updates' not in name and 'initial' not in name:
                value.copy_((numbers(value.shape, 40) + i) / unit)
    estimators[0].channels.mean_square.abs_()
    estimators[0].channels.updates.fill_(160)
    estimators[0].initial.fill_(1)  # training began with others
    return model


# ---------------------------------------------------------------- task metric
def square(*shape):
    x = numbers(shape, 5)
    return (x @ x.mT).float() / 4


def task_metric():
    """Of a map with frequencies, and of tokens."""

    def level(channels, grid, frequencies=None):
        covariance = square(channels, channels)
        return LevelMetric(
            tokens=48.5,
            elements_per_pixel=0.375,
            pooled=0.25,
            log_w=-3.5,
            log_w_map=numbers(grid, 9) / 4,
            mean=numbers((channels, ), 20) / 8,
            std=covariance.diagonal().sqrt(),
            covariance=covariance,
            metric=square(channels, channels) / 1024,
            frequencies=frequencies)

    return TaskMetric(
        levels={
            1: level(4, (3, 2), FrequencyMetric(
                2, 12.25, numbers((4, 4), 20) / 8, square(4, 4, 4),
                square(4, 4, 4) / 1024)),
            3: level(3, (5, ))
        },
        split='backbone.layer2',
        configured=(0, 1, 3),
        host_hash='0123456789abcdef' * 4,
        images=256,
        draws=2,
        seed=0,
        version='0.0.0')


def files():
    """The bytes of every file, by name."""
    streams = {name: data for name, (data, ) in pixel_streams().items()}
    return dict(
        feature_stream=encode_image(levels()),
        plan_stream=plan_stream(),
        **streams)


def main(folder=FOLDER):
    save_estimator(host(), Path(folder) / 'estimator.safetensors')
    save_metric(task_metric(), Path(folder) / 'metric.safetensors')
    values = {f'level_{i}': bits(x) for i, x in enumerate(levels())}
    for name, data in files().items():
        (Path(folder) / f'{name}.bin').write_bytes(data)
        if name.startswith('pixels'):
            values[name] = decode_images(data).numpy()
    np.savez_compressed(Path(folder) / 'values.npz', **values)


if __name__ == '__main__':
    main(*sys.argv[1:])
