"""Keys in and out of the keystore: identity files under a passphrase, descriptors, recipients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pqvault.errors import IntegrityError, KeyStateForbids, UsageError
from pqvault.keystore import tables
from pqvault.keystore.change import Change, Unlocked
from pqvault.keystore.halves import AnyKey, Private, made_by, private_half, public_half
from pqvault.keystore.lifecycle import Made, add_key, add_version
from pqvault.keystore.records import KeyName, KeyVersion
from pqvault.keystore.states import State

__all__ = ["export_private", "import_keys"]


def export_private(store: Unlocked, address: str, where: str) -> Private:
    """The private key of a version; that it left, and to where, goes to the audit log first."""
    name, v = store.store.find(address)
    key = private_half(v.profile, store.seed(v.key_id))
    with store.change() as change:
        change.audit("export", name.at(v), key_id=v.key_id, where=where)
    return key


def import_keys(store: Unlocked, name: str, keys: Sequence[AnyKey], reason: str = "") -> list[Made]:
    """Add keys as versions of ``name``, which is made if need be; the last one seals.

    A recipient alone can be sealed to and opens nothing, until its private key is imported under
    the same name: then that version has it, and keeps its state. Raises UsageError for a key
    that is in the keystore already, or none at all.
    """
    if not keys:
        raise UsageError("there is no key to import", hint="name a file that holds one")
    made: list[Made] = []
    with store.change() as change:
        found = tables.read_names(change.db, "name = ?", name)
        named = found[0][0] if found else add_key(change, name)
        for number, key in enumerate(keys, 1):
            completed = _complete(change, named, key)
            if completed is not None:
                made.append(Made(named, completed))
                continue
            state = State.ACTIVE if number == len(keys) else State.DEACTIVATED
            v = add_version(change, named, key, state, reason or "imported")
            kind = public_half(key).kind
            facts = {"key_id": v.key_id, "kind": kind, **made_by(v.profile)}
            change.audit("import", f"{name}@{v.version}", **facts)
            made.append(Made(named, v))
    return made


def _complete(change: Change, name: KeyName, key: AnyKey) -> KeyVersion | None:
    """Give a version its private key, where only the public half of ``key`` is there.

    Raises KeyStateForbids for a destroyed one: what was erased does not come back by itself.
    """
    if not isinstance(key, Private):
        return None
    public = public_half(key)
    found = tables.read_versions(change.db, "uid = ? AND key_id = ?", name.uid, public.key_id)
    if not found or found[0][0].sealed_seed is not None:
        return None
    v, what = found[0][0], name.at(found[0][0])
    if v.state is State.DESTROYED:
        raise KeyStateForbids(
            f"{what} is destroyed, and this is its private key",
            hint="keep it outside of the keystore, or restore a backup from before",
        )
    if (v.profile, v.public_key) != (public.profile, public.public_key):
        raise IntegrityError(f"the private key of {public.key_id} does not belong to {what}")
    completed = replace(v, sealed_seed=change.key.seal_seed(key.seed, v))
    change.put_version(completed)
    facts = {"key_id": v.key_id, "kind": public.kind, **made_by(v.profile)}
    change.audit("import", what, **facts, completes=True)
    return completed
