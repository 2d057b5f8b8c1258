"""FeatJND's training objective on any host model."""
import inspect
from typing import Dict, Optional

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmfeatjnd.compat import host_library
from mmfeatjnd.hosts import adapter_of, sharing_prefix
from mmfeatjnd.registry import MODELS
from .hosts import check_host_weights, extended_class, host_class, host_scope
from .necks.featjnd_neck import find_neck
from .operations import BaseTraining
from .reading import find_read_levels
from .run import check_faults
from .splits import PrefixReplay, attached
from .step_counter import StepCounter
from .training_watch import TrainingWatch


class FeatJNDMixin:
    """Adds FeatJND's ``loss`` to a host class; see :func:`build_featjnd`."""

    #: Marks the class whose methods stand above the host's own.
    extends_host = True
    prefix = 'FeatJND'

    def setup_featjnd(self, training: BaseTraining,
                      discrepancy: nn.Module, objective: nn.Module) -> None:
        """Freeze the host, and keep what trains the estimators; called once,
        at build."""
        # not a submodule: it would be in the host twice
        object.__setattr__(self, 'featjnd_neck', find_neck(self))
        neck = self.featjnd_neck
        if not neck.estimators:
            raise ValueError('FeatJND: the FeatJNDNeck has no estimator to '
                             'train. Set estimator=dict(...).')
        training.check(neck)
        if objective.adapt is not None and not training.free:
            raise ValueError(
                f'FeatJND: {type(training).__name__} sets the NRMSE, so no '
                'multiplier can hold the tolerance. Leave out `adapt` of the '
                'objective, or let the estimator decide: training=dict('
                "type='mmfeatjnd.LearnedNRMSE').")
        self.featjnd_training = training
        self.featjnd_discrepancy = discrepancy
        self.featjnd_objective = objective
        with attached(neck):
            pass  # a split that does not exist fails at build
        self.requires_grad_(False)
        neck.estimators.requires_grad_(True)
        self.featjnd_steps = StepCounter()
        self.featjnd_watch = TrainingWatch()
        self._register_load_state_dict_pre_hook(_check_loaded, True)
        self._register_state_dict_hook(_check_saved)
        self.train(self.training)

    def train(self, mode: bool = True):
        """Only the estimators are ever in training mode."""
        super().train(mode)
        if hasattr(self, 'featjnd_objective'):
            for child in self.children():
                child.eval()
            for own in (self.featjnd_discrepancy, self.featjnd_objective,
                        self.featjnd_neck.estimators):
                own.train(mode)
        return self

    def loss(self,
             inputs: Tensor,
             data_samples: Optional[list] = None,
             **kwargs) -> Dict[str, Tensor]:
        """FeatJND's loss: a clean pass, then the perturbed pass.

        The part before the split runs once. Only the estimators get a
        gradient.

        Args:
            inputs (Tensor): (B, 3, H, W), as the host takes them.
            data_samples (list, optional): The host's data samples.

        Returns:
            dict[str, Tensor]: See :class:`FeatJNDLoss`.

        Raises:
            ValueError: The host's features are not finite (asked in the first
                step), or the estimators have diverged (asked now and then).
            RuntimeError: The estimators do not change, or nothing that they
                do is noticed (asked now and then).
        """
        neck, discrepancy = self.featjnd_neck, self.featjnd_discrepancy
        with torch.no_grad():
            find_read_levels(neck, inputs, data_samples)
        seed = self.featjnd_steps.next_seed()
        content = adapter_of(self).content(self, inputs, data_samples, True)
        # what stands for the images where they have no data samples
        images = data_samples or range(len(inputs))
        with sharing_prefix(self, PrefixReplay(neck)):
            with torch.no_grad():
                reference = discrepancy.reference(self, inputs, data_samples,
                                                  seed)
            with neck.run(
                    self.featjnd_training, images, seed=seed,
                    content=content) as run:
                noticed = discrepancy(self, inputs, data_samples, reference)
        if not self.featjnd_watch.begun:
            # the check waits for the device, and a frozen host does not
            # change
            check_faults([run])
        # a batch without any region keeps nothing
        magnitude = self.featjnd_training.magnitude(run.kept) if run.kept \
            else torch.zeros_like(noticed)
        losses = self.featjnd_objective(noticed, magnitude)
        if self.training:
            self.featjnd_watch.step(neck, run, losses['jnd_discrepancy'])
        return self._reaching_all(losses, bool(run.kept))

    def _reaching_all(self, losses: Dict[str, Tensor],
                      some: bool) -> Dict[str, Tensor]:
        """DDP expects a gradient for every parameter, also of an estimator
        whose level nothing reads, or that had no region."""
        neck = self.featjnd_neck
        busy = neck.active_estimators() if some else []
        idle = [p for e in neck.estimators for p in e.parameters()
                if all(e is not b for b in busy)]
        if idle:
            losses['loss_jnd_magnitude'] = losses['loss_jnd_magnitude'] + sum(
                0 * p.sum() for p in idle)
        return losses


