"""DMV-JND on CIFAR-10: tolerance, noise, homogeneity, the curve, and bytes.

    python benchmarks/dmv_jnd.py full
    python benchmarks/dmv_jnd.py reduced

Trains the four classifiers and DMV-JND (what is done is skipped), measures
on training and test images, and writes
benchmarks/results/dmv_jnd_cifar10.json. `full` has the paper's settings but
the fast schedule (`--paper-schedule` for its own) and needs a GPU; `reduced`
is for two CPU cores.
"""
import argparse
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

from cache import cached
from common import (
    CONFIGS,
    IDLE,
    count_images,
    draws,
    environment,
    keep_every,
    publish,
    read_config,
    train,
    train_host,
)
from mmengine.config import Config

from mmfeatjnd.apis import (
    HOMOGENEITY,
    DMVJNDSetting,
    build_runner,
    measure_dmv_jnd,
    measure_dmv_jnd_codec,
)

UNSEEN = CONFIGS / 'hosts' / 'resnet18-w32_1xb128-5e_cifar10.py'
FOLDER = CONFIGS / 'dmv_jnd'
PAPER_SCHEDULE = 'dmv-jnd_4xclassifiers_cifar10.py'
# Scales of the target N draw the tolerance curve; 1 is the paper's, and only
# there are several seeds. `every` thins out the images.
PROTOCOLS = dict(
    full=dict(
        config='dmv-jnd_4xclassifiers_cifar10_fast.py',
        seeds=(0, 1, 2),
        scales=dict(
            clipped=(0.5, 1.5, 2.0, 2.5), unclipped=(0.5, 1.25, 1.5, 2.0)),
        every=1,
        train_every=1),
    reduced=dict(
        config='dmv-jnd_4xnarrow_cifar10.py',
        seeds=(0, 1),
        scales=dict(clipped=(1.5, 2.0, 2.5), unclipped=(1.5, )),
        every=5,
        train_every=50))
#: How x + e is read; docs/dmv_jnd.md says why.
VARIANTS = {'clipped': {}, 'unclipped': {'model.clip': False}}
MAIN = 'clipped'
CONTROLS = ('gaussian', 'random-sign', 'sign-flipped')


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('protocol', choices=PROTOCOLS)
    parser.add_argument('--paper-schedule', action='store_true')
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/benchmarks/dmv_jnd'))
    parser.add_argument(
        '--train-only',
        nargs=3,
        metavar=('VARIANT', 'SCALE', 'SEED'),
        help='train one DMV-JND and stop, e.g. to train several at once')
    return parser.parse_args()


