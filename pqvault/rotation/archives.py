"""Rotate one archive: every envelope of every part that a key at hand opens.

One envelope is read, checked against its part's commit, and replaced whole by one of the next
generation, when it still is the one that was read. At any moment each part has one envelope,
the old or the new.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from pqvault.archive import layout, retired
from pqvault.archive.archive import PublicState
from pqvault.archive.part import PublicPart
from pqvault.errors import IntegrityError, Locked, NotFound, PQVaultError
from pqvault.format.envelope import Envelope
from pqvault.format.textdoc import MAX_SIZE
from pqvault.memory import Memory, Sight
from pqvault.rootkey import Keyring, RootKey
from pqvault.rotation.change import Change
from pqvault.storage import Storage

__all__ = ["ArchiveRotation", "Rotated"]

Waiting: TypeAlias = Callable[[], AbstractContextManager[None]]

_TRIES: Final = 10  # envelopes that others replaced under our hands, before we give up


@dataclass(slots=True)
class Rotated:
    """What became of one archive or sealed stream.

    ``rewrapped``, ``unchanged``: envelopes. ``written``: bytes of envelopes; ``copied``: bytes of
    a sealed stream's object. ``key_ids``: who can open it now, as its envelopes say.
    ``retired``: key ids that nothing more is to be sealed to.
    """

    path: str
    archive: str = ""
    rewrapped: int = 0
    unchanged: int = 0
    written: int = 0
    copied: int = 0
    key_ids: list[str] = field(default_factory=list)
    retired: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[PQVaultError] = field(default_factory=list)
    sights: list[Sight] = field(default_factory=list, repr=False)
    removed: set[str] = field(default_factory=set, repr=False)

    def opens(self, envelope: Envelope) -> None:
        """Note who can open it."""
        for wrapped in envelope.recipients:
            if wrapped.key_id not in self.key_ids:
                self.key_ids.append(wrapped.key_id)


class ArchiveRotation:
    """A change to one archive. Any number of them may go on in threads and processes."""

    def __init__(
        self,
        storage: Storage,
        change: Change,
        identities: Keyring,
        *,
        allow_retired: bool = False,
        memory: Memory | None = None,
        waiting: Waiting = nullcontext,
    ) -> None:
        """Reads what is public. ``waiting`` is entered while the disk is waited for.

        Raises NotFound, FormatError, RolledBack.
        """
        self.storage = storage
        self.state = PublicState(storage, memory)
        if self.state.rolled_back:
            raise self.state.rolled_back[0]
        self._change = change
        self._identities = identities
        self._allow_retired = allow_retired
        self._waiting = waiting
        self._groups = _group_envelopes(storage)
        self.result = Rotated(
            storage.where("").rstrip("/"), self.state.archive, removed=self.state.removed
        )

    def pending(self) -> Iterator[tuple[str, Envelope]]:
        """The envelopes that would be rewrapped, by name. Raises as `Change.members`."""
        for part in self.state.ordered():
            for name, envelope in self._envelopes(part):
                if self._change.members(envelope, _what(name)) is not None:
                    yield name, envelope

    def changes(self) -> bool:
        """Whether anything would be rewrapped, or fail to be."""
        try:
            return next(self.pending(), None) is not None
        except PQVaultError:
            return True

    def run(self) -> Rotated:
        """Rewrap. What cannot be is in the result's ``problems``; all else is done."""
        result = self.result
        # A record first: a host that seals meanwhile to a key that goes is refused from now on.
        self._retire()
        done: set[str] = set()
        while True:
            for part in self.state.ordered():
                if part.id not in done:
                    self._rotate_part(part)
                    done.add(part.id)
            problems = self.state.problems
            self.state.refresh()
            # Parts that others committed while we were at it.
            if self.state.parts.keys() <= done:
                break
        result.problems += problems
        return result

    # -- retired keys

    def _retire(self) -> None:
        change, result = self._change, self.result
        known = retired.retired_ids(self.storage)
        back = sorted(known & change.new.keys())
        retired.refuse(self.storage, () if self._allow_retired else back)
        for key_id in back:
            self.storage.remove(layout.retired_name(key_id))
        named = {w.key_id for _, e in self._all_envelopes() for w in e.recipients}
        # Hosts may go on sealing to whom older parts were sealed.
        named |= {key_id for p in self.state.parts.values() for key_id in p.commit.sealed_to}
        wanted = sorted((change.remove & named) - known)
        key = self._any_key() if wanted else None
        if key is None:
            return
        for key_id in wanted:
            retired.retire(self.storage, key, key_id)
            result.retired.append(key_id)

    def _all_envelopes(self) -> Iterator[tuple[str, Envelope]]:
        for part in self.state.ordered():
            yield from self._envelopes(part)

    def _any_key(self) -> RootKey | None:
        """The root key of the newest part that opens."""
        for part in reversed(self.state.ordered()):
            try:
                if part.envelope is not None:
                    return self._open(part, layout.envelope_name(part.id), part.envelope)
            except PQVaultError:
                continue  # told when its turn comes to be rewrapped
        return None

    # -- parts

    def _rotate_part(self, part: PublicPart) -> None:
        generations: dict[str, int] = {}
        try:
            if part.envelope is None:
                raise IntegrityError(f"the envelope of part {part.id} is missing")
            for name, envelope in self._envelopes(part):
                self._try_rewrap(part, name, envelope, generations)
        except PQVaultError as error:
            self.result.problems.append(error)
        if layout.envelope_name(part.id).rpartition("/")[2] in generations:
            parents = tuple(parent for parent, _ in part.commit.parents)
            self.result.sights.append(Sight(part.id, parents, generations))

    def _try_rewrap(
        self, part: PublicPart, name: str, envelope: Envelope, generations: dict[str, int]
    ) -> None:
        result = self.result
        try:
            now = self._rewrap(part, name, envelope)
        except PQVaultError as error:
            result.problems.append(error)
            result.opens(envelope)
            return
        if now is None:
            result.unchanged += 1
            result.opens(envelope)
            return
        result.rewrapped += 1
        result.opens(now)
        generations[name.rpartition("/")[2]] = now.generation

    def _rewrap(self, part: PublicPart, name: str, envelope: Envelope) -> Envelope | None:
        """One envelope; None when nothing had to change. Raises as `RootKey.unwrap` does."""
        for _ in range(_TRIES):
            members = self._change.members(envelope, _what(name))
            if members is None:
                return None
            key = self._open(part, name, envelope)
            new = key.rewrap(envelope, members, created=int(time.time() * 1000))
            data = new.marshal()
            if Envelope.parse(data) != new:
                raise IntegrityError(f"the new envelope of {name} does not read back")
            with self._waiting():
                replaced = self.storage.replace(name, envelope.marshal(), data)
            if replaced:
                self.result.written += len(data)
                return new
            # Somebody else replaced it: our change goes on top of theirs.
            envelope = _read(self.storage, name, part)
        raise Locked(f"{self.storage.where(name)} is replaced by others again and again")

    def _open(self, part: PublicPart, name: str, envelope: Envelope) -> RootKey:
        """Steps 2 to 5 of docs/format.md 5.2: an envelope of a stranger is never rewrapped."""
        # (2) unwrap, (3) envelope MAC
        key = RootKey.unwrap(envelope, self._identities, _what(name))
        # (4) root, (5) commit MAC
        if not envelope.group:
            key.check_commit(part.commit, f"part {part.id}")
        return key

    def _envelopes(self, part: PublicPart) -> Iterator[tuple[str, Envelope]]:
        if part.envelope is not None:
            yield layout.envelope_name(part.id), part.envelope
        for name in self._groups.get(part.id, ()):
            yield name, _read(self.storage, name, part)


def _group_envelopes(storage: Storage) -> dict[str, list[str]]:
    """The envelopes of groups of columns, ``envelopes/<part>.<group>``, by part."""
    found: dict[str, list[str]] = {}
    for name in storage.list("envelopes"):
        part, dot, group = name.partition(".")
        if dot and group and layout.is_id(part):
            found.setdefault(part, []).append(f"envelopes/{name}")
    return found


def _read(storage: Storage, name: str, part: PublicPart) -> Envelope:
    try:
        envelope = Envelope.parse(storage.read(name, MAX_SIZE), name)
    except NotFound:
        raise IntegrityError(f"{name} is missing") from None
    group = name.partition(".")[2]
    if (envelope.archive, envelope.part, envelope.group) != (part.commit.archive, part.id, group):
        raise IntegrityError(f"{name} belongs to another archive or part, and was copied here")
    return envelope


def _what(name: str) -> str:
    return f"the envelope of part {name.rpartition('/')[2]}"
