"""Rotate one archive: every envelope of every part that a key at hand opens.

One envelope is read, checked against its part's commit, and replaced whole by one of the next
generation, when it still is the one that was read. At any moment each part has one envelope,
the old or the new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from pqvault.archive import layout
from pqvault.archive.publicpart import PublicPart, read_envelope
from pqvault.archive.publicstate import PublicState
from pqvault.errors import (
    IntegrityError,
    KeyStateForbids,
    Locked,
    NotFound,
    PolicyRefused,
    PQVaultError,
    UsageError,
)
from pqvault.format.envelope import Envelope
from pqvault.format.textdoc import MAX_SIZE
from pqvault.ids import now
from pqvault.keys import Recipient
from pqvault.memory import Memory, Sight
from pqvault.policy import ANYBODY, Policy
from pqvault.rootkey import RootKey
from pqvault.rotation import retiring
from pqvault.rotation.change import Change, Keys, Member
from pqvault.signing import SigningKey, sign_document
from pqvault.storage import Storage

__all__ = ["ArchiveRotation", "Rotated", "note_open_logs"]

Waiting: TypeAlias = Callable[[], AbstractContextManager[None]]

_TRIES: Final = 10  # envelopes that others replaced under our hands, before we give up


@dataclass(slots=True)
class Rotated:
    """What became of one archive or sealed stream.

    ``rewrapped``, ``unchanged``: envelopes. ``written``: bytes of envelopes; ``copied``: bytes of
    a sealed stream's object. ``key_ids``: who can open it now, as its envelopes say.
    ``wrapped``: key ids that were wrapped to. ``signed``: envelopes that our keys signed.
    ``retired``: key ids that nothing more is to be sealed to. ``began``: Unix time in ms.
    """

    path: str
    archive: str = ""
    rewrapped: int = 0
    signed: int = 0
    unchanged: int = 0
    written: int = 0
    copied: int = 0
    key_ids: list[str] = field(default_factory=list)
    wrapped: set[str] = field(default_factory=set)
    retired: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[PQVaultError] = field(default_factory=list)
    met: set[str] = field(default_factory=set, repr=False)  # who could open it before
    sights: list[Sight] = field(default_factory=list, repr=False)
    removed: set[str] = field(default_factory=set, repr=False)
    began: int = field(default_factory=now, repr=False)

    def opens(self, envelope: Envelope) -> None:
        """Note who can open it."""
        self.key_ids += [k for k in envelope.key_ids if k not in self.key_ids]


class ArchiveRotation:
    """A change to one archive. Any number of them may go on in threads and processes."""

    def __init__(
        self,
        storage: Storage,
        change: Change,
        keys: Keys,
        *,
        allow_retired: bool = False,
        sign: Sequence[SigningKey] = (),
        policy: Policy = ANYBODY,
        memory: Memory | None = None,
        waiting: Waiting = nullcontext,
    ) -> None:
        """Reads what is public. ``sign``: who signs the new envelopes, and those of the old that
        stay. ``policy``: whose signatures commits and envelopes must have. ``waiting`` is
        entered while the disk is waited for.

        Raises NotFound, FormatError, RolledBack.
        """
        self.storage = storage
        self.state = PublicState(storage, memory)
        self.state.refuse_rolled_back()
        self._change = change
        self._keys = keys
        self._allow_retired = allow_retired
        self._sign = {key.signer.signer_id: key for key in sign}
        self._signers = Policy.of(key.signer for key in sign)
        self._policy = policy
        self._waiting = waiting
        self._failed: list[tuple[str, PQVaultError]] = []  # part id, why
        self.result = Rotated(
            storage.where("").rstrip("/"), self.state.archive, removed=self.state.removed
        )

    def pending(self) -> Iterator[tuple[Envelope, tuple[Member, ...]]]:
        """The envelopes that would be rewrapped or signed, and who would open them.

        Raises as `Change.members`, and what is wrong with an envelope.
        """
        for part, name, envelope in self._envelopes():
            found = envelope or _read(self.storage, name, part)
            members = self._change.members(found, _what(name))
            self.result.warnings += self._change.stays(found)
            if members is not None:
                self._refuse_unsigned(found, name)
            if members is not None or self._missing_signers(found, name):
                yield found, members or found.recipients

    def wraps_to(self) -> set[str]:
        """The key ids that would be wrapped to, as far as that can be said."""
        wanted: set[str] = set()
        for part, name, envelope in self._envelopes():
            try:
                found = envelope or _read(self.storage, name, part)
                members = self._change.members(found, _what(name)) or ()
            except PQVaultError:
                continue  # told when its turn comes to be rewrapped
            wanted |= {m.key_id for m in members if isinstance(m, Recipient)}
        return wanted

    def run(self) -> Rotated:
        """Rewrap. What cannot be is in the result's ``problems``; all else is done."""
        result, done = self.result, set[str]()
        # A record first: a host that seals meanwhile to a key that goes is refused from now on.
        # But none where the key will not go: it would stop everybody from sealing to it.
        if not self._refusals():
            result.retired = retiring.retire(
                self.state,
                self._change,
                self.wraps_to,
                self._open_part,
                allow_retired=self._allow_retired,
                sign=[*self._sign.values()],
                policy=self._policy,
            )
        while not self.state.parts.keys() <= done:
            generations: dict[str, dict[str, int]] = {}
            self._leave_alone(done)
            for part, name, envelope in self._envelopes():
                if part.id not in done:
                    self._try_rewrap(part, name, envelope, generations.setdefault(part.id, {}))
            new = [part for part in self.state.parts.values() if part.id not in done]
            result.sights += [
                replace(p.sight, generations=generations[p.id])
                for p in new
                if p.id in generations[p.id]
            ]
            done |= {part.id for part in new}
            # Parts that others committed while we were at it.
            self.state.refresh()
        # Of one that others removed or replaced meanwhile, nothing need be rotated.
        result.removed = self.state.removed
        result.problems += [error for part, error in self._failed if part not in result.removed]
        result.problems += self.state.problems
        note_open_logs(self.state, self._change, result)
        return result

    # -- parts

    def _try_rewrap(
        self, part: PublicPart, name: str, envelope: Envelope | None, generations: dict[str, int]
    ) -> None:
        result = self.result
        try:
            envelope = envelope or _read(self.storage, name, part)
            result.met.update(envelope.key_ids)
            new = self._rewrap(part, name, envelope)
        except PQVaultError as error:
            self._failed.append((part.id, error))
            return
        result.opens(new or envelope)
        result.warnings += self._change.stays(new or envelope)
        if new is None:
            result.unchanged += 1
        else:
            result.signed += bool(self._sign)
            result.rewrapped += new.generation != envelope.generation
            generations[name.rpartition("/")[2]] = new.generation

    def _rewrap(self, part: PublicPart, name: str, envelope: Envelope) -> Envelope | None:
        """One envelope; None when nothing had to change. Raises as `RootKey.unwrap` does."""
        for _ in range(_TRIES):
            members = self._change.members(envelope, _what(name))
            missing = self._missing_signers(envelope, name)
            if members is None and not missing:
                return None
            key = self._open(part, name, envelope)
            if members is None:
                # Signed as it is: other operators' signatures of it stay good.
                new = sign_document(envelope, missing)
            else:
                self._refuse_unsigned(envelope, name)
                self._keys.prove(members)
                new = key.rewrap(envelope, members, created=now())
                new = sign_document(new, self._sign.values())
            data = new.marshal()
            if Envelope.parse(data) != new:
                raise IntegrityError(f"the new envelope of {name} does not read back")
            with self._waiting():
                replaced = self.storage.replace(name, envelope.marshal(), data)
            if replaced:
                self.result.written += len(data)
                self.result.wrapped |= {m.key_id for m in members or () if isinstance(m, Recipient)}
                return new
            # Somebody else replaced it: our change goes on top of theirs.
            envelope = _read(self.storage, name, part)
        raise Locked(f"{self.storage.where(name)} is replaced by others again and again")

    def _open(self, part: PublicPart, name: str, envelope: Envelope) -> RootKey:
        """Steps 2 to 6 of docs/format.md 5.2: an envelope of a stranger is never rewrapped."""
        # (2) unwrap, (3) envelope MAC
        key = RootKey.unwrap(envelope, self._keys.ring, _what(name))
        # (4) root, (5) commit MAC
        if not envelope.group:
            key.check_commit(part.commit, f"part {part.id}")
        # (6) signatures
        self._policy.check(part.commit, f"part {part.id}")
        self._policy.check_envelope(envelope, _what(name))
        return key

    def _open_part(self, part: PublicPart) -> RootKey:
        envelope = part.envelope or _read(self.storage, layout.envelope_name(part.id), part)
        return self._open(part, layout.envelope_name(part.id), envelope)

    # -- signatures

    def _missing_signers(self, envelope: Envelope, name: str) -> list[SigningKey]:
        """Our keys that have not signed an envelope as it is."""
        try:
            there = self._signers.signed_by(envelope, _what(name)) if self._sign else ()
        except PolicyRefused:
            there = ()  # something in our name that is not ours: all are made anew
        return [key for signer, key in self._sign.items() if signer not in there]

    def _leave_alone(self, done: set[str]) -> None:
        """Give up parts of which one envelope would be nobody's any more. Else who is taken off
        the part, and is the last one of a column group, could no longer get at those columns."""
        for part, error in self._refusals().items():
            if part not in done and isinstance(error, UsageError):
                self._failed.append((part, error))
                done.add(part)

    def _refusals(self) -> dict[str, PQVaultError]:
        """Part id -> why the change cannot be made to one of its envelopes, as far as is known
        without a key."""
        found: dict[str, PQVaultError] = {}
        for part, name, envelope in self._envelopes():
            if part.id in found:
                continue
            try:
                envelope = envelope or _read(self.storage, name, part)
                if self._change.members(envelope, _what(name)) is not None:
                    self._refuse_unsigned(envelope, name)
                self._policy.check(part.commit, f"part {part.id}")
                self._policy.check_envelope(envelope, _what(name))
            except (UsageError, KeyStateForbids, PolicyRefused) as error:
                found[part.id] = error
            except PQVaultError:
                continue  # a missing or damaged envelope, told when its turn comes
        return found

    def _refuse_unsigned(self, envelope: Envelope, name: str) -> None:
        if envelope.signatures and not (self._sign or self._policy.allow_unsigned):
            raise PolicyRefused(
                f"{_what(name)} is signed, and the one that takes its place would not be",
                hint="sign with --sign KEY, or pass --allow-unsigned",
            )

    def _envelopes(self) -> Iterator[tuple[PublicPart, str, Envelope | None]]:
        """Part, name, and the envelope where it was read already, of all parts in order."""
        groups: dict[str, list[str]] = {}
        for name in self.storage.list("envelopes"):
            part_id, dot, group = name.partition(".")
            if dot and group:
                groups.setdefault(part_id, []).append(f"envelopes/{name}")
        for part in self.state.ordered():
            yield part, layout.envelope_name(part.id), part.envelope
            for name in groups.get(part.id, ()):
                yield part, name, None


def note_open_logs(state: PublicState, change: Change, result: Rotated) -> None:
    """What a log writes at the moment stays as it is: the keys that open it are still needed."""
    storage = state.storage
    for name in layout.open_logs(storage, state.removed | state.parts.keys()):
        try:
            envelope = Envelope.parse(storage.read(name, MAX_SIZE), name)
        except PQVaultError as error:
            result.problems.append(error)
            continue
        try:
            fits = change.fits(envelope, _what(name))
        except PQVaultError:
            fits = False  # nobody would be left, or it is not ours to rotate
        result.opens(envelope)
        if not fits:
            result.warnings.append(
                f"{_what(name)} is of a log that has not ended it, and stays sealed to"
                f" {', '.join(envelope.key_ids)}: do this again once it is committed"
            )


def _read(storage: Storage, name: str, part: PublicPart) -> Envelope:
    try:
        return read_envelope(storage, part.commit.archive, part.id, name.partition(".")[2])
    except NotFound:
        raise IntegrityError(f"{_what(name)} is missing") from None


def _what(name: str) -> str:
    return f"the envelope of part {name.rpartition('/')[2]}"
