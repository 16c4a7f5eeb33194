"""Unseal: write what an archive holds into a folder, checked against its digests.

Entries go to tasks of about 8 MiB in the order of their objects, so each frame is decoded
once and several tasks work on one object side by side.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby, takewhile
from operator import itemgetter
from pathlib import Path
from typing import Final

from pqvault.archive.archive import Archive
from pqvault.archive.engine import ExtractingEngine
from pqvault.archive.entryfile import named
from pqvault.archive.extract import Extractor, Links, TargetFull
from pqvault.archive.extraction import Content
from pqvault.archive.globs import Globs, nothing_matches
from pqvault.archive.ownfolder import check_target
from pqvault.archive.part import OpenPart
from pqvault.archive.processes import Processes, processes_for
from pqvault.archive.survey import Survey, below, survey_of
from pqvault.archive.tableentry import has_content
from pqvault.archive.tasks import TASK_SIZE, Located, content_tasks, jobs_of, run_tasks
from pqvault.archive.unsealtables import Tables
from pqvault.errors import PQVaultError, UsageError
from pqvault.format.catalog import entries_of
from pqvault.format.commit import CATALOG
from pqvault.format.entries import Entry, Extent, Kind
from pqvault.names import printable
from pqvault.progress import Meter, Progress, ignore

__all__ = ["UnsealReport", "unseal"]

_BACKLOG: Final = 2  # tasks of small files, of 8 MiB, that may wait to be written
_FAR: Final = 2  # tasks that a worker is given at once
_LONG: Final = 256 * 1024  # bytes of catalogs, sealed: reading them takes as long as a start


@dataclass(slots=True)
class UnsealReport:
    """What an unseal did. ``files``: tables among them. Sizes in bytes.

    ``skipped`` and ``failed`` name paths and reasons.
    """

    target: str = ""
    files: int = 0
    folders: int = 0
    links: int = 0
    tables: int = 0
    size: int = 0
    skipped: list[str] = field(default_factory=list)
    failed: list[PQVaultError] = field(default_factory=list)


def unseal(
    archive: Archive,
    target: Path | None,
    globs: Sequence[str] = (),
    *,
    force: bool = False,
    preserve_special: bool = False,
    links: Links = "inside",
    jobs: int | None = None,
    engine: ExtractingEngine | None = None,
    progress: Progress = ignore,
) -> UnsealReport:
    """Extract the entries that ``globs`` match (all when there are none) below ``target``.

    Files appear whole and checked, or not at all. An entry that fails is in the report's
    ``failed`` and the rest goes on; a full disk ends the run. ``target``: None for ``./NAME``.
    ``engine``: whose workers write the files; None for processes of our own when it is 64 MiB or
    more, else for threads here.
    """
    selected = Globs(globs, listed=True)
    inner = b""
    if target is None:
        target = _default_target(archive)
        inner = _only_folder(archive, os.fsencode(target.name))
    check_target(archive.storage, target)
    report = UnsealReport(str(target))
    jobs = jobs_of(jobs, archive.storage.requests)
    with ExitStack() as starting:
        survey, share, processes = _begin(archive, selected, inner, jobs, engine, starting)
        roots: list[Entry] = []
        tables = Tables(archive, inner, selected)

        with (
            Extractor(
                target,
                force=force,
                preserve_special=preserve_special,
                links=links,
                link_sources=survey.sources,
            ) as extractor,
            starting.pop_all(),  # workers have ended before the extractor has
        ):
            workers = engine or processes
            run = _Run(extractor, report, survey, jobs, progress, tables, workers, share)
            run.run(_moved(_wanted(archive, survey, selected), inner, roots))
            if processes is not None:
                processes.dismiss()  # they end while folders get their times
            end = extractor.finish()
    for root in roots:
        os.chmod(target, root.mode & 0o777)
        os.utime(target, ns=(root.mtime_ns, root.mtime_ns))
    report.files, report.folders = end.files + end.hardlinks, end.folders
    report.links, report.size = end.symlinks, end.bytes
    report.skipped += [f"{printable(s.path)}: {s.reason}" for s in end.skipped]
    report.failed += end.failures
    found = end.files + end.folders + end.symlinks + end.hardlinks
    found += len(report.skipped) + len(roots)
    if (globs or archive.problems) and not found and not report.failed:
        extractor.remove_made_target()  # else it would stand in the way of the next try
        if not archive.problems:  # else it may be in what could not be read
            raise nothing_matches(globs)
    if found and not archive.problems:
        report.failed += [nothing_matches([glob]) for glob in selected.unmatched]
    return report


def _begin(
    archive: Archive,
    globs: Globs,
    inner: bytes,
    jobs: int,
    engine: ExtractingEngine | None,
    starting: ExitStack,
) -> tuple[Survey, int, Processes | None]:
    """What there is to do; the size of files above which they are read by several threads here;
    and processes, where they are worth their start."""
    start = partial(processes_for, archive.storage, jobs=jobs)
    processes = None
    if engine is None and not globs and _file_sizes(archive, CATALOG) > _LONG:
        # Now: by the time that the catalogs are read they have begun.
        processes = starting.enter_context(start(_file_sizes(archive, "objects/")))
    survey = survey_of(archive, globs, inner, jobs)
    if engine is not None:
        return survey, survey.total, None
    share = survey.total // jobs
    if processes is None:
        far = survey.total - sum(size for size in survey.largest if size > share)
        processes = starting.enter_context(start(far))
    return survey, share, processes


def _file_sizes(archive: Archive, prefix: str) -> int:
    """Bytes, sealed, of the files of all parts whose names begin so."""
    files = (file for part in archive.view.parts for file in part.commit.files)
    return sum(file.size for file in files if file.name.startswith(prefix))


def _default_target(archive: Archive) -> Path:
    name = Path(archive.storage.where("")).name
    target = Path(name.removesuffix(".pqv"))
    if os.path.lexists(target):
        raise UsageError(
            f"./{target} exists, and nothing is written over it",
            hint="name another folder with -o",
        )
    return target


def _only_folder(archive: Archive, name: bytes) -> bytes:
    """``name`` when all that the archive holds is one folder of that name, else b""."""
    entry = archive.view.find(name)
    if entry is None or entry[1].kind != Kind.FOLDER:
        return b""
    inside = name + b"/"
    for batch in archive.batches():
        if not all(p == name or p.startswith(inside) for p in batch.column(0).to_pylist()):
            return b""
    return name


def _moved(entries: Iterator[Located], folder: bytes, roots: list[Entry]) -> Iterator[Located]:
    """Entries with ``folder`` cut off their paths; the folder's own goes to ``roots``."""
    for part, entry in entries:
        if not folder:
            yield part, entry
        elif entry.path == folder:
            roots.append(entry)
        else:
            link = entry.link
            if link is not None and entry.kind == Kind.HARDLINK:
                link = below(link, folder)
            yield part, replace(entry, path=below(entry.path, folder), link=link)


