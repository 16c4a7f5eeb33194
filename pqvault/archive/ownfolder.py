"""The folder that an archive is: nothing is sealed from it, or written into it by an unseal."""

from __future__ import annotations

import os
from pathlib import Path

from pqvault.errors import UsageError
from pqvault.storage import Storage

__all__ = ["check_target", "own_folder"]


def own_folder(storage: Storage) -> list[tuple[int, int]]:
    """Device and inode of an archive that is a folder here; nothing else has any."""
    try:
        info = os.stat(storage.where(""))
    except OSError:
        return []
    return [(info.st_dev, info.st_ino)]


def check_target(storage: Storage, target: Path) -> None:
    """Raise UsageError when a folder to extract to is the archive, or in it."""
    own = own_folder(storage)
    real = target.resolve()
    for folder in (real, *real.parents):
        try:
            info = os.stat(folder)
        except OSError:
            continue
        if (info.st_dev, info.st_ino) in own:
            raise UsageError(
                f"{target} is in the archive that would be extracted there",
                hint="name a folder outside of it with -o",
            )
