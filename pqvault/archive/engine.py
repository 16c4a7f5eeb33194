"""Where the units of work of a seal or a verification are done: on threads here, or elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence, Set
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from pqvault.archive.checks import Checked, check_contents, check_handed, check_sealed
from pqvault.archive.deal import DigestJob, ObjectJob
from pqvault.archive.extract import Place
from pqvault.archive.extraction import Extracted
from pqvault.archive.handedobjects import Handed, objects_of
from pqvault.archive.layout import new_object_name
from pqvault.archive.objects import Sealed, SealOptions, seal_object, take_digest
from pqvault.archive.sealedfiles import FileKey, renew_file
from pqvault.archive.turns import Turns
from pqvault.format.commit import PartFile
from pqvault.format.entries import Entry
from pqvault.rootkey import RootKey
from pqvault.storage import Storage

if TYPE_CHECKING:  # it imports pyarrow
    from pqvault.archive.part import OpenPart

__all__ = ["THREADS", "Engine", "ExtractingEngine", "Ranges", "Threads", "Units"]

Ranges: TypeAlias = Sequence[tuple[int, int]]  # of content: where each begins and ends
Result = TypeVar("Result")


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

    def check_file(
        self,
        storage: Storage,
        part: str,
        file: PartFile,
        digest: str,
        key: RootKey | None,
        on_bytes: Callable[[int], object],
    ) -> None:
        """Check a file as it lies in storage, with the key of its part also every chunk of it; see
        `check_sealed`."""

    def check_contents(
        self,
        part: OpenPart,
        entries: Sequence[Entry],
        whole: Set[int],
        on_bytes: Callable[[int], object],
    ) -> Checked:
        """Check the content of entries, and the files of the objects ``whole`` that it is in; see
        `check_handed`."""

    def check_frames(
        self, part: OpenPart, number: int, done: Ranges, check: Callable[[], object]
    ) -> None:
        """Decode the frames of an object; see `SealedReader.check_frames`."""

    def reencrypt(
        self,
        old: RootKey,
        new: RootKey,
        storage: Storage,
        file: PartFile,
        digest: str,
        on_bytes: Callable[[int], object],
    ) -> PartFile:
        """Encrypt a file of the part of ``old`` again, as one of the part of ``new``; see
        `renew_file`."""


class ExtractingEngine(Engine, Protocol):
    """One whose workers, elsewhere, write files that are extracted themselves."""

    def extract(
        self,
        part: OpenPart,
        entries: Sequence[Entry],
        place: Place,
        on_bytes: Callable[[int], object],
    ) -> Extracted:
        """Write files of a part to a place, their folders there already; see `extract_files`."""


class Units:
    """Half of an engine: the units of work that need no more than keys of files."""

    def _do(
        self, on_bytes: Callable[..., object], unit: Callable[..., Result], *arguments: object
    ) -> Result:
        """What ``unit(*arguments, on_bytes)`` returns, wherever it is called."""
        raise NotImplementedError

    def _sealing(self) -> Callable[..., Sealed]:
        """How an object is sealed here."""
        return seal_object

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
        arguments = job, name, *sealing, storage, key.part, options
        return self._do(on_bytes, self._sealing(), *arguments)

    def digest(self, job: DigestJob, digest: str, check: Callable[[], object]) -> Sealed:
        """Take the digest of a file."""
        return self._do(lambda *_: check(), take_digest, job, digest)

    def check_file(
        self,
        storage: Storage,
        part: str,
        file: PartFile,
        digest: str,
        key: RootKey | None,
        on_bytes: Callable[[int], object],
    ) -> None:
        """Check a file as it lies in storage."""
        secret = key.object(file.name) if key is not None else None
        self._do(on_bytes, check_sealed, storage, part, file, digest, secret)

    def reencrypt(
        self,
        old: RootKey,
        new: RootKey,
        storage: Storage,
        file: PartFile,
        digest: str,
        on_bytes: Callable[[int], object],
    ) -> PartFile:
        """Encrypt a file of a part again."""
        keys = FileKey.of(old, file.name), FileKey.of(new, file.name)
        return self._do(on_bytes, renew_file, storage, *keys, file, digest)


class Threads(Units):
    """On the thread that asks. There is one for the process, like the interpreter whose use the
    threads share."""

    def __init__(self) -> None:
        self._turns = Turns()

    def renew(self) -> None:
        """In a child of fork: who had the turn is not in it."""
        self._turns = Turns()

    def _do(
        self, on_bytes: Callable[..., object], unit: Callable[..., Result], *arguments: object
    ) -> Result:
        return unit(*arguments, on_bytes)

    def _sealing(self) -> Callable[..., Sealed]:
        return partial(seal_object, turns=self._turns)

    def check_contents(
        self,
        part: OpenPart,
        entries: Sequence[Entry],
        whole: Set[int],
        on_bytes: Callable[[int], object],
    ) -> Checked:
        """Check the content of entries."""
        if not whole:
            return Checked(check_contents(part, entries, lambda: on_bytes(0)), [])
        return check_handed(Handed.of(part, objects_of(entries)), entries, whole, on_bytes)

    def check_frames(
        self, part: OpenPart, number: int, done: Ranges, check: Callable[[], object]
    ) -> None:
        """Decode the frames of an object."""
        part.reader(number).check_frames(done, check)


THREADS = Threads()
os.register_at_fork(after_in_child=THREADS.renew)
