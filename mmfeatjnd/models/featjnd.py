"""FeatJND's training objective on any host model."""
import inspect
from contextlib import contextmanager, nullcontext
from typing import Dict, Iterator, List, Optional

import torch
from torch import Tensor, nn

from mmfeatjnd.compat import host_library
from mmfeatjnd.functional import image_keys, scale_to_nrmse, uniform_noise
from mmfeatjnd.registry import MODELS
from .discrepancies import PseudoGroundTruth, host_loss, host_pass
from .hosts import extended_class, host_class, host_scope
from .operations import check_finite, image_ids
from .splits import Prefix, attached, find_neck

_STRENGTH_STREAM = 1 << 21
# Any odd number but that of the noise's streams, which it would shift.
_STEP = 0xD1B54A32D192ED03 - (1 << 64)


class _TrainingPerturbation:
    """Add the estimator's distortion and keep what the objective needs."""

    def __init__(self, keys: Tensor, objective: nn.Module, check: bool):
        self.keys = keys
        self.check = check
        self.quantizer = objective.quantizer
        self.rewards_rate = objective.magnitude == 'rate'
        self.target = None
        if objective.strength is not None:
            low, high = objective.strength
            unit = uniform_noise(keys, (1, ), _STRENGTH_STREAM)[:, 0] / 2 + 0.5
            self.target = low + (high - low) * unit
        self.magnitudes: List[Tensor] = []
        self.features: List[Tensor] = []
        self.channel_rms: List[Tensor] = []

    def __call__(self, feature: Tensor, level: int, neck) -> Tensor:
        if self.check:
            check_finite(feature, level, neck.split)
        estimator = neck.estimator_of(level)
        jnd_map = estimator(feature)
        self.features.append(feature)
        self.channel_rms.append(estimator.channel_rms(feature))
        if self.quantizer is not None:
            value, bits = self.quantizer(feature, jnd_map, self.keys, level)
            self.magnitudes.append(bits if self.rewards_rate else jnd_map)
            return value
        delta = estimator.distortion(jnd_map, self.keys, level)
        if self.target is not None:
            delta = scale_to_nrmse(delta, feature, self.target)
            # at a given strength M can only reward how it is spread
            jnd_map = scale_to_nrmse(jnd_map, feature, 1.0)
        self.magnitudes.append(jnd_map)
        return feature.float() + delta


