from . import rate
from .curve import (
    Point,
    clean_metrics,
    cost_ratios,
    headline,
    plot,
    summarize,
    to_markdown,
    tolerated_strength,
)

# The functions of :mod:`rate` mirror those of the curves: they are reached
# through the module.
__all__ = [
    'Point', 'clean_metrics', 'cost_ratios', 'headline', 'plot', 'rate',
    'summarize', 'to_markdown', 'tolerated_strength'
]
