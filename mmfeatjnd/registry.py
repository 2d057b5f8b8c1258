"""The registries of MMFeatJND: children of MMEngine's root registries.

``locations`` lets a prefixed type such as ``mmfeatjnd.FeatJNDNeck`` resolve
under the default scope of any host, without ``custom_imports``.
"""
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

MODELS = Registry(
    'model', parent=MMENGINE_MODELS, locations=['mmfeatjnd.models'])
HOOKS = Registry(
    'hook', parent=MMENGINE_HOOKS, locations=['mmfeatjnd.engine.hooks'])
OPTIM_WRAPPERS = Registry(
    'optim_wrapper',
    parent=MMENGINE_OPTIM_WRAPPERS,
    locations=['mmfeatjnd.engine.optim_wrappers'])
DATASETS = Registry(
    'dataset', parent=MMENGINE_DATASETS, locations=['mmfeatjnd.datasets'])
TRANSFORMS = Registry(
    'transform',
    parent=MMENGINE_TRANSFORMS,
    locations=['mmfeatjnd.datasets'])
#: How features are changed at equal NRMSE; see
#: `mmfeatjnd.models.operations`.
DISTORTIONS = Registry(
    'distortion', locations=['mmfeatjnd.models.operations'])
#: How a quantizer chooses its steps; see `mmfeatjnd.models.operations`.
STEP_POLICIES = Registry(
    'step policy', locations=['mmfeatjnd.models.operations'])
METRICS = Registry(
    'metric',
    parent=MMENGINE_METRICS,
    locations=['mmfeatjnd.evaluation.metrics'])
