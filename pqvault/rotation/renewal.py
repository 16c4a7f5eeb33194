"""Encrypt an archive again: every part gets a new root key and a new part in its place.

A part is decrypted and encrypted file by file, without a look at what is in it, into a new part
that names the old one in ``replaces`` (docs/format.md 5.6). Only when all of the new one was read
back from storage, the old one is removed: a record, then its envelope; ``gc`` takes the rest. At
any moment the old part is there, or the new one, or both, which readers see as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from pqvault.archive import layout
from pqvault.archive.committing import give_up, put_part
from pqvault.archive.engine import THREADS, Engine
from pqvault.archive.processes import processes_for
from pqvault.archive.publicpart import PublicPart, read_envelope, read_public
from pqvault.archive.publicstate import PublicState
from pqvault.archive.recipients import FindRecipient
from pqvault.archive.replacement import id_in_place, replaced_ids, successors
from pqvault.archive.settling import check_unchanged, remove_replaced, settle, take_back
from pqvault.archive.tasks import default_jobs, run_tasks
from pqvault.crypto.profiles import Profile
from pqvault.errors import IntegrityError, NoKeyFits, PolicyRefused, PQVaultError, UsageError
from pqvault.format.commit import Commit, PartFile, object_number
from pqvault.format.envelope import Envelope
from pqvault.ids import now
from pqvault.keys import Recipient, one_profile
from pqvault.memory import Memory
from pqvault.policy import ANYBODY, Policy
from pqvault.progress import Meter, Progress, ignore
from pqvault.rootkey import RootKey
from pqvault.rotation import retiring
from pqvault.rotation.archives import Rotated, note_open_logs
from pqvault.rotation.change import Change, Keys
from pqvault.signing import SigningKey, sign_document
from pqvault.storage import Storage

__all__ = ["ArchiveRenewal"]


@dataclass(slots=True)
class ArchiveRenewal:
    """One archive. ``started``: ms; parts that were encrypted again since then are done.

    ``find``: a public key by its key id. ``engine``: where the files are encrypted, by default
    where that is done best. ``sign``: keys that sign the new parts; ``policy``: who
    must have signed the old ones.
    """

    storage: Storage
    change: Change
    keys: Keys
    find: FindRecipient
    started: int
    sign: Sequence[SigningKey] = ()
    policy: Policy = ANYBODY
    memory: Memory | None = None
    allow_retired: bool = False
    jobs: int = field(default_factory=default_jobs)
    engine: Engine | None = None
    progress: Progress = ignore
    result: Rotated = field(init=False)
    state: PublicState = field(init=False)
    _meter: Meter = field(init=False)
    _total: int = field(default=0, init=False)
    _first: frozenset[str] = field(default=frozenset(), init=False)
    _left: set[str] = field(default_factory=set, init=False)  # parts that stay as they are

    def __post_init__(self) -> None:
        """Reads what is public. Raises NotFound, FormatError, RolledBack."""
        self.state = PublicState(self.storage, self.memory)
        self.state.refuse_rolled_back()
        self._meter = Meter("reencrypt", self.progress, lambda: self._total)
        path = self.storage.where("").rstrip("/")
        self.result = Rotated(path, self.state.archive, removed=self.state.removed)
        self._first = frozenset(self.state.parts)

    # -- what is to do

    def pending(self, *, signs: bool = False) -> list[tuple[PublicPart, tuple[Recipient, ...]]]:
        """The parts to encrypt again, in the order of the work, and to whom.

        ``signs``: whether new parts would be signed, where that is only planned. Raises
        PolicyRefused when the old ones are signed and the new ones would not be, or when new ones
        would be and readers refuse the old; KeyStateForbids, UsageError for public keys that are
        not known.
        """
        found, signs = [], signs or bool(self.sign)
        if signs:
            self._refuse_unsigned_after_signed()
        for part in self.state.ordered():
            # What an earlier run put and did not come to verify is made again.
            unfinished = not replaced_ids(part).isdisjoint(self.state.parts)
            if unfinished or part.id in self._left or self._is_done(part):
                continue
            envelope = part.own_envelope
            if part.commit.signatures and not signs:
                raise PolicyRefused(
                    f"part {part.id} of {self.storage.where('')} is signed, and the part in its"
                    " place would not be",
                    hint="sign the new parts with --sign KEY",
                )
            what = f"the envelope of part {part.id}"
            recipients = self.change.recipients(envelope, what, self.find)
            _profile_for(part, recipients)
            found.append((part, recipients))
        if signs and any(not part.commit.signatures for part, _ in found):
            # Readers refuse what is unsigned after what is signed: the signed ones grow backwards.
            found.reverse()
        return found

    def _refuse_unsigned_after_signed(self) -> None:
        """What readers refuse must not become signed content by the way."""
        parts = self.state.ordered()
        replaced = set[str]().union(*map(replaced_ids, parts))
        standing = (part.commit for part in parts if part.id not in replaced)
        for refusal in self.policy.unsigned_after_signed(standing).values():
            raise refusal

    def _is_done(self, part: PublicPart) -> bool:
        """Whether its root key is new enough, and only those have it who are meant to."""
        if part.envelope is None:
            return False
        # An envelope that was rotated since says when that was, not how old its root key is; one
        # that says to come from the future, that a clock was wrong.
        created, first = part.envelope.created, part.envelope.generation == 1
        first = first and self.started <= created <= now()
        new = bool(part.commit.replaces) and first
        # A part that others added meanwhile has a root key that nobody else has seen.
        added = part.id not in self._first
        return (new or added) and self.change.fits(part.envelope, f"part {part.id}")

    def wraps_to(self) -> set[str]:
        """The key ids that new root keys would be wrapped to. Raises as :meth:`pending`."""
        return {r.key_id for _, recipients in self.pending() for r in recipients}

    # -- doing it

    def run(self) -> Rotated:
        """Do it. A part that is damaged or not ours stays as it is: see the result's ``problems``.
        Any other error ends it: what is done stays done, and the next run goes on.

        Raises NoKeyFits, IntegrityError, PolicyRefused, Locked when another process is at it.
        """
        with self.storage.locked(layout.HEADER):
            settle(self.state, self._open)
            result = self.result
            for part in self.state.ordered():
                if part.envelope is not None:
                    result.met.update(part.envelope.key_ids)
            # What cannot be done is said before anything is written.
            size = sum(part.size for part, _ in self.pending())
            # A record first: a host that seals meanwhile to a key that goes is refused from now on.
            result.retired = retiring.retire(
                self.state,
                self.change,
                self.wraps_to,
                self._open,
                allow_retired=self.allow_retired,
                sign=self.sign,
                policy=self.policy,
            )
            with (
                processes_for(self.storage, size, self.jobs) as processes,
                ThreadPoolExecutor(self.jobs, "pqvault-reencrypt") as pool,
            ):
                engine = self.engine or processes or THREADS
                while pending := self.pending():
                    self._total = self._meter.done + 2 * sum(part.size for part, _ in pending)
                    in_order = self._must_keep_order([part for part, _ in pending])
                    for part, recipients in pending:
                        try:
                            self._renew(part, recipients, pool, engine)
                        except (IntegrityError, NoKeyFits) as error:
                            if in_order:
                                raise
                            self._leave(part, error)
                    # Parts that others committed while we were at it.
                    self._refresh()
            for part in self.state.ordered():
                if part.envelope is not None:
                    result.opens(part.envelope)
            note_open_logs(self.state, self.change, result)
            result.problems += self.state.problems
            result.removed = self.state.removed
        return result

    def _must_keep_order(self, parts: Sequence[PublicPart]) -> bool:
        """Whether one that stays as it is would be refused after those that are signed now."""
        return bool(self.sign) and any(not part.commit.signatures for part in parts)

    def _leave(self, part: PublicPart, error: PQVaultError) -> None:
        """It keeps none of the others from getting new keys: a key may be in the wrong hands."""
        self._left.add(part.id)
        self.result.problems.append(error)
        self._meter.stop.clear()

    def _refresh(self) -> None:
        self.state.refresh()
        self.state.refuse_rolled_back()

    def _open(self, part: PublicPart) -> RootKey:
        """Steps 2 to 6 of docs/format.md 5.2."""
        what = f"part {part.id}"
        envelope = part.own_envelope
        # (2) unwrap, (3) envelope MAC, (4) root, (5) commit MAC, (6) signatures
        key = RootKey.unwrap(envelope, self.keys.ring, f"the envelope of {what}")
        key.check_commit(part.commit, what)
        self.policy.check(part.commit, what)
        self.policy.check_envelope(envelope, f"the envelope of {what}")
        return key

    def _renew(
        self,
        part: PublicPart,
        recipients: tuple[Recipient, ...],
        pool: ThreadPoolExecutor,
        engine: Engine,
    ) -> None:
        """Put a new part in the place of one, and remove that."""
        old = self._open(part)
        self.keys.prove(recipients)
        profile = _profile_for(part, recipients)
        self._check_catalog(part)
        key = RootKey.generate(old.archive, self._new_id(part), profile)
        groups: dict[str, Envelope] = {}
        try:
            new = self._write(part, old, key, recipients, groups, pool, engine)
        except BaseException:
            self._meter.stop.set()
            give_up(self.storage, key.part)
            raise
        try:
            self._verify(new, key)
            check_unchanged(self.storage, old.archive, part, groups)
        except PQVaultError:
            take_back(self.storage, old, new, [part])
            raise
        self.state.refresh()
        remove_replaced(self.state, new, key)
        self.state.refuse_rolled_back()
        result = self.result
        result.rewrapped += 1
        result.copied += new.size
        result.wrapped |= {recipient.key_id for recipient in recipients}
        result.sights.append(new.sight)

    def _check_catalog(self, part: PublicPart) -> None:
        """Contents are not looked at; a catalog that no reader takes must not become a new one."""
        from pqvault.archive.part import OpenPart  # it imports pyarrow
        from pqvault.sealed import FrameCache

        opened = OpenPart(self.storage, part, self.keys.ring, FrameCache(), self.policy)
        try:
            opened.check_catalog()
        finally:
            opened.close()

    def _new_id(self, part: PublicPart) -> str:
        """In the place of the old one among the parts of its seq and time."""
        order = part.commit.order[:2]
        same = [p.id for p in self.state.parts.values() if p.commit.order[:2] == order]
        return id_in_place(part.id, same)

    def _write(
        self,
        part: PublicPart,
        old: RootKey,
        key: RootKey,
        recipients: tuple[Recipient, ...],
        groups: dict[str, Envelope],
        pool: ThreadPoolExecutor,
        engine: Engine,
    ) -> PublicPart:
        """``groups``: gets the envelopes of the old column groups."""
        commit, files = part.commit, list[PartFile]()

        def reseal(file: PartFile) -> PartFile:
            return engine.reencrypt(old, key, self.storage, file, commit.digest, self._meter.tell)

        self.storage.make_folder(f"parts/{key.part}/objects")
        envelope = key.envelope(recipients, created=now())
        envelopes = [sign_document(envelope, self.sign)]
        names = commit.files
        if commit.has_tables:
            names = tuple(file for file in names if object_number(file.name) >= 0)
            envelopes = self._write_tables(part, key, groups, files) + envelopes
        run_tasks(pool, self.jobs, iter(names), reseal, files.append, self._meter.stop)
        self._refresh()
        check_unchanged(self.storage, old.archive, part, groups)
        new = replace(
            commit,
            part=key.part,
            profile=key.profile.name,
            parents=self._parents(commit),
            replaces=tuple(sorted((*commit.replaces, (part.id, part.commit_digest)))),
            root=key.commit_id,
            sealed_to=tuple(recipient.key_id for recipient in recipients),
            files=tuple(sorted(files, key=lambda file: file.name)),
            signatures=(),
        )
        new = sign_document(key.sign_off(new), self.sign)
        put_part(self.storage, envelopes, new)
        return read_public(self.storage, key.archive, key.part)

    def _write_tables(
        self,
        part: PublicPart,
        key: RootKey,
        groups: dict[str, Envelope],
        files: list[PartFile],
    ) -> list[Envelope]:
        """The tables of a part and the catalog that names their files; the envelopes of their
        column groups."""
        from pqvault.rotation.tablerenewal import renew_part  # it imports pyarrow

        keys, listed = renew_part(
            self.storage, part, self.keys.ring, self.policy, key, self._meter.tell
        )
        files += listed
        groups |= {g: read_envelope(self.storage, key.archive, part.id, g) for g in keys}
        self.result.met |= {key_id for e in groups.values() for key_id in e.key_ids}
        return [self._group_envelope(part, groups[g], own) for g, own in keys.items()]

    def _group_envelope(self, part: PublicPart, old: Envelope, key: RootKey) -> Envelope:
        group = old.group
        what = f"the envelope of column group {group!r} of part {part.id}"
        recipients = self.change.recipients(old, what, self.find)
        self.keys.prove(recipients)
        envelope = key.envelope(recipients, created=now(), group=group)
        return sign_document(envelope, self.sign)

    def _parents(self, commit: Commit) -> tuple[tuple[str, str], ...]:
        """Those of the old part, or what took their place."""
        followers = successors(self.state.parts.values())
        found = {}
        for parent, digest in commit.parents:
            follower = followers.get((parent, digest))
            if follower is not None:
                parent, digest = follower.id, follower.commit_digest
            found[parent] = digest
        return tuple(sorted(found.items()))

    def _verify(self, new: PublicPart, key: RootKey) -> None:
        """Open a new part as a reader does, when one of us may; its files were read back before."""
        if not self.keys.ring.keys().isdisjoint(new.own_envelope.key_ids):
            key = self._open(new)
        key.check_commit(new.commit, f"part {new.id}")


def _profile_for(part: PublicPart, recipients: tuple[Recipient, ...]) -> Profile:
    """What the new root key of a part has. Raises UsageError."""
    profile = one_profile(recipients)
    if part.commit.digest not in profile.digests:
        raise UsageError(
            f"part {part.id} has digests of {part.commit.digest}, which the profile {profile}"
            " does not allow, and they are those of content that is not looked at here",
            hint="unseal it, and seal it to the new recipients",
        )
    return profile
