"""Messages of a run, told once however many processes it has."""
import logging
import os

from mmengine.logging import print_log


def is_first() -> bool:
    """Whether this is rank 0, with or without a process group."""
    names = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
    ranks = [os.environ[name] for name in names if name in os.environ]
    return not ranks or int(ranks[0]) == 0


def log(message: str, level: int = logging.INFO) -> None:
    """Give a message to MMEngine's current logger, on rank 0 only.

    Args:
        message (str): The message.
        level (int): Level of :mod:`logging`. Defaults to ``logging.INFO``.
    """
    if is_first():
        print_log(message, logger='current', level=level)
