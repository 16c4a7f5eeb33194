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
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Final

from pqvault.archive.archive import Archive
from pqvault.archive.entryfile import EntryFile
from pqvault.archive.extract import Extractor, Links, TargetFull
from pqvault.archive.globs import Globs
from pqvault.archive.part import OpenPart
from pqvault.archive.tableentry import TableEntry, has_content
from pqvault.archive.tasks import Located, content_tasks, default_jobs, run_tasks
from pqvault.crypto import digest as digests
from pqvault.crypto.mac import equal
from pqvault.errors import NotFound, PQVaultError, UsageError
from pqvault.format.entries import HOLE, Entry, Extent, Kind
from pqvault.names import printable
from pqvault.progress import Progress, Report, ignore

__all__ = ["UnsealReport", "unseal"]

WHOLE: Final = 4 * 1024 * 1024  # bytes; a file up to this is decoded whole, then written
SMALL: Final = 64 * 1024  # bytes; such files are written by one thread at a time
_BACKLOG: Final = 2  # tasks of small files, of 8 MiB, that may wait to be written
_STEP: Final = 8 * 1024 * 1024  # bytes of a large file read at once, over several threads


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
    progress: Progress = ignore,
) -> UnsealReport:
    """Extract the entries that ``globs`` match (all when there are none) below ``target``.

    Files appear whole and checked, or not at all. An entry that fails is in the report's
    ``failed`` and the rest goes on; a full disk ends the run. ``target``: None for ``./NAME``.
    """
    selected = Globs(globs)
    inner = b""
    if target is None:
        target = _default_target(archive)
        inner = _only_folder(archive, os.fsencode(target.name))
    report = UnsealReport(str(target))
    sources = {_below(source, inner) for source in _link_sources(archive)}
    roots: list[Entry] = []
    with Extractor(
        target, force=force, preserve_special=preserve_special, links=links, link_sources=sources
    ) as extractor:

        def find_table(path: bytes) -> list[TableEntry]:
            return archive.find_table(inner + b"/" + path if inner else path)

        run = _Run(extractor, report, sources, jobs or default_jobs(), progress, find_table)
        run.run(_moved(_wanted(archive, selected), inner, roots))
        end = extractor.finish()
    for root in roots:
        os.chmod(target, root.mode & 0o777)
        os.utime(target, ns=(root.mtime_ns, root.mtime_ns))
    report.files, report.folders = end.files + end.hardlinks, end.folders
    report.links, report.size = end.symlinks, end.bytes
    report.skipped += [f"{printable(s.path)}: {s.reason}" for s in end.skipped]
    report.failed += end.failures
    found = end.files + end.folders + end.symlinks + end.hardlinks + len(report.skipped)
    if globs and not found and not report.failed:
        raise NotFound(
            f"nothing in the archive matches {' '.join(globs)}",
            hint="globs match whole paths, as `pqvault ls` prints them; `**` crosses `/`",
        )
    return report


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


def _below(path: bytes, folder: bytes) -> bytes:
    return path[len(folder) + 1 :] if folder else path


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
                link = _below(link, folder)
            yield part, replace(entry, path=_below(entry.path, folder), link=link)


def _wanted(archive: Archive, globs: Globs) -> Iterator[Located]:
    for part, entry in archive.located():
        if not globs or globs.match(entry.path):
            yield part, entry


def _link_sources(archive: Archive) -> set[bytes]:
    """The first names of hard links: only they need to be remembered."""
    sources = set()
    for batch in archive.batches():
        kinds = batch.column(1).to_pylist()
        if Kind.HARDLINK in kinds:
            rows = zip(kinds, batch.column(5).to_pylist(), strict=True)
            sources |= {link for kind, link in rows if kind == Kind.HARDLINK}
    return sources


class _Frames:
    """Small files of a task, of which most lie in the frame of the one before."""

    def __init__(self) -> None:
        self._part: OpenPart | None = None
        self._object = HOLE
        self._start = 0
        self._content = memoryview(b"")

    def small(self, part: OpenPart, entry: Entry) -> memoryview | None:
        """The content of a small file, checked; None for what takes more than a slice of a frame,
        and for what is wrong: then the long way finds out what."""
        if not 0 < entry.size <= SMALL or len(entry.extents) != 1:
            return None
        extent = entry.extents[0]
        begin = extent.offset - self._start
        held = part is self._part and extent.object == self._object
        if not (held and 0 <= begin <= len(self._content) - extent.length):
            if not self._load(part, extent):
                return None
            begin = extent.offset - self._start
            if begin + extent.length > len(self._content):
                return None
        content = self._content[begin : begin + extent.length]
        wanted = entry.digest
        if wanted is not None and not equal(wanted, digests.of(content, part.commit.digest)):
            return None
        return content

    def _load(self, part: OpenPart, extent: Extent) -> bool:
        if extent.object == HOLE:
            return False
        try:
            reader = part.reader(extent.object)
            found = reader.frame(extent.offset) if extent.offset < reader.size else None
        except PQVaultError:
            return False
        if found is None:
            return False
        self._part, self._object = part, extent.object
        self._start, self._content = found
        return True


