"""The engine that works on processes of our own, so that no two units share an interpreter.

Encryption and most of what is done once a file hold the interpreter, so that threads wait for each
other. A worker process is a Python that has imported only what the work needs; it takes a tenth
of a second to start, so only large work comes here. It gets the keys of its objects, over a socket
that only the two share, and ends with its last work when this process ends, however that does.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from multiprocessing import spawn
from multiprocessing.connection import Pipe
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from pqvault.archive.checks import Checked, check_handed, check_handed_frames
from pqvault.archive.engine import Ranges, Units
from pqvault.archive.extract import Place
from pqvault.archive.extraction import Extracted, extract_handed
from pqvault.archive.handedobjects import Handed, objects_of
from pqvault.archive.worker import STOP, Said
from pqvault.closing import Closing
from pqvault.errors import PQVaultError
from pqvault.format.entries import Entry
from pqvault.storage import LocalStorage, Storage

if TYPE_CHECKING:  # it imports pyarrow
    from pqvault.archive.part import OpenPart

__all__ = ["LARGE", "Processes", "processes_for"]

LARGE: Final = 64 * 1024 * 1024  # bytes of work that are worth the start of processes
_MAIN: Final = "from pqvault.archive.worker import main; main()"
_LOOK: Final = 0.25  # seconds between looks whether the run was stopped
_PATIENCE: Final = 10.0  # seconds for a worker to end what it is at


Result = TypeVar("Result")


class _Worker:
    """One process and our end of the socket."""

    def __init__(self) -> None:
        # multiprocessing's, which programs that Python is only a part of set.
        python = None if getattr(sys, "frozen", False) else spawn.get_executable()
        if not python:
            raise PQVaultError("there is no Python to start a worker process with")
        self._connection, theirs = Pipe()
        with theirs:
            fd = theirs.fileno()
            path = os.pathsep.join(folder for folder in sys.path if folder)
            try:
                self._process = subprocess.Popen(
                    # -P: what lies in the working folder is not to be imported.
                    [python, "-P", "-c", _MAIN, str(fd)],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[fd],
                    process_group=0,  # Ctrl-C is for this process, which then ends that one
                    env={**os.environ, "PYTHONPATH": path},
                )
            except OSError as error:
                self._connection.close()
                raise PQVaultError(
                    f"a worker process cannot be started: {error.strerror}",
                    hint="--jobs 1 does without",
                ) from None

    def do(
        self,
        on_bytes: Callable[[int], object],
        unit: Callable[..., Result],
        arguments: tuple[object, ...],
    ) -> Result:
        """What ``unit`` returns. What ``on_bytes`` raises ends it."""
        try:
            self._connection.send((unit, arguments))
            while True:
                said, value = self._answer(on_bytes)
                if said is Said.TOLD:
                    self._tell(on_bytes, value)
                elif said is Said.FAILED:
                    raise value
                elif said is Said.BROKEN:
                    raise RuntimeError(f"in a worker process: {value}")
                else:
                    return cast("Result", value)
        except (EOFError, ConnectionResetError, BrokenPipeError):
            raise _lost(self._process.wait()) from None

    def _answer(self, on_bytes: Callable[[int], object]) -> tuple[Said, Any]:
        while not self._connection.poll(_LOOK):
            self._tell(on_bytes, 0)
        return cast("tuple[Said, Any]", self._connection.recv())

    def _tell(self, on_bytes: Callable[[int], object], count: int) -> None:
        try:
            on_bytes(count)
        except BaseException:
            self._stop()
            raise

    def _stop(self) -> None:
        """Nobody wants the result: the worker removes what it has begun, and is waited for."""
        self._connection.send(STOP)
        patience = time.monotonic() + _PATIENCE
        while self._connection.poll(max(0.0, patience - time.monotonic())):
            if self._connection.recv()[0] is not Said.TOLD:
                return
        self._process.kill()

    @property
    def alive(self) -> bool:
        """Whether it can do more."""
        return self._process.poll() is None

    def hang_up(self) -> None:
        """It has nothing to do, and so begins to end."""
        self._connection.close()

    def wait(self) -> None:
        """Until it has ended."""
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Processes(Units, Closing):
    """``jobs`` worker processes, started at once, because that takes a while; as a context manager,
    they end with it."""

    def __init__(self, jobs: int) -> None:
        self._idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        self._closed = False
        try:
            for _ in range(jobs):
                self._idle.put(_Worker())
        except BaseException:
            self.close()
            raise

    def dismiss(self) -> None:
        """Let those that have nothing to do begin to end; :meth:`close` waits for them.

        Who asks for one after this, or waits for one, gets an error: a thread that Ctrl-C kept its
        pool from knowing.
        """
        self._closed = True
        idle = [self._idle.get() for _ in range(self._idle.qsize())]
        for worker in idle:
            if worker is not None:
                worker.hang_up()
            self._idle.put(worker)

    def close(self) -> None:
        """End them; they do so side by side."""
        self.dismiss()
        idle = [self._idle.get() for _ in range(self._idle.qsize())]
        for worker in idle:
            if worker is not None:
                worker.wait()
            self._idle.put(None)

    def check_contents(
        self,
        part: OpenPart,
        entries: Sequence[Entry],
        whole: Set[int],
        on_bytes: Callable[[int], object],
    ) -> Checked:
        """Check the content of entries."""
        handed = Handed.of(part, objects_of(entries))
        return self._do(on_bytes, check_handed, handed, entries, whole)

    def check_frames(
        self, part: OpenPart, number: int, done: Ranges, check: Callable[[], object]
    ) -> None:
        """Decode the frames of an object."""
        handed = Handed.of(part, [number])
        self._do(lambda *_: check(), check_handed_frames, handed, number, done)

    def extract(
        self,
        part: OpenPart,
        entries: Sequence[Entry],
        place: Place,
        on_bytes: Callable[[int], object],
    ) -> Extracted:
        """Write files of a part."""
        handed = Handed.of(part, objects_of(entries))
        return self._do(on_bytes, extract_handed, handed, entries, place)

    def _do(
        self, on_bytes: Callable[..., object], unit: Callable[..., Result], *arguments: object
    ) -> Result:
        """On a worker that has nothing else to do."""
        with self._worker() as worker:
            return worker.do(on_bytes, unit, arguments)

    @contextmanager
    def _worker(self) -> Iterator[_Worker]:
        worker = self._idle.get()
        try:
            if self._closed:
                raise PQVaultError("stopped")
            if worker is None:
                worker = _Worker()
            yield worker
        finally:
            if worker is not None and not worker.alive:
                worker.hang_up()
                worker.wait()
                worker = None
            self._idle.put(worker)


@contextmanager
def processes_for(storage: Storage, size: int, jobs: int) -> Iterator[Processes | None]:
    """Processes where ``size`` bytes of work on an archive are done best on such; None for small
    work, and for what waits for a network: threads do that."""
    if size < LARGE or jobs < 2 or not isinstance(storage, LocalStorage):
        yield None
        return
    # This process is one of them: it leads. At most one more than processors, so that there is
    # something to do while another waits for the disk.
    try:
        processes = Processes(max(2, min(jobs - 1, 1 + (os.cpu_count() or 1))))
    except PQVaultError:  # too many processes, or too little memory for more
        yield None
        return
    with processes:
        yield processes


def _lost(code: int) -> PQVaultError:
    return PQVaultError(
        f"a worker process ended in the middle of its work, with code {code}",
        hint="too little memory, most likely: give fewer --jobs",
    )
