"""Files from the network: gone on with where they broke off, checked, kept."""
import hashlib
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import List, Optional
from urllib.parse import urlparse

import torch

#: Variable with the address, or the folder, of somebody's own copy.
MIRROR = 'MMFEATJND_MIRROR'
TIMEOUT = 60  # seconds without an answer of the server
TRIES = 4
#: As PyTorch and OpenMMLab name files: the first digits of their SHA-256.
_DIGEST = re.compile(r'-([0-9a-f]{8,64})\.[^.]+$')


def cached_path(url: str) -> Path:
    """Where a file is kept: in the cache of ``torch.hub``, which the host
    libraries share.

    Args:
        url (str): Its address.

    Returns:
        Path: Below ``TORCH_HOME`` or ``XDG_CACHE_HOME``, by default below
        ``~/.cache/torch``.
    """
    return Path(torch.hub.get_dir(), 'checkpoints',
                os.path.basename(urlparse(url).path))


def sources_of(url: str) -> List[str]:
    """Where a file is looked for: first at the mirror, if one is set.

    Args:
        url (str): Its address.

    Returns:
        list[str]: Addresses. That of a mirror has the path of the original.

    Example:
        >>> import os
        >>> os.environ['MMFEATJND_MIRROR'] = 'https://lab.example/copies/'
        >>> sources_of('https://host.example/v1/net-12345678.pth')[0]
        'https://lab.example/copies/v1/net-12345678.pth'
        >>> del os.environ['MMFEATJND_MIRROR']
    """
    mirror = os.environ.get(MIRROR, '')
    if '://' not in mirror:
        return [url]
    return [mirror.rstrip('/') + urlparse(url).path, url]


def fetch(url: str, sha256: Optional[str] = None) -> Path:
    """A file of the network.

    A download that breaks off is gone on with, now and in another process;
    what is complete is checked, by its SHA-256 or by the digits of it in the
    name, before it takes its place.

    Args:
        url (str): Its address. Where :data:`MIRROR` is a folder, a file of
            this name there is taken as it is.
        sha256 (str, optional): 64 hexadecimal digits. Defaults to None: what
            the name says.

    Returns:
        Path: The file, in the cache.

    Raises:
        OSError: Nobody has it, or not this one; with what was tried.
    """
    import pooch
    target = cached_path(url)
    mirror = os.environ.get(MIRROR, '')
    if mirror and '://' not in mirror:
        copy = Path(mirror).expanduser() / target.name
        if copy.is_file():
            _check(copy, sha256 or _digits(target.name))
            return copy
    if target.is_file() and sha256 is None:
        return target
    problems = []
    for source in sources_of(url):
        try:
            return Path(pooch.retrieve(
                source, sha256 and f'sha256:{sha256}', target.name,
                str(target.parent),
                downloader=_Resumed(target, _digits(target.name))))
        except Exception as error:  # of requests, of a disk, of a digest
            problems.append(f'{source}: {type(error).__name__}: {error}')
    raise OSError('\n  '.join(problems))


def _digits(name: str) -> str:
    found = _DIGEST.search(name)
    return found[1] if found else ''


def _check(path: Path, digits: str) -> None:
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if not digest.hexdigest().startswith(digits):
        raise OSError(f'{path} has the SHA-256 {digest.hexdigest()[:16]}..., '
                      f'and not {digits[:16]}')


class _Truncated(OSError):
    """The server has sent less than it said."""


class _Resumed:
    """Downloads into a file beside the target until it is whole.

    Args:
        target (Path): Where it will lie.
        digits (str): What its SHA-256 begins with.
    """

    def __init__(self, target: Path, digits: str) -> None:
        self.part = target.with_name(f'{target.name}.part')
        self.digits = digits

    def __call__(self, url: str, output_file, pooch) -> None:
        import requests
        for left in reversed(range(TRIES)):
            try:
                self._go_on(requests, url)
                break
            except requests.HTTPError as error:
                if not left or error.response.status_code < 500:
                    raise
            except (requests.RequestException, _Truncated):
                if not left:
                    raise
            time.sleep(0.1 * 4**(TRIES - 1 - left))
        try:
            _check(self.part, self.digits)
        except OSError:
            self.part.unlink()  # to go on with it is no use
            raise
        shutil.move(self.part, getattr(output_file, 'name', output_file))

    def _go_on(self, requests, url: str) -> None:
        from tqdm import tqdm
        have = self.part.stat().st_size if self.part.exists() else 0
        headers = {'Accept-Encoding': 'identity'}
        if have:
            headers['Range'] = f'bytes={have}-'
        with requests.get(url, stream=True, timeout=TIMEOUT,
                          headers=headers) as answer:
            if answer.status_code == 416:  # there is no more, or another file
                self.part.unlink()
                raise _Truncated(f'{url} is shorter than what was read of it')
            answer.raise_for_status()
            if answer.status_code != 206:
                have = 0  # a server that always begins anew
            length = answer.headers.get('Content-Length')
            whole = None if length is None else have + int(length)
            with self.part.open('ab' if have else 'wb') as file, tqdm(
                    total=whole, initial=have, unit='B', unit_scale=True,
                    desc=self.part.stem,
                    disable=not sys.stderr.isatty()) as bar:
                for block in answer.iter_content(1 << 16):
                    bar.update(file.write(block))
        if whole is not None and self.part.stat().st_size != whole:
            raise _Truncated(f'{url} has sent {self.part.stat().st_size} of '
                             f'{whole} bytes')
