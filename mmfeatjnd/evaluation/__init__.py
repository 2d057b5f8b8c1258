from . import rate
from .crossing import UNKNOWN, Bounded, Estimate, crossing, over_seeds
from .curve import (
    Point,
    cost_ratios,
    plot,
    summarize,
    to_markdown,
    tolerated_ratio,
    tolerated_strength,
)
from .metric_values import advantage, better_when, scalar_metrics
from .rca import plot_rca
from .rows import clean_metrics, headline, markdown_table, value_of

# The functions of :mod:`rate` mirror those of the curves: they are reached
# through the module.
__all__ = [
    'Bounded', 'Estimate', 'Point', 'UNKNOWN', 'advantage', 'better_when',
    'clean_metrics', 'cost_ratios', 'crossing', 'headline', 'markdown_table',
    'over_seeds', 'plot', 'plot_rca', 'rate', 'scalar_metrics', 'summarize',
    'to_markdown', 'tolerated_ratio', 'tolerated_strength', 'value_of'
]
