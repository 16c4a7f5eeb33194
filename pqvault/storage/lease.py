"""Who is the only one at work on an archive at a store, which has no locks that end with a process.

The lock is an object beside what it is of, made where none was. Who holds it writes it again every
20 seconds; one that is two minutes old by the store's own clock is a dead holder's, and is taken
over. A holder that could not renew it for a minute (its machine slept, its network was away) has to
before it writes anything else: by then another one may have it.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from pqvault.errors import Locked, NotFound, PQVaultError
from pqvault.names import printable

if TYPE_CHECKING:
    from pqvault.storage.remote import RemoteStorage

__all__ = ["fence", "held"]

_SUFFIX: Final = ".lock"
_RENEWED: Final = 20.0  # seconds between two writes of a holder
_TRUSTED: Final = 60.0  # seconds after one in which it is not asked whether the lock is still ours
_DEAD: Final = 120.0  # seconds after which others take it over
_MOST: Final = 4096  # bytes of a lock

_leases: dict[str, _Lease] = {}  # by URL: those of this process
os.register_at_fork(after_in_child=_leases.clear)


@contextmanager
def held(storage: RemoteStorage, name: str) -> Iterator[None]:
    """Hold the lock of an object; see `Storage.locked`."""
    storage.mtime(name)  # raises NotFound
    lease = _Lease(storage, name)
    lease.take()
    _leases[storage.url] = lease
    try:
        with lease.renewing():
            yield
    finally:
        _leases.pop(storage.url, None)
        lease.give_back()


def fence(url: str, name: str) -> None:
    """Before a write: raises Locked when this process held a lock there, and has it no more."""
    lease = _leases.get(url)
    if lease is not None and name != lease.name:
        lease.check()


class _Lease:
    def __init__(self, storage: RemoteStorage, name: str) -> None:
        self._storage = storage
        self._of = storage.where(name)
        self.name = name + _SUFFIX
        self._holder = f"process {os.getpid()} of {os.uname().nodename}"
        self._id = os.urandom(16).hex()
        self._count = 0
        self._mine = b""  # what the lock holds while it is ours
        self._asked: list[bytes] = []  # or one of these: put by requests whose answer was lost
        self._lock = threading.Lock()
        self._since = 0.0

    def take(self) -> None:
        """Raises Locked when another process has it."""
        begun, mine = _clock(), self._next()
        if not self._storage.put_new(self.name, mine):
            self._take_over(mine)
        self._mine, self._since = mine, begun

    def _take_over(self, mine: bytes) -> None:
        try:
            theirs = self._storage.read(self.name, _MOST)
            age = self._now() - self._storage.mtime(self.name)
        except NotFound:
            raise Locked(f"another process was at work on {self._of} just now") from None
        if age < _DEAD or not self._storage.replace(self.name, theirs, mine):
            raise Locked(
                f"{_holder(theirs)} is at work on {self._of}",
                hint="wait for it to end; if it was killed, run the command again in two minutes",
            )

    def _now(self) -> float:
        """By the store's clock: what was just put has the time."""
        probe = f".{self.name}.{os.urandom(4).hex()}.tmp"  # `gc` knows it, should this be killed
        self._storage.put(probe, b"")
        try:
            return self._storage.mtime(probe)
        finally:
            self._storage.remove(probe)

    @contextmanager
    def renewing(self) -> Iterator[None]:
        """While the block lasts."""
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(_RENEWED):
                try:
                    self._renew()
                except PQVaultError:
                    continue  # said by who writes next; a store may be away for a while

        thread = threading.Thread(target=renew, name="pqvault-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def check(self) -> None:
        """That it is still ours. Raises Locked."""
        if _clock() - self._since > _TRUSTED:
            self._renew()

    def _renew(self) -> None:
        with self._lock:
            begun, mine = _clock(), self._next()
            held = [self._mine, *self._asked]
            self._asked.append(mine)
            if not any(self._storage.replace(self.name, old, mine) for old in held):
                raise Locked(
                    f"the lock of {self._of} was taken over: this process did not renew it in time",
                    hint="run the command again: it carries on where this one ends",
                )
            self._mine, self._since, self._asked = mine, begun, []

    def _next(self) -> bytes:
        self._count += 1
        said = {"holder": self._holder, "id": self._id, "renewed": self._count}
        return json.dumps(said, sort_keys=True).encode("ascii")

    def give_back(self) -> None:
        """Remove it, unless another process has it by now."""
        try:
            if self._storage.read(self.name, _MOST) in (self._mine, *self._asked):
                self._storage.remove(self.name)
        except PQVaultError:
            return  # an error of the work itself must stay the one reported; and it dies anyway


def _holder(lock: bytes) -> str:
    try:
        return printable(str(json.loads(lock)["holder"])[:200].encode())
    except (ValueError, TypeError, KeyError, RecursionError):
        return "another process"


def _clock() -> float:
    """Seconds, those in which the machine slept too."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
