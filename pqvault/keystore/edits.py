"""Changes that are not of state: name, labels, expiry, floors, passphrase."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from pqvault.crypto.passphrase import Cost
from pqvault.errors import UsageError
from pqvault.keystore import tables, unlocks
from pqvault.keystore.change import Unlocked
from pqvault.keystore.lifecycle import Made
from pqvault.keystore.records import KeyName, check_name

__all__ = [
    "add_keyring",
    "add_token",
    "expire",
    "floor",
    "label",
    "labels_from",
    "passwd",
    "remove_unlock",
    "rename",
]

MAX_LABELS = 64


def rename(store: Unlocked, old: str, new: str) -> KeyName:
    """Give a key another name; its versions, history and archives stay its own."""
    with store.change() as change:
        name = store.store.find_name(old)
        if tables.read_names(change.db, "name = ?", check_name(new)):
            raise UsageError(f"there is a key {new!r} already", hint="choose another name")
        renamed = replace(name, name=new)
        change.put_name(renamed)
        change.audit("rename", new, old=old)
    return renamed


def labels_from(texts: Iterable[str]) -> dict[str, str]:
    """``KEY=VALUE`` texts as a mapping. Raises UsageError."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", key) or len(value) > 255:
            raise UsageError(
                f"{text[:80]!r} is no label",
                hint="write it like env=production: a word of letters, digits and ._-, a value",
            )
        found[key] = value
    return found


def label(
    store: Unlocked, name: str, add: Mapping[str, str], remove: Iterable[str] = ()
) -> KeyName:
    """Set and remove labels."""
    with store.change() as change:
        found = store.store.find_name(name)
        labels = {**dict(found.labels), **add}
        for key in remove:
            labels.pop(key, None)
        if len(labels) > MAX_LABELS:
            raise UsageError(f"a key has at most {MAX_LABELS} labels", hint="remove one first")
        changed = replace(found, labels=tuple(sorted(labels.items())))
        change.put_name(changed)
        change.audit("label", name, labels=labels)
    return changed


def expire(store: Unlocked, address: str, when: int | None) -> Made:
    """Nothing is sealed to a version from ``when`` on (Unix ms; None: never). It still opens."""
    with store.change() as change:
        name, v = store.store.find(address)
        changed = replace(v, expires=when)
        change.put_version(changed)
        change.audit("expire", name.at(v), key_id=v.key_id, expires=when)
    return Made(name, changed)


def floor(store: Unlocked, name: str, *, seal: int | None, opens: int | None) -> KeyName:
    """The lowest versions that may seal and open; None leaves one as it is.

    Raises UsageError for a version that is not there: a slip would close all of them.
    """
    with store.change() as change:
        found = store.store.find_name(name)
        newest = max(v.version for v in store.store.versions(found))
        lowest = max(seal or 1, opens or 1)
        if lowest > newest:
            raise UsageError(
                f"{name} has no version {lowest}, {name}@{newest} is its newest",
                hint=f"`pqvault key suspend {name}@{newest}` keeps all of them from being used",
            )
        changed = replace(
            found, floor_seal=seal or found.floor_seal, floor_open=opens or found.floor_open
        )
        change.put_name(changed)
        change.audit("floor", name, seal=changed.floor_seal, open=changed.floor_open)
    return changed


def passwd(store: Unlocked, passphrase: bytes, cost: Cost) -> None:
    """Another passphrase. The store key stays: whoever kept an old copy of the file and knows
    the old passphrase still has it."""
    unlock = unlocks.by_passphrase(store.key, passphrase, cost)  # slow: not while others wait
    with store.change() as change:
        change.put_unlock(unlock)
        change.audit("passwd", "keystore", kdf=cost.text)


def add_keyring(store: Unlocked) -> None:
    """Unlock with the operating system's keyring too."""
    unlock = unlocks.by_keyring(store.key)
    with store.change() as change:
        change.put_unlock(unlock)
        change.audit("unlock-with", "keystore", way=unlocks.KEYRING)


def add_token(store: Unlocked, label: str, key_label: str) -> None:
    """Unlock with a PKCS#11 token too."""
    unlock = unlocks.by_token(store.key, label, key_label)  # a person types the PIN
    with store.change() as change:
        change.put_unlock(unlock)
        change.audit("unlock-with", "keystore", way=unlocks.PKCS11, token=label, key=key_label)


def remove_unlock(store: Unlocked, kind: str) -> None:
    """Unlock no more with the keyring or the token; the passphrase always stays."""
    if kind not in (unlocks.KEYRING, unlocks.PKCS11):
        raise UsageError(f"{kind} cannot be removed", hint="only the keyring or a token can")
    with store.change() as change:
        change.db.execute("DELETE FROM unlocks WHERE kind=?", (kind,))
        change.audit("unlock-without", "keystore", way=kind)
