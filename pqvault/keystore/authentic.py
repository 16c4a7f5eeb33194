"""What of the keystore is authenticated, and how. docs/keystore.md section 3.

::

    store key ── "keystore mac" ──► MAC of each name row and each version row
                                    MAC of the header: format, id, generation, audit head, root
    root = BLAKE3 over all unlock rows, and the MACs of all name and version rows, in order

A row that was edited fails its own MAC; a row that was added, taken away or put back from an
older copy changes the root; a header that does not fit fails its own MAC.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NoReturn

from pqvault.crypto import digest, kdf, mac, record
from pqvault.errors import IntegrityError
from pqvault.keystore import tables
from pqvault.keystore.database import FORMAT
from pqvault.keystore.records import (
    AuditEntry,
    KeyName,
    KeyVersion,
    Meta,
    Transition,
    Unlock,
)

__all__ = [
    "EMPTY",
    "StoreKey",
    "audit_hash",
    "encode",
    "extend_history",
    "root_of",
    "verify",
    "verify_for_use",
    "verify_version",
]

EMPTY: Final = bytes(32)  # the history and the audit hash before their first entry
_HINT: Final = (
    "the keystore was edited or damaged: `pqvault key restore FILE --replace` puts a backup there"
)


_encoder: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True)


def encode(kind: str, *fields: str | int | bytes | None) -> bytes:
    """The JSON array of ``kind`` and the fields, ASCII without spaces, bytes as hex.

    Each kind has fixed fields of fixed types, so no two rows share an encoding.
    """
    plain = [field.hex() if isinstance(field, bytes) else field for field in fields]
    return _encoder.encode([kind, *plain]).encode("ascii")


def _hash(*pieces: bytes) -> bytes:
    hasher = digest.new()
    for piece in pieces:
        hasher.update(piece)
    return hasher.digest()


def extend_history(history: bytes, t: Transition) -> bytes:
    """The digest over a version's transitions after one more."""
    return _hash(history, encode("transition", t.seq, t.time, t.old, t.new, t.reason))


def audit_hash(e: AuditEntry) -> bytes:
    """The hash of an audit entry, over the hash of the one before."""
    return _hash(e.previous, encode("audit", e.seq, e.time, e.action, e.subject, e.detail))


def root_of(unlocks: Iterable[Unlock], macs: Iterable[bytes]) -> bytes:
    """The digest over everything: ways to unlock, then the MACs of names and versions."""
    heads = [_hash(encode("unlock", u.kind, u.parameters, u.sealed)) for u in unlocks]
    return _hash(encode("root", len(heads)), *heads, b"".join(macs))


@dataclass(frozen=True, slots=True)
class StoreKey:
    """The random 32-byte key of one keystore and what is derived from it. A secret."""

    keystore: str
    secret: bytes = field(repr=False)
    _mac_key: bytes = field(repr=False)
    _seal_key: bytes = field(repr=False)

    @classmethod
    def of(cls, keystore: str, secret: bytes) -> StoreKey:
        """Derive what is needed; ``keystore`` is the store's id in hex."""
        ident = bytes.fromhex(keystore)
        mac_key = kdf.derive(secret, mac.MAC_KEY_SIZE, "keystore mac", ident)
        return cls(keystore, secret, mac_key, kdf.derive(secret, 32, "keystore seal", ident))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a store key is not pickled")

    def name_mac(self, n: KeyName) -> bytes:
        """Over all of a name's row."""
        labels = tables.labels_text(n.labels)
        fields = (n.uid, n.name, n.created, labels, n.floor_seal, n.floor_open)
        return mac.compute(self._mac_key, encode("name", *fields))

    def version_mac(self, v: KeyVersion) -> bytes:
        """Over all of a version's row, and by its history over its transitions."""
        fields = (v.uid, v.version, v.profile, v.key_id, v.public_key, v.sealed_seed, str(v.state))
        more = (v.created, v.expires, v.period, v.transitions, v.history)
        return mac.compute(self._mac_key, encode("version", *fields, *more))

    def meta_mac(self, m: Meta) -> bytes:
        """Over the header."""
        fields = (m.format, m.keystore, m.created, m.generation, m.audit_seq, m.audit_hash, m.root)
        return mac.compute(self._mac_key, encode("meta", *fields))

    def head_mac(self, text: bytes) -> bytes:
        """Over an exported audit head."""
        key = kdf.derive(self.secret, mac.MAC_KEY_SIZE, "audit head", bytes.fromhex(self.keystore))
        return mac.compute(key, text)

    def seal_seed(self, seed: bytes, v: KeyVersion) -> bytes:
        """A seed sealed for one version, bound to all that must not change about it."""
        return record.seal_record(self._seal_key, seed, self._seed_aad(v))

    def open_seed(self, v: KeyVersion, what: str) -> bytes:
        """The seed of a version. Raises IntegrityError naming ``what``."""
        sealed = v.sealed_seed or b""
        return record.open_record(self._seal_key, sealed, self._seed_aad(v), f"the seed of {what}")

    def _seed_aad(self, v: KeyVersion) -> bytes:
        return kdf.bind(
            "keystore seed",
            bytes.fromhex(self.keystore),
            v.uid.encode(),
            str(v.version).encode(),
            v.profile.encode(),
            v.key_id.encode(),
            v.public_key,
        )


