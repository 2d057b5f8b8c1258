"""What FeatJND costs, as ratios to the host measured in the same run.

    python benchmarks/cost.py

The detector's host is that of benchmarks/featjnd.py dsb2018; what was trained
is not trained again.

``train_iteration_ratio``: one FeatJND training iteration against one training
iteration of the plain host, of equal batches. ``training_share``: that times
the images that the estimator's training draws, over those that the host's own
draws: its whole training against the host's. ``estimator_forward_ratio``:
predicting with the estimator's map against predicting without, minus 1.
``quantizer_forward_ratio``: the same with FeatJND's steps and rounding,
quantization and dequantization, given the estimator's envelope. The two sides
alternate, so that a drifting machine hits both; the median of the ratios is
published. ``copy_bandwidth_share``, on a GPU: what the fused kernel reads and
writes a second, against a plain copy of the same size.
"""
import argparse
import copy
import statistics
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from common import CONFIGS, draws, publish, train_host
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner, load_checkpoint

from mmfeatjnd.apis import build_model
from mmfeatjnd.functional import Level, quantize
from mmfeatjnd.functional.fused import symbols_and_values
from mmfeatjnd.models import Quantization, find_neck
from mmfeatjnd.models.hosts import OWN_KEYS

# host config, FeatJND config, the benchmark that trains the host, batch size,
# image size. What a detector costs depends on how many objects it finds, so it
# is trained and gets images of its data set; a classifier costs the same for
# any input.
CASES = [
    ('hosts/resnet18-w32_1xb128-5e_cifar10.py',
     'featjnd/resnet18-w32_cifar10.py', None, 64, (32, 32)),
    ('hosts/resnet18_1xb512-24e_cifar10.py', 'featjnd/resnet18_cifar10.py',
     None, 64, (32, 32)),
    ('mmpretrain::resnet/resnet50_8xb32_in1k.py', 'featjnd/resnet50_in1k.py',
     None, 8, (224, 224)),
    ('hosts/mask-rcnn_r18_1xb4-8e_dsb2018.py',
     'featjnd/mask-rcnn_r18_dsb2018.py', 'dsb2018', 2, (256, 256)),
]

#: Images of a training set that need not be there.
SIZES = {
    'hosts/resnet18-w32_1xb128-5e_cifar10.py': 50_000,
    'hosts/resnet18_1xb512-24e_cifar10.py': 50_000,
    'mmpretrain::resnet/resnet50_8xb32_in1k.py': 1_281_167
}


def host_draws(config: str, cfg: Config) -> int:
    """How many images the host's own training draws."""
    if config in SIZES:
        return SIZES[config] * cfg.train_cfg.max_epochs
    return draws(cfg)


def build(config: str, device: str):
    cfg = get_config(config) if '::' in config else \
        Config.fromfile(CONFIGS / config)
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
        load_checkpoint(host, checkpoint, map_location=device, strict=True)
    model, featjnd_cfg = build(featjnd_config, device)
    lacking, foreign = model.load_state_dict(host.state_dict(), strict=False)
    # the estimator starts anew, and nothing else
    foreign += [key for key in lacking if not key.startswith(OWN_KEYS)]
    if foreign:
        raise RuntimeError(f'{featjnd_config} is not on {host_config}: '
                           f'{", ".join(foreign)}')
    to_train, to_test = (
        batch_of(cfg[name], bool(checkpoint), batch, size)
        for name in ('train_dataloader', 'test_dataloader'))

    def training(m):
        wrapper = OptimWrapper(
            torch.optim.SGD([p for p in m.parameters() if p.requires_grad],
                            lr=0.0))
        m.train()
        return lambda: m.train_step(copy.deepcopy(to_train), wrapper)

    def estimating(feature, level, visit):
        visit.neck.estimator_of(level)(feature)
        return feature

    quantization = Quantization('featjnd')
    envelopes = {}

    def quantizing(feature, level, visit):
        if level not in envelopes:  # in the warm-up
            envelopes[level] = feature.abs() + feature.std()
        keys = torch.zeros(len(feature), dtype=torch.int64, device=device)
        at = quantization.policy(
            Level(feature, keys, level, envelope=envelopes[level]))
        one = feature.new_ones(len(feature), dtype=torch.float32)
        quantize(feature, at(one))
        # as it was: what a detector costs depends on what it finds
        return feature

    def predicting(operation):

        def run():
            runs = find_neck(model).run(operation) if operation \
                else nullcontext()
            with torch.no_grad(), runs:
                model.test_step(copy.deepcopy(to_test))

        return run

    pairs = dict(
        train_iteration_ratio=(training(model), training(host), 0),
        estimator_forward_ratio=(predicting(estimating), predicting(None), 1),
        quantizer_forward_ratio=(predicting(quantizing), predicting(None), 1))
    result = {}
    for name, (ours, theirs, less) in pairs.items():
        if 'forward' in name:
            model.eval()
        ours(), theirs()  # warm up
        ratios = [seconds(ours) / seconds(theirs) for _ in range(repeats)]
        result[name] = statistics.median(ratios) - less
        if name.startswith('quantizer'):
            result['quantized_images_per_second'] = batch / statistics.median(
                seconds(ours) for _ in range(repeats))
        result[name + '_range'] = [min(ratios) - less, max(ratios) - less]
    result['training_share'] = result['train_iteration_ratio'] * draws(
        featjnd_cfg) / host_draws(host_config, cfg)
    return result


def copy_bandwidth_share(repeats: int, size: int = 1 << 26):
    """Of a feature of 256 MiB; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    feature = torch.randn(64, 64, size >> 12, device='cuda')
    step = torch.rand(64, 64, 1, device='cuda') + 0.5
    target = torch.empty_like(feature)

    def fused():
        symbols_and_values(feature, step, 0.5, 0.5)

    def copy_it():
        target.copy_(feature)

    fused(), copy_it(), torch.cuda.synchronize()  # compiles
    # read once, two outputs written: 12 bytes an element instead of 8
    return statistics.median(
        12 / 8 * seconds(copy_it) / seconds(fused) for _ in range(repeats))


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/benchmarks'))
    parser.add_argument('--repeats', type=int, default=15)
    parser.add_argument(
        '--no-trained-hosts',
        action='store_true',
        help='leave out the hosts that must be trained first')
    parser.add_argument(
        '--cases', type=int, help='only so many of the hosts')
    args = parser.parse_args(argv)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    share = copy_bandwidth_share(args.repeats)
    rows = []
    for host, featjnd, benchmark, batch, size in CASES[:args.cases]:
        if benchmark and args.no_trained_hosts:
            continue
        checkpoint = benchmark and train_host(benchmark, args.work_dir)
        row = dict(
            device=device,
            host=featjnd.rsplit('/', 1)[1][:-3],
            batch=batch,
            image_size=size,
            **measure(host, featjnd, checkpoint, batch, size, args.repeats,
                      device),
            copy_bandwidth_share=share)
        print(row, flush=True)
        rows.append(row)
    publish(
        'cost',
        dict(
            claim='A FeatJND training iteration takes at most 1.5 times one '
            "of the host's, all of its training at most 2 % of the host's; "
            'the estimator adds at most 10 % to its forward time, '
            'quantization at most 5 %.',
            command='make bench-cost',
            repeats=args.repeats,
            threads=torch.get_num_threads(),
            rows=rows))


if __name__ == '__main__':
    main()
