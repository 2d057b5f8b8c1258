from .data_preprocessors import *  # noqa: F401,F403
from .discrepancies import *  # noqa: F401,F403
from .dmv_jnd import *  # noqa: F401,F403
from .estimators import *  # noqa: F401,F403
from .featjnd import FeatJND, FeatJNDMixin  # noqa: F401
from .losses import *  # noqa: F401,F403
from .necks import *  # noqa: F401,F403
from .operations import *  # noqa: F401,F403
from .splits import Prefix, attached, find_neck  # noqa: F401
