"""One adapter for each host library: all that differs between them."""
from .base import (
    Answer,
    HostAdapter,
    Likelihood,
    NoLikelihood,
    frozen,
    run_host,
    sharing_prefix,
)
from .find import adapter_of

__all__ = [
    'Answer', 'HostAdapter', 'Likelihood', 'NoLikelihood', 'adapter_of',
    'frozen', 'run_host', 'sharing_prefix'
]
