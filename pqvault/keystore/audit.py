"""The audit log: read it, check its chain, export its head.

Each entry hashes the one before, and the store key authenticates the last (in the header). That
shows what was changed inside, but a whole older copy of the keystore is consistent in itself:
only a head that was exported and kept elsewhere shows that the log was cut (ATTACKS row 46).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pqvault.crypto import mac
from pqvault.errors import IntegrityError, RolledBack, UsageError
from pqvault.format import textdoc
from pqvault.ids import now
from pqvault.keystore import authentic, database, tables
from pqvault.keystore.authentic import EMPTY, StoreKey
from pqvault.keystore.change import Unlocked
from pqvault.keystore.records import AuditEntry
from pqvault.keystore.store import Keystore

__all__ = ["AuditReport", "Head", "entries", "export_head", "verify"]

LABEL: Final = "pqvault.dev/audit-head@v1"
_KEYS: Final = ("keystore", "seq", "hash", "time")


_NEWER: Final = "`pqvault key restore FILE --replace` puts a newer backup in its place"


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the log at some time. ``hash``: hex of 32 bytes; ``time``: Unix ms."""

    keystore: str
    seq: int
    hash: str
    time: int
    mac: bytes

    def _fields(self) -> dict[str, str | int]:
        return {"keystore": self.keystore, "seq": self.seq, "hash": self.hash, "time": self.time}

    def authenticated(self) -> bytes:
        """What the MAC covers."""
        return textdoc.authenticated(LABEL, self._fields())

    def marshal(self) -> bytes:
        """The document, byte for byte what :meth:`parse` takes."""
        return textdoc.marshal(LABEL, self._fields(), self.mac)

    @classmethod
    def parse(cls, data: bytes, what: str = "the audit head") -> Head:
        """Raises FormatError."""
        value, found = textdoc.parse(data, LABEL, what)
        fields = textdoc.Fields(value, _KEYS, what)
        keystore, seq = fields.hex("keystore", 16), fields.integer("seq", 1)
        return cls(keystore, seq, fields.hex("hash", 32), fields.integer("time"), found)


@dataclass(frozen=True, slots=True)
class AuditReport:
    """``level``: "intact" (the chain holds; says nothing about an attacker) or "authentic"
    (the store key vouches for its end). ``since_head``: entries after the exported head."""

    level: str
    entries: int
    hash: str
    since_head: int | None


def entries(store: Keystore, last: int | None = None) -> list[AuditEntry]:
    """The log, oldest first, unverified; only the ``last`` so many."""
    with database.reading(store.db, store.path):
        if last is None:
            return tables.read_audit(store.db)
        where = "seq > (SELECT coalesce(max(seq), 0) FROM audit) - ?"
        return tables.read_audit(store.db, where, last)


def export_head(store: Unlocked) -> Head:
    """The verified end of the log, with a MAC of the store key. Keep it elsewhere."""
    meta = store.verify()
    moment = now()
    bare = Head(meta.keystore, meta.audit_seq, meta.audit_hash.hex(), moment, bytes(32))
    sealed = store.key.head_mac(bare.authenticated())
    return Head(bare.keystore, bare.seq, bare.hash, bare.time, sealed)


def verify(store: Keystore, key: StoreKey | None = None, head: Head | None = None) -> AuditReport:
    """Check the log. Steps: (1) the header, with a key; (2) each entry's place and hash; (3) the
    end against the header; (4) the exported head, with a key its MAC too.

    Raises IntegrityError for an altered log, RolledBack for one that lacks what the head saw.
    """
    with database.reading(store.db, store.path):
        # (1)
        meta = tables.read_meta(store.db) if key is None else authentic.verify(store.db, key)
        log = tables.read_audit(store.db)
    # (2)
    previous = EMPTY
    for seq, entry in enumerate(log, 1):
        if (entry.seq, entry.previous, entry.hash) != (seq, previous, authentic.audit_hash(entry)):
            raise IntegrityError(
                f"entry {seq} of the audit log was altered or removed",
                hint="`pqvault key restore FILE --replace` puts a backup there; compare its log",
            )
        previous = entry.hash
    # (3)
    if (meta.audit_seq, meta.audit_hash) != (len(log), previous):
        raise IntegrityError("the end of the audit log is missing")
    # (4)
    if head is not None:
        _check_head(head, meta.keystore, log, key)
    level = "intact" if key is None else "authentic"
    since = None if head is None else len(log) - head.seq
    return AuditReport(level, len(log), previous.hex(), since)


def _check_head(head: Head, keystore: str, log: list[AuditEntry], key: StoreKey | None) -> None:
    if head.keystore != keystore:
        raise UsageError(
            "this audit head is of another keystore", hint="PQVAULT_HOME says where this one is"
        )
    if key is not None and not mac.equal(key.head_mac(head.authenticated()), head.mac):
        raise IntegrityError("the audit head failed authentication")
    if head.seq > len(log):
        raise RolledBack(
            f"the audit log ends at entry {len(log)}, and the head saw entry {head.seq}: "
            "its end was cut, or an older keystore was put back",
            hint=_NEWER,
        )
    if log[head.seq - 1].hash.hex() != head.hash:
        raise RolledBack(
            f"entry {head.seq} of the audit log is not the one that the head saw", hint=_NEWER
        )
