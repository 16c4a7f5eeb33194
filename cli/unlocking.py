"""How commands come to the keystore: where it is, its passphrase, warnings on standard error."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from .output import Output

if TYPE_CHECKING:
    from pqvault.keys import Identity
    from pqvault.keystore import Unlocked
    from pqvault.keystore.seen import Seen

STREAM = "stream"  # what the index calls the archive of a sealed stream

__all__ = [
    "STREAM",
    "ask",
    "ask_new",
    "identities_at",
    "identities_in",
    "memory",
    "remember",
    "stored_identities",
    "unlocked",
    "warn",
]


def warn(text: str) -> None:
    """A warning, as JSON where the call asked for JSON."""
    Output(json="--json" in sys.argv).warning(text)


def ask() -> bytes:
    """The keystore's passphrase."""
    from pqvault import passphrases

    return passphrases.ask("passphrase of the keystore: ", passphrases.KEYSTORE, warn=warn)


def ask_new(prompt: str, *prefixes: str) -> bytes:
    """A passphrase that is chosen now."""
    from pqvault import passphrases

    return passphrases.ask_new(prompt, *prefixes, warn=warn)


def remember(archive: str, path: str, key_ids: list[str]) -> None:
    """Note which keys open what was just sealed. A failure is a warning: the seal is done."""
    from pqvault.errors import PQVaultError
    from pqvault.keystore import index

    try:
        index.record(archive, os.path.abspath(path), key_ids)
    except PQVaultError as error:
        warn(f"the keystore does not know of {path}: {error.message}")


def memory(allow_rollback: bool = False) -> Seen | None:
    """What the keystore remembers of archives; None when there is no keystore."""
    from pqvault.keystore import Keystore
    from pqvault.keystore.seen import Seen

    return Seen(allow_rollback=allow_rollback, warn=warn) if Keystore.exists() else None


def unlocked() -> Unlocked:
    """The keystore, unlocked and verified. Raises NotFound, NoKeyFits, IntegrityError."""
    from pqvault.keystore import Keystore

    return Keystore().unlock(ask)


def stored_identities() -> list[Identity] | None:
    """The private keys of the keystore, still sealed; None when there is no keystore."""
    from pqvault.keystore import Keystore
    from pqvault.keystore.identities import identities

    return identities(Keystore(), ask, warn) if Keystore.exists() else None


def identities_at(item: str) -> list[Identity]:
    """What ``-i`` names: an identity file, else a key of the keystore."""
    from pqvault.keystore import Keystore, is_address
    from pqvault.keystore.identities import identities

    if not os.path.exists(item) and is_address(item) and Keystore.exists():
        return identities(Keystore(), ask, warn, [item])
    return identities_in(item)


def identities_in(path: str) -> list[Identity]:
    """All of an identity file, which may be sealed under a passphrase."""
    from pqvault import passphrases
    from pqvault.keys import Identity

    return Identity.load_file(
        path,
        ask=lambda prompt: passphrases.ask(
            prompt, passphrases.IDENTITY, passphrases.KEYSTORE, warn=warn
        ),
    )