def _check_loaded(model: nn.Module, state_dict: dict, prefix: str,
                  *args) -> None:
    """Everything of the host must be there; the estimators may begin anew."""
    given = {
        k[len(prefix):]: v
        for k, v in state_dict.items() if k.startswith(prefix)
    }
    check_host_weights(model, given)
    own = {
        f'{name}.{k}': v
        for name in ('featjnd_discrepancy', 'featjnd_objective')
        for k, v in getattr(model, name).state_dict().items()
    }
    trained = any(k.startswith('neck.estimators.') for k in given)
    if not trained:  # all of them or none, else the neck raises
        own.update((f'neck.estimators.{k}', v) for k, v in
                   model.featjnd_neck.estimators.state_dict().items())
    print_log(
        f'Loading all weights of {type(model).__name__}; its estimators ' +
        ('are loaded as well.' if trained else
         'are not in the checkpoint and begin anew.'),
        logger='current')
    for key, value in own.items():
        state_dict.setdefault(f'{prefix}{key}', value)


def _check_saved(model: nn.Module, state_dict: dict, prefix: str,
                 local_metadata: dict) -> None:
    """A diverged estimator must not become a checkpoint."""
    model.featjnd_watch.check(model.featjnd_neck)


@MODELS.register_module(name='FeatJND')
def build_featjnd(host: str,
                  training: Optional[dict] = None,
                  discrepancy: Optional[dict] = None,
                  objective: Optional[dict] = None,
                  **kwargs) -> nn.Module:
    """Build a host model with FeatJND's training objective: what
    ``type='mmfeatjnd.FeatJND'`` names.

    The model *is* the host: a subclass of its class, with its attributes and
    its checkpoint keys. Its parameters are frozen, except the estimators in
    its :class:`FeatJNDNeck`, and ``loss`` is FeatJND's.

    Args:
        host (str): The host's class with its scope, e.g. 'mmdet.MaskRCNN'.
        training (dict, optional): How the features are disturbed in training:
            :class:`DrawnNRMSE`, :class:`LearnedNRMSE` or
            :class:`QuantizationSurrogate`. Defaults to None; the ``type``
            defaults to ``DrawnNRMSE``.
        discrepancy (dict, optional): Config of D_t. Defaults to None; the
            ``type`` defaults to ``PseudoGroundTruth`` for detectors, and to
            ``PredictionDivergence`` (KL to the clean prediction) for
            classifiers and segmentors.
        objective (dict, optional): Config of the objective. Defaults to
            None; the ``type`` defaults to ``FeatJNDLoss``.
        **kwargs: The host's own arguments; ``neck`` must be a
            ``mmfeatjnd.FeatJNDNeck``.

    Returns:
        nn.Module: The host with :class:`FeatJNDMixin`, e.g. of the class
        ``FeatJNDMaskRCNN``.

    Raises:
        KeyError: No such host.
        TypeError: The host has no neck, hence no split point.
        ValueError: The settings do not fit each other.
    """
    host_cls = host_class(host)
    if host_cls is None:
        raise KeyError(
            f"FeatJND: host='{host}' is not registered. Give its class with "
            "its scope, e.g. 'mmdet.MaskRCNN', 'mmpretrain.ImageClassifier' "
            "or 'mmseg.EncoderDecoder', and install that library.")
    if not any('neck' in inspect.signature(c.__init__).parameters
               for c in host_cls.__mro__ if '__init__' in vars(c)):
        raise TypeError(
            f"FeatJND: host='{host}' takes no `neck`, so it has no split "
            'point. Use a host that does: for a timm or Hugging Face '
            "classifier host='mmpretrain.ImageClassifier' with backbone=dict("
            "type='mmpretrain.TIMMBackbone', ...), for a Detectron2 model "
            'the MMDetection model of the same name.')
    with host_scope(host):
        model = extended_class(FeatJNDMixin, host_cls)(**kwargs)
    detector = host_library(model) == 'mmdet'
    model.setup_featjnd(
        _build(training, 'DrawnNRMSE'),
        _build(
            discrepancy,
            'PseudoGroundTruth' if detector else 'PredictionDivergence'),
        _build(objective, 'FeatJNDLoss'))
    return model


def _build(cfg: Optional[dict], default: str):
    return MODELS.build(dict(dict(type=f'mmfeatjnd.{default}'), **(cfg or {})))