def _wanted(archive: Archive, survey: Survey, globs: Globs) -> Iterator[Located]:
    parts = archive.view.parts
    for batch, where in survey.rows:
        batch, where = globs.select(batch, where)
        for entry, index in zip(entries_of(batch), where, strict=True):
            yield parts[index], entry


def _together(tasks: Iterator[list[Located]]) -> Iterator[list[Located]]:
    """A few tasks as one, for a worker opens the objects for each; a large file ends one, so that
    workers have as much to do each."""
    several: list[Located] = []
    count = 0
    for task in tasks:
        several += task
        count += 1
        if count == _FAR or task[0][1].size > TASK_SIZE:
            yield several
            several, count = [], 0
    if several:
        yield several


def _ignore(_: object) -> None:
    """Tasks have no result."""


class _Run:
    def __init__(
        self,
        extractor: Extractor,
        report: UnsealReport,
        survey: Survey,
        jobs: int,
        progress: Progress,
        tables: Tables,
        workers: ExtractingEngine | None,
        share: int,
    ) -> None:
        total = survey.total if survey.known else None
        self._meter = Meter("unseal", progress, lambda: total)
        self._workers = workers  # None: all is done by threads here
        self._share = share  # bytes: larger files are not for workers
        self._extractor = extractor
        self._report = report
        self._sources = survey.sources  # paths that hard links name
        self._firsts: dict[bytes, tuple[str, tuple[Extent, ...]]] = {}
        self._jobs = jobs
        self._table_files = tables
        self._tables: list[bytes] = []
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._ready: deque[list[tuple[Entry, memoryview]]] = deque()  # decoded, to be written

    def run(self, entries: Iterator[Located]) -> None:
        hard: list[Located] = []
        tasks = content_tasks(self._files(entries, hard))
        do = self._task
        if self._workers is not None:
            tasks, do = _together(tasks), partial(self._far, self._workers)
        with ThreadPoolExecutor(self._jobs, "pqvault-unseal") as pool:
            run_tasks(pool, self._jobs, tasks, do, _ignore, self._meter.stop)
        for part, entry in hard:
            self._guard(partial(self._hardlink, part, entry))
        for path in self._tables:
            self._guard(partial(self._table, path))

    def _files(self, entries: Iterator[Located], hard: list[Located]) -> Iterator[Located]:
        """Folders and links are made on the way; hard links when all files are there."""
        for part, entry in entries:
            if entry.kind == Kind.TABLE and not has_content(entry):
                self._tables.append(entry.path)
            elif entry.kind in (Kind.FILE, Kind.TABLE):
                if entry.path in self._sources:
                    self._firsts[entry.path] = (part.id, entry.extents)
                yield part, entry
            elif entry.kind == Kind.HARDLINK:
                hard.append((part, entry))
            elif entry.kind == Kind.FOLDER:
                self._guard(partial(self._extractor.make_folder, entry))
            else:
                self._guard(partial(self._extractor.make_symlink, entry))

    def _table(self, path: bytes) -> None:
        files, meter = self._extractor.files, self._meter
        self._report.skipped += self._table_files.write(path, files, meter.check, meter.tell)
        self._report.tables += 1

    def _guard(self, do: Callable[[], object]) -> None:
        """Do one entry; what fails is kept for the report, but a full disk ends the run."""
        try:
            do()
        except TargetFull:
            raise
        except PQVaultError as error:
            self._failed(error)

    def _failed(self, error: PQVaultError) -> None:
        with self._lock:
            self._report.failed.append(error)

    def _task(self, task: list[Located]) -> None:
        ready: list[tuple[Entry, memoryview]] = []
        content = Content(self._extractor.files, self._meter.tell)
        for part, entry in task:
            if self._meter.stop.is_set():
                return
            self._guard(partial(self._take, content, part, entry, ready))
        # Small files are decoded side by side, but written by one thread at a time: that is all
        # system calls, and threads that take turns at the interpreter cost three times as much.
        # Whoever finds another one writing leaves it the work, and waits only when that is much.
        self._ready.append(ready)
        while (
            self._ready
            and not self._meter.stop.is_set()
            and self._writing.acquire(blocking=len(self._ready) > _BACKLOG)
        ):
            try:
                self._write_ready()
            finally:
                self._writing.release()

    def _take(
        self,
        content: Content,
        part: OpenPart,
        entry: Entry,
        ready: list[tuple[Entry, memoryview]],
    ) -> None:
        small = content.take(part, entry)
        if small is not None:
            ready.append((entry, small))

    def _write_ready(self) -> None:
        while self._ready:
            files = self._ready.popleft()
            wanted = takewhile(lambda _: not self._meter.stop.is_set(), files)
            self._extractor.files.write_files(wanted, self._failed)
            self._meter.tell(sum(entry.size for entry, _ in files))

    def _far(self, engine: ExtractingEngine, task: list[Located]) -> None:
        """Files on workers of an engine, which write them themselves."""
        if here := [located for located in task if located[1].size > self._share]:
            self._task(here)
            task = [located for located in task if located[1].size <= self._share]
        for part, located in groupby(task, itemgetter(0)):
            entries = self._extractor.prepare((entry for _, entry in located), self._failed)
            if entries:
                self._guard(partial(self._extract, engine, part, entries))

    def _extract(self, engine: ExtractingEngine, part: OpenPart, entries: list[Entry]) -> None:
        try:
            result = engine.extract(part, entries, self._extractor.place(), self._meter.tell)
        except TargetFull:
            raise
        except PQVaultError as lost:  # with a worker: nobody knows what it has written
            for entry in entries:
                self._failed(named(lost, printable(entry.path)))
            return
        missing = set(result.missing)
        self._extractor.note(e for number, e in enumerate(entries) if number not in missing)
        for error in result.failed:
            self._failed(error)

    def _hardlink(self, part: OpenPart, entry: Entry) -> None:
        # Its own extents are its content. It is another name of what was extracted only when
        # that is the very entry it was sealed with, not a later one under the same path.
        same = self._firsts.get(entry.link or b"") == (part.id, entry.extents)
        if not (same and self._extractor.make_hardlink(entry)):
            files = self._extractor.files
            small = Content(files, self._meter.tell).take(part, entry)
            if small is not None:
                files.write_small(entry, small)
                self._meter.tell(entry.size)
