"""What the codec of features takes: latency of both sides, and its share.

    python benchmarks/codec_cost.py

On the real hosts, picture by picture. ``code_share``: transform and rounding
at the sender and the way back at the receiver, without the entropy coder, of
the whole host's forward time. ``megabytes_per_second``: of features in
float32, through sender and receiver behind and before the host's own parts,
the entropy coder included. Medians over pictures, each measured beside the
whole host. Writes benchmarks/results/codec_cost.json.
"""
import argparse
import statistics
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Dict

import torch
from common import CONFIGS, existing, publish, read_config

from mmfeatjnd.apis import FeatureCodec, feature_codec, make_plan

#: Config, weights, split, nats of an image, pictures.
CASES = [
    ('mobilenet-v2_1xb32_imagenet-sample', 'mobilenet_v2_in1k',
     'backbone.layer5', 0.02, 'imagenet_sample/images'),
    ('yolox-nano_1xb4_coco-small', 'yolox_nano_coco', 'backbone.stage2', 1.0,
     'coco_small/val2017'),
]


class Clock:
    """Adds up what functions take."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: Dict[str, float] = {}

    def __call__(self, name: str, function, *args):
        self._wait()
        start = time.perf_counter()
        result = function(*args)
        self._wait()
        self.seconds[name] = time.perf_counter() - start
        return result

    @contextmanager
    def inside(self, name: str, owner, attribute: str):
        """What a function takes while others are timed."""
        function = getattr(owner, attribute)
        setattr(owner, attribute, lambda *args: self(name, function, *args))
        yield
        setattr(owner, attribute, function)

    def _wait(self) -> None:
        if self.device.type == 'cuda':
            torch.cuda.synchronize()


@torch.no_grad()
def times(codec: FeatureCodec, picture: Path) -> dict:
    """Seconds for one picture, and bytes of its features and its stream."""
    clock = Clock(codec.device)
    inputs, samples = codec.read(picture)
    features = {}

    def keep(feature, level):
        features[level] = feature
        return feature

    with codec.neck.changing(keep):
        clock('host', codec.model.predict, inputs, samples)
    size = tuple(samples[0].ori_shape)
    with clock.inside('encoder', codec.quantization, 'streams'), \
            clock.inside('decoder', feature_codec, 'decode_planned'):
        data = clock('encode', codec.encode_features, features, size)
        clock('decode', codec.decode_features, data)
    clock('sender', codec.encode, picture)
    clock('receiver', codec.decode, data)
    return dict(
        clock.seconds, features=sum(
            4 * features[i].numel() for i in codec.plan.parts),
        bytes=len(data))


def measure(case: tuple, pictures: int, device: str) -> dict:
    """The row of a host."""
    config, weights, split, nats, folder = case
    cfg = read_config(CONFIGS / 'hosts' / f'{config}.py')
    cfg.work_dir = 'work_dirs/benchmarks/codec_cost'
    host = existing(f'data/hosts/{weights}.pth')
    plan = make_plan(cfg, host, images=200, split=split,
                     nats=[nats / 2, 2 * nats])
    codec = FeatureCodec(cfg, host, plan, tolerance=nats, device=device)
    files = sorted(Path('data', folder).iterdir())
    files = files[::max(1, len(files) // pictures)][:pictures]
    times(codec, files[0])  # warm up
    rows = [times(codec, f) for f in files]

    def median(value) -> float:
        return statistics.median(map(value, rows))

    return dict(
        host=config, split=split, nats=nats, pictures=len(files),
        device=device, threads=torch.get_num_threads(),
        bytes=median(lambda r: r['bytes']),
        **{f'{name}_ms': 1000 * median(lambda r, name=name: r[name])
           for name in ('host', 'sender', 'receiver', 'encode', 'decode',
                        'encoder', 'decoder')},
        code_share=median(lambda r: (
            r['encode'] - r['encoder'] + r['decode'] - r['decoder']) /
            r['host']),
        megabytes_per_second=median(lambda r: r['features'] / 1e6 / (
            r['encode'] + r['decode'])))


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--pictures', type=int, default=40)
    args = parser.parse_args(argv)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    rows = []
    for case in CASES:
        rows.append(measure(case, args.pictures, device))
        print(rows[-1], flush=True)
    publish(
        'codec_cost',
        dict(
            claim='Code and its inverse take at most 10 % of the forward time '
            'of the host; with the entropy coder at least 5 MB of features '
            'pass in a second, in one process.',
            command='make bench-codec-cost', rows=rows))


if __name__ == '__main__':
    main()
