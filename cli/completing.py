"""What a shell completes where a key of the keystore, or the file of one, is meant."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pqvault.errors import PQVaultError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["keys", "keys_or_files", "recipients"]


def keys(ctx: Any, param: Any, incomplete: str) -> list[str]:
    """Names of the keystore, which are readable without a passphrase."""
    from pqvault import home

    if not home.has_keystore():
        return []
    from pqvault.keystore import Keystore

    try:
        with Keystore() as store:
            names = [key.name for key in store.names().values()]
    except PQVaultError:  # damaged, say: the command will tell, and a Tab must not
        return []
    return [name for name in sorted(names) if name.startswith(incomplete)]


def keys_or_files(ctx: Any, param: Any, incomplete: str) -> list[str] | list[CompletionItem]:
    """Both; without a name that fits, the shell looks for files its own way."""
    from click.shell_completion import CompletionItem  # no command but a Tab needs it

    names = keys(ctx, param, incomplete)
    return names + _files(incomplete) if names else [CompletionItem(incomplete, type="file")]


def recipients(ctx: Any, param: Any, incomplete: str) -> list[str]:
    """Names of keys, and files after an @."""
    if incomplete.startswith("@"):
        return [f"@{name}" for name in _files(incomplete[1:])]
    return keys(ctx, param, incomplete)


def _files(incomplete: str) -> list[str]:
    folder, slash, start = incomplete.rpartition("/")
    try:
        with os.scandir(folder + slash or ".") as entries:
            found = [e.name + "/" * e.is_dir() for e in entries if e.name.startswith(start)]
    except OSError:
        return []
    shown = [name for name in sorted(found) if start or not name.startswith(".")]
    return [folder + slash + name for name in shown]
