"""What FeatJND costs, as ratios to the host measured in the same run.

    python benchmarks/cost.py

``train_iteration_ratio``: one FeatJND training iteration against one training
iteration of the plain host. ``estimator_forward_ratio``: predicting with the
estimator's map against predicting without, minus 1. The two sides alternate,
so that a drifting machine hits both; the median of the ratios is published.
"""
import argparse
import copy
import statistics
import time

import torch
from common import ROOT, publish
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope

from mmfeatjnd.models import find_neck
from mmfeatjnd.registry import MODELS

# host config, FeatJND config, batch size, image size
CASES = [
    ('configs/hosts/resnet18_cifar10.py',
     'configs/featjnd/resnet18_cifar10.py', 64, (32, 32)),
    ('configs/hosts/mask-rcnn_r18_dsb2018.py',
     'configs/featjnd/mask-rcnn_r18_dsb2018.py', 2, (256, 256)),
    ('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
     'configs/featjnd/mask-rcnn_r50.py', 1, (512, 512)),
    ('mmpretrain::resnet/resnet50_8xb32_in1k.py',
     'configs/featjnd/resnet50_in1k.py', 8, (224, 224)),
]


def build(config: str, device: str):
    cfg = get_config(config) if '::' in config else Config.fromfile(ROOT /
                                                                    config)
    init_default_scope(cfg.default_scope)
    if 'data_preprocessor' in cfg:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(cfg.model).to(device)
    return model, cfg.default_scope


def batch_for(scope: str, batch: int, size, num_classes: int):
    """Random images with ten random objects each, or a random class."""
    inputs = torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8)
    if scope == 'mmpretrain':
        from mmpretrain.structures import DataSample
        labels = torch.randint(0, num_classes, (batch, ))
        return dict(
            inputs=inputs,
            data_samples=[DataSample().set_gt_label(i) for i in labels])
    from mmdet.testing import demo_mm_inputs
    return demo_mm_inputs(
        batch, [(3, *size)] * batch,
        num_items=[10] * batch,
        num_classes=num_classes,
        with_mask=True)


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(host_config, featjnd_config, batch, size, repeats, device):
    host, scope = build(host_config, device)
    model, _ = build(featjnd_config, device)
    model.load_state_dict(host.state_dict(), strict=False)
    head = getattr(host, 'head', None) or host.roi_head.bbox_head
    data = batch_for(scope, batch, size, head.num_classes)

    def training(m):
        wrapper = OptimWrapper(
            torch.optim.SGD([p for p in m.parameters() if p.requires_grad],
                            lr=0.0))
        m.train()
        return lambda: m.train_step(copy.deepcopy(data), wrapper)

    def estimating(feature, level, neck):
        neck.estimator_of(level)(feature)
        return feature

    def predicting(operation):

        def run():
            with torch.no_grad(), find_neck(model).operating(operation):
                model.test_step(copy.deepcopy(data))

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
    for host, featjnd, batch, size in CASES:
        row = dict(
            device=device,
            host=featjnd.rsplit('/', 1)[1][:-3],
            batch=batch,
            image_size=size,
            **measure(host, featjnd, batch, size, args.repeats, device),
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
