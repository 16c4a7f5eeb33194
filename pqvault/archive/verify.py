"""Verify an archive: without a key every file against its commit, with one every byte."""

from __future__ import annotations

import random
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from pqvault.archive import layout, removal, retired
from pqvault.archive.archive import Archive
from pqvault.archive.checks import Checked
from pqvault.archive.engine import THREADS, Engine
from pqvault.archive.part import OpenPart
from pqvault.archive.publicpart import PublicPart, read_envelope
from pqvault.archive.publicstate import PublicState
from pqvault.archive.tableentry import has_content
from pqvault.archive.tasks import Located, jobs_of, object_tasks, run_tasks
from pqvault.archive.verify_tables import TableTask, table_tasks, unnamed
from pqvault.errors import (
    FormatError,
    IntegrityError,
    NotFound,
    PolicyRefused,
    PQVaultError,
    UsageError,
)
from pqvault.format.catalog import check_ancestors, entries_of
from pqvault.format.commit import CATALOG, Commit, PartFile, is_table, object_number
from pqvault.format.entries import HOLE, Entry, Kind
from pqvault.format.envelope import Envelope
from pqvault.memory import Memory
from pqvault.names import printable
from pqvault.policy import ANYBODY, Policy
from pqvault.progress import Meter, Progress, ignore
from pqvault.storage import Storage

__all__ = ["VerifyReport", "verify"]

Signed = TypeVar("Signed", Commit, Envelope)


@dataclass(slots=True)
class VerifyReport:
    """What a verification found. ``level``: ``intact`` without a key, ``sealed`` with one;
    ``signed_by``: the trusted signers that have signed every part, ``wrapped_by``: every envelope.

    ``problems`` names every bad object, not the first. Sizes in bytes. ``tables``: files of tables
    that were read whole; ``unread``: column groups of which only digests were checked, because
    no identity fits.
    """

    archive: str = ""
    level: str = "intact"
    sample: float = 1.0
    parts: int = 0
    objects: int = 0
    entries: int = 0
    tables: int = 0
    size: int = 0
    signed_by: list[str] = field(default_factory=list)
    wrapped_by: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    problems: list[PQVaultError] = field(default_factory=list)


def verify(
    storage: Storage,
    archive: Archive | None,
    *,
    sample: float = 1.0,
    jobs: int | None = None,
    memory: Memory | None = None,
    policy: Policy = ANYBODY,
    engine: Engine = THREADS,
    progress: Progress = ignore,
) -> VerifyReport:
    """Check an archive. ``archive``: opened with identities and not strict, or None for a check
    without a key; the signatures that ``policy`` asks for are checked in either case.
    ``sample``: the share of objects looked at, drawn anew each time. ``engine``: where files and
    contents are checked, ``jobs`` at once; catalogs and tables are read here.

    Nothing is raised for what is bad: it is listed. A report without problems of level
    ``intact`` says nothing about an attacker, who can write digests too.
    """
    state = PublicState(storage, memory)
    threads = jobs_of(jobs, storage.requests)
    run = _Verify(state, archive, sample, threads, policy, engine, progress)
    run.check_signatures()
    return run.run()


