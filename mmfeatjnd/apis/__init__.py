"""What a user calls from Python; all errors are ordinary ones."""
from mmfeatjnd.models.estimator_file import (
    host_hash,
    load_estimator,
    read_estimator,
    save_estimator,
)
from mmfeatjnd.models.hosts import CheckpointError
from mmfeatjnd.utils import ConfigError, WriteError
from .add_featjnd import add_featjnd
from .building import build_model, build_runner
from .checkpoints import read_checkpoint, read_weights
from .codec_sides import CodecError
from .curve import OperationTest, measure_curve
from .dmv_jnd import (
    HOMOGENEITY,
    DMVJNDSetting,
    dmv_jnd_runner,
    measure_dmv_jnd,
)
from .dmv_jnd_codec import measure_dmv_jnd_codec
from .feature_codec import FeatureCodec
from .inferencer import Answer, FeatJNDInferencer, changing_features
from .measured_jnd import JNDMeter, measure_jnd
from .metric import estimate_metric
from .mixed_precision import enable_amp
from .plan import make_plan
from .rate import measure_rates
from .split_guide import guide_to_splits
from .training import train, train_once, trained_checkpoint
from .work_dirs import WorkDirError, latest_checkpoint
from .zoo import find_model, get_checkpoint

__all__ = [
    'Answer', 'CheckpointError', 'CodecError', 'ConfigError', 'DMVJNDSetting',
    'FeatJNDInferencer', 'FeatureCodec', 'HOMOGENEITY', 'JNDMeter',
    'OperationTest', 'WorkDirError', 'WriteError', 'add_featjnd',
    'build_model', 'build_runner', 'changing_features', 'dmv_jnd_runner',
    'enable_amp', 'estimate_metric', 'find_model', 'get_checkpoint',
    'guide_to_splits', 'host_hash', 'latest_checkpoint', 'load_estimator',
    'make_plan', 'measure_curve', 'measure_dmv_jnd', 'measure_dmv_jnd_codec',
    'measure_jnd', 'measure_rates', 'read_checkpoint', 'read_estimator',
    'read_weights', 'save_estimator', 'train', 'train_once',
    'trained_checkpoint'
]
