"""The set-up of pictures, and of the picture of a curve."""
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Union

from .metric_values import better_when


@contextmanager
def saved_figure(path: Union[str, Path],
                 width: float,
                 height: float,
                 dpi: int = 150) -> Iterator:
    """A figure to draw on, without a display.

    Args:
        path (str | Path): The picture, written on leaving; its suffix gives
            the format.
        width (float): Width in inches.
        height (float): Height in inches.
        dpi (int): Pixels an inch. Defaults to 150.

    Yields:
        matplotlib.figure.Figure: The figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    figure = Figure(figsize=(width, height), layout='constrained')
    FigureCanvasAgg(figure)
    yield figure
    figure.savefig(path, dpi=dpi)


@contextmanager
def curve_figure(path: Union[str, Path], xlabel: str,
                 ylabel: str) -> Iterator:
    """Axes to draw curves on, with a grid and a legend beside them.

    Args:
        path (str | Path): The picture, written on leaving; its suffix gives
            the format.
        xlabel (str): Name of the settings.
        ylabel (str): Name of the metric.

    Yields:
        matplotlib.axes.Axes: The axes.
    """
    with saved_figure(path, 7.2, 4.4) as figure:
        axes = figure.subplots()
        yield axes
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc='center left', bbox_to_anchor=(1.0, 0.5))


def show_costs(axes, metric: str, clean: float, below: float,
               above: float) -> None:
    """Cut the axis of a metric, so that a control that collapses does not
    flatten the rest.

    Args:
        axes (matplotlib.axes.Axes): The axes.
        metric (str): Name of the metric.
        clean (float): The clean metric.
        below (float): How much worse than clean is shown.
        above (float): How much better than clean is shown.
    """
    if better_when(metric) == 'higher':
        axes.set_ylim(clean - below, clean + above)
    else:
        axes.set_ylim(clean - above, clean + below)
