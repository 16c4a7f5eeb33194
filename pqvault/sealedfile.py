"""An identity file sealed under a passphrase: what ``keygen -p`` writes. docs/keystore.md 6.

::

    pqvault.dev/sealed-identities@v1
    {"kdf":"argon2id","memory":65536,"passes":3,"lanes":4,"salt":"…","check":"…","sealed":"…"}
    --- <base64 of the MAC>

Inside is an identity file in age's form, so nothing is lost by sealing one.
"""

from __future__ import annotations

from typing import Any, Final

from pqvault.crypto import kdf, mac, record
from pqvault.crypto.passphrase import COSTS, Cost, Lock, new_lock
from pqvault.errors import FormatError, IntegrityError
from pqvault.format import textdoc

__all__ = ["LABEL", "is_sealed", "lock_fields", "lock_of", "open_file", "seal_file"]

LABEL: Final = "pqvault.dev/sealed-identities@v1"
LOCK_KEYS: Final = ("kdf", "memory", "passes", "lanes", "salt", "check")
_KEYS: Final = (*LOCK_KEYS, "sealed")


def is_sealed(data: bytes) -> bool:
    """Whether a file is one of these."""
    return data.startswith(LABEL.encode() + b"\n")


def seal_file(text: bytes, passphrase: bytes, cost: Cost = COSTS["standard"]) -> bytes:
    """``text``, an identity file, sealed under a passphrase."""
    lock, key = new_lock(passphrase, cost)
    aad, mac_key = _bound(lock, key)
    sealed = record.seal_record(key, text, aad)
    fields = {**lock_fields(lock), "sealed": textdoc.b64encode(sealed)}
    return textdoc.marshal(
        LABEL, fields, mac.compute(mac_key, textdoc.authenticated(LABEL, fields))
    )


def open_file(data: bytes, passphrase: bytes, what: str) -> bytes:
    """What :func:`seal_file` sealed. Raises NoKeyFits (wrong passphrase), IntegrityError."""
    value, found = textdoc.parse(data, LABEL, what)
    fields = textdoc.Fields(value, _KEYS, what)
    lock, sealed = lock_of(fields, what), fields.base64("sealed")
    key = lock.open(passphrase, what)
    aad, mac_key = _bound(lock, key)
    if not mac.equal(mac.compute(mac_key, textdoc.authenticated(LABEL, value)), found):
        raise IntegrityError(f"{what} failed authentication")
    return record.open_record(key, sealed, aad, what)


def _bound(lock: Lock, key: bytes) -> tuple[bytes, bytes]:
    aad = kdf.bind("sealed identities", lock.salt)
    return aad, kdf.derive(key, mac.MAC_KEY_SIZE, "sealed identities mac", lock.salt)


def lock_fields(lock: Lock) -> dict[str, Any]:
    """A lock as a document holds it."""
    cost = lock.cost
    values = ("argon2id", cost.memory, cost.passes, cost.lanes)
    texts = (textdoc.b64encode(lock.salt), textdoc.b64encode(lock.check))
    return dict(zip(LOCK_KEYS, values + texts, strict=True))


def lock_of(fields: textdoc.Fields, what: str) -> Lock:
    """The lock in a document. Raises FormatError, also for a cost beyond the caps."""
    if fields.text("kdf") != "argon2id":
        raise FormatError(f"{what} names a key derivation that is not known")
    cost = Cost(fields.integer("memory"), fields.integer("passes"), fields.integer("lanes"))
    return Lock(cost, fields.base64("salt"), fields.base64("check"))