class Benchmark:
    """The trainings and measurements of one protocol."""

    def __init__(self, args) -> None:
        self.protocol = PROTOCOLS[args.protocol]
        name = PAPER_SCHEDULE if args.paper_schedule else \
            self.protocol['config']
        self.config = FOLDER / name
        self.work_dir = args.work_dir
        self.classifiers = {}
        for i, task in enumerate(Config.fromfile(self.config).model.tasks):
            config = Path(task.config)
            self.classifiers[f'model.tasks.{i}.checkpoint'] = train(
                read_config(config), args.work_dir / config.stem, amp=True)

    def train(self, variant: str, scale: float,
              seed: int) -> Tuple[Config, str]:
        """Train one DMV-JND; its config for tests, and its checkpoint."""
        options = {
            **self.classifiers,
            **VARIANTS[variant],
            'model.objective.target_scale': scale,
            'randomness.seed': seed,
        }
        checkpoint = train(
            read_config(self.config, dict(options, **IDLE)), self.work_dir /
            self.config.stem / f'{variant}_scale{scale:g}_seed{seed}', True)
        cfg = read_config(self.config, options)
        cfg.work_dir = str(Path(checkpoint).parent / 'test')
        return cfg, checkpoint

    def measured(self, name: str, cfg: Config, checkpoint: str,
                 measure: Callable[[], List[Dict]], **asked: Any
                 ) -> List[Dict]:
        """What was measured of a DMV-JND, kept beside its checkpoint."""
        key = dict(environment(), config=cfg, checkpoint=checkpoint, **asked)
        return cached(Path(checkpoint).with_name(f'{name}.json'), key, measure)

    def rows(self, variant: str, scale: float, seed: int,
             settings: List[DMVJNDSetting]) -> List[Dict]:
        """Train and measure one DMV-JND."""
        cfg, checkpoint = self.train(variant, scale, seed)
        rows = []
        for split, every in (('test', self.protocol['every']),
                             ('train', self.protocol['train_every'])):

            def measure():
                return measure_dmv_jnd(
                    cfg, checkpoint, settings, split, every)

            for row in self.measured('rows', cfg, checkpoint, measure,
                                     settings=settings, split=split,
                                     every=every):
                row.update(
                    split=split, variant=variant, scale=scale, seed=seed)
                rows.append(row)
        return rows

    def variant(self, variant: str) -> List[Dict]:
        """All rows of a variant."""
        first, *others = self.protocol['seeds']
        rows = []
        for seed in (first, *others):
            settings = [DMVJNDSetting()] + [
                DMVJNDSetting(name, seed=seed) for name in CONTROLS
            ]
            if seed == first:
                settings += [DMVJNDSetting(strength=k) for k in HOMOGENEITY]
            rows += self.rows(variant, 1.0, seed, settings)
        for scale in self.protocol['scales'][variant]:
            rows += self.rows(
                variant, scale, first,
                [DMVJNDSetting(), DMVJNDSetting('gaussian', seed=first)])
        return rows

    def codec(self, variant: str, seed: int) -> List[Dict]:
        """RCA against bytes, of one DMV-JND, on test images."""
        cfg, checkpoint = self.train(variant, 1.0, seed)
        every = self.protocol['every']
        return self.measured(
            'codec', cfg, checkpoint,
            lambda: measure_dmv_jnd_codec(cfg, checkpoint, every=every),
            every=every)

    def unseen(self, variant: str, seed: int) -> List[Dict]:
        """Accuracy of a classifier that DMV-JND never saw, by way of its data
        preprocessor, on test images."""
        jnd, checkpoint = self.train(variant, 1.0, seed)
        host = train_host('cifar10', self.work_dir.parent)
        every = self.protocol['every']
        folder = Path(checkpoint).parent
        configs = {
            distortion: self.unseen_config(distortion, checkpoint, seed)
            for distortion in ('clean', 'dmv-jnd', *CONTROLS)
        }

        def measure():
            rows = []
            for distortion, cfg in configs.items():
                cfg.load_from = host
                cfg.work_dir = str(folder / 'unseen')
                if every > 1:
                    keep_every(cfg, every, folder)
                rows.append(
                    dict(
                        distortion=distortion,
                        metrics=build_runner(cfg).test()))
            return rows

        return self.measured('unseen', jnd, checkpoint, measure, host=host,
                             configs=list(configs.values()), every=every)

    def unseen_config(self, distortion: str, checkpoint: str,
                      seed: int) -> Config:
        """The config of the classifier that DMV-JND never saw."""
        cfg = Config.fromfile(UNSEEN)
        cfg.data_preprocessor.update(
            type='mmfeatjnd.DMVJNDPreprocessor',
            host='mmpretrain.ClsDataPreprocessor',
            jnd=dict(config=str(self.config), checkpoint=checkpoint),
            seed=seed)
        if distortion == 'clean':
            cfg.data_preprocessor.test = False
        else:
            cfg.data_preprocessor.distortion = distortion
        return cfg

    def publish(self) -> None:
        """Write the result."""
        protocol = self.protocol
        first = protocol['seeds'][0]
        cfg = Config.fromfile(self.config)
        # the claim is about the paper's classifiers, and all images
        full = (PROTOCOLS['full']['config'], PAPER_SCHEDULE)
        thinned = max(protocol['every'], protocol['train_every']) > 1
        publish(
            'dmv_jnd_cifar10',
            dict(
                command='python benchmarks/dmv_jnd.py ' +
                ' '.join(sys.argv[1:]),
                config=self.config.stem,
                dataset='CIFAR-10',
                reduced=self.config.name not in full or thinned,
                every=protocol['every'],
                train_every=protocol['train_every'],
                train_images=count_images(cfg, cfg.train_dataloader.dataset),
                test_images=count_images(cfg, cfg.test_dataloader.dataset),
                estimator_draws=draws(cfg),
                first_seed=first,
                batch_size=cfg.test_dataloader.batch_size,
                codec=self.codec(MAIN, first),
                unseen=self.unseen(MAIN, first),
                unseen_host=UNSEEN.stem,
                rows=[r for v in VARIANTS for r in self.variant(v)]))


def main():
    args = parse_args()
    benchmark = Benchmark(args)
    if args.train_only:
        variant, scale, seed = args.train_only
        benchmark.train(variant, float(scale), int(seed))
        return
    benchmark.publish()


if __name__ == '__main__':
    main()
