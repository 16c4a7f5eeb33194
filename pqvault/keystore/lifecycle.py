"""Make, rotate, change the state of, and destroy key versions."""

from __future__ import annotations

import re
import secrets
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pqvault.errors import KeyStateForbids, UsageError
from pqvault.ids import now
from pqvault.keystore import index, tables
from pqvault.keystore.authentic import EMPTY
from pqvault.keystore.change import Change, Unlocked
from pqvault.keystore.halves import SEALS, AnyKey, Private, Public, fresh, made_by, public_half
from pqvault.keystore.records import KeyName, KeyVersion, check_name
from pqvault.keystore.states import State, check_transition

__all__ = [
    "Made",
    "add_key",
    "add_version",
    "change_state",
    "dependants_of",
    "destroy",
    "new_key",
    "rotate",
]


@dataclass(frozen=True, slots=True)
class Made:
    """A version that was made or changed. ``changed`` is false when there was nothing to do."""

    name: KeyName
    version: KeyVersion
    changed: bool = True

    @property
    def address(self) -> str:
        """``prod@2``."""
        return self.name.at(self.version)


def new_key(
    store: Unlocked,
    name: str,
    *,
    profile: str = SEALS,
    state: State = State.ACTIVE,
    labels: Mapping[str, str] | None = None,
    expires: int | None = None,
    period: str = "",
    reason: str = "new",
) -> Made:
    """A new name with its version 1. ``expires``: Unix time in ms. ``profile``: of a key that
    seals and opens, or a signature suite for one that signs.

    Raises UsageError when there is one of that name, and when it would have expired already.
    """
    _refuse_expired(expires)
    with store.change() as change:
        added = add_key(change, name, labels)
        version = add_version(change, added, fresh(profile), state, reason, expires, period)
        change.audit(
            "new",
            f"{name}@1",
            key_id=version.key_id,
            state=str(state),
            reason=reason,
            expires=expires,
            **made_by(version.profile),
        )
    return Made(added, version)


def add_key(change: Change, name: str, labels: Mapping[str, str] | None = None) -> KeyName:
    """A new name without a version, inside a change."""
    check_name(name)
    if tables.read_names(change.db, "name = ?", name):
        raise UsageError(
            f"there is a key {name!r} already",
            hint=f"`pqvault key rotate {name}` makes a new version of it",
        )
    added = KeyName(secrets.token_hex(16), name, change.now, tuple(sorted((labels or {}).items())))
    change.put_name(added)
    return added


def add_version(
    change: Change,
    name: KeyName,
    key: AnyKey,
    state: State,
    reason: str,
    expires: int | None = None,
    period: str = "",
) -> KeyVersion:
    """One more version of ``name``, from a private key or only its public half, in a change.

    Raises UsageError for a key that is here already, or does what others of its name do not.
    """
    public = public_half(key)
    _refuse_twice(change, public)
    others = tables.read_versions(change.db, "uid = ?", name.uid)
    if others and others[0][0].profile != public.profile:
        raise UsageError(
            f"{name.name} has keys of {others[0][0].profile}, and this one is of {public.profile}",
            hint="use another name: all versions of a key do the same, with the same algorithms",
        )
    row = change.db.execute("SELECT max(version) FROM versions WHERE uid=?", (name.uid,))
    number = int(row.fetchone()[0] or 0) + 1
    bare = KeyVersion(
        uid=name.uid,
        version=number,
        profile=public.profile,
        key_id=public.key_id,
        public_key=public.public_key,
        sealed_seed=None,
        state=state,
        created=change.now,
        expires=expires,
        period=period,
        transitions=0,
        history=EMPTY,
    )
    if isinstance(key, Private):
        bare = replace(bare, sealed_seed=change.key.seal_seed(key.seed, bare))
    return change.record(bare, "", state, reason)


def _refuse_twice(change: Change, public: Public) -> None:
    found = tables.read_versions(change.db, "key_id = ?", public.key_id)
    if found:
        names = tables.read_names(change.db, "uid = ?", found[0][0].uid)
        raise UsageError(
            f"this key is in the keystore already, as {names[0][0].at(found[0][0])}",
            hint="use it by that name; `pqvault key rename` gives it another",
        )


