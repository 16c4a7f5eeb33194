"""The plan of a seal: what on disk differs from what the archive holds. No content is read,
unless a comparison by checksum is asked for or nothing better is known.

The plan is a table of rows in Arrow IPC, in an unnamed temporary file, so that memory does not
grow with the corpus. Unchanged folders are in it too, for a part needs the folders above each
of its entries; :meth:`Plan.batches` leaves out those that no entry needs.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Final, NamedTuple

import pyarrow as pa

from pqvault import home
from pqvault.archive.walk import Found, Walker
from pqvault.crypto import digest as digests
from pqvault.errors import PolicyRefused, PQVaultError
from pqvault.format.catalog import Kind

__all__ = ["Plan", "Prior", "make_plan"]

_SCHEMA: Final = pa.schema(
    [
        ("path", pa.binary()),
        ("source", pa.binary()),
        ("kind", pa.uint8()),
        ("size", pa.int64()),
        ("mode", pa.uint16()),
        ("mtime_ns", pa.int64()),
        ("ctime_ns", pa.int64()),
        ("inode", pa.uint64()),
        ("device", pa.uint64()),
        ("links", pa.uint32()),
        ("sparse", pa.bool_()),
        ("target", pa.binary()),
    ]
)
_BATCH: Final = 8192  # rows


class Prior(NamedTuple):
    """What the archive holds under a path, as far as this host knows.

    From the journal: times and inode, no digest. From a catalog: mode, link and digest;
    ``ctime_ns`` is -1 unless the journal knows the entry too.
    """

    path: bytes
    kind: int
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    part: str
    mode: int = -1
    link: bytes | None = None
    digest: bytes | None = None
    digest_name: str = ""


@dataclass(slots=True)
class Plan:
    """What a run has to do. Sizes in bytes."""

    files: int = 0
    folders: int = 0
    links: int = 0
    size: int = 0
    unchanged: int = 0
    tombstones: int = 0
    adopted: list[tuple[Prior, Found]] = field(default_factory=list, repr=False)
    _spool: IO[bytes] | None = field(default=None, repr=False)
    _needed: bytearray = field(default_factory=bytearray, repr=False)  # one byte a row

    @property
    def changes(self) -> int:
        """How many entries the run adds, replaces or removes."""
        return self.files + self.folders + self.links + self.tombstones

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows to seal, sorted by path."""
        assert self._spool is not None
        self._spool.seek(0)
        at = 0
        with pa.ipc.open_stream(self._spool) as reader:
            for batch in reader:
                flags = self._needed[at : at + len(batch)]
                at += len(batch)
                yield batch.filter(pa.array([bool(flag) for flag in flags]))

    def close(self) -> None:
        """Give the temporary file back."""
        if self._spool is not None:
            try:
                self._spool.close()
            except OSError:  # a full disk: what was buffered is not wanted any more
                pass


def make_plan(
    walk: Iterator[Found],
    priors: Iterator[Prior],
    walker: Walker,
    *,
    checksum: bool,
    delete: bool,
    yes: bool,
    on_row: Callable[[], object],
) -> Plan:
    """Walk and compare. Raises PolicyRefused when ``delete`` would remove more than half."""
    plan = Plan()
    try:
        spool = tempfile.TemporaryFile(dir=home.folder())
    except OSError as error:
        raise _spool_failed(error) from None
    plan._spool = spool
    writer = _Rows(spool, plan)
    covered = 0
    try:
        for found, prior in _join(walk, priors):
            if prior is not None and walker.covers(prior.path):
                covered += 1
            if found is not None:
                on_row()
                changed = prior is None or _changed(found, prior, checksum, plan)
                writer.add(found, changed)
            elif prior is not None and delete and _is_gone(prior.path, walker):
                writer.add(_tombstone(prior.path), True)
        writer.finish()
    except OSError as error:
        plan.close()
        raise _spool_failed(error) from None
    except BaseException:
        plan.close()
        raise
    if plan.tombstones * 2 > covered and not yes:
        plan.close()
        raise PolicyRefused(
            f"--delete would remove {plan.tombstones} of {covered} entries, more than half",
            hint="check that the source is complete; if it is meant, add --yes",
        )
    return plan