class FeatJNDMixin:
    """Adds FeatJND's ``loss`` to a host class; see :func:`FeatJND`."""

    _prefix: Optional[Prefix] = None
    # The features are checked in the first step only: the check waits for
    # the device, and a frozen host does not change.
    _first_loss = True

    def setup_featjnd(self, objective: nn.Module) -> None:
        """Freeze the host and keep the objective; called once, at build."""
        # not a submodule: it would be in the host twice
        object.__setattr__(self, 'featjnd_neck', find_neck(self))
        if objective.discrepancy is None:
            detector = host_library(self) == 'mmdet'
            objective.discrepancy = MODELS.build(
                dict(type='mmfeatjnd.PseudoGroundTruth'
                     if detector else 'mmfeatjnd.PredictionDivergence'))
        modes = {e.mode for e in self.featjnd_neck.estimators}
        if objective.quantizer is not None and modes != {'envelope'}:
            raise ValueError('FeatJND: a quantizer takes its steps from an '
                             "envelope. Use estimator=dict(mode='envelope').")
        self.featjnd_objective = objective
        with attached(self, self.featjnd_neck):
            pass  # a split that does not exist fails at build
        self.requires_grad_(False)
        self.featjnd_neck.estimators.requires_grad_(True)
        self._register_load_state_dict_pre_hook(self._keep_objective_state)
        self.train(self.training)

    def _keep_objective_state(self, state_dict, prefix, *args) -> None:
        # a plain host checkpoint lacks nothing but the estimators
        for key, value in self.featjnd_objective.state_dict().items():
            state_dict.setdefault(f'{prefix}featjnd_objective.{key}', value)

    def train(self, mode: bool = True):
        """Only the estimators are ever in training mode."""
        super().train(mode)
        if hasattr(self, 'featjnd_objective'):
            for child in self.children():
                child.eval()
            self.featjnd_objective.train(mode)
            self.featjnd_neck.estimators.train(mode)
        return self

    @contextmanager
    def _pass(self, training: bool) -> Iterator[None]:
        """One pass of the host."""
        prefix = self._prefix.one_pass() if self._prefix else nullcontext()
        with host_pass(self, training), prefix:
            yield

    def forward(self, *args, **kwargs):
        """The host's forward, with the split in reach."""
        with attached(self, self.featjnd_neck):
            return super().forward(*args, **kwargs)

    @contextmanager
    def sharing_prefix(self) -> Iterator[None]:
        """Inside, all passes are over one input: what lies before the split
        runs in the first of them only."""
        self._prefix = Prefix(self, self.featjnd_neck)
        try:
            with attached(self, self.featjnd_neck):
                yield
        finally:
            self._prefix = None

    def host_forward(self, *args, **kwargs):
        """The host's own ``forward``."""
        with self._pass(training=False):
            return super().forward(*args, **kwargs)

    def host_predict(self, *args, **kwargs):
        """The host's own ``predict``."""
        with self._pass(training=False):
            return self.predict(*args, **kwargs)

    def host_loss(self, *args, **kwargs) -> dict:
        """The host's own ``loss``."""
        with self._pass(training=True):
            return super().loss(*args, **kwargs)

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
        """
        objective, neck = self.featjnd_objective, self.featjnd_neck
        with self.sharing_prefix():
            with torch.no_grad():
                reference = objective.discrepancy.reference(
                    self, inputs, data_samples)
            keys = image_keys(
                image_ids(data_samples, len(inputs)), device=inputs.device)
            # other noise in every step, and the same one after resuming
            step = neck.estimators[0].num_updates.long()
            operation = _TrainingPerturbation(
                keys + step * _STEP, objective, self._first_loss)
            self._first_loss = False
            with neck.operating(operation):
                discrepancy = objective.discrepancy(self, inputs, data_samples,
                                                    reference)
        return objective(discrepancy, operation.magnitudes, operation.features,
                         operation.channel_rms)

    @torch.no_grad()
    def sensitivity(self,
                    inputs: Tensor,
                    data_samples: Optional[list] = None) -> Dict[int, Tensor]:
        """Squared gradient of the task at the split, by level.

        The task is the host's own loss against its own clean predictions, so
        no annotations are used.

        Args:
            inputs (Tensor): (B, 3, H, W), as the host takes them.
            data_samples (list, optional): The host's data samples.

        Returns:
            dict[int, Tensor]: Level to a tensor of the feature's shape.
        """
        leaves: Dict[int, Tensor] = {}

        def leaf(feature: Tensor, level: int, neck) -> Tensor:
            leaves[level] = feature.detach().requires_grad_()
            return leaves[level] + 0  # what follows may work in place

        task = PseudoGroundTruth()
        with self.sharing_prefix():
            targets = task.targets(self, inputs, data_samples)
            with torch.enable_grad(), self.featjnd_neck.operating(leaf):
                loss = host_loss(self, inputs, targets)
                grads = torch.autograd.grad(
                    loss, list(leaves.values()), allow_unused=True)
        return {
            level: torch.zeros_like(x) if g is None else g.float().square()
            for (level, x), g in zip(leaves.items(), grads)
        }


@MODELS.register_module()
def FeatJND(host: str, objective: Optional[dict] = None, **kwargs):
    """Build a host model with FeatJND's training objective.

    The model *is* the host: a subclass of its class, with its attributes and
    its checkpoint keys. Its parameters are frozen, except the estimators in
    its :class:`FeatJNDNeck`, and ``loss`` is FeatJND's.

    Args:
        host (str): The host's class with its scope, e.g. 'mmdet.MaskRCNN'.
        objective (dict, optional): Config of the objective. Defaults to
            None: ``dict(type='mmfeatjnd.FeatJNDLoss')``.
        **kwargs: The host's own arguments; ``neck`` must be a
            ``mmfeatjnd.FeatJNDNeck``.

    Returns:
        nn.Module: The host with :class:`FeatJNDMixin`.

    Raises:
        KeyError: No such host.
        TypeError: The host has no neck, hence no split point.
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
    model.setup_featjnd(
        MODELS.build(objective or dict(type='mmfeatjnd.FeatJNDLoss')))
    return model