def rotate(
    store: Unlocked,
    name: str,
    *,
    period: str = "",
    state: State = State.ACTIVE,
    expires: int | None = None,
    reason: str = "",
) -> Made:
    """A new version that seals from now on; active ones before it only open.

    ``period``: ``month`` names the version after the current month (UTC), ``logs@2026-11``, and
    does nothing when there is one; or a month, ``2026-12``, ahead of its time.
    """
    label = _period(period)
    _refuse_expired(expires)
    with store.change() as change:
        named = _name_of(change, store, name)
        versions = [v for v, _ in tables.read_versions(change.db, "uid = ?", named.uid)]
        for v in versions:
            if label and v.period == label and v.state is not State.DESTROYED:
                return Made(named, v, changed=False)
        key = fresh(versions[-1].profile if versions else SEALS)
        made = add_version(change, named, key, state, reason or "rotated", expires, label)
        if state is State.ACTIVE:
            _retire(change, versions, named, made)
        subject = f"{name}@{made.version}"
        facts = {"key_id": made.key_id, "period": label, "reason": reason, "expires": expires}
        change.audit("rotate", subject, **facts, **made_by(made.profile))
    return Made(named, made)


def _retire(
    change: Change, versions: list[KeyVersion], name: KeyName, successor: KeyVersion
) -> None:
    for v in versions:
        if v.state is State.ACTIVE:
            reason = f"rotated to {name.at(successor)}"
            change.move(v, State.DEACTIVATED, reason, name.at(v))


def _refuse_expired(expires: int | None) -> None:
    if expires is not None and expires <= now():
        raise UsageError(
            "the time at which it expires has passed",
            hint="write a later one, like 2031-01-31 or 365d; `pqvault key expire` ends one now",
        )


def _period(period: str) -> str:
    if period == "month":
        return time.strftime("%Y-%m", time.gmtime())
    if period and not re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", period):
        raise UsageError(
            f"{period!r} is no period", hint="write --period month, or a month like 2026-12"
        )
    return period


def _name_of(change: Change, store: Unlocked, name: str) -> KeyName:
    found = tables.read_names(change.db, "name = ?", name)
    return found[0][0] if found else store.store.find_name(name)  # which says what is wrong


def change_state(store: Unlocked, address: str, new: State, reason: str = "") -> Made:
    """Suspend, activate, deactivate or mark as compromised. Raises KeyStateForbids."""
    with store.change() as change:
        name, v = store.store.find(address)
        what = name.at(v)
        changed = change.move(v, new, reason, what)
        change.audit(str(new), what, key_id=v.key_id, old=str(v.state), reason=reason)
    return Made(name, changed)


def destroy(store: Unlocked, address: str, reason: str = "", *, force: bool = False) -> Made:
    """Erase the seed; the record stays. ``force``: although archives depend on it.

    Raises KeyStateForbids naming the archives that are sealed to it.
    """
    with store.change() as change:
        name, v = store.store.find(address)
        what = name.at(v)
        # The state first: nobody should move archives to hear then that it cannot be.
        check_transition(v.state, State.DESTROYED, what)
        dependants = index.dependants(change.db, v.key_id)
        if dependants and not force:
            raise KeyStateForbids(
                f"{what} still opens {_listed(dependants)}",
                hint="rotate them to another key first, or lose them with --force",
            )
        changed = change.move(replace(v, sealed_seed=None), State.DESTROYED, reason, what)
        paths = [d.path for d in dependants]
        change.audit("destroy", what, key_id=v.key_id, reason=reason, archives=paths)
    _truncate_wal(store)
    return Made(name, changed)


def dependants_of(store: Unlocked, address: str) -> list[index.Dependant]:
    """The archives that are known to be sealed to a version."""
    return index.dependants(store.store.db, store.store.find(address)[1].key_id)


def _listed(dependants: list[index.Dependant]) -> str:
    shown = ", ".join(d.path for d in dependants[:20])
    more = len(dependants) - 20
    return f"{shown} and {more} more" if more > 0 else shown


def _truncate_wal(store: Unlocked) -> None:
    # The write-ahead log still holds the page with the sealed seed; secure_delete has
    # overwritten it in the page itself.
    try:
        store.store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.OperationalError:
        pass  # another process reads: the last of us to close truncates the log
