from .codec_plan import CodecPlan, load_plan, save_plan  # noqa: F401
from .data_preprocessors import *  # noqa: F401,F403
from .discrepancies import *  # noqa: F401,F403
from .dmv_jnd import *  # noqa: F401,F403
from .estimator_file import host_hash, neck_at  # noqa: F401
from .estimators import *  # noqa: F401,F403
from .featjnd import FeatJNDMixin, build_featjnd  # noqa: F401
from .hosts import CheckpointError, check_host_weights  # noqa: F401
from .losses import *  # noqa: F401,F403
from .metric_file import (  # noqa: F401
    FrequencyMetric,
    LevelMetric,
    TaskMetric,
    load_metric,
    save_metric,
)
from .necks import *  # noqa: F401,F403
from .operations import *  # noqa: F401,F403
from .readers import reader_metrics  # noqa: F401
from .reading import find_read_levels  # noqa: F401
from .run import Run, Visit, check_faults, image_ids  # noqa: F401
from .sensitivity import task_sensitivity  # noqa: F401
from .splits import PrefixReplay, PrefixShapes, TailMemo  # noqa: F401
