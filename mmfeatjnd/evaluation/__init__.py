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

__all__ = [
    'Point', 'clean_metrics', 'cost_ratios', 'headline', 'plot', 'summarize',
    'to_markdown', 'tolerated_strength'
]
