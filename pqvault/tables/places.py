"""Where an archive is: a path, a URL, or a storage."""

from __future__ import annotations

import os
from typing import TypeAlias

from pqvault.storage import Storage, storage_at

__all__ = ["StrPath", "storage_of"]

StrPath: TypeAlias = str | os.PathLike[str]


def storage_of(archive: StrPath | Storage) -> Storage:
    """The storage of an archive: a folder, or what a URL names."""
    return storage_at(archive) if isinstance(archive, str | os.PathLike) else archive
