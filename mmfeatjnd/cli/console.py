"""What a command-line tool tells when it fails."""
from contextlib import contextmanager
from typing import Iterator, NoReturn

from mmfeatjnd.apis.feature_codec import CodecError
from mmfeatjnd.apis.work_dirs import WorkDirError
from mmfeatjnd.compat import EnvironmentProblem
from mmfeatjnd.models.hosts import CheckpointError
from mmfeatjnd.utils import ConfigError, UnsafeCheckpoint, WriteError, is_first
from mmfeatjnd.utils.files import NO_SPACE


class UsageError(RuntimeError):
    """A mistake of the user's, told without a traceback by the tools."""


#: Whose message alone tells the user what is wrong and what to change. All
#: other errors may be faults of ours, and keep their traceback.
USER_ERRORS = (UsageError, EnvironmentProblem, ConfigError, CheckpointError,
               CodecError, UnsafeCheckpoint, WorkDirError, WriteError)


@contextmanager
def plain_errors() -> Iterator[None]:
    """End the program with the message alone, without a traceback.

    Holds for :data:`USER_ERRORS`, and for files that cannot be read or
    written.
    """
    try:
        yield
    except USER_ERRORS as error:
        _leave(str(error), error)
    except OSError as error:
        if error.filename is not None:
            _leave(f'{error.strerror}: {error.filename}', error)
        elif error.errno in NO_SPACE:
            _leave(str(error.strerror), error)
        elif isinstance(error, FileNotFoundError):  # a library's own words
            _leave(str(error), error)
        raise


def _leave(message: str, error: Exception) -> NoReturn:
    message = f'error: {printable(message)}'
    raise SystemExit(message if is_first() else 1) from error


def printable(text: object) -> str:
    r"""A text, with everything escaped that a terminal would obey or that
    cannot be printed: names of files, and what is in files, may be anything.

    Args:
        text (object): Its ``str`` is taken.

    Returns:
        str: Without control characters, but for the ends of lines.

    Example:
        >>> printable('a\x1b[2Jü')
        'a\\x1b[2Jü'
    """
    return ''.join(
        c if c.isprintable() or c == '\n' else
        c.encode('unicode_escape').decode() for c in str(text))
