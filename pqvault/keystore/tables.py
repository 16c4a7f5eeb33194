"""Rows of the database to values and back. A row of the wrong types is damage, not a crash."""

from __future__ import annotations

import itertools
import json
import re
import sqlite3
from collections.abc import Iterator
from types import NoneType
from typing import Any, Final

from pqvault.errors import FormatError
from pqvault.keystore.records import (
    AuditEntry,
    KeyName,
    KeyVersion,
    Meta,
    Transition,
    Unlock,
)
from pqvault.keystore.states import State

Row = tuple[Any, ...]

META: Final = "format, keystore, created, generation, audit_seq, audit_hash, root, mac"
NAMES: Final = "uid, name, created, labels, floor_seal, floor_open, mac"
VERSIONS: Final = (
    "uid, version, profile, key_id, public_key, sealed_seed, state, created, expires, period,"
    " transitions, history, mac"
)
AUDIT: Final = "seq, time, action, subject, detail, previous, hash"


def _shapes(types: str) -> frozenset[tuple[type, ...]]:
    # i integer, t text, b bytes; a capital letter may be None.
    kinds = {"i": (int,), "t": (str,), "b": (bytes,), "I": (int, NoneType), "B": (bytes, NoneType)}
    return frozenset(itertools.product(*(kinds[letter] for letter in types)))


_META: Final = _shapes("itiiibbb")
_UNLOCK: Final = _shapes("ttb")
_NAME: Final = _shapes("ttitiib")
_VERSION: Final = _shapes("tittbBtiItibb")
_TRANSITION: Final = _shapes("tiiittt")
_AUDIT: Final = _shapes("iitttbb")
_LISTED: Final = _shapes("titttiItiiti")


def _typed(row: Row, shapes: frozenset[tuple[type, ...]], what: str) -> Row:
    if tuple(map(type, row)) not in shapes:
        raise FormatError(f"{what} of the keystore holds a value of a wrong type")
    return row


def read_meta(db: sqlite3.Connection) -> Meta:
    """The one row. Raises FormatError when there is none or it is not ours."""
    row = db.execute(f"SELECT {META} FROM meta").fetchone()
    if row is None:
        raise FormatError("the keystore has no header")
    meta = Meta(*_typed(row, _META, "the header"))
    if not re.fullmatch(r"[0-9a-f]{32}", meta.keystore):
        raise FormatError("the id of the keystore is damaged")
    return meta


def read_unlocks(db: sqlite3.Connection) -> list[Unlock]:
    """All ways to unlock, in order of kind."""
    found = db.execute("SELECT kind, parameters, sealed FROM unlocks ORDER BY kind")
    return [Unlock(*_typed(row, _UNLOCK, "an unlock")) for row in found]


def read_names(
    db: sqlite3.Connection, where: str = "1", *values: object
) -> list[tuple[KeyName, bytes]]:
    """Names with their MACs, in order of uid."""
    if not all(value.isascii() for value in values if isinstance(value, str)):
        return []  # no name is such, and SQLite takes no text that is none
    found = db.execute(f"SELECT {NAMES} FROM names WHERE {where} ORDER BY uid", values)
    return [_name(_typed(row, _NAME, "a name")) for row in found]


def _name(row: Row) -> tuple[KeyName, bytes]:
    uid, name, created, labels, seal, opens, mac = row
    return KeyName(uid, name, created, labels_of(labels), seal, opens), mac


def read_versions(
    db: sqlite3.Connection, where: str = "1", *values: object
) -> list[tuple[KeyVersion, bytes]]:
    """Versions with their MACs, in order of uid and version."""
    found = db.execute(
        f"SELECT {VERSIONS} FROM versions WHERE {where} ORDER BY uid, version", values
    )
    return [_version(_typed(row, _VERSION, "a version")) for row in found]


def _version(row: Row) -> tuple[KeyVersion, bytes]:
    try:
        state = State(row[6])
    except ValueError:
        raise FormatError("a version of the keystore has a state that does not exist") from None
    values = (*row[:6], state, *row[7:12])
    return KeyVersion(*values), row[12]


def read_transitions(db: sqlite3.Connection, uid: str, version: int) -> list[Transition]:
    """The history of one version, oldest first."""
    return [t for _, _, t in all_transitions(db, "uid=? AND version=?", uid, version)]


def all_transitions(
    db: sqlite3.Connection, where: str = "1", *values: object
) -> Iterator[tuple[str, int, Transition]]:
    """The histories of all versions: (uid, version, transition), each oldest first."""
    query = "SELECT uid, version, seq, time, old, new, reason FROM transitions"
    for row in db.execute(f"{query} WHERE {where} ORDER BY uid, version, seq", values):
        uid, version, *rest = _typed(row, _TRANSITION, "a transition")
        yield uid, version, Transition(*rest)