class _Verify:
    def __init__(
        self,
        state: PublicState,
        archive: Archive | None,
        sample: float,
        jobs: int,
        policy: Policy,
        engine: Engine,
        progress: Progress,
    ) -> None:
        self._engine = engine
        self._storage = storage = state.storage
        self._policy = policy
        self._archive = archive
        self._jobs = jobs
        self._state = state
        self.report = VerifyReport(storage.where(""), sample=sample)
        self._lock = threading.Lock()
        self._damaged: set[tuple[str, int]] = set()  # (part, object) named already
        self._used = (array("q"), array("q"), array("q"))  # object, offset, end of each extent
        self._tables: list[Located] = []
        self._sound: set[int] = set()  # objects that were read whole with their content
        self._unsound: list[PQVaultError] = []  # what is wrong with content
        self._chosen = self._choose(sample)
        self._files: dict[str, list[PartFile]] = {}  # of each part, those that were chosen
        for part, file in self._chosen:
            self._files.setdefault(part.id, []).append(file)
        total = sum(file.size for _, file in self._chosen)
        self._meter = Meter("verify", progress, lambda: total)

    def _choose(self, sample: float) -> list[tuple[PublicPart, PartFile]]:
        files = [(part, file) for part in self._state.ordered() for file in part.commit.files]
        if not 0 <= sample <= 1:
            raise UsageError(f"a sample of {sample} is not possible", hint="give a share, 0 to 1")
        if sample == 1:
            return files
        count = max(1, round(len(files) * sample)) if files else 0
        chosen = set(random.SystemRandom().sample(range(len(files)), count))
        return [file for index, file in enumerate(files) if index in chosen]

    def check_signatures(self) -> None:
        """Each part's signatures, which need no key."""
        policy, parts = self._policy, self._state.ordered()
        self.report.problems += policy.unsigned_after_signed(part.commit for part in parts).values()
        commits, envelopes = [], []
        names = (
            layout.envelope_names(self._storage)
            if any(part.commit.has_tables for part in parts)
            else {}
        )
        for part in parts:
            what = f"part {part.id}"
            commits.append(self._signers(policy.check, part.commit, what))
            if part.envelope is not None:
                of_part = f"the envelope of {what}"
                envelopes.append(self._signers(policy.check_envelope, part.envelope, of_part))
            for group in self._groups_of(part, names.get(part.id, ())):
                of_group = f"the envelope of column group {group.group!r} of {what}"
                envelopes.append(self._signers(policy.check_envelope, group, of_group))
        self.report.signed_by = _in_all(commits)
        self.report.wrapped_by = _in_all(envelopes)

    def _groups_of(self, part: PublicPart, names: Iterable[str]) -> Iterator[Envelope]:
        """The envelopes of a part's column groups, which only parts with tables have."""
        if not part.commit.has_tables:
            return
        for group in filter(None, (name.partition(".")[2] for name in names)):
            try:
                yield read_envelope(self._storage, self._state.archive, part.id, group)
            except PQVaultError as error:
                self.report.problems.append(error)

    def _signers(
        self, check: Callable[[Signed, str], tuple[str, ...]], document: Signed, what: str
    ) -> set[str]:
        try:
            return set(check(document, what))
        except PolicyRefused as error:
            self.report.problems.append(error)
            return set()

    def run(self) -> VerifyReport:
        report = self.report
        report.parts = len(self._state.parts)
        report.objects = len(self._chosen)
        report.problems += self._state.problems
        opened: dict[str, OpenPart] = {}
        if self._archive is not None:
            report.level = "sealed"
            report.problems += self._archive.problems
            opened = {part.id: part for part in self._archive.parts}
        for part in self._state.ordered():
            if part.envelope is None and self._archive is None:
                report.problems.append(IntegrityError(f"the envelope of part {part.id} is missing"))
        report.problems += retired.problems(
            self._storage, self._state.archive, opened, self._policy
        )
        removed = self._state.removed
        report.problems += removal.problems(self._storage, self._state.archive, removed, opened)
        with ThreadPoolExecutor(self._jobs, "pqvault-verify") as pool:
            files = (
                (part, file, opened.get(part.id))
                for part, file in self._chosen
                if part.id not in opened or object_number(file.name) < 0
            )
            run_tasks(pool, self._jobs, files, self._check_file, self._collect, self._meter.stop)
            for open_part in opened.values():
                self._check_part(open_part, pool)
        # With a key, some of what needs none is met again.
        report.problems = list({error.message: error for error in report.problems}.values())
        return report

    def _check_part(self, part: OpenPart, pool: ThreadPoolExecutor) -> None:
        """Its content, its objects, its tables. An object is read once for all that there is to
        look at; one that turns out bad once more, so that it is named for what it is."""
        self._sound, self._unsound = set(), []
        # On a disk the objects of a large file are checked side by side, and read twice for it.
        tasks = object_tasks(self._catalog(part), spread=self._storage.requests > 1)
        run_tasks(pool, self._jobs, tasks, self._check_contents, self._note, self._meter.stop)
        files = self._files.get(part.id, [])
        left = (
            (part.public, file, part)
            for file in files
            if (number := object_number(file.name)) >= 0 and number not in self._sound
        )
        run_tasks(pool, self._jobs, left, self._check_file, self._collect, self._meter.stop)
        self.report.problems += self._unsound
        run_tasks(pool, self._jobs, self._gaps(part), self._decode, self._collect, self._meter.stop)
        self.report.problems += unnamed(part, self._tables)
        names = {file.name for file in files}
        wanted = table_tasks(self._tables, names, self.report.problems, self.report.unread)
        run_tasks(pool, self._jobs, wanted, self._read_table, self._collect, self._meter.stop)

    def _collect(self, problems: list[PQVaultError]) -> None:
        self.report.problems += problems

    def _note(self, checked: Checked) -> None:
        self._sound.update(checked.sound)
        self._unsound += checked.problems

    # -- files as they lie in storage ------------------------------------------------------

    def _check_file(self, item: tuple[PublicPart, PartFile, OpenPart | None]) -> list[PQVaultError]:
        part, file, opened = item
        name = layout.part_file(part.id, file.name)
        try:
            self._check_sealed(part, file, opened)
            return []
        except NotFound:  # of a store, while it was read
            problem: PQVaultError = IntegrityError(f"{name} is missing")
        except PQVaultError as error:
            problem = error
        with self._lock:
            self._damaged.add((part.id, object_number(file.name)))
        if file.name == CATALOG and any(name in told.message for told in self.report.problems):
            return []  # opening the part met it first
        return [problem]

    def _check_sealed(self, part: PublicPart, file: PartFile, opened: OpenPart | None) -> None:
        """Digest and size against the commit; with the key, every chunk too."""
        # A table file has a key of its own kind; it is read when the catalog tells of it.
        key = opened.key if opened is not None and not is_table(file.name) else None
        digest = part.commit.digest
        self._engine.check_file(self._storage, part.id, file, digest, key, self._meter.tell)

    # -- what is in them -------------------------------------------------------------------

    def _catalog(self, part: OpenPart) -> Iterator[Located]:
        """Every entry of a part, also those that a later part replaced; checks the catalog."""
        chosen = {object_number(file.name) for file in self._files.get(part.id, ())} | {HOLE}
        self._used = (array("q"), array("q"), array("q"))
        self._tables = []
        try:
            for batch in check_ancestors(part.batches(), f"the catalog of part {part.id}"):
                for entry in entries_of(batch):
                    self.report.entries += 1
                    self._check_hard_link(part, entry)
                    if entry.kind == Kind.TABLE:
                        self._tables.append((part, entry))
                    elif entry.kind != Kind.FILE:
                        continue
                    for extent in entry.extents:
                        for column, value in zip(
                            self._used,
                            (extent.object, extent.offset, extent.offset + extent.length),
                            strict=True,
                        ):
                            column.append(value)
                    if entry.kind == Kind.TABLE and not has_content(entry):
                        continue
                    if all(extent.object in chosen for extent in entry.extents):
                        self.report.size += entry.size
                        yield part, entry
        except PQVaultError as error:
            self.report.problems.append(error)

    def _gaps(self, part: OpenPart) -> Iterator[tuple[OpenPart, int, list[tuple[int, int]]]]:
        """What no entry uses of each object that was chosen: (part, object, ranges of content)."""
        numbers = {object_number(file.name) for file in self._files.get(part.id, ())}
        left = (number for number in numbers - self._sound if number >= 0)
        used: dict[int, list[tuple[int, int]]] = {number: [] for number in left}
        for number, start, end in zip(*self._used, strict=True):
            if number in used:
                used[number].append((start, end))
        for number, ranges in sorted(used.items()):
            if (part.id, number) in self._damaged:
                continue
            yield part, number, ranges

    def _decode(self, item: tuple[OpenPart, int, list[tuple[int, int]]]) -> list[PQVaultError]:
        """Frames that no entry reaches into are decoded all the same."""
        part, number, ranges = item
        try:
            self._engine.check_frames(part, number, sorted(ranges), self._meter.check)
        except PQVaultError as error:
            return [error]
        return []

    def _read_table(self, task: TableTask) -> list[PQVaultError]:
        try:
            size = task.read(self._meter.check)
        except PQVaultError as error:
            return [error]
        with self._lock:
            self.report.size += size
            self.report.tables += 1
        return []

    def _check_hard_link(self, part: OpenPart, entry: Entry) -> None:
        if entry.kind != Kind.HARDLINK:
            return
        first = part.find(entry.link or b"")
        same = ("size", "mode", "mtime_ns", "digest", "extents")
        if first is None or first.kind != Kind.FILE:
            self._bad(part, entry, "is a hard link to what is no file of its part")
        elif any(getattr(first, name) != getattr(entry, name) for name in same):
            self._bad(part, entry, "is a hard link that differs from its first name")

    def _bad(self, part: OpenPart, entry: Entry, sentence: str) -> None:
        error = FormatError(f"{printable(entry.path)} in part {part.id} {sentence}")
        self.report.problems.append(error)

    def _check_contents(self, task: tuple[list[Located], frozenset[int]]) -> Checked:
        files, whole = task
        part = files[0][0]
        entries = [entry for _, entry in files]
        try:
            return self._engine.check_contents(part, entries, whole, self._meter.tell)
        except PQVaultError as error:  # of the engine: the rest is still worth a look
            return Checked([error], [])


def _in_all(signers: list[set[str]]) -> list[str]:
    return sorted(set.intersection(*signers)) if signers else []
