"""Where an archive is: a path, or a storage."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

from pqvault.storage import LocalStorage, Storage

__all__ = ["StrPath", "storage_of"]

StrPath: TypeAlias = str | os.PathLike[str]


def storage_of(archive: StrPath | Storage) -> Storage:
    """The storage of an archive's folder."""
    if isinstance(archive, str | os.PathLike):
        return LocalStorage(Path(archive))
    return archive
