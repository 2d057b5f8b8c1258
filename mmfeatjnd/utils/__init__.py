"""Small helpers that belong to no part of the package alone."""
from .configs import ConfigError, config_library, read_config, type_name
from .files import WriteError, atomic_path, check_writable
from .literals import literal, read_literal
from .logs import is_first, log
from .ranks import on_first_rank
from .safe_load import UnsafeCheckpoint, load_safely, safe_loading
from .wrappers import unwrapped

__all__ = [
    'ConfigError', 'UnsafeCheckpoint', 'WriteError', 'atomic_path',
    'check_writable', 'config_library', 'is_first', 'literal', 'load_safely',
    'log', 'on_first_rank', 'read_config', 'read_literal', 'safe_loading',
    'type_name', 'unwrapped'
]
