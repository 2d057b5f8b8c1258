"""FeatJND's training objective on any host model."""
import inspect
from typing import Dict, Optional, Union

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmfeatjnd.hosts import NoLikelihood, adapter_of
from mmfeatjnd.registry import MODELS
from .hosts import check_host_weights, extended_class, host_class, host_scope
from .necks.featjnd_neck import find_neck
from .operations import BaseTraining, Distillation
from .reading import find_read_levels
from .run import check_faults
from .splits import attached
from .step_counter import StepCounter
from .training_watch import TrainingWatch


class FeatJNDMixin:
    """Adds FeatJND's ``loss`` to a host class; see :func:`build_featjnd`."""

    #: Marks the class whose methods stand above the host's own.
    extends_host = True
    prefix = 'FeatJND'

    def setup_featjnd(self,
                      training: Union[BaseTraining, Distillation],
                      discrepancy: Optional[nn.Module] = None,
                      objective: Optional[nn.Module] = None) -> None:
        """Freeze the host, and keep what trains the estimators; called once,
        at build."""
        # not a submodule: it would be in the host twice
        object.__setattr__(self, 'featjnd_neck', find_neck(self))
        neck = self.featjnd_neck
        if not neck.estimators:
            raise ValueError('FeatJND: the FeatJNDNeck has no estimator to '
                             'train. Set estimator=dict(...).')
        modes = {e.mode for e in neck.estimators}
        if not modes <= set(training.modes):
            raise ValueError(
                f'FeatJND: {type(training).__name__} trains estimators of '
                f'mode {" or ".join(map(repr, training.modes))}, but this one '
                f'has mode={modes.pop()!r}. Set estimator=dict(mode=...), or '
                'leave out `training`.')
        if training.distils and (
                discrepancy is not None or objective is not None):
            raise ValueError(
                f'FeatJND: {type(training).__name__} needs neither a '
                '`discrepancy` nor an `objective`. Leave them out.')
        if objective is not None and objective.adapt is not None and \
                not training.free:
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
                if own is not None:
                    own.train(mode)
        return self

    def loss(self,
             inputs: Tensor,
             data_samples: Optional[list] = None,
             **kwargs) -> Dict[str, Tensor]:
        """FeatJND's loss, of which only the estimators get a gradient.

        Args:
            inputs (Tensor): (B, 3, H, W), as the host takes them.
            data_samples (list, optional): The host's data samples.

        Returns:
            dict[str, Tensor]: See :meth:`Distillation.step` and
            :class:`FeatJNDLoss`.

        Raises:
            ValueError: The host's features are not finite (asked in the first
                step), or the estimators have diverged (asked now and then).
            RuntimeError: The estimators do not change, or nothing that they
                do is noticed (asked now and then).
        """
        with torch.no_grad():
            find_read_levels(self.featjnd_neck, inputs, data_samples)
        losses, run, noticed = self.featjnd_training.step(
            self, inputs, data_samples, self.featjnd_steps.next_seed())
        if not self.featjnd_watch.begun:
            # the check waits for the device, and a frozen host does not
            # change
            check_faults([run])
        if self.training:
            self.featjnd_watch.step(self.featjnd_neck, run, noticed)
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
            last = [name for name in losses if name.startswith('loss')][-1]
            losses[last] = losses[last] + sum(0 * p.sum() for p in idle)
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
        if getattr(model, name) is not None
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
        training (dict, optional): How the estimator learns:
            :class:`Distillation`, or how the features are disturbed in
            training: :class:`DrawnNRMSE`, :class:`LearnedNRMSE` or
            :class:`QuantizationSurrogate`. Defaults to None; the ``type``
            defaults to what fits the mode of the estimator: ``Distillation``,
            and for the others ``DrawnNRMSE``.
        discrepancy (dict, optional): Config of D_t, where features are
            disturbed. Defaults to None; the ``type`` defaults to
            ``PredictionDivergence``, nats from the clean answer, or where it
            is not known what the heads of a detector say to
            ``PseudoGroundTruth``.
        objective (dict, optional): Config of the objective, likewise.
            Defaults to None; the ``type`` defaults to ``FeatJNDLoss``.
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
    signed = any(e.mode != 'sensitivity' for e in find_neck(model).estimators)
    training = _build(training, 'DrawnNRMSE' if signed else 'Distillation')
    if not training.distils:
        discrepancy = _build(discrepancy, _default_discrepancy(model))
        objective = _build(objective, 'FeatJNDLoss')
    model.setup_featjnd(training, discrepancy, objective)
    return model


def _default_discrepancy(model) -> str:
    try:
        adapter_of(model).check_likelihood(model)
    except NoLikelihood as error:
        print_log(
            f'FeatJND: {error}, so the discrepancy is PseudoGroundTruth: a '
            'relative rise of the loss, not nats.', 'current')
        return 'PseudoGroundTruth'
    return 'PredictionDivergence'


def _build(cfg: Optional[dict], default: str):
    return MODELS.build(dict(dict(type=f'mmfeatjnd.{default}'), **(cfg or {})))
