"""Keys in and out of the keystore: identity files under a passphrase, descriptors, recipients."""

from __future__ import annotations

from collections.abc import Sequence

from pqvault.errors import UsageError
from pqvault.keystore import tables
from pqvault.keystore.change import Unlocked
from pqvault.keystore.halves import AnyKey, Private, private_half, public_half
from pqvault.keystore.lifecycle import Made, add_key, add_version
from pqvault.keystore.states import State

__all__ = ["export_private", "import_keys"]


def export_private(store: Unlocked, address: str, where: str) -> Private:
    """The private key of a version; that it left, and to where, goes to the audit log first."""
    name, v = store.store.find(address)
    key = private_half(v.profile, store.seed(v.key_id))
    with store.change() as change:
        change.audit("export", f"{name.name}@{v.version}", key_id=v.key_id, where=where)
    return key


def import_keys(store: Unlocked, name: str, keys: Sequence[AnyKey], reason: str = "") -> list[Made]:
    """Add keys as versions of ``name``, which is made if need be; the last one seals.

    A recipient alone can be sealed to and opens nothing. Raises UsageError for a key that is in
    the keystore already, or none at all.
    """
    if not keys:
        raise UsageError("there is no key to import")
    made: list[Made] = []
    with store.change() as change:
        found = tables.read_names(change.db, "name = ?", name)
        named = found[0][0] if found else add_key(change, name)
        for number, key in enumerate(keys, 1):
            state = State.ACTIVE if number == len(keys) else State.DEACTIVATED
            v = add_version(change, named, key, state, reason or "imported")
            kind = public_half(key).kind
            change.audit("import", f"{name}@{v.version}", key_id=v.key_id, kind=kind)
            made.append(Made(named, v))
    return made
