"""The engine that works on Ray: the driver plans and commits, workers seal and check objects.

Workers read the sources and write the archive themselves, so both must be where they can reach
them: a shared file system, or an archive at a URL. What goes through Ray is lists of paths, keys
sealed to a key that the worker made, and digests.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from pqvault.archive.checks import Checked, entries_to_text
from pqvault.archive.deal import DigestJob, ObjectJob, Piece
from pqvault.archive.engine import THREADS, Ranges
from pqvault.archive.extract import Place
from pqvault.archive.extraction import Extracted
from pqvault.archive.handedobjects import objects_of
from pqvault.archive.layout import new_object_name, part_file
from pqvault.archive.objects import Sealed, SealOptions
from pqvault.archive.part import OpenPart
from pqvault.crypto.profiles import PROFILES
from pqvault.errors import PQVaultError, UsageError
from pqvault.format.commit import CATALOG, PartFile, object_number
from pqvault.format.entries import Entry
from pqvault.handover import HandedKey
from pqvault.integrations.ray.worker import HandedWork, Worker
from pqvault.keys import Recipient
from pqvault.names import printable
from pqvault.rootkey import RootKey
from pqvault.storage import Storage

__all__ = ["RayEngine"]

_TRIES: Final = 3  # of one unit of work whose worker ended
_POLL: Final = 0.25  # seconds between looks whether the run was stopped
_END: Final = 5.0  # seconds for a worker that is killed to be gone
_START: Final = 120.0  # seconds for a worker to come, which may take a new node

Result = TypeVar("Result")


class _WorkerLostError(Exception):
    """A worker ended in the middle of its work."""


@dataclass(slots=True)
class _Hand:
    """A worker and its public keys by profile."""

    actor: Any
    there: bool = False  # its process has begun
    recipients: dict[str, Recipient] = field(default_factory=dict)


class RayEngine:
    """Up to ``jobs`` workers, one processor each; as many as the cluster has when nothing is said.

    Used as a context manager: connects, to ``address`` or as ``ray.init`` does, unless the process
    is connected already; the workers end with it. Raises UsageError when Ray is not installed,
    PQVaultError for a cluster that cannot be used.
    """

    def __init__(self, jobs: int | None = None, address: str | None = None) -> None:
        self._ray = _library()
        self._jobs = jobs
        self._address = address
        self._mine = False
        self._idle: queue.LifoQueue[_Hand | None] = queue.LifoQueue()

    def __enter__(self) -> Self:
        if not self._ray.is_initialized():
            with _own_sigterm():
                self._connect()
            self._mine = True
        if self._jobs is None:
            self._jobs = max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        for _ in range(self._jobs):
            self._idle.put(None)
        return self

    def _connect(self) -> None:
        # Where Ray makes a cluster of its own, it must not warn about what we do not use.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        own = {} if self._address else {"include_dashboard": False}
        try:
            self._ray.init(self._address, log_to_driver=False, logging_level="ERROR", **own)
        except (ValueError, ConnectionError, RuntimeError) as error:
            place = self._address or os.environ.get("RAY_ADDRESS")
            raise PQVaultError(
                f"{f'the cluster at {place}' if place else 'a cluster of Ray'} cannot be used:"
                f" {str(error).partition(chr(10))[0].rstrip('.')}",
                hint="an address is HOST:PORT, as `ray start --head` prints it; without one a"
                " cluster is started here",
            ) from None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while not self._idle.empty():
            hand = self._idle.get()
            if hand is not None:
                self._ray.kill(hand.actor)
        if self._mine:
            self._ray.shutdown()

    @property
    def jobs(self) -> int:
        """How many units of work go side by side."""
        assert self._jobs is not None, "the engine is used as a context manager"
        return self._jobs

    # -- what an engine does ---------------------------------------------------------------

    def seal(
        self,
        job: ObjectJob,
        key: RootKey,
        storage: Storage,
        options: SealOptions,
        on_bytes: Callable[[int], object],
    ) -> Sealed:
        """Seal an object on a worker; on another one when that ends, under another name."""
        profile = key.profile.name
        job = replace(job, pieces=[_anywhere(piece) for piece in job.pieces])
        lost: list[str] = []

        def work(hand: _Hand) -> Any:
            for name in lost:  # nobody will commit it
                storage.remove(part_file(key.part, name))
            lost[:] = [new_object_name(job.number)]
            handed = HandedKey.to(self._recipient(hand, profile), key, lost[0])
            return hand.actor.seal.remote(job, handed, profile, storage, options)

        sealed: Sealed = self._do(f"object {job.number}", work, lambda: on_bytes(0))
        on_bytes(job.size)
        return sealed

    def digest(self, job: DigestJob, digest: str, check: Callable[[], object]) -> Sealed:
        """Take the digest of a file on a worker."""
        job = DigestJob(_anywhere(job.piece))
        found: Sealed = self._do(
            "a digest", lambda hand: hand.actor.digest.remote(job, digest), check
        )
        return found

    def check_file(
        self,
        storage: Storage,
        part: str,
        file: PartFile,
        digest: str,
        key: RootKey | None,
        on_bytes: Callable[[int], object],
    ) -> None:
        """Check a file of a part on a worker."""
        profile = key.profile.name if key is not None else ""

        def work(hand: _Hand) -> Any:
            handed = key and HandedKey.to(self._recipient(hand, profile), key, file.name)
            return hand.actor.check_file.remote(storage, part, file, digest, handed, profile)

        self._do(f"{file.name} of part {part}", work, lambda: on_bytes(0))
        on_bytes(file.size)

    def check_contents(
        self,
        part: OpenPart,
        entries: Sequence[Entry],
        whole: Set[int],
        on_bytes: Callable[[int], object],
    ) -> Checked:
        """Check the content of entries on a worker."""
        profile = part.key.profile.name
        numbers = objects_of(entries)
        text = entries_to_text(entries)

        def work(hand: _Hand) -> Any:
            handed = HandedWork.to(self._recipient(hand, profile), part, numbers, text)
            return hand.actor.check_contents.remote(handed, sorted(whole), profile)

        checked: Checked = self._do(f"files of part {part.id}", work, lambda: on_bytes(0))
        on_bytes(sum(part.file(number).size for number in checked.sound))
        return checked

    def check_frames(
        self, part: OpenPart, number: int, done: Ranges, check: Callable[[], object]
    ) -> None:
        """Decode the frames of an object on a worker."""
        profile, text = part.key.profile.name, json.dumps(done).encode()

        def work(hand: _Hand) -> Any:
            handed = HandedWork.to(self._recipient(hand, profile), part, {number}, text)
            return hand.actor.check_frames.remote(handed, number, profile)

        self._do(f"object {number} of part {part.id}", work, check)

    def extract(
        self,
        part: OpenPart,
        entries: Sequence[Entry],
        place: Place,
        on_bytes: Callable[[int], object],
    ) -> Extracted:
        """Write files on a worker, which reaches the target under the same path; on another one
        when that ends. What such a one has half-written is removed."""
        profile = part.key.profile.name
        numbers = objects_of(entries)
        text = entries_to_text(entries)
        places = [place]

        def work(hand: _Hand) -> Any:
            handed = HandedWork.to(self._recipient(hand, profile), part, numbers, text)
            places.append(places[-1].again())
            return hand.actor.extract.remote(handed, places[-2], profile)

        try:
            found: Extracted = self._do(_named(entries, part), work, lambda: on_bytes(0))
        except BaseException:
            with suppress(PQVaultError, OSError):  # it matters less than what has happened
                places[-1].clear(entry.path for entry in entries)
            raise
        on_bytes(sum(entry.size for entry in entries))
        return found

    def reencrypt(
        self,
        old: RootKey,
        new: RootKey,
        storage: Storage,
        file: PartFile,
        digest: str,
        on_bytes: Callable[[int], object],
    ) -> PartFile:
        """Encrypt a file of a part again on a worker; on another one when that ends, under another
        name: nobody knows whether the first one has. The catalog, which has but one, here."""
        if file.name == CATALOG:
            return THREADS.reencrypt(old, new, storage, file, digest, on_bytes)
        lost: list[str] = []

        def hand_over(hand: _Hand, key: RootKey, name: str) -> HandedKey:
            return HandedKey.to(self._recipient(hand, key.profile.name), key, name)

        def work(hand: _Hand) -> Any:
            for name in lost:
                storage.remove(part_file(new.part, name))
            lost[:] = [new_object_name(object_number(file.name)) if lost else file.name]
            handed = hand_over(hand, old, file.name), hand_over(hand, new, lost[0])
            profiles = old.profile.name, new.profile.name
            return hand.actor.reencrypt.remote(storage, *handed, profiles, file, digest)

        found: PartFile = self._do(f"{file.name} of part {old.part}", work, lambda: on_bytes(0))
        on_bytes(2 * file.size)
        return found

    # -- workers ---------------------------------------------------------------------------

    def _do(self, what: str, begin: Callable[[_Hand], Any], check: Callable[[], object]) -> Any:
        """The result of what ``begin`` starts on a worker; again on another when that one ends.

        A worker that is killed changes nothing: what it wrote is named by no commit.
        """
        for _ in range(_TRIES):
            try:
                with self._hand() as hand:
                    self._begun(hand, check)
                    return self._wait(hand, begin(hand), check)
            except _WorkerLostError:
                continue
        raise PQVaultError(
            f"{_TRIES} workers of Ray ended while they were at {what}",
            hint="see Ray's logs: too little memory, most likely; give fewer --jobs",
        )

    @contextmanager
    def _hand(self) -> Iterator[_Hand]:
        """A worker that has nothing to do, for this thread alone."""
        hand = self._idle.get()
        try:
            if hand is None:
                hand = _Hand(self._ray.remote(num_cpus=1, max_restarts=0)(Worker).remote())
            yield hand
        except BaseException as error:
            # It may be in the middle of something, or gone.
            if hand is not None and not isinstance(error, PQVaultError):
                self._ray.kill(hand.actor)
                hand = None
            raise
        finally:
            self._idle.put(hand)

    def _begun(self, hand: _Hand, check: Callable[[], object]) -> None:
        """Wait for the process of a worker, which may take as long as others need the cluster."""
        if hand.there:
            return
        reference, end = hand.actor.process.remote(), time.monotonic() + _START
        while not self._ray.wait([reference], timeout=_POLL)[0]:
            check()
            if time.monotonic() > end:
                raise PQVaultError(
                    f"Ray started no worker within {_START:.0f} seconds",
                    hint="see `ray status`: all processors may be taken",
                )
        self._result(reference)
        hand.there = True

    def _recipient(self, hand: _Hand, profile: str) -> Recipient:
        found = hand.recipients.get(profile)
        if found is None:
            public_key = self._result(hand.actor.public_key.remote(profile))
            found = hand.recipients[profile] = Recipient(public_key, profile=PROFILES[profile])
        return found

    def _wait(self, hand: _Hand, reference: Any, check: Callable[[], object]) -> Any:
        done: list[Any] = []
        while not done:
            try:
                check()
            except BaseException:
                self._ray.kill(hand.actor)  # it is not to go on with what nobody wants
                self._ray.wait([reference], timeout=_END)
                hand.recipients.clear()
                raise
            done, _ = self._ray.wait([reference], timeout=_POLL)
        return self._result(reference)

    def _result(self, reference: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            if isinstance(error.cause, PQVaultError):
                raise error.cause from None
            raise
        except (errors.RayActorError, errors.WorkerCrashedError, errors.ObjectLostError):
            raise _WorkerLostError from None


def _named(entries: Sequence[Entry], part: OpenPart) -> str:
    """Which files a worker is at, for who waits for it."""
    more = f" and {len(entries) - 1} more files" if len(entries) > 1 else ""
    return f"{printable(entries[0].path)}{more} of part {part.id}"


def _anywhere(piece: Piece) -> Piece:
    """Its source as a path that a process in another folder can open. Joined, not normalised:
    what ``..`` means is for the file system to say."""
    return piece._replace(source=os.path.join(os.getcwdb(), piece.source))


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep what a program does when it is told to end. Ray puts handlers in its place that exit at
    once, with 15, which is the exit code of an archive that was rolled back."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:  # one of those, while Ray starts
        raise KeyboardInterrupt from None
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _library() -> Any:
    try:
        import ray
    except ImportError:
        raise UsageError("this engine needs Ray", hint="pip install 'pqvault[ray]'") from None
    return ray
