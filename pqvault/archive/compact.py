"""Compact: several parts that follow each other become one, which holds what they hold together.

Of their history only the last state is left. Parts that are large already, that hold tables, or
that others can open, stay as they are. The new part is read back, all of it, and compared with the
view of the old ones, before it is committed; then those are removed (docs/format.md 5.6).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from pqvault.archive import layout, retired
from pqvault.archive.archive import Archive
from pqvault.archive.committing import give_up, make_envelope, put_part
from pqvault.archive.deal import OBJECT_SIZE
from pqvault.archive.entryfile import EntryFile
from pqvault.archive.merged import (
    Row,
    digest_in,
    facts_of,
    gone_from,
    merged_table,
    rows_of,
    side_by_side,
    view_of,
)
from pqvault.archive.objects import SealOptions
from pqvault.archive.part import OpenPart
from pqvault.archive.partwriter import write_catalog
from pqvault.archive.prune import first_kept
from pqvault.archive.publicpart import public_of
from pqvault.archive.publicstate import PublicState
from pqvault.archive.recipients import FindRecipient, recipients_of
from pqvault.archive.repack import Packed, Places, jobs_of, needed_of, pack
from pqvault.archive.replacement import id_in_place, successors
from pqvault.archive.settling import check_unchanged, remove_replaced, settle, take_back
from pqvault.archive.tasks import content_tasks, default_jobs, run_tasks
from pqvault.errors import IntegrityError, Locked, PolicyRefused, PQVaultError
from pqvault.format.catalog import entries_of
from pqvault.format.commit import Commit, PartFile
from pqvault.format.entries import Entry, Kind
from pqvault.keys import Identity, Recipient
from pqvault.memory import Memory
from pqvault.policy import ANYBODY, Policy
from pqvault.progress import Meter, Progress, ignore
from pqvault.rootkey import RootKey
from pqvault.sealed.writer import DEFAULT_FRAME, DEFAULT_LEVEL
from pqvault.signing import SigningKey, sign_document
from pqvault.storage import Storage

__all__ = ["LARGE", "CompactReport", "Compaction"]

LARGE: Final = 1024**3  # bytes: a part of so much is not worth writing again
_ROWS: Final = 200_000  # entries of a new part, whose catalog is made in memory


@dataclass(slots=True)
class CompactReport:
    """``parts``: how many there were, ``left``: how many are left. ``new``: ids of those made.

    ``tables``: ids of parts that were left alone because they hold tables.
    ``before``, ``after``: sealed bytes of what was merged, and of what it was merged into.
    ``copied``, ``recompressed``: bytes of content, in frames that were copied or made anew.
    """

    archive: str = ""
    dry_run: bool = False
    parts: int = 0
    left: int = 0
    merged: list[list[str]] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    before: int = 0
    after: int = 0
    copied: int = 0
    recompressed: int = 0


@dataclass(slots=True)
class Compaction:
    """One run. ``find``: a public key by its key id, for an envelope holds none. ``keep_last``,
    ``keep_within`` (seconds): the states that stay, as of `prune`; without both the newest.

    ``large``: sealed bytes; larger parts stay. ``sign``: needed where signed parts are merged.
    """

    storage: Storage
    identities: Sequence[Identity]
    find: FindRecipient
    keep_last: int | None = None
    keep_within: float | None = None
    large: int = LARGE
    sign: Sequence[SigningKey] = ()
    policy: Policy = ANYBODY
    memory: Memory | None = None
    jobs: int = field(default_factory=default_jobs)
    dry_run: bool = False
    progress: Progress = ignore
    report: CompactReport = field(default_factory=CompactReport, init=False)
    _meter: Meter = field(init=False)
    _total: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._meter = Meter("compact", self.progress, lambda: self._total)

    def run(self) -> CompactReport:
        """Do it. What was merged by then stays merged when a later merge fails.

        Raises PolicyRefused, UsageError for public keys that are not known, Locked.
        """
        self.report = CompactReport(self.storage.where(""), self.dry_run)
        if self.dry_run:
            with self._opened() as archive:
                self._tell(archive)
            return self.report
        with self.storage.locked(layout.HEADER):
            state = PublicState(self.storage, self.memory)
            with self._opened() as archive:
                settle(state, archive.open_key)
            with (
                self._opened() as archive,
                ThreadPoolExecutor(self.jobs, "pqvault-compact") as pool,
            ):
                groups = self._tell(archive)
                if self.sign:
                    # Readers refuse what is unsigned after what is signed: that grows backwards.
                    groups.reverse()
                for first, last in groups:
                    self._merge(state, archive, first, last, pool)
            if self.memory is not None:
                with self._opened():  # what was made is remembered
                    pass
        return self.report

    def _opened(self) -> Archive:
        return Archive(self.storage, self.identities, memory=self.memory, policy=self.policy)

    def _tell(self, archive: Archive) -> list[tuple[int, int]]:
        groups, report = self._groups(archive.parts), self.report
        report.parts = len(archive.parts)
        report.left = report.parts - sum(last - first for first, last in groups)
        report.merged = [[p.id for p in archive.parts[a : b + 1]] for a, b in groups]
        self._check_signatures(archive.parts, groups)
        self._check_recipients(archive.parts[last] for _, last in groups)
        return groups

    def _check_recipients(self, parts: Iterable[OpenPart]) -> None:
        """Raise PolicyRefused when a new part would be sealed to a key that is retired."""
        gone = retired.retired_ids(self.storage)
        for part in parts:
            opens = part.public.envelope.key_ids if part.public.envelope else ()
            for key_id in (k for k in opens if k in gone):
                raise PolicyRefused(
                    f"{key_id} is retired in {self.storage.where('')}, and opens part {part.id}",
                    hint=f"take it off with `pqvault rotate --remove {key_id}`",
                )

    def _check_signatures(
        self, parts: Sequence[OpenPart], groups: Sequence[tuple[int, int]]
    ) -> None:
        """Raise PolicyRefused when signed parts would become an unsigned one, and when unsigned
        ones would become signed while a later one stays unsigned, which readers refuse."""
        merged = {index for first, last in groups for index in range(first, last + 1)}
        if any(parts[i].commit.signatures for i in merged) and not self.sign:
            raise PolicyRefused(
                f"parts of {self.storage.where('')} are signed, and the part in their place would"
                " not be",
                hint="sign it with --sign KEY",
            )
        grown = min((i for i in merged if not parts[i].signed), default=len(parts))
        for index, part in enumerate(parts):
            if self.sign and index > grown and not (index in merged or part.signed):
                raise PolicyRefused(
                    f"part {part.id} of {self.storage.where('')} is not signed, and would come"
                    " after the new part, which is",
                    hint="sign all parts with `pqvault reencrypt --sign KEY`",
                )

    def _groups(self, parts: Sequence[OpenPart]) -> list[tuple[int, int]]:
        """First and last index of runs of parts that may become one."""
        until = first_kept(parts, self.keep_last or 1, self.keep_within)
        groups: list[tuple[int, int]] = []
        first: int | None = None
        size = rows = 0
        for index, part in enumerate(parts[: until + 1]):
            tables = part.commit.has_tables
            self.report.tables += [part.id] if tables else []
            fits = part.public.size < self.large and not tables
            size += part.public.size
            rows += part.catalog.rows
            if first is not None and not (
                fits and _alike(parts[first], part) and size < self.large and rows <= _ROWS
            ):
                groups.append((first, index - 1))
                first = None
            if fits and first is None:
                first, size, rows = index, part.public.size, part.catalog.rows
        if first is not None:
            groups.append((first, until))
        return [(a, b) for a, b in groups if b > a]

    # -- one group

    def _merge(
        self,
        state: PublicState,
        archive: Archive,
        first: int,
        last: int,
        pool: ThreadPoolExecutor,
    ) -> None:
        parts = archive.parts
        group, older = parts[first : last + 1], parts[:first]
        recipients = recipients_of(group[-1].public, self.find)
        rows = list(rows_of(view_of(group)))
        gone = list(gone_from(older, group)) if older else []
        key = RootKey.generate(archive.id, self._new_id(state, group[-1]), group[-1].key.profile)
        try:
            packed = self._pack(group, rows, key, pool)
            files = [one.file for one in packed if one.file is not None]
            digest = group[0].commit.digest
            table = merged_table(group, rows, gone, Places(packed))
            self.storage.make_folder(f"parts/{key.part}")
            files.append(write_catalog(table, key, self.storage, digest, files))
            envelope = make_envelope(key, recipients, self.sign)
            self._refresh(state, parts)
            commit = self._commit(state, group, key, files, recipients, bool(gone))
            new = OpenPart(
                self.storage,
                public_of(commit, envelope),
                archive.keyring,
                archive.cache,
                self.policy,
            )
            self._compare(older, group, new, pool)
            put_part(self.storage, [envelope], commit)
        except BaseException:
            self._meter.stop.set()
            give_up(self.storage, key.part)
            raise
        try:
            self._refresh(state, parts, key.part)
            for part in group:
                check_unchanged(self.storage, archive.id, part.public, {})
        except PQVaultError:
            old = [part.public for part in group]
            take_back(self.storage, group[-1].key, new.public, old)
            raise
        remove_replaced(state, state.parts[key.part], key)
        report = self.report
        report.new.append(key.part)
        report.before += sum(part.public.size for part in group)
        report.after += new.public.size
        report.copied += sum(one.copied for one in packed)
        report.recompressed += sum(one.recompressed for one in packed)

    def _refresh(self, state: PublicState, parts: Sequence[OpenPart], *ours: str) -> None:
        """Raises Locked when another writer put a part among those that were read."""
        state.refresh()
        state.refuse_rolled_back()
        known = {*self.report.new, *ours, *(part.id for part in parts)}
        for part in state.ordered():
            if part.id not in known and part.commit.order < parts[-1].commit.order:
                raise Locked(f"part {part.id} was put among older ones just now")

    def _new_id(self, state: PublicState, last: OpenPart) -> str:
        order = last.commit.order[:2]
        return id_in_place(
            last.id, [p.id for p in state.parts.values() if p.commit.order[:2] == order]
        )

    def _pack(
        self, group: Sequence[OpenPart], rows: Sequence[Row], key: RootKey, pool: ThreadPoolExecutor
    ) -> list[Packed]:
        needed = []
        for index, part in enumerate(group):
            extents = (
                (e.object, e.offset, e.length)
                for where, entry in rows
                if where == index
                for e in entry.extents
            )
            needed += list(needed_of(part, extents, f"the catalog of part {part.id}"))
        self._total += sum(one.size for one in needed)
        options = SealOptions(DEFAULT_LEVEL, DEFAULT_FRAME, group[0].commit.digest)
        packed: list[Packed] = []
        self.storage.make_folder(f"parts/{key.part}/objects")
        jobs = jobs_of(needed, OBJECT_SIZE)

        def do(job: Any) -> Packed:
            return pack(job, key, self.storage, options, self._meter.tell)

        run_tasks(pool, self.jobs, jobs, do, packed.append, self._meter.stop)
        return packed

    def _commit(
        self,
        state: PublicState,
        group: Sequence[OpenPart],
        key: RootKey,
        files: Sequence[PartFile],
        recipients: Sequence[Recipient],
        removes: bool,
    ) -> Commit:
        last, ids = group[-1].commit, {part.id for part in group}
        followers = successors(state.parts.values())
        parents: dict[str, str] = {}
        replaces: dict[str, str] = {}
        for part in group:
            replaces |= dict(part.commit.replaces) | {part.id: part.public.commit_digest}
            for parent, digest in part.commit.parents:
                follower = followers.get((parent, digest))
                if follower is not None and follower.id not in ids:
                    parents[follower.id] = follower.commit_digest
                elif follower is None and parent not in ids:
                    parents[parent] = digest
        seal = removes or any(part.commit.kind == "seal" for part in group)
        commit = Commit(
            archive=key.archive,
            part=key.part,
            seq=last.seq,
            created=last.created,
            profile=key.profile.name,
            digest=last.digest,
            kind="seal" if seal else "append",
            parents=tuple(sorted(parents.items())),
            replaces=tuple(sorted(replaces.items())),
            root=key.commit_id,
            sealed_to=tuple(recipient.key_id for recipient in recipients),
            files=tuple(sorted(files, key=lambda file: file.name)),
        )
        return sign_document(key.sign_off(commit), self.sign)

    # -- is it the same?

    def _compare(
        self,
        older: Sequence[OpenPart],
        group: Sequence[OpenPart],
        new: OpenPart,
        pool: ThreadPoolExecutor,
    ) -> None:
        """Raise IntegrityError unless the view is the same with the new part in their place, and
        all content of it has its digest."""
        before, after = view_of([*older, *group]), view_of([*older, new])
        for path, one, other in side_by_side(before, after):
            if facts_of(one) != facts_of(other):
                raise IntegrityError(f"{path!r} is not the same in the new part {new.id}")

        def check(task: list[tuple[OpenPart, Entry]]) -> None:
            for part, entry in task:
                file = EntryFile(part, entry)
                digest = file.digest(self._meter.check)
                if entry.digest is not None:
                    file.check(digest)
                elif digest != digest_in(before, entry.path):
                    raise IntegrityError(f"{file.name} is not the same in the new part {new.id}")

        def files() -> Iterator[tuple[OpenPart, Entry]]:
            for batch in new.batches():
                for entry in entries_of(batch):
                    if entry.kind == Kind.FILE:
                        yield new, entry

        run_tasks(pool, self.jobs, content_tasks(files()), check, _nothing, self._meter.stop)


def _nothing(_: None) -> None:
    pass


def _alike(one: OpenPart, other: OpenPart) -> bool:
    """Whether two parts may become one: nobody opens it who could not open both."""

    def facts(part: OpenPart) -> tuple[object, ...]:
        envelope = part.public.envelope
        members = frozenset(envelope.key_ids) if envelope else frozenset()
        return part.commit.digest, part.commit.profile, part.signed, members

    return facts(one) == facts(other)
