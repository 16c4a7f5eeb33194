"""What is left to do of a bulk rotation or re-encryption, in a file, so that it can be carried on.

``PQVAULT_HOME/rotations/<id>.jsonl`` or ``reencryptions/…``, mode 0600, no secret in it: a line for
the run, a line for each target, then a line for each that is done or failed, appended as it
happens. A lost line means that its target is looked at again, which changes nothing more. The
process that works on a run holds the lock of its file (flock).
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from pqvault import home
from pqvault.closing import Closing
from pqvault.errors import FormatError, Locked, NotFound
from pqvault.ids import now
from pqvault.policy import ANYBODY, Policy
from pqvault.rotation.change import Change
from pqvault.storage.base import explained
from pqvault.storage.replacing import flock
from pqvault.wholefile import sync_folder

__all__ = ["Kind", "Run", "RunStatus", "look", "statuses", "unfinished"]

Kind = Literal["rotations", "reencryptions"]  # the name of their folder
_FORMAT: Final = "pqvault.dev/rotation@v1"
_TODO, _DONE, _FAILED = range(3)


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run that is not finished. ``started``: Unix time in ms. ``running``: by some process.

    ``failed``: (path, sentence).
    """

    run: str
    started: int
    total: int
    done: int
    failed: tuple[tuple[str, str], ...]
    running: bool


