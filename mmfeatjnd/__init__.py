from .compat import setup_config_scopes
from .version import __version__

setup_config_scopes()

__all__ = ['__version__']
