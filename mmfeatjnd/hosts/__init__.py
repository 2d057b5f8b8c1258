"""One adapter for each host library: all that differs between them."""
from .base import (
    Answer,
    HostAdapter,
    frozen,
    run_host,
    sharing_prefix,
)
from .find import adapter_of

__all__ = [
    'Answer', 'HostAdapter', 'adapter_of', 'frozen', 'run_host',
    'sharing_prefix'
]
