"""Where the units of work of a seal are done: on threads of this process, or elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pqvault.archive.deal import DigestJob, ObjectJob
from pqvault.archive.layout import new_object_name
from pqvault.archive.objects import Sealed, SealOptions, seal_object, take_digest
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
    """On the thread that asks."""

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
        return seal_object(job, name, *key.object(name), storage, key.part, options, on_bytes)

    def digest(self, job: DigestJob, digest: str, check: Callable[[], object]) -> Sealed:
        """Take the digest of a file."""
        return take_digest(job, digest, check)


THREADS = Threads()
