"""Rotate many archives and sealed streams, side by side, so that it can be carried on."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from pqvault.archive.finding import find, unfollowed
from pqvault.archive.layout import HEADER
from pqvault.archive.tasks import run_tasks
from pqvault.errors import Incomplete, NotFound, PQVaultError, UsageError
from pqvault.keys import Identity, Recipient
from pqvault.keystore.identities import audit_use
from pqvault.keystore.index import STREAM
from pqvault.memory import Memory
from pqvault.policy import ANYBODY, Policy
from pqvault.progress import Progress, Report, ignore
from pqvault.rotation.archives import ArchiveRotation, Rotated
from pqvault.rotation.change import Change, Keys
from pqvault.rotation.ledger import Ledger
from pqvault.rotation.runs import Run
from pqvault.rotation.streams import UNSIGNED, StreamRotation
from pqvault.signing import SigningKey
from pqvault.storage import is_archive, is_url, storage_at
from pqvault.storage.base import explained

__all__ = [
    "JOBS",
    "Planned",
    "RotateReport",
    "RotateRun",
    "check_signers",
    "failure_of",
    "is_over",
    "left_out",
    "nobody_removed",
    "plan",
    "targets_of",
]

JOBS: Final = 8  # threads: a rotation waits for the disk most of the time


@dataclass(frozen=True, slots=True)
class Planned:
    """What would become of one archive or sealed stream, by values that are not verified.

    ``what``: ``archive`` or ``stream``. ``rewrap``: envelopes. ``copy``: bytes of a stream that
    would be copied. ``key_ids`` of those envelopes now, ``then`` after.
    """

    path: str
    what: str
    rewrap: int = 0
    copy: int = 0
    now: tuple[str, ...] = ()
    then: tuple[str, ...] = ()
    problem: PQVaultError | None = None
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class RotateReport:
    """What a rotation did. ``targets``: archives and streams; ``finished`` of them are done.

    ``rewrapped``, ``signed``, ``unchanged``: envelopes. ``written``: bytes of envelopes,
    ``copied``: bytes of sealed streams. ``new``: key ids that were wrapped to; ``signers``: ids of
    the keys that signed. ``failed``: (path, why); ``run``: the name of the unfinished rotation,
    or "".
    """

    run: str = ""
    targets: int = 0
    finished: int = 0
    rewrapped: int = 0
    signed: int = 0
    unchanged: int = 0
    written: int = 0
    copied: int = 0
    seconds: float = 0.0
    new: list[str] = field(default_factory=list)
    retired: list[str] = field(default_factory=list)
    signers: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    failed: list[tuple[str, PQVaultError]] = field(default_factory=list)

    def add(self, result: Rotated) -> None:
        """Count one target."""
        self.rewrapped += result.rewrapped
        self.signed += result.signed
        self.unchanged += result.unchanged
        self.written += result.written
        self.copied += result.copied
        self.new += sorted(result.wrapped.difference(self.new))
        self.retired += [k for k in result.retired if k not in self.retired]
        self.warnings += [w for w in result.warnings if w not in self.warnings]
        self.failed += [(result.path, problem) for problem in result.problems]
        self.finished += not result.problems


def targets_of(paths: Iterable[str | os.PathLike[str]], *, recursive: bool) -> Iterator[str]:
    """Archives and sealed streams: absolute paths, and URLs of archives. ``recursive``: all below
    folders that are neither.

    Raises NotFound for what is not there, or a folder that is no archive, and PQVaultError for a
    folder that cannot be read: nothing below it is to be left out unseen.
    """
    for given in paths:
        if is_url(given):
            yield storage_at(given).where("")
            continue
        path = Path(os.path.realpath(given))
        if path.is_file() or (path / HEADER).exists():
            yield str(path)
        elif not path.is_dir():
            raise NotFound(f"{os.fspath(given)} is not there", hint="check the path")
        elif recursive:
            yield from (_readable(found) for found in find(path) if not found.is_symlink())
        else:
            raise NotFound(
                f"{os.fspath(given)} is not an archive: it has no {HEADER}",
                hint="--recursive rotates all archives and sealed streams below a folder",
            )


def left_out(
    paths: Iterable[str | os.PathLike[str]], targets: Sequence[str], *, recursive: bool
) -> list[str]:
    """Warnings of what :func:`targets_of` does not go into, so that nobody takes it for done."""
    folders = [Path(os.path.realpath(path)) for path in paths if recursive and not is_url(path)]
    nothing = [] if targets else ["no archive and no sealed stream was found"]
    return [*nothing, *unfollowed(folders, set(targets))]


def _readable(found: Path) -> str:
    if found.is_dir():
        with explained("list", str(found)):
            os.scandir(found).close()
    return str(found)


def plan(
    target: str,
    change: Change,
    memory: Memory | None = None,
    *,
    sign: Sequence[SigningKey] = (),
    policy: Policy = ANYBODY,
) -> Planned:
    """What would become of one target. Needs no private key but those that would sign; nothing
    is verified."""
    what = "archive" if is_archive(target) else STREAM
    copy = 0
    try:
        if what == STREAM:
            envelope, copy, members = StreamRotation(Path(target), change, Keys()).look()
            found = [(envelope, members)] if members is not None else []
            warnings = [*change.stays(envelope), *([UNSIGNED] if sign or policy.demands else [])]
        else:
            storage = storage_at(target)
            rotation = ArchiveRotation(
                storage, change, Keys(), sign=sign, policy=policy, memory=memory
            )
            found = list(rotation.pending())
            warnings = rotation.result.warnings
    except PQVaultError as error:
        return Planned(target, what, problem=error)
    now = {k: None for envelope, _ in found for k in envelope.key_ids}
    then = {m.key_id: None for _, members in found for m in members}
    return Planned(
        target,
        what,
        len(found),
        copy if found else 0,
        tuple(now),
        tuple(then),
        warnings=tuple(dict.fromkeys(warnings)),
    )


class RotateRun:
    """One run over many targets. ``report`` can be read after an error."""

    def __init__(
        self,
        run: Run,
        identities: Sequence[Identity],
        *,
        sign: Sequence[SigningKey] = (),
        ledger: Ledger | None = None,
        jobs: int = JOBS,
        progress: Progress = ignore,
    ) -> None:
        """Raises UsageError when ``sign`` are not the keys that the run began with."""
        check_signers(run, sign)
        self._run = run
        self._sign = sign
        self._change = run.change
        self._keys = Keys(identities)
        self._ledger = ledger
        self._jobs = jobs
        self._progress = progress
        self._stop = threading.Event()
        self._turn = threading.Lock()
        self._met: set[str] = set()  # key ids of who could open something before
        self.report = RotateReport(run.id, run.total, signers=run.signers)

    def run(self) -> RotateReport:
        """Do what is left. Raises as `failure_of` says; the run stays unless `is_over`."""
        began = time.monotonic()
        report = self.report
        pending = self._run.pending()
        report.finished = report.targets - self._run.left
        # Here until one was opened: a passphrase is asked for by the thread that Ctrl-C ends.
        try:
            for item in pending:
                self._collect(self._one(item))
                if report.rewrapped or report.signed or report.failed:
                    break
            with ThreadPoolExecutor(self._jobs, "pqvault-rotate") as pool:
                run_tasks(pool, self._jobs, pending, self._one, self._collect, self._stop)
        finally:
            if self._ledger is not None:
                self._ledger.flush()
            if self._began:
                self._audit()
            report.seconds = time.monotonic() - began
        if self._run.new and not report.failed:
            report.warnings += nobody_removed(self._change, self._met)
        failure = failure_of(report, "rotated", "rotate", self._began and report.targets > 1)
        if failure is None or is_over(failure, self._run):
            self._run.finish()
            report.run = ""
        if failure is not None:
            raise failure
        return report

    @property
    def _began(self) -> bool:
        report = self.report
        return bool(report.rewrapped or report.signed or report.retired)

    def _one(self, item: tuple[int, str]) -> tuple[int, Rotated]:
        number, path = item
        try:
            result = self._rotate(path)
        except PQVaultError as error:
            result = Rotated(path, problems=[error])
        return number, result

    def _rotate(self, path: str) -> Rotated:
        if not is_archive(path):
            stream = StreamRotation(Path(path), self._change, self._keys)
            members = stream.look()[2] or ()
            self._expect(STREAM, path, {m.key_id for m in members if isinstance(m, Recipient)})
            result = stream.run()
            if self._sign or self._run.policy.demands:
                result.warnings.append(UNSIGNED)
            return result
        with self._turn:
            rotation = ArchiveRotation(
                storage_at(path),
                self._change,
                self._keys,
                allow_retired=self._run.allow_retired,
                sign=self._sign,
                policy=self._run.policy,
                memory=self._ledger.seen if self._ledger is not None else None,
                waiting=self._waiting,
            )
            self._expect(rotation.state.archive, path, rotation.wraps_to())
            return rotation.run()

    def _expect(self, archive: str, path: str, key_ids: set[str]) -> None:
        if self._ledger is not None and key_ids:
            self._ledger.expect(archive, path, key_ids)

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        # Threads that wait for the disk let others work, one at a time: at 60 short system calls
        # an archive, Python's threads hinder each other (290 archives a second with 8 of them
        # working, 400 with 1, 460 with 1 working and 7 waiting for fsync).
        self._turn.release()
        try:
            yield
        finally:
            self._turn.acquire()

    def _collect(self, item: tuple[int, Rotated]) -> None:
        number, result = item
        if self._ledger is not None and result.archive:
            self._ledger.note(result)
        problem = "; ".join(error.message for error in result.problems)
        self._run.mark(number, problem)
        self._met |= result.met
        self.report.add(result)
        self._progress(Report("rotate", self.report.finished, self.report.targets))

    def _audit(self) -> None:
        report = self.report
        audit_use(
            self._keys.ring.values(),
            "rewrap",
            self._run.id,
            targets=report.targets,
            finished=report.finished,
            envelopes=report.rewrapped,
            to=report.new,
            removed=sorted(self._change.remove),
            signers=report.signers,
        )


class _Report(Protocol):
    targets: int
    finished: int
    failed: list[tuple[str, PQVaultError]]


def failure_of(report: _Report, verb: str, command: str, began: bool) -> PQVaultError | None:
    """What a run over many targets ends with, when something failed: Incomplete.

    When all failed for one reason, and nothing was done (``began``), it is an error of that kind.
    ``verb``: happens to a target.
    """
    if not report.failed:
        return None
    first = report.failed[0][1]
    if report.targets == 1 and not began:
        return first
    codes = {error.exit_code for _, error in report.failed}
    if not began and not report.finished and len(codes) == 1 and codes != {PQVaultError.exit_code}:
        return type(first)(
            f"none of {report.targets:,} archives and streams is {verb}; the first:"
            f" {first.message}",
            hint=first.hint,
        )
    failed = {path for path, _ in report.failed}
    return Incomplete(
        f"{len(failed)} of {report.targets} archives and streams are not {verb}; the first:"
        f" {first.message}",
        hint=f"mend what is named, then `pqvault {command} --resume`; `--status` lists them",
    )


def is_over(failure: PQVaultError, run: Run) -> bool:
    """Whether there is nothing to carry on with: the same may be typed again."""
    return not isinstance(failure, Incomplete) and (run.new or run.total == 1)


def nobody_removed(change: Change, met: set[str]) -> list[str]:
    """A warning where nobody who was to be removed was there: a key id may be mistyped.

    ``met``: the key ids of all who could open something before.
    """
    if not change.remove or change.remove & met:
        return []
    gone = ", ".join(sorted(change.remove))
    return [
        f"nothing here was sealed to {gone}, so nobody was removed: `pqvault parts` shows who can"
        " open an archive"
    ]


def check_signers(run: Run, sign: Sequence[SigningKey]) -> None:
    """Raise UsageError unless ``sign`` are the keys that a run began with, each once."""
    given = {key.signer.signer_id for key in sign}
    if len(given) != len(sign):
        raise UsageError("a signing key is given twice", hint="leave one of them out")
    if given != set(run.signers):
        wanted = ", ".join(run.signers) or "nobody"
        raise UsageError(
            f"{run.id} began with the signatures of {wanted}",
            hint="give the same keys with --sign, or --abandon it",
        )
