"""The plan of a seal: what on disk differs from what the archive holds. No content is read,
unless a comparison by checksum is asked for or nothing better is known.

A thread walks and compares; its rows can be sealed while it goes on. Unchanged folders are among
them too, for a part needs the folders above each of its entries; :meth:`Plan.batches` leaves out
those that no entry needs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

from pqvault.archive.objects import hash_file
from pqvault.archive.sourcefile import wait_for_tick
from pqvault.archive.spool import Spool
from pqvault.archive.walk import Found, Walker
from pqvault.errors import PolicyRefused, PQVaultError
from pqvault.format.entries import Kind

__all__ = ["Plan", "Prior"]


# Plain numbers: there are rows by the million.
_FILE, _FOLDER = int(Kind.FILE), int(Kind.FOLDER)
_TABLE, _TOMBSTONE = int(Kind.TABLE), int(Kind.TOMBSTONE)


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


def _one_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "pqvault-plan")


@dataclass(slots=True)
class Plan:
    """What a run has to do. Numbers grow until all is walked.

    ``folders``: those that changed; ``size``: bytes of files, some of them under several names.
    """

    folders: int = 0
    size: int = 0
    unchanged: int = 0
    tombstones: int = 0
    _spool: Spool = field(default_factory=Spool, repr=False)
    _thread: ThreadPoolExecutor = field(default_factory=_one_thread, repr=False)
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def total(self) -> int | None:
        """``size``, once all is walked and compared."""
        return self.size if self._spool.ended else None

    def wait(self) -> None:
        """Until it is complete. Raises what ended the walk, PolicyRefused among others."""
        self._spool.wait()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows to seal, sorted by path, as they are found. Raises as :meth:`wait`."""
        return self._spool.batches()

    def close(self) -> None:
        """Stop the walk where it is, and give the temporary file back."""
        self._stop.set()
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._spool.close()

    # -- the thread ------------------------------------------------------------------------

    def start(
        self,
        walk: Iterator[Found],
        priors: Iterator[Prior],
        walker: Walker,
        *,
        checksum: bool,
        delete: bool,
        yes: bool,
        on_row: Callable[[], object],
        adopt: Callable[[Prior, Found], object],
        after: Callable[[], object],
    ) -> None:
        """Walk and compare, in a thread; what is wrong is raised by who reads or waits.

        PolicyRefused when ``delete`` would remove more than half. ``on_row`` is called by the
        thread for each thing found, ``adopt`` for what was found unchanged by its content alone,
        and ``after`` when the plan is complete.
        """

        def run() -> None:
            covered = self._compare(walk, priors, walker, checksum, delete, on_row, adopt)
            if self.tombstones * 2 > covered and not yes:
                raise PolicyRefused(
                    f"--delete would remove {self.tombstones} of {covered} entries, more than half",
                    hint="check that the source is complete; if it is meant, add --yes",
                )

        walking = self._thread.submit(run)
        walking.add_done_callback(lambda done: self._spool.end(done.exception()))
        self._thread.submit(after)

    def _compare(
        self,
        walk: Iterator[Found],
        priors: Iterator[Prior],
        walker: Walker,
        checksum: bool,
        delete: bool,
        on_row: Callable[[], object],
        adopt: Callable[[Prior, Found], object],
    ) -> int:
        """How many entries the archive has below the sources."""
        rows = _Rows(self._spool, self)
        covered = 0
        for found, prior in _join(walk, priors):
            self.check()
            if prior is not None and walker.covers(prior.path):
                covered += 1
            if found is not None:
                on_row()
                changed = prior is None or _changed(found, prior, checksum, self, adopt)
                rows.add(found, changed)
            elif prior is not None and delete and _is_gone(prior.path, walker):
                rows.add(_tombstone(prior.path), True)
        rows.finish()
        return covered

    def check(self) -> None:
        """Raises when the plan is not wanted any more."""
        if self._stop.is_set():
            raise PQVaultError("stopped")


class _Rows:
    """Adds rows to the spool; marks which of them the part needs."""

    def __init__(self, spool: Spool, plan: Plan) -> None:
        self._plan = plan
        self._spool = spool
        self._folders: list[tuple[bytes, int]] = []  # folders around the current path, their rows

    def add(self, found: Found, changed: bool) -> None:
        plan, path, spool = self._plan, found.path, self._spool
        if not changed and found.kind != _FOLDER:
            plan.unchanged += 1
            return
        while self._folders and path >= self._folders[-1][0] + b"0":
            self._folders.pop()
        row = spool.add(found, changed)
        if changed:
            self._tally(found)
            if found.kind != _TOMBSTONE:
                for folder, number in reversed(self._folders):
                    if path.startswith(folder + b"/"):
                        if spool.is_needed(number):
                            break  # and so are those around it
                        spool.need(number)
        else:
            plan.unchanged += 1
        if found.kind == _FOLDER:
            self._folders.append((path, row))
        if spool.is_due:
            spool.flush(self._first_undecided(row + 1))

    def _first_undecided(self, end: int) -> int:
        undecided = (row for _, row in self._folders if not self._spool.is_needed(row))
        return next(undecided, end)

    def _tally(self, found: Found) -> None:
        plan, kind = self._plan, found.kind
        if kind in (_FILE, _TABLE):
            plan.size += found.size
        elif kind == _FOLDER:
            plan.folders += 1
        elif kind == _TOMBSTONE:
            plan.tombstones += 1

    def finish(self) -> None:
        self._spool.flush(0)


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


def _changed(
    found: Found,
    prior: Prior,
    checksum: bool,
    plan: Plan,
    adopt: Callable[[Prior, Found], object],
) -> bool:
    kind = Kind.FILE if prior.kind == Kind.HARDLINK else prior.kind
    if found.kind != kind or found.size != prior.size:
        return True
    if not found.source:  # a folder of --prefix
        return False
    with_digest = found.kind in (Kind.FILE, Kind.TABLE)
    if prior.ctime_ns >= 0 and not (checksum and with_digest):
        now = (found.mtime_ns, found.ctime_ns, found.inode)
        if now == (prior.mtime_ns, prior.ctime_ns, prior.inode):
            return False
        # A file of several names is sealed with them: that they are one would be lost.
        if prior.mode < 0 or (with_digest and found.links > 1) or prior.kind == Kind.HARDLINK:
            return True
    # The catalog knows more than the times: another host sealed it, the journal is gone, or the
    # file was copied, moved or given to another owner. Content decides.
    link = prior.link if kind == Kind.SYMLINK else None
    if (found.mode, found.mtime_ns, found.target) != (prior.mode, prior.mtime_ns, link):
        return True
    if with_digest and _digest(found, prior, plan) != prior.digest:
        return True
    adopt(prior, found)
    return False


def _digest(found: Found, prior: Prior, plan: Plan) -> bytes | None:
    try:
        wait_for_tick(found.ctime_ns)
        return bytes.fromhex(hash_file(found.source, prior.digest_name, plan.check))
    except OSError:
        return None  # sealing it will say what is wrong


def _is_gone(path: bytes, walker: Walker) -> bool:
    return walker.covers(path) and not walker.excludes(path)


def _tombstone(path: bytes) -> Found:
    return Found(path, b"", int(Kind.TOMBSTONE), 0, 0, 0, 0, 0, 0, 0, False, None)
