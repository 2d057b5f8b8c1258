"""What FeatJND costs, as ratios to the host measured in the same run.

    python benchmarks/cost.py

The detector's host is the one that benchmarks/featjnd.py dsb2018 trained.

``train_iteration_ratio``: one FeatJND training iteration against one training
iteration of the plain host. ``estimator_forward_ratio``: predicting with the
estimator's map against predicting without, minus 1. The two sides alternate,
so that a drifting machine hits both; the median of the ratios is published.
"""
import argparse
import copy
import statistics
import time
from pathlib import Path

import torch
from common import ROOT, publish
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner, load_checkpoint

from mmfeatjnd.apis import build_model
from mmfeatjnd.models import find_neck

# host config, FeatJND config, the host's checkpoint, batch size, image size.
# What a detector costs depends on how many objects it finds, so it is trained
# and gets images of its data set; a classifier costs the same for any input.
CASES = [
    ('configs/hosts/resnet18-w32_cifar10.py',
     'configs/featjnd/resnet18-w32_cifar10.py', None, 64, (32, 32)),
    ('configs/hosts/resnet18_cifar10.py',
     'configs/featjnd/resnet18_cifar10.py', None, 64, (32, 32)),
    ('mmpretrain::resnet/resnet50_8xb32_in1k.py',
     'configs/featjnd/resnet50_in1k.py', None, 8, (224, 224)),
    ('configs/hosts/mask-rcnn_r18_dsb2018.py',
     'configs/featjnd/mask-rcnn_r18_dsb2018.py',
     'work_dirs/benchmarks/dsb2018/host', 2, (256, 256)),
]


def build(config: str, device: str):
    cfg = get_config(config) if '::' in config else Config.fromfile(ROOT /
                                                                    config)
    return build_model(cfg).to(device), cfg


def batch_of(loader: dict, real: bool, batch: int, size) -> dict:
    """The first images that a config loads, or random ones."""
    if real:
        loader = dict(
            loader,
            batch_size=batch,
            num_workers=0,
            persistent_workers=False)
        return next(iter(Runner.build_dataloader(loader, seed=0)))
    from mmpretrain.structures import DataSample
    return dict(
        inputs=torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8),
        data_samples=[DataSample().set_gt_label(0) for _ in range(batch)])


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(host_config, featjnd_config, checkpoint, batch, size, repeats,
            device):
    host, cfg = build(host_config, device)
    if checkpoint:
        last = (Path(checkpoint) / 'last_checkpoint').read_text().strip()
        load_checkpoint(host, last, map_location=device)
    model, _ = build(featjnd_config, device)
    model.load_state_dict(host.state_dict(), strict=False)
    to_train, to_test = (
        batch_of(cfg[name], bool(checkpoint), batch, size)
        for name in ('train_dataloader', 'test_dataloader'))

    def training(m):
        wrapper = OptimWrapper(
            torch.optim.SGD([p for p in m.parameters() if p.requires_grad],
                            lr=0.0))
        m.train()
        return lambda: m.train_step(copy.deepcopy(to_train), wrapper)

    def estimating(feature, level, neck):
        neck.estimator_of(level)(feature)
        return feature

    def predicting(operation):

        def run():
            with torch.no_grad(), find_neck(model).operating(operation):
                model.test_step(copy.deepcopy(to_test))

        return run

    pairs = dict(
        train_iteration_ratio=(training(model), training(host), 0),
        estimator_forward_ratio=(predicting(estimating), predicting(None), 1))
    result = {}
    for name, (ours, theirs, less) in pairs.items():
        if name.startswith('estimator'):
            model.eval()
        ours(), theirs()  # warm up
        ratios = [seconds(ours) / seconds(theirs) for _ in range(repeats)]
        result[name] = statistics.median(ratios) - less
        result[name + '_range'] = [min(ratios) - less, max(ratios) - less]
    return result


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--repeats', type=int, default=7)
    args = parser.parse_args()
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    rows = []
    for host, featjnd, checkpoint, batch, size in CASES:
        row = dict(
            device=device,
            host=featjnd.rsplit('/', 1)[1][:-3],
            batch=batch,
            image_size=size,
            **measure(host, featjnd, checkpoint, batch, size, args.repeats,
                      device),
            quantizer_forward_ratio=None,
            copy_bandwidth_share=None)
        print(row, flush=True)
        rows.append(row)
    publish(
        'cost',
        dict(
            claim='A FeatJND training iteration takes at most 1.5 times one '
            "of the host's, and the estimator adds at most 10 % to its "
            'forward time.',
            command='make bench-cost',
            repeats=args.repeats,
            threads=torch.get_num_threads(),
            rows=rows))


if __name__ == '__main__':
    main()
