"""``PQVAULT_HOME``: where this host keeps journals and the keystore."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from pqvault.errors import PQVaultError

__all__ = ["folder", "keystore"]


def folder(*names: str) -> Path:
    """A folder below ``PQVAULT_HOME`` (default: the user's data folder), made with mode 0700."""
    root = os.environ.get("PQVAULT_HOME") or platformdirs.user_data_dir("pqvault", appauthor=False)
    path = Path(root).joinpath(*names)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise PQVaultError(
            f"{path} cannot be made: {error.strerror}",
            hint="set PQVAULT_HOME to a folder that can be written",
        ) from None
    return path


def keystore() -> Path:
    """``PQVAULT_HOME/keystore.sqlite``, which need not be there."""
    return folder() / "keystore.sqlite"
