from . import curve, rate
from .crossing import UNKNOWN, Bounded, Estimate, crossing, over_seeds
from .metric_values import advantage, better_when, scalar_metrics
from .rca import plot_rca
from .rows import clean_metrics, headline, markdown_table, value_of

# The functions of :mod:`curve` (against NRMSE) and :mod:`rate` (against bits)
# have the same names: they are reached through their modules.
__all__ = [
    'Bounded', 'Estimate', 'UNKNOWN', 'advantage', 'better_when',
    'clean_metrics', 'crossing', 'curve', 'headline', 'markdown_table',
    'over_seeds', 'plot_rca', 'rate', 'scalar_metrics', 'value_of'
]
