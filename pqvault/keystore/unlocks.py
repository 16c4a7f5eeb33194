"""Ways to the store key. Each seals the same 32 bytes; any one of them opens the keystore."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Final

from pqvault.crypto import kdf, record
from pqvault.crypto.passphrase import Cost, Lock, new_lock
from pqvault.errors import FormatError
from pqvault.format.textdoc import Fields
from pqvault.keystore.authentic import StoreKey
from pqvault.keystore.records import Unlock
from pqvault.sealedfile import LOCK_KEYS, lock_fields, lock_of

__all__ = ["by_passphrase", "open_any"]

PASSPHRASE: Final = "passphrase"


def by_passphrase(key: StoreKey, passphrase: bytes, cost: Cost) -> Unlock:
    """The store key sealed under a passphrase, with a fresh salt."""
    lock, wrapping = new_lock(passphrase, cost)
    parameters = lock_text(lock)
    aad = kdf.bind(
        "keystore unlock", bytes.fromhex(key.keystore), PASSPHRASE.encode(), parameters.encode()
    )
    return Unlock(PASSPHRASE, parameters, record.seal_record(wrapping, key.secret, aad))


def open_any(keystore: str, ways: Iterable[Unlock], ask: Callable[[], bytes]) -> bytes:
    """The store key, 32 bytes. Raises NoKeyFits for a wrong passphrase, FormatError."""
    for way in ways:
        if way.kind == PASSPHRASE:
            lock = parse_lock(way.parameters)
            wrapping = lock.open(ask(), "the keystore")
            return _open(keystore, way, wrapping)
    raise FormatError("the keystore has no way to be unlocked")


def _open(keystore: str, way: Unlock, wrapping: bytes) -> bytes:
    aad = kdf.bind(
        "keystore unlock", bytes.fromhex(keystore), way.kind.encode(), way.parameters.encode()
    )
    return record.open_record(wrapping, way.sealed, aad, "the store key")


def lock_text(lock: Lock) -> str:
    """The public half of a passphrase's lock as one line of JSON."""
    return json.dumps(lock_fields(lock), separators=(",", ":"))


def parse_lock(text: str) -> Lock:
    """What :func:`lock_text` wrote. Raises FormatError, also for a cost beyond the caps."""
    what = "the passphrase's parameters"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise FormatError(f"{what} are not JSON") from None
    lock = lock_of(Fields(value, LOCK_KEYS, what), what)
    if lock_text(lock) != text:
        raise FormatError(f"{what} are not as pqvault writes them")
    return lock