# More versions than this are checked when used and when changed, not at once: 1,000 take 20 ms.
AT_ONCE: Final = 1000


def verify(db: sqlite3.Connection, key: StoreKey, *, rows: bool = True) -> Meta:
    """Check every row that is authenticated, in one state of the file; returns the header.

    Steps: (1) header MAC, (2) its format, (3) the last entry of the audit log, (4) the root
    over ways to unlock and the MACs of all rows; with ``rows``, (5) each name and (6) each
    version with its history. The chain of the audit log is for `audit.verify`. Raises
    IntegrityError that names what is wrong.
    """
    meta = tables.read_meta(db)
    # (1)
    if not mac.equal(key.meta_mac(meta), meta.mac):
        raise IntegrityError("the keystore's header failed authentication", hint=_HINT)
    # (2) after the MAC: a newer pqvault wrote it, nobody else did
    if meta.format != FORMAT:
        raise IntegrityError(f"the keystore has format {meta.format}, not {FORMAT}", hint=_HINT)
    # (3)
    head = db.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    if head != (meta.audit_seq, meta.audit_hash):
        raise IntegrityError("the end of the keystore's audit log is missing", hint=_HINT)
    # (4)
    if not mac.equal(root_of(tables.read_unlocks(db), tables.read_macs(db)), meta.root):
        raise IntegrityError("rows of the keystore were added or taken away", hint=_HINT)
    if rows:
        _verify_rows(db, key)
    return meta


def verify_for_use(db: sqlite3.Connection, key: StoreKey) -> Meta:
    """:func:`verify`, without the rows of a large keystore: `verify_version` checks them."""
    count = db.execute("SELECT count(*) FROM versions").fetchone()[0]
    return verify(db, key, rows=count <= AT_ONCE)


def _verify_rows(db: sqlite3.Connection, key: StoreKey) -> None:
    # (5)
    names = tables.read_names(db)
    for name, found in names:
        _check_name(key, name, found)
    # (6)
    known = {name.uid: name.name for name, _ in names}
    histories = _histories(tables.all_transitions(db))
    for v, found in tables.read_versions(db):
        what = f"{known.get(v.uid, '?')}@{v.version}"
        _check_version(key, v, found, what)
        _check_history(v, histories.pop((v.uid, v.version), (0, EMPTY)), what)
    if histories:
        raise IntegrityError("the keystore holds the history of a key it lacks", hint=_HINT)


def verify_version(
    db: sqlite3.Connection, key: StoreKey, key_id: str
) -> tuple[KeyName, KeyVersion]:
    """One version by its key id, checked with its name and history. Raises IntegrityError."""
    for v, found in tables.read_versions(db, "key_id = ?", key_id):
        for name, name_mac in tables.read_names(db, "uid = ?", v.uid):
            what = name.at(v)
            _check_name(key, name, name_mac)
            _check_version(key, v, found, what)
            steps = [(v.uid, v.version, t) for t in tables.read_transitions(db, v.uid, v.version)]
            _check_history(v, _histories(steps).get((v.uid, v.version), (0, EMPTY)), what)
            return name, v
    raise IntegrityError(f"the key {key_id} has gone from the keystore", hint=_HINT)


def _check_name(key: StoreKey, name: KeyName, found: bytes) -> None:
    if not mac.equal(key.name_mac(name), found):
        raise IntegrityError(f"the key {name.name!r} failed authentication", hint=_HINT)


def _check_version(key: StoreKey, v: KeyVersion, found: bytes, what: str) -> None:
    if not mac.equal(key.version_mac(v), found):
        raise IntegrityError(f"the key version {what} failed authentication", hint=_HINT)


def _check_history(v: KeyVersion, found: tuple[int, bytes], what: str) -> None:
    if found != (v.transitions, v.history):
        raise IntegrityError(f"the history of {what} failed authentication", hint=_HINT)


def _histories(
    steps: Iterable[tuple[str, int, Transition]],
) -> dict[tuple[str, int], tuple[int, bytes]]:
    found: dict[tuple[str, int], tuple[int, bytes]] = {}
    for uid, version, t in steps:
        count, history = found.get((uid, version), (0, EMPTY))
        found[uid, version] = (count + 1, extend_history(history, t))
    return found
