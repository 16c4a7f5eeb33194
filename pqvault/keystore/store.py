"""The keystore: what can be read of it without a passphrase, and how it is unlocked.

Nothing read here is verified: whoever can write the file can write these values too. After
`Keystore.unlock` everything is (`authentic.verify`).
"""

from __future__ import annotations

import builtins
import secrets
import sqlite3
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pqvault import home
from pqvault.closing import Closing
from pqvault.crypto import mac
from pqvault.crypto.passphrase import COSTS, Cost
from pqvault.errors import IntegrityError, KeyStateForbids, NotFound, UsageError
from pqvault.ids import now
from pqvault.keys import Recipient
from pqvault.keystore import authentic, database, tables, unlocks
from pqvault.keystore.authentic import EMPTY, StoreKey
from pqvault.keystore.change import Unlocked
from pqvault.keystore.halves import Public, of_public, public_half, recipient_of, signs
from pqvault.keystore.records import Address, KeyName, KeyVersion, Meta, Transition
from pqvault.keystore.states import State
from pqvault.signing import Signer
from pqvault.wholefile import name_new, sync_folder

__all__ = ["KeyFacts", "Keystore"]

STORE_KEY_SIZE: Final = 32  # bytes
_LIST: Final = "`pqvault key list` shows all"


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """One key version as it is listed. ``private``: its private key is here.

    ``expires``: Unix time in ms or None. ``floor_seal``, ``floor_open`` are the name's.
    """

    name: str
    version: int
    state: str
    key_id: str
    profile: str
    created: int
    expires: int | None
    period: str
    floor_seal: int
    floor_open: int
    labels: dict[str, str]
    private: bool

    @property
    def address(self) -> str:
        """``prod@2``."""
        return f"{self.name}@{self.version}"

    @property
    def refusal(self) -> str:
        """Why nothing may be sealed to it, ``prod@2 has expired``; "" when it may."""
        return _refusal(self.address, self.state, self.version, self.floor_seal, self.expires)


def _facts(row: tuple[Any, ...]) -> KeyFacts:
    values = (*row[:10], dict(tables.labels_of(row[10])), bool(row[11]))
    return KeyFacts(*values)


