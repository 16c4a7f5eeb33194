"""An unlocked keystore, and the one way to change it.

Every change is one transaction: take the write lock, verify everything, change rows, append to
the audit log, advance the generation, compute the root and the header's MAC, commit.
"""

from __future__ import annotations

import json
import os
import pwd
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from pqvault.closing import Closing
from pqvault.crypto.passphrase import Cost
from pqvault.errors import KeyStateForbids, Locked
from pqvault.ids import now
from pqvault.keystore import authentic, database, tables
from pqvault.keystore.authentic import StoreKey
from pqvault.keystore.records import AuditEntry, KeyName, KeyVersion, Meta, Transition, Unlock
from pqvault.keystore.states import State, check_transition

if TYPE_CHECKING:
    from pqvault.keystore.store import Keystore

__all__ = ["Change", "Unlocked"]

MAX_REASON = 1000  # characters


class Unlocked(Closing):
    """A keystore with its key. Its rows were authentic when it was unlocked, and are checked
    again in every transaction. Holds a secret: never pickled."""

    def __init__(self, store: Keystore, key: StoreKey) -> None:
        self.store = store
        self.key = key

    def __repr__(self) -> str:
        return f"Unlocked({str(self.store.path)!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an unlocked keystore is not pickled")

    @contextmanager
    def change(self) -> Iterator[Change]:
        """One change; an exception undoes it. Raises Locked, IntegrityError."""
        db, path = self.store.db, self.store.path
        with database.transaction(db, path):
            change = Change(db, self.key, authentic.verify(db, self.key))
            yield change
            change.finish()

    def verify(self) -> Meta:
        """Check every row again; returns the header."""
        with database.reading(self.store.db, self.store.path):
            return authentic.verify(self.store.db, self.key)

    def checked(self, key_id: str) -> tuple[KeyName, KeyVersion]:
        """A version and its name, read again and authenticated. Raises IntegrityError."""
        with database.reading(self.store.db, self.store.path):
            return authentic.verify_version(self.store.db, self.key, key_id)

    def seed(self, key_id: str) -> bytes:
        """The seed of a version, whatever its state. Raises IntegrityError."""
        name, v = self.checked(key_id)
        if v.sealed_seed is None:
            why = "was destroyed" if v.state is State.DESTROYED else "was never here"
            raise KeyStateForbids(
                f"the private key of {name.at(v)} {why}",
                hint="a backup of the keystore that has it, or `pqvault key import`, brings it",
            )
        return self.key.open_seed(v, name.at(v))

    @staticmethod
    def begin(db: sqlite3.Connection, key: StoreKey, meta: Meta, cost: Cost) -> None:
        """The first change of a new keystore, inside its transaction."""
        tables.write_meta(db, meta)
        change = Change(db, key, meta)
        change.audit("init", "keystore", keystore=meta.keystore, kdf=cost.text)
        change.finish()

    def close(self) -> None:
        """Close the file."""
        self.store.close()


class Change:
    """One transaction in progress."""

    def __init__(self, db: sqlite3.Connection, key: StoreKey, meta: Meta) -> None:
        self.db = db
        self.key = key
        self._meta = meta
        self._generation = meta.generation
        self.now = now()

    def put_name(self, name: KeyName) -> None:
        """Add or replace a name."""
        tables.write_name(self.db, name, self.key.name_mac(name))

    def put_version(self, v: KeyVersion) -> None:
        """Add or replace a version."""
        tables.write_version(self.db, v, self.key.version_mac(v))

    def put_unlock(self, unlock: Unlock) -> None:
        """Add or replace a way to unlock."""
        tables.write_unlock(self.db, unlock)

    def move(self, v: KeyVersion, new: State, reason: str, what: str) -> KeyVersion:
        """Change the state of a version and keep when and why. Raises KeyStateForbids."""
        check_transition(v.state, new, what)
        return self.record(v, str(v.state), new, reason)

    def record(self, v: KeyVersion, old: str, new: State, reason: str) -> KeyVersion:
        """Write a version with one more transition, also its first ("" to its first state)."""
        step = Transition(v.transitions + 1, self.now, old, str(new), reason[:MAX_REASON])
        history = authentic.extend_history(v.history, step)
        changed = replace(v, state=new, transitions=step.seq, history=history)
        self.put_version(changed)
        tables.write_transition(self.db, changed, step)
        return changed

    def audit(self, action: str, subject: str, **detail: object) -> None:
        """Append to the audit log; ``detail`` must hold no secret."""
        text = json.dumps({**detail, "by": _who()}, separators=(",", ":"))
        meta = self._meta
        entry = AuditEntry(
            meta.audit_seq + 1, self.now, action, subject, text, meta.audit_hash, b""
        )
        entry = replace(entry, hash=authentic.audit_hash(entry))
        tables.write_audit(self.db, entry)
        self._meta = replace(meta, audit_seq=entry.seq, audit_hash=entry.hash)

    def finish(self) -> None:
        """Seal the new state: generation, root, header. Raises Locked when we lost a race."""
        macs = tables.read_macs(self.db)
        root = authentic.root_of(tables.read_unlocks(self.db), macs)
        meta = replace(self._meta, generation=self._generation + 1, root=root)
        meta = replace(meta, mac=self.key.meta_mac(meta))
        # The write lock is ours, so this cannot fail; it is here in case a file system's
        # locks do not hold (ATTACKS row 37).
        done = self.db.execute(
            "UPDATE meta SET generation=?, audit_seq=?, audit_hash=?, root=?, mac=?"
            " WHERE id=1 AND generation=?",
            (*tables.sealed_part(meta), self._generation),
        )
        if done.rowcount != 1:
            raise Locked("another process changed the keystore at the same time")


def _who() -> str:
    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = f"uid {uid}"
    return f"{user}@{os.uname().nodename}"
