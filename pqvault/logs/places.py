"""Where a log can be written: a folder, whose files can be appended to and locked."""

from __future__ import annotations

import os

from pqvault.errors import UsageError
from pqvault.storage import LocalStorage, storage_at

__all__ = ["local"]


def local(archive: str | os.PathLike[str]) -> LocalStorage:
    """The storage of a folder. Raises UsageError for a URL."""
    storage = storage_at(archive)
    if not isinstance(storage, LocalStorage):
        raise UsageError(
            f"{storage.where('')} is no folder, and a log is written into one",
            hint="write it into a folder here, and copy what is committed there",
        )
    return storage
