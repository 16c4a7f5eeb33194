"""Where an archive or a sealed stream is: a path or an URL, as a Storage or a source of ranges."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pqvault.archive.layout import HEADER
from pqvault.errors import IntegrityError, NotFound, UsageError
from pqvault.names import printable
from pqvault.storage import LocalStorage, Storage
from pqvault.storage import storage_at as find_storage
from pqvault.storage.retry import explain_remote

__all__ = ["RangeSource", "check_name", "check_place", "inner", "is_archive", "storage_at"]


# File systems that fsspec keeps for the process. In the child of a fork it lets go of them, and
# s3fs would then close connections of its parent, in another loop than theirs.
_kept: set[Any] = set()


def inner(place: str, protocol: str | None, options: dict[str, Any] | None) -> tuple[Any, str]:
    """The file system that holds ``place``, and the path there."""
    if protocol is not None:
        fs, path = fsspec.filesystem(protocol, **(options or {})), place
    else:
        fs, path = fsspec.core.url_to_fs(place, **(options or {}))
    _kept.add(fs)
    return fs, path


def is_archive(fs: Any, path: str) -> bool:
    """Whether an archive, and not a sealed stream or nothing, is at a path."""
    if isinstance(fs, LocalFileSystem):
        return os.path.isdir(path)
    header = f"{path.rstrip('/')}/{HEADER}"
    try:
        return bool(fs.exists(header))
    except Exception as error:
        raise explain_remote(error, "look at", header) from error


def check_name(name: str) -> None:
    """Raise UsageError for a name that no URL has: hosts that put more behind a URL, as
    `save_to_disk` of Hugging Face's datasets does, write to such."""
    if "::" in name:
        raise _behind(
            f"{printable(os.fsencode(name))} has :: in it, which parts the paths of a URL"
        )


def check_place(fs: Any, place: str) -> None:
    """Raise UsageError for a place within an archive's folder, where they make another. Asks the
    file system, so once for what is written there."""
    within = place.rstrip("/").rpartition("/")[0]
    if within and fs.exists(f"{within}/{HEADER}"):
        raise _behind(f"{place} is in the folder of an archive")


def _behind(wrong: str) -> UsageError:
    return UsageError(
        wrong,
        hint="the path of a file goes before the ::, as in pqvault://path/inside::corpus.pqv",
    )


def storage_at(fs: Any, path: str, options: dict[str, Any] | None) -> Storage:
    """The archive's place. ``options``: of the file system that it is on.

    Raises UsageError for options that a store would not get: archives go by the environment.
    """
    if isinstance(fs, LocalFileSystem):
        return LocalStorage(Path(path))
    url = fs.unstrip_protocol(path)
    if options:
        raise UsageError(
            f"{url} is an archive, and options for its file system are not used for archives",
            hint="set them in the environment or in fsspec's configuration files, so that no"
            " option has to carry them",
        )
    return find_storage(url)


class RangeSource:
    """A file of any file system that answers reads of ranges. Thread-safe where that one is."""

    def __init__(self, fs: Any, path: str) -> None:
        self._fs = fs
        self._path = path
        try:
            self.size = int(fs.size(path))
        except FileNotFoundError:
            raise NotFound(f"there is no {path}", hint="check the path") from None
        except TypeError:  # a server that does not say
            raise UsageError(
                f"{path} has no known size, so it cannot be read at ranges",
                hint="copy it to a local file first",
            ) from None

    def pread_into(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer`` from ``offset``; raises IntegrityError when it is not all there."""
        end = offset + len(buffer)
        try:
            data = self._fs.cat_file(self._path, offset, end)
        except FileNotFoundError:
            raise IntegrityError(f"{self._path} was deleted while it was read") from None
        if len(data) != len(buffer):
            raise IntegrityError(
                f"{self._path} gave {len(data)} bytes where {len(buffer)} were asked for",
                hint="it was replaced while it was read, or its server does not serve ranges",
            )
        buffer[:] = data
