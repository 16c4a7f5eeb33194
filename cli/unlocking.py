"""How commands come to the keystore: where it is, its passphrase, warnings on standard error."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from .output import Output

if TYPE_CHECKING:
    from pqvault.keys import Identity
    from pqvault.keystore import Unlocked
    from pqvault.keystore.halves import Private
    from pqvault.keystore.seen import Seen
    from pqvault.signing import SigningKey

STREAM = "stream"  # what the index calls the archive of a sealed stream

__all__ = [
    "STREAM",
    "ask",
    "ask_identity",
    "ask_new",
    "ask_new_for",
    "identities_at",
    "identities_in",
    "memory",
    "private_keys_in",
    "remember",
    "stored_identities",
    "stored_signing_key",
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


def ask_new_for(path: str) -> bytes:
    """The passphrase of a new file of private keys."""
    from pqvault import passphrases

    return ask_new(f"passphrase of {path}: ", passphrases.IDENTITY, passphrases.KEYSTORE)


def remember(archive: str, path: str, key_ids: list[str]) -> None:
    """Note which keys open what is sealed. A failure is a warning: to seal matters more."""
    from pqvault import home
    from pqvault.errors import PQVaultError

    if not home.has_keystore():
        return
    from pqvault.keystore import index  # only now: it takes 50 ms

    try:
        index.record(archive, path, key_ids)
    except PQVaultError as error:
        warn(f"the keystore does not know of {path}: {error.message}")


def memory(allow_rollback: bool = False) -> Seen | None:
    """What the keystore remembers of archives; None when there is no keystore."""
    from pqvault import home

    if not home.has_keystore():
        return None
    from pqvault.keystore.seen import Seen

    return Seen(allow_rollback=allow_rollback, warn=warn)


def unlocked() -> Unlocked:
    """The keystore, unlocked and verified. Raises NotFound, NoKeyFits, IntegrityError."""
    from pqvault.keystore import Keystore

    return Keystore().unlock(ask)


def stored_identities() -> list[Identity] | None:
    """The private keys of the keystore, still sealed; None when there is no keystore."""
    from pqvault import home

    if not home.has_keystore():
        return None
    from pqvault.keystore import Keystore
    from pqvault.keystore.identities import identities

    return identities(Keystore(), ask, warn)


def identities_at(item: str) -> list[Identity]:
    """What ``-i`` names: an identity file, else a key of the keystore."""
    from pqvault import home

    if not os.path.exists(item) and home.has_keystore():
        from pqvault.keystore import Keystore, is_address
        from pqvault.keystore.identities import identities

        if is_address(item):
            return identities(Keystore(), ask, warn, [item])
    return identities_in(item)


def ask_identity(prompt: str) -> bytes:
    """The passphrase of a file of private keys."""
    from pqvault import passphrases

    return passphrases.ask(prompt, passphrases.IDENTITY, passphrases.KEYSTORE, warn=warn)


def identities_in(path: str) -> list[Identity]:
    """All of an identity file, which may be sealed under a passphrase."""
    from pqvault.keys import Identity

    return Identity.load_file(path, ask=ask_identity)


def private_keys_in(path: str) -> list[Private]:
    """All of a file of identities, or of signing keys, which may be sealed."""
    from pqvault import keyfile
    from pqvault.keys import Identity
    from pqvault.signing import SigningKey

    data = keyfile.read_private(path, ask_identity)
    return [*(SigningKey if SigningKey.is_file(data) else Identity).parse_file(data, path)]


def stored_signing_key(text: str) -> SigningKey:
    """A key of the keystore that may sign. Raises NotFound, UsageError, KeyStateForbids."""
    from pqvault.keystore import Keystore, identities

    return identities.stored_signing_key(Keystore(), ask, text)
