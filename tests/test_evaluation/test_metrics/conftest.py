from importlib import import_module

import pytest
import torch
from mmengine.evaluator import Evaluator

NAMES = dict(mmpretrain='DataSample', mmdet='DetDataSample')


def data_sample(host):
    return getattr(import_module(f'{host}.structures'), NAMES[host])


@pytest.fixture(params=NAMES)
def sample(request):
    """The class of data samples of each host."""
    return data_sample(request.param)


@pytest.fixture
def evaluate():
    """Metrics of predictions, the ``dmv_jnd`` of each image, as MMEngine gets
    them: in batches of two, with annotated labels if there are any."""

    def evaluate(metrics, predictions, truth=None, sample=None):
        sample = sample or data_sample('mmpretrain')
        samples = []
        for i, measured in enumerate(predictions):
            one = sample()
            if truth is not None:
                one.set_gt_label(truth[i])
            one.set_field(measured, 'dmv_jnd')
            samples.append(one)
        evaluator = Evaluator(metrics)
        for i in range(0, len(samples), 2):
            evaluator.process(samples[i:i + 2])
        return evaluator.evaluate(len(samples))

    return evaluate


@pytest.fixture
def measure():
    """``dmv_jnd`` of one image: labels are {task: (clean, distorted)}."""

    def measure(mse=1., magnitude=0.5, target=0.5, **labels):
        tasks = {
            name: dict(
                agreement=torch.tensor(float(clean == distorted)),
                label=torch.tensor(distorted),
                reference_label=torch.tensor(clean))
            for name, (clean, distorted) in labels.items()
        }
        return dict(
            mse=torch.tensor(mse),
            magnitude=torch.tensor(magnitude),
            target=torch.tensor(target),
            tasks=tasks)

    return measure