class Keystore(Closing):
    """An open keystore file, locked. Several processes may use it at once."""

    def __init__(self, path: Path | None = None, *, wait: float = database.WAIT) -> None:
        """Raises NotFound when there is none. ``wait``: seconds for other processes."""
        self.path = path or home.keystore()
        self.db: sqlite3.Connection = database.connect(self.path, wait=wait)
        # Python's own end of a connection that nobody closed is a warning, from 3.13 on.
        weakref.finalize(self, self.db.close).atexit = False

    @classmethod
    def exists(cls, path: Path | None = None) -> bool:
        """Whether there is one."""
        return home.has_keystore() if path is None else path.exists()

    @classmethod
    def create(
        cls, passphrase: bytes, *, cost: Cost = COSTS["standard"], path: Path | None = None
    ) -> Unlocked:
        """Make an empty one and unlock it. Raises UsageError when there is one already."""
        target = path or home.folder() / home.keystore().name
        if target.exists():
            database.create_file(target)  # says so
        beside = home.beside(target)
        database.create_file(beside)
        try:
            key = _fill(beside, passphrase, cost)
            # A link is made only where nothing is, so that two of us cannot both win.
            name_new(beside, target)
        except FileExistsError:
            database.create_file(target)
            raise
        finally:
            beside.unlink(missing_ok=True)
        sync_folder(target.parent)
        return Unlocked(cls(target), key)

    def meta(self) -> Meta:
        """The header, unverified."""
        with database.guarded(self.path):
            return tables.read_meta(self.db)

    def names(self) -> dict[str, KeyName]:
        """All names by uid, unverified."""
        with database.guarded(self.path):
            return {name.uid: name for name, _ in tables.read_names(self.db)}

    def find_name(self, name: str) -> KeyName:
        """A name. Raises NotFound."""
        with database.guarded(self.path):
            found = tables.read_names(self.db, "name = ?", name)
        if not found:
            raise NotFound(
                f"there is no key {name!r} in the keystore",
                hint="`pqvault key list` shows all; `pqvault key new NAME` makes one",
            )
        return found[0][0]

    def versions(self, name: KeyName) -> list[KeyVersion]:
        """All versions of a name, oldest first, unverified."""
        with database.guarded(self.path):
            return [v for v, _ in tables.read_versions(self.db, "uid = ?", name.uid)]

    def find(self, text: str) -> tuple[KeyName, KeyVersion]:
        """The version of an address; a bare name must have only one that is not destroyed.

        Raises NotFound, UsageError when it is not clear which is meant.
        """
        name, found = self._named(text)
        if len(found) > 1:
            found = [v for v in found if v.state is not State.DESTROYED] or found
        if not found:
            raise NotFound(
                f"there is no version {text} in the keystore",
                hint=f"`pqvault key show {name.name}` lists them",
            )
        if len(found) > 1:
            several = ", ".join(map(name.at, found))
            raise UsageError(f"{text} may be any of {several}", hint="say which")
        return name, found[0]

    def _named(self, text: str) -> tuple[KeyName, builtins.list[KeyVersion]]:
        """The name of an address and the versions that it means, which may be none."""
        address = Address.parse(text)
        name = self.find_name(address.name)
        return name, _matching(self.versions(name), address)

    def _versions_at(self, text: str) -> tuple[KeyName, builtins.list[KeyVersion]]:
        """The same. Raises NotFound when there is none."""
        name, found = self._named(text)
        if not found:
            raise NotFound(f"there is no version {text} in the keystore", hint=_LIST)
        return name, found

    def _signing(self, text: str) -> tuple[KeyName, builtins.list[KeyVersion]]:
        """Those that sign. Raises UsageError when there is none."""
        name, found = self._named(text)
        found = [v for v in found if signs(v.profile)]
        if not found:
            raise UsageError(f"{text} is no key that signs", hint=_LIST)
        return name, found

    def has(self, text: str) -> bool:
        """Whether there is a key of this address's name."""
        with database.guarded(self.path):
            return bool(tables.read_names(self.db, "name = ?", Address.parse(text).name))

    def list(self) -> list[KeyFacts]:
        """All versions, in order of name and version, unverified."""
        with database.reading(self.db, self.path):
            return [_facts(row) for row in tables.read_listing(self.db)]

    def key_ids(self, text: str) -> builtins.list[str]:
        """The key ids of all versions that an address means, unverified. Raises NotFound."""
        return [v.key_id for v in self._versions_at(text)[1]]

    def public_key(self, key_id: str) -> Recipient:
        """The public key of a key id, unverified. Raises NotFound."""
        with database.guarded(self.path):
            for v, _ in tables.read_versions(self.db, "key_id = ?", key_id):
                return recipient_of(v.profile, v.public_key)
        raise NotFound(f"there is no key {key_id} in the keystore", hint=_LIST)

    def exported(self, text: str) -> Public:
        """The public half of an address: what may be sealed to, or the newest that signs."""
        _, found = self._named(text)
        if found and signs(found[-1].profile):
            return public_half(self.signers(text)[-1])
        return public_half(self.recipient(text))

    def recipient(self, text: str) -> Recipient:
        """The public key that ``NAME`` or ``NAME@2`` seals to: the newest that may.

        Raises NotFound, KeyStateForbids for states, floors and expiry that forbid sealing.
        """
        name, found = self._versions_at(text)
        if signs(found[-1].profile):
            raise UsageError(
                f"{text} is a key that signs, and nothing can be sealed to it",
                hint="name it with --sign or --signer, and a key that opens with -r",
            )
        allowed = [v for v in found if _refusal_of(name, v) == ""]
        if not allowed:
            reasons = "; ".join(_refusal_of(name, v) for v in found[-3:])
            hint = f"`pqvault key rotate {name.name}` makes a version that may"
            if found[-1].state in (State.PRE_ACTIVE, State.SUSPENDED):
                hint = f"`pqvault key activate {name.at(found[-1])}` lets that one, {hint}"
            raise KeyStateForbids(f"nothing may be sealed to {text}: {reasons}", hint=hint)
        chosen = allowed[-1]
        where = f"the keystore, {name.at(chosen)}"
        return recipient_of(chosen.profile, chosen.public_key, where)

    def signers(self, text: str) -> builtins.list[Signer]:
        """The public keys that signatures in the name of an address may have been made with,
        unverified. Raises NotFound, UsageError, KeyStateForbids when none may be trusted."""
        name, found = self._signing(text)
        trusted = [v for v in found if v.state in (State.ACTIVE, State.DEACTIVATED)]
        if not trusted:
            raise KeyStateForbids(
                f"no version of {text} is to be trusted: {found[-1].state}",
                hint=f"`pqvault key rotate {name.name}` makes one that is",
            )
        where = "the keystore"
        return [Signer(v.profile, v.public_key, f"{where}, {text}") for v in trusted]

    def signing_version(self, text: str) -> str:
        """The key id of the newest version of an address that may sign, unverified.

        Raises NotFound, UsageError, KeyStateForbids.
        """
        name, found = self._signing(text)
        allowed = [v for v in found if v.sealed_seed and _refusal_of(name, v) == ""]
        if not allowed:
            reasons = "; ".join(_refusal_of(name, v) or "public key only" for v in found[-3:])
            raise KeyStateForbids(
                f"{text} may not sign: {reasons}",
                hint=f"`pqvault key rotate {name.name}` makes a version that may",
            )
        return allowed[-1].key_id

    def unlock(self, ask: Callable[[], bytes]) -> Unlocked:
        """Unlock and verify all. ``ask`` gives the passphrase, unless another way works.

        Costs Argon2id once. Raises NoKeyFits, IntegrityError.
        """
        with database.reading(self.db, self.path):
            meta = tables.read_meta(self.db)
            ways = tables.read_unlocks(self.db)
        return self.unlock_with(unlocks.open_any(meta.keystore, ways, ask))

    def unlock_with(self, secret: bytes) -> Unlocked:
        """Unlock with the store key itself, 32 bytes, for example from shares.

        Raises IntegrityError, also when it is the key of another keystore.
        """
        if len(secret) != STORE_KEY_SIZE:
            raise IntegrityError("what was sealed as the store key is none")
        with database.reading(self.db, self.path):
            key = StoreKey.of(tables.read_meta(self.db).keystore, secret)
            authentic.verify_for_use(self.db, key)
        return Unlocked(self, key)

    def is_key(self, secret: bytes) -> bool:
        """Whether this is the store key, as far as the header says, which may have been edited."""
        with database.reading(self.db, self.path):
            meta = tables.read_meta(self.db)
        return mac.equal(StoreKey.of(meta.keystore, secret).meta_mac(meta), meta.mac)

    def close(self) -> None:
        """Close the file."""
        self.db.close()