def _spool_failed(error: OSError) -> PQVaultError:
    return PQVaultError(
        f"the plan cannot be written to {home.folder()}: {error.strerror}",
        hint="free some space there, or set PQVAULT_HOME to another folder",
    )


class _Rows:
    """Spools rows; marks which of them the part needs."""

    def __init__(self, spool: IO[bytes], plan: Plan) -> None:
        self._plan = plan
        self._writer = pa.ipc.new_stream(spool, _SCHEMA)
        self._rows: list[tuple[object, ...]] = []
        self._count = 0
        self._folders: list[tuple[bytes, int]] = []  # folders around the current path, their rows

    def add(self, found: Found, changed: bool) -> None:
        plan, path = self._plan, found.path
        if not changed and found.kind != Kind.FOLDER:
            plan.unchanged += 1
            return
        while self._folders and path >= self._folders[-1][0] + b"0":
            self._folders.pop()
        plan._needed.append(changed)
        if changed:
            self._tally(found)
            if found.kind != Kind.TOMBSTONE:
                for folder, row in self._folders:
                    if path.startswith(folder + b"/"):
                        plan._needed[row] = True
        else:
            plan.unchanged += 1
        if found.kind == Kind.FOLDER:
            self._folders.append((path, self._count))
        self._rows.append(found)
        self._count += 1
        if len(self._rows) == _BATCH:
            self._flush()

    def _tally(self, found: Found) -> None:
        plan = self._plan
        if found.kind == Kind.FILE:
            plan.files += 1
            plan.size += found.size
        elif found.kind == Kind.FOLDER:
            plan.folders += 1
        elif found.kind == Kind.SYMLINK:
            plan.links += 1
        else:
            plan.tombstones += 1

    def _flush(self) -> None:
        columns = zip(*self._rows, strict=True)
        arrays = [pa.array(c, f.type) for c, f in zip(columns, _SCHEMA, strict=True)]
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=_SCHEMA))
        self._rows = []

    def finish(self) -> None:
        if self._rows:
            self._flush()
        self._writer.close()


def _join(
    walk: Iterator[Found], priors: Iterator[Prior]
) -> Iterator[tuple[Found | None, Prior | None]]:
    """Both by path, side by side."""
    found, prior = next(walk, None), next(priors, None)
    while found is not None or prior is not None:
        if prior is None or (found is not None and found.path < prior.path):
            yield found, None
            found = next(walk, None)
        elif found is None or prior.path < found.path:
            yield None, prior
            prior = next(priors, None)
        else:
            yield found, prior
            found, prior = next(walk, None), next(priors, None)


def _changed(found: Found, prior: Prior, checksum: bool, plan: Plan) -> bool:
    kind = Kind.FILE if prior.kind == Kind.HARDLINK else prior.kind
    if found.kind != kind or found.size != prior.size:
        return True
    if not found.source:  # a folder of --prefix
        return False
    if prior.ctime_ns >= 0 and not (checksum and found.kind == Kind.FILE):
        now = (found.mtime_ns, found.ctime_ns, found.inode)
        return now != (prior.mtime_ns, prior.ctime_ns, prior.inode)
    # Only the catalog knows it: another host sealed it, or the journal is gone. Content decides.
    link = prior.link if kind == Kind.SYMLINK else None
    if (found.mode, found.mtime_ns, found.target) != (prior.mode, prior.mtime_ns, link):
        return True
    if found.kind == Kind.FILE and _digest(found.source, prior.digest_name) != prior.digest:
        return True
    plan.adopted.append((prior, found))
    return False


def _digest(source: bytes, name: str) -> bytes | None:
    try:
        with open(source, "rb", buffering=0, opener=_plain) as file:
            hasher = digests.new(name)
            buffer = bytearray(1024 * 1024)
            while count := file.readinto(buffer):
                hasher.update(memoryview(buffer)[:count])
        return hasher.digest()
    except OSError:
        return None  # sealing it will say what is wrong


def _plain(path: str, flags: int) -> int:
    # Not through a link, and not waiting for whoever writes to a FIFO put in the file's place.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)


def _is_gone(path: bytes, walker: Walker) -> bool:
    return walker.covers(path) and not walker.excludes(path)


def _tombstone(path: bytes) -> Found:
    return Found(path, b"", int(Kind.TOMBSTONE), 0, 0, 0, 0, 0, 0, 0, False, None)
