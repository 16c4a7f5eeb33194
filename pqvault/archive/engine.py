"""Where the units of work of a seal are done: on threads of this process, or elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from pqvault.archive.deal import DigestJob, ObjectJob
from pqvault.archive.layout import new_object_name
from pqvault.archive.objects import Sealed, SealOptions, seal_object, take_digest
from pqvault.archive.turns import Turns
from pqvault.rootkey import RootKey
from pqvault.storage import Storage

__all__ = ["THREADS", "Engine", "Threads"]


class Engine(Protocol):
    """Does one unit of work at a time for each thread that asks. The driver deals and commits."""

    def seal(
        self,
        job: ObjectJob,
        key: RootKey,
        storage: Storage,
        options: SealOptions,
        on_bytes: Callable[[int], object],
    ) -> Sealed:
        """Seal an object under a name of its own; see `seal_object`. ``on_bytes`` may raise to
        end it."""

    def digest(self, job: DigestJob, digest: str, check: Callable[[], object]) -> Sealed:
        """Take the digest of a file; see `take_digest`. ``check`` may raise to end it."""


class Threads:
    """On the thread that asks. There is one for the process, like the interpreter whose use the
    threads share."""

    def __init__(self) -> None:
        self._turns = Turns()

    def renew(self) -> None:
        """In a child of fork: who had the turn is not in it."""
        self._turns = Turns()

    def seal(
        self,
        job: ObjectJob,
        key: RootKey,
        storage: Storage,
        options: SealOptions,
        on_bytes: Callable[[int], object],
    ) -> Sealed:
        """Seal an object."""
        name = new_object_name(job.number)
        sealing = key.object(name)
        return seal_object(job, name, *sealing, storage, key.part, options, on_bytes, self._turns)

    def digest(self, job: DigestJob, digest: str, check: Callable[[], object]) -> Sealed:
        """Take the digest of a file."""
        return take_digest(job, digest, check)


THREADS = Threads()
os.register_at_fork(after_in_child=THREADS.renew)
