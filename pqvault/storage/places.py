"""From what a person types to a place: a folder, or a URL."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from pqvault.errors import UsageError
from pqvault.storage.base import Storage
from pqvault.storage.local import LocalStorage

__all__ = ["is_archive", "is_url", "storage_at"]

_HALF = re.compile(r"([a-z][a-z0-9+.-]+:)/")
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)


def is_url(place: str | os.PathLike[str]) -> bool:
    """Whether a place is a URL (``s3://bucket/corpus.pqv``) and not a path."""
    return isinstance(place, str) and _URL.match(place) is not None


def is_archive(place: str) -> bool:
    """Whether a place is to be taken as an archive: a folder, or a URL. Else it is one file."""
    return is_url(place) or os.path.isdir(place)


def storage_at(place: str | os.PathLike[str]) -> Storage:
    """The storage of an archive. Raises UsageError for a URL that cannot be used, and for "",
    which would be this folder.

    ``file://`` is a folder of this machine, with all that a folder promises.
    """
    if not os.fspath(place):
        raise UsageError("the archive has an empty name", hint="is a variable of the shell unset?")
    match = _URL.match(place) if isinstance(place, str) else None
    if match is None:
        _refuse_half_a_url(os.fspath(place))
        return LocalStorage(Path(place))
    if match[1] in ("file", "local"):
        return LocalStorage(Path(unquote(match[2])))
    from pqvault.storage.remote import RemoteStorage  # it is slow to import, and seldom needed

    return RemoteStorage(str(place))


def _refuse_half_a_url(place: str) -> None:
    # What pathlib makes of s3://bucket: a folder "s3:" here would not be what was meant.
    scheme = _HALF.match(place)
    if scheme is not None and not os.path.lexists(scheme[1]):
        raise UsageError(
            f"{place} has one slash where a URL has two, and there is no folder {scheme[1]} here",
            hint="write two, and give a URL as text: a path object leaves out one of them",
        )