class Run(Closing):
    """One unfinished run, locked by us. `close` keeps it; `finish` removes it.

    ``new``: it was begun just now, and nobody counts on it.
    """

    def __init__(self, path: Path, file: BinaryIO, *, ours: bool = True) -> None:
        self.path = path
        self.new = False
        self._file = file
        head = _parsed(file.readline(), path)
        if not isinstance(head, dict) or head.get("format") != _FORMAT:
            raise _damaged(path)
        try:
            self.started = int(head["started"])
            self.allow_retired = bool(head["allow_retired"])
            # Runs of before this was kept signed nothing.
            self.signers = [str(signer) for signer in head.get("signers", [])]
            self.policy = Policy.from_json(head["policy"]) if "policy" in head else ANYBODY
            self.total = int(head["total"])
            self.change = Change.from_json(head["change"])
            self._states = bytearray(self.total)
        except (KeyError, TypeError, ValueError, OverflowError, MemoryError, FormatError):
            raise _damaged(path) from None
        self.failed: dict[int, str] = {}
        self._targets = file.tell()
        self._read_marks(ours)

    @property
    def id(self) -> str:
        """Its name for people."""
        return self.path.stem

    @classmethod
    def create(
        cls,
        targets: Iterable[str | os.PathLike[str]],
        change: Change,
        *,
        allow_retired: bool = False,
        signers: Iterable[str] = (),
        policy: Policy = ANYBODY,
        kind: Kind = "rotations",
    ) -> Run:
        """Write down a new run, durably. ``targets``: absolute paths, URLs. ``signers``: ids of
        the keys that are to sign."""
        folder = home.folder(kind)
        name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        path = folder / f"{name}-{secrets.token_hex(4)}.jsonl"
        paths = [os.fspath(target) for target in targets]
        head = {
            "format": _FORMAT,
            "started": now(),
            "allow_retired": allow_retired,
            "signers": sorted(signers),
            "policy": policy.to_json(),
            "total": len(paths),
            "change": change.to_json(),
        }
        beside = path.with_suffix(".new")
        with explained("write", str(path)):
            fd = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            file = open(fd, "r+b")
            try:
                flock(fd, str(path))  # ours before it has its name
                for value in (head, *paths):
                    file.write(json.dumps(value).encode() + b"\n")
                file.flush()
                os.fsync(fd)
                os.rename(beside, path)
            except BaseException:
                with suppress(OSError):  # of what it could not write; it is closed all the same
                    file.close()
                beside.unlink(missing_ok=True)
                raise
            sync_folder(folder)
        file.seek(0)
        run = cls(path, file)
        run.new = True
        return run

    @classmethod
    def again(
        cls,
        targets: Iterable[str | os.PathLike[str]],
        change: Change,
        kind: Kind,
        *,
        allow_retired: bool,
        policy: Policy,
    ) -> Run | None:
        """The unfinished run that is about the same, if there is one. Raises Locked.

        Not one that believes others, or refuses other keys: what was said now must hold.
        """
        wanted = [os.fspath(target) for target in targets]
        rules = (allow_retired, policy.to_json())
        for path in unfinished(kind):
            try:
                with path.open("rb") as file:
                    found = cls(path, file, ours=False)
                    same = [target for _, target in found.targets()] == wanted
                same = same and (found.allow_retired, found.policy.to_json()) == rules
                if same and found.change.to_json() == change.to_json():
                    return cls.open(path)
            except (FileNotFoundError, NotFound, FormatError):
                continue  # another process has just ended it; or damaged, as `--status` says
        return None

    @classmethod
    def open(cls, path: Path) -> Run:
        """Carry on with one. Raises Locked when another process works on it."""
        with explained("open", str(path)):
            file = path.open("r+b")
        try:
            flock(file.fileno(), str(path))
            return cls(path, file)
        except BlockingIOError:
            file.close()
            raise Locked(f"another process works on the rotation {path.stem}") from None
        except BaseException:
            file.close()
            raise

    def _read_marks(self, ours: bool) -> None:
        file = self._file
        for _ in range(self.total):
            file.readline()
        whole = file.tell()
        for line in file:
            if not line.endswith(b"\n"):
                break  # torn: its target is looked at again
            whole += len(line)
            try:
                self._mark(*_parsed(line, self.path))
            except (TypeError, IndexError):
                raise _damaged(self.path) from None
        if ours:
            file.seek(whole)
            file.truncate()

    def _mark(self, number: int, problem: str) -> None:
        self._states[number] = _FAILED if problem else _DONE
        self.failed.pop(number, None)
        if problem:
            self.failed[number] = problem

    def targets(self) -> Iterator[tuple[int, str]]:
        """All targets and their numbers."""
        with self.path.open("rb") as file:
            file.seek(self._targets)
            for number in range(self.total):
                yield number, str(_parsed(file.readline(), self.path))

    def pending(self) -> Iterator[tuple[int, str]]:
        """What is not done, what failed included."""
        return ((n, path) for n, path in self.targets() if self._states[n] != _DONE)

    @property
    def left(self) -> int:
        """How many targets are not done."""
        return self.total - self._states.count(_DONE)

    def mark(self, number: int, problem: str = "") -> None:
        """Note that a target is done, or why not."""
        self._mark(number, problem)
        with explained("write", str(self.path)):
            self._file.write(json.dumps([number, problem]).encode() + b"\n")
            self._file.flush()

    def status(self, *, running: bool) -> RunStatus:
        """How far it is."""
        failed = tuple((p, self.failed[n]) for n, p in self.targets() if n in self.failed)
        done = self._states.count(_DONE)
        return RunStatus(self.id, self.started, self.total, done, failed, running)

    def finish(self) -> None:
        """Nothing is left to do: remove the file."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Give up the lock; the run stays unfinished."""
        self._file.close()


def unfinished(kind: Kind = "rotations") -> list[Path]:
    """The files of all runs that are not finished, oldest first."""
    return sorted(home.folder(kind).glob("*.jsonl"))


def look(path: Path) -> RunStatus:
    """How far a run is, whether or not a process works on it."""
    try:
        with Run.open(path) as run:
            return run.status(running=False)
    except Locked:
        with path.open("rb") as file:
            return Run(path, file, ours=False).status(running=True)


def statuses(kind: Kind) -> tuple[list[RunStatus], list[FormatError]]:
    """How far each unfinished run is, oldest first, and which files are none."""
    found, damaged = [], []
    for path in unfinished(kind):
        try:
            found.append(look(path))
        except FormatError as error:
            damaged.append(error)
        except (FileNotFoundError, NotFound):
            continue  # another process has just ended it
    return found, damaged


def _parsed(line: bytes, path: Path) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        raise _damaged(path) from None


def _damaged(path: Path) -> FormatError:
    return FormatError(f"{path} is not an unfinished rotation", hint=f"remove {path}")
