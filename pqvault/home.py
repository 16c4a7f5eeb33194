"""``PQVAULT_HOME``: where this host keeps journals and the keystore."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import platformdirs

from pqvault.errors import PQVaultError

__all__ = ["beside", "folder", "has_keystore", "journals", "keystore"]


def folder(*names: str) -> Path:
    """A folder below ``PQVAULT_HOME`` (default: the user's data folder), made with mode 0700."""
    path = _root().joinpath(*names)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise PQVaultError(
            f"{path} cannot be made: {error.strerror}",
            hint="set PQVAULT_HOME to a folder that can be written",
        ) from None
    return path


def journals() -> Path:
    """The folder of the journals of seals. It need not be there, and nothing is made."""
    return _root() / "journals"


def keystore() -> Path:
    """``PQVAULT_HOME/keystore.sqlite``. Neither need be there, and nothing is made."""
    return _root() / "keystore.sqlite"


def beside(target: Path) -> Path:
    """A hidden name that nothing has, in the folder of ``target``, which it will take."""
    return target.with_name(f".{target.name}.{secrets.token_hex(8)}")


def has_keystore() -> bool:
    """Whether there is one, as far as this user can see."""
    try:
        return os.path.exists(keystore())
    except _NoHome:
        return False


class _NoHome(PQVaultError):
    """A user without a home, as in a container that runs as a number: reading needs none."""


def _root() -> Path:
    given = os.environ.get("PQVAULT_HOME")
    if given:
        return Path(given)
    try:
        found = Path(platformdirs.user_data_dir("pqvault", appauthor=False))
    except RuntimeError:
        found = Path()
    if not found.is_absolute():  # older platformdirs leave `~` as it is
        raise _NoHome(
            "this user has no home folder for journals and the keystore",
            hint="set PQVAULT_HOME to a folder that can be written",
        )
    return found