class _Run:
    def __init__(
        self,
        extractor: Extractor,
        report: UnsealReport,
        sources: set[bytes],
        jobs: int,
        progress: Progress,
        find_table: Callable[[bytes], list[TableEntry]],
    ) -> None:
        self._extractor = extractor
        self._report = report
        self._sources = sources  # paths that hard links name
        self._firsts: dict[bytes, tuple[str, tuple[Extent, ...]]] = {}
        self._jobs = jobs
        self._find_table = find_table
        self._tables: list[bytes] = []
        self._progress = progress
        self._lock = threading.Lock()
        self._done = 0
        self._stop = threading.Event()
        self._writing = threading.Lock()
        self._ready: deque[list[tuple[Entry, memoryview]]] = deque()  # decoded, to be written

    def run(self, entries: Iterator[Located]) -> None:
        hard: list[Located] = []
        with ThreadPoolExecutor(self._jobs, "pqvault-unseal") as pool:
            files = content_tasks(self._files(entries, hard))
            run_tasks(pool, self._jobs, files, self._task, lambda _: None, self._stop)
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
        """Write a table as Parquet, with all that its parts hold and the keys at hand open."""
        # Only here: they import 100 ms of pyarrow.
        from pqvault.archive.tableparquet import MAX_TABLE, parquet_name, write_parquet
        from pqvault.archive.tablerows import TableRows

        rows = TableRows(self._find_table(path))
        if rows.hidden:
            names = ", ".join(sorted(rows.hidden))
            self._report.skipped.append(f"{rows.what}: its columns {names} are sealed to others")
        newest = rows.entries[-1].entry
        target = replace(newest, path=parquet_name(newest.path), size=MAX_TABLE)
        sink = self._extractor.open_file(target)
        try:
            size = write_parquet(rows, sink.pwrite, self._check_stop, self._tell)
            sink.commit(size)
        except BaseException:
            sink.abort()
            raise
        self._report.tables += 1

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise PQVaultError("stopped")

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
        frames = _Frames()
        for part, entry in task:
            if self._stop.is_set():
                return
            content = frames.small(part, entry)
            if content is not None:
                ready.append((entry, content))
            else:
                self._guard(partial(self._file, part, entry, ready))
        # Small files are decoded side by side, but written by one thread at a time: that is all
        # system calls, and threads that take turns at the interpreter cost three times as much.
        # Whoever finds another one writing leaves it the work, and waits only when that is much.
        self._ready.append(ready)
        while (
            self._ready
            and not self._stop.is_set()
            and self._writing.acquire(blocking=len(self._ready) > _BACKLOG)
        ):
            try:
                self._write_ready()
            finally:
                self._writing.release()

    def _write_ready(self) -> None:
        while self._ready:
            files = self._ready.popleft()
            wanted = takewhile(lambda _: not self._stop.is_set(), files)
            self._extractor.write_files(wanted, self._failed)
            self._tell(sum(entry.size for entry, _ in files))

    def _file(
        self, part: OpenPart, entry: Entry, ready: list[tuple[Entry, memoryview]] | None
    ) -> None:
        file = EntryFile(part, entry)
        if entry.size > WHOLE or any(extent.object == HOLE for extent in entry.extents):
            self._large(entry, file)
            return
        content = file.whole()
        file.check_content(content)
        if ready is not None and entry.size <= SMALL:
            ready.append((entry, content))
        else:
            self._write(entry, content)

    def _write(self, entry: Entry, content: memoryview) -> None:
        self._extractor.write_small(entry, content)
        self._tell(entry.size)

    def _large(self, entry: Entry, file: EntryFile) -> None:
        sink = self._extractor.open_file(entry)
        try:
            hasher = file.hasher()
            for offset, data, hole in file.steps(_STEP):
                if self._stop.is_set():
                    raise PQVaultError("stopped")
                hasher.update(data)
                if not hole:
                    sink.pwrite(data, offset)
                self._tell(len(data))
            file.check(hasher.digest())
            sink.commit()
        except BaseException:
            sink.abort()
            raise

    def _hardlink(self, part: OpenPart, entry: Entry) -> None:
        # Its own extents are its content. It is another name of what was extracted only when
        # that is the very entry it was sealed with, not a later one under the same path.
        same = self._firsts.get(entry.link or b"") == (part.id, entry.extents)
        if not (same and self._extractor.make_hardlink(entry)):
            self._file(part, entry, None)

    def _tell(self, count: int) -> None:
        with self._lock:
            self._done += count
            done = self._done
        self._progress(Report("unseal", done=done))
