"""What is ours on this host: the folder that an archive is, of which nothing is sealed and into
which nothing is unsealed, and the journals and the keystore, which change with each seal."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from pqvault import home
from pqvault.errors import UsageError
from pqvault.storage import Storage

__all__ = ["check_target", "is_within", "own_files", "own_folder"]


_KEYSTORE: Final = "the keystore, which `pqvault key backup` copies"


def own_folder(storage: Storage) -> list[tuple[int, int]]:
    """Device and inode of an archive that is a folder here; nothing else has any."""
    try:
        info = os.stat(storage.where(""))
    except OSError:
        return []
    return [(info.st_dev, info.st_ino)]


def own_files(storage: Storage) -> dict[tuple[int, int], str]:
    """Device and inode of what a seal leaves out, and what to say of it.

    A copy of a keystore that is in use may be no keystore; `pqvault key backup` makes one that is.
    """
    found = dict.fromkeys(own_folder(storage), "")
    store = home.keystore()
    ours = {home.journals(): "", store: _KEYSTORE}
    ours |= {Path(f"{store}{end}"): "" for end in ("-wal", "-shm")}
    for path, why in ours.items():
        with suppress(OSError):
            info = os.stat(path)
            found[info.st_dev, info.st_ino] = why
    return found


def is_within(path: str | bytes | Path, own: list[tuple[int, int]]) -> bool:
    """Whether a path is, or lies in, a folder of :func:`own_folder`. It need not be there."""
    real = Path(os.path.realpath(os.fsdecode(path)))  # which a loop of links is no error for
    for folder in (real, *real.parents):
        with suppress(OSError):
            info = os.stat(folder)
            if (info.st_dev, info.st_ino) in own:
                return True
    return False


def check_target(storage: Storage, target: Path) -> None:
    """Raise UsageError when a folder to extract to is the archive, or in it."""
    if is_within(target, own_folder(storage)):
        raise UsageError(
            f"{target} is in the archive that would be extracted there",
            hint="name a folder outside of it with -o",
        )