def history(store: Keystore, text: str) -> list[tuple[KeyFacts, str, list[Transition]]]:
    """(facts, public key's text, transitions) of the versions of an address, unverified."""
    address = Address.parse(text)
    name = store.find_name(address.name)
    with database.reading(store.db, store.path):
        facts = {f.version: f for f in store.list() if f.name == name.name}
        found = [
            (facts[v.version], of_public(v.profile, v.public_key).text, _steps(store, v))
            for v in _matching(store.versions(name), address)
        ]
    if not found:
        raise NotFound(f"there is no version {text} in the keystore", hint=_LIST)
    return found


def _steps(store: Keystore, v: KeyVersion) -> list[Transition]:
    return tables.read_transitions(store.db, v.uid, v.version)


def _matching(versions: Iterable[KeyVersion], address: Address) -> list[KeyVersion]:
    if address.period:
        return [v for v in versions if v.period == address.period]
    if address.version is not None:
        return [v for v in versions if v.version == address.version]
    return list(versions)


def _refusal_of(name: KeyName, v: KeyVersion) -> str:
    return _refusal(name.at(v), v.state, v.version, name.floor_seal, v.expires)


def _refusal(address: str, state: str, version: int, floor: int, expires: int | None) -> str:
    if state != State.ACTIVE:
        return f"{address} is {state}"
    if version < floor:
        return f"{address} is below version {floor}, the lowest that may seal"
    if expires is not None and expires <= now():
        return f"{address} has expired"
    return ""


def _fill(path: Path, passphrase: bytes, cost: Cost) -> StoreKey:
    keystore = secrets.token_hex(16)
    key = StoreKey.of(keystore, secrets.token_bytes(32))
    db = database.connect(path)
    try:
        with database.guarded(path):
            db.executescript(f"PRAGMA journal_mode=WAL; {database.SCHEMA}")
        with database.transaction(db, path):
            tables.write_unlock(db, unlocks.by_passphrase(key, passphrase, cost))
            root = authentic.root_of(tables.read_unlocks(db), [])
            meta = Meta(database.FORMAT, keystore, now(), 0, 0, EMPTY, root, EMPTY)
            # The audit log begins with the first change; until then its head is empty.
            Unlocked.begin(db, key, meta, cost)
    finally:
        db.close()
    return key