def read_audit(db: sqlite3.Connection, where: str = "1", *values: object) -> list[AuditEntry]:
    """Entries of the audit log, oldest first."""
    found = db.execute(f"SELECT {AUDIT} FROM audit WHERE {where} ORDER BY seq", values)
    return [AuditEntry(*_typed(row, _AUDIT, "the audit log")) for row in found]


def read_macs(db: sqlite3.Connection) -> list[bytes]:
    """The MACs of all names, then of all versions, in their orders."""
    query = (
        "SELECT mac FROM (SELECT 0 AS part, uid, 0 AS version, mac FROM names"
        " UNION ALL SELECT 1, uid, version, mac FROM versions) ORDER BY part, uid, version"
    )
    macs = [row[0] for row in db.execute(query)]
    if any(type(mac) is not bytes for mac in macs):
        raise FormatError("a MAC of the keystore is no bytes")
    return macs


def read_listing(db: sqlite3.Connection) -> list[Row]:
    """(name, version, state, key id, profile, created, expires, period, floors, labels, has a
    seed) of all versions, in order of name and version; without the keys themselves."""
    query = (
        "SELECT n.name, v.version, v.state, v.key_id, v.profile, v.created, v.expires, v.period,"
        " n.floor_seal, n.floor_open, n.labels, v.sealed_seed IS NOT NULL"
        " FROM versions v JOIN names n USING (uid) ORDER BY n.name, v.version"
    )
    return [_typed(row, _LISTED, "a version") for row in db.execute(query)]


def labels_text(labels: tuple[tuple[str, str], ...]) -> str:
    """Labels as they are stored: JSON, sorted."""
    if not labels:
        return "{}"
    return json.dumps(dict(sorted(labels)), separators=(",", ":"))


def labels_of(text: str) -> tuple[tuple[str, str], ...]:
    """What :func:`labels_text` wrote. Raises FormatError."""
    if text == "{}":
        return ()
    try:
        labels = tuple(json.loads(text).items())
        if labels_text(labels) == text:
            return labels
    except (ValueError, AttributeError, TypeError, RecursionError):
        pass
    raise FormatError("the labels of a key in the keystore are damaged")


def write_meta(db: sqlite3.Connection, meta: Meta) -> None:
    """Replace the row."""
    db.execute(
        f"INSERT OR REPLACE INTO meta (id, {META}) VALUES (1,?,?,?,?,?,?,?,?)",
        (meta.format, meta.keystore, meta.created, *sealed_part(meta)),
    )


def sealed_part(m: Meta) -> Row:
    """The columns of the header that every change rewrites."""
    return (m.generation, m.audit_seq, m.audit_hash, m.root, m.mac)


def write_unlock(db: sqlite3.Connection, unlock: Unlock) -> None:
    """Add or replace one way to unlock."""
    row = (unlock.kind, unlock.parameters, unlock.sealed)
    db.execute("INSERT OR REPLACE INTO unlocks VALUES (?,?,?)", row)


def write_name(db: sqlite3.Connection, name: KeyName, mac: bytes) -> None:
    """Add or replace a name."""
    row = (name.uid, name.name, name.created, labels_text(name.labels))
    db.execute(
        f"INSERT INTO names ({NAMES}) VALUES (?,?,?,?,?,?,?) ON CONFLICT (uid) DO UPDATE SET"
        " name=excluded.name, labels=excluded.labels, floor_seal=excluded.floor_seal,"
        " floor_open=excluded.floor_open, mac=excluded.mac",
        (*row, name.floor_seal, name.floor_open, mac),
    )


def write_version(db: sqlite3.Connection, v: KeyVersion, mac: bytes) -> None:
    """Add or replace a version."""
    row = (v.uid, v.version, v.profile, v.key_id, v.public_key, v.sealed_seed, str(v.state))
    db.execute(
        f"INSERT INTO versions ({VERSIONS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"
        " ON CONFLICT (uid, version) DO UPDATE SET sealed_seed=excluded.sealed_seed,"
        " state=excluded.state, expires=excluded.expires, transitions=excluded.transitions,"
        " history=excluded.history, mac=excluded.mac",
        (*row, v.created, v.expires, v.period, v.transitions, v.history, mac),
    )


def write_transition(db: sqlite3.Connection, v: KeyVersion, t: Transition) -> None:
    """Append one change of state."""
    row = (v.uid, v.version, t.seq, t.time, t.old, t.new, t.reason)
    db.execute("INSERT INTO transitions VALUES (?,?,?,?,?,?,?)", row)


def write_audit(db: sqlite3.Connection, e: AuditEntry) -> None:
    """Append one entry."""
    row = (e.seq, e.time, e.action, e.subject, e.detail, e.previous, e.hash)
    db.execute(f"INSERT INTO audit ({AUDIT}) VALUES (?,?,?,?,?,?,?)", row)
