"""Encrypt many archives and sealed streams again, one after the other, so that it can be carried
on. Within an archive all threads work on the files of one part."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pqvault.archive.engine import Engine
from pqvault.archive.recipients import FindRecipient
from pqvault.errors import PQVaultError
from pqvault.keys import Identity, Recipient
from pqvault.keystore import Keystore
from pqvault.keystore.identities import audit_use
from pqvault.keystore.index import STREAM
from pqvault.memory import Memory
from pqvault.policy import ANYBODY, Policy
from pqvault.progress import Progress, Report, ignore
from pqvault.rotation.archives import Rotated
from pqvault.rotation.change import Change, Keys
from pqvault.rotation.ledger import Ledger
from pqvault.rotation.renewal import ArchiveRenewal
from pqvault.rotation.run import Planned, check_signers, failure_of, is_over, nobody_removed
from pqvault.rotation.runs import Run
from pqvault.rotation.streamrenewal import StreamRenewal
from pqvault.rotation.streams import UNSIGNED
from pqvault.signing import SigningKey
from pqvault.storage import is_archive, storage_at

__all__ = ["JOBS", "ReencryptReport", "ReencryptRun", "plan", "public_keys"]

JOBS: Final = min(8, 2 * (os.cpu_count() or 1))  # threads: half of them wait for the disk
_NEVER: Final = 2**62  # ms: nothing was encrypted again since then


@dataclass(slots=True)
class ReencryptReport:
    """What was encrypted again. ``targets``: archives and streams; ``finished`` of them are done.

    ``parts``: that have a new root key, sealed streams among them; ``size``: their sealed bytes.
    ``new``: key ids that it was wrapped to. ``failed``: (path, why); ``run``: the name of the
    unfinished re-encryption, or "".
    """

    run: str = ""
    targets: int = 0
    finished: int = 0
    parts: int = 0
    size: int = 0
    seconds: float = 0.0
    new: list[str] = field(default_factory=list)
    retired: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    failed: list[tuple[str, PQVaultError]] = field(default_factory=list)

    def add(self, result: Rotated) -> None:
        """Count one target."""
        self.parts += result.rewrapped
        self.size += result.copied
        self.new += sorted(result.wrapped.difference(self.new))
        self.retired += [k for k in result.retired if k not in self.retired]
        self.warnings += [w for w in result.warnings if w not in self.warnings]
        self.failed += [(result.path, problem) for problem in result.problems]
        self.finished += not result.problems


def public_keys(identities: Sequence[Identity], keystore: Keystore | None) -> FindRecipient:
    """Looks up the public key of a key id, among our own and those of the keystore."""
    ours = {identity.key_id: identity for identity in identities}
    stored = {facts.key_id for facts in keystore.list()} if keystore is not None else set[str]()

    def find(key_id: str) -> Recipient | None:
        if key_id in ours:
            return ours[key_id].recipient
        return keystore.public_key(key_id) if keystore is not None and key_id in stored else None

    return find


@dataclass(slots=True)
class ReencryptRun:
    """One run over many targets. ``report`` can be read after an error.

    ``find``: see :func:`public_keys`. ``sign``: keys that sign new parts and their envelopes, those
    that the run began with. ``engine``: see `ArchiveRenewal`.
    """

    run_file: Run
    identities: Sequence[Identity]
    find: FindRecipient
    ledger: Ledger | None = None
    sign: Sequence[SigningKey] = ()
    jobs: int = JOBS
    engine: Engine | None = None
    progress: Progress = ignore
    report: ReencryptReport = field(init=False)
    _keys: Keys = field(init=False)

    def __post_init__(self) -> None:
        """Raises UsageError when ``sign`` are not the keys that the run began with."""
        check_signers(self.run_file, self.sign)
        self.report = ReencryptReport(self.run_file.id, self.run_file.total)
        self._keys = Keys(self.identities)

    def run(self) -> ReencryptReport:
        """Do what is left. Raises as `failure_of` says; the run stays unless `is_over`."""
        began, report = time.monotonic(), self.report
        report.finished = report.targets - self.run_file.left
        met = set[str]()
        try:
            for number, path in self.run_file.pending():
                result = self._one(path)
                if self.ledger is not None and result.archive:
                    self.ledger.note(result)
                self.run_file.mark(number, "; ".join(e.message for e in result.problems))
                met |= result.met
                report.add(result)
        finally:
            if self.ledger is not None:
                self.ledger.flush()
            if report.parts or report.retired:
                self._audit()
            report.seconds = time.monotonic() - began
        if self.run_file.new and not report.failed:
            report.warnings += nobody_removed(self.run_file.change, met)
        failure = failure_of(report, "encrypted again", "reencrypt", bool(report.parts))
        if failure is None or is_over(failure, self.run_file):
            self.run_file.finish()
            report.run = ""
        if failure is not None:
            raise failure
        return report

    def _one(self, path: str) -> Rotated:
        work: ArchiveRenewal | StreamRenewal | None = None
        try:
            if not is_archive(path):
                work = self._stream(path)
                self._expect(STREAM, path, work.look()[2])
                result = work.run()
                if self.sign or self.run_file.policy.demands:
                    result.warnings.append(UNSIGNED)
                return result
            work = self._archive(path, self.ledger.seen if self.ledger is not None else None)
            recipients = {one.key_id: one for _, many in work.pending() for one in many}
            self._expect(work.state.archive, path, recipients.values())
            return work.run()
        except PQVaultError as error:
            # Of an archive, what was done before stays done.
            result = work.result if isinstance(work, ArchiveRenewal) else Rotated(path)
            result.problems.append(error)
            return result

    def _stream(self, path: str) -> StreamRenewal:
        done, total = 0, 2 * os.path.getsize(path)

        def tell(count: int) -> None:
            nonlocal done
            done += count
            self.progress(Report("reencrypt", done=done, total=total))

        run = self.run_file
        return StreamRenewal(Path(path), run.change, self._keys, self.find, run.started, tell)

    def _archive(self, path: str, memory: Memory | None) -> ArchiveRenewal:
        return ArchiveRenewal(
            storage_at(path),
            self.run_file.change,
            self._keys,
            self.find,
            self.run_file.started,
            sign=self.sign,
            policy=self.run_file.policy,
            memory=memory,
            allow_retired=self.run_file.allow_retired,
            jobs=self.jobs,
            engine=self.engine,
            progress=self.progress,
        )

    def _expect(self, archive: str, path: str, recipients: Collection[Recipient]) -> None:
        if self.ledger is not None and recipients:
            self.ledger.expect(archive, path, {r.key_id for r in recipients})

    def _audit(self) -> None:
        report = self.report
        audit_use(
            self._keys.ring.values(),
            "reencrypt",
            self.run_file.id,
            targets=report.targets,
            finished=report.finished,
            parts=report.parts,
            to=report.new,
            removed=sorted(self.run_file.change.remove),
        )


def plan(
    path: str,
    change: Change,
    find: FindRecipient,
    *,
    signs: bool = False,
    policy: Policy = ANYBODY,
    memory: Memory | None = None,
) -> Planned:
    """What would be done with one target. Needs no private key; nothing is verified.

    ``signs``: whether new parts would be signed; ``policy``: what of the old ones is accepted.
    """
    what = "archive" if is_archive(path) else STREAM
    warnings = (UNSIGNED,) if what == STREAM and (signs or policy.demands) else ()
    try:
        if what == STREAM:
            envelope, copy, recipients = StreamRenewal(
                Path(path), change, Keys(), find, _NEVER
            ).look()
            found = [(envelope, copy, recipients)]
        else:
            storage = storage_at(path)
            work = ArchiveRenewal(
                storage, change, Keys(), find, _NEVER, policy=policy, memory=memory
            )
            pending = work.pending(signs=signs)
            found = [(p.envelope, p.size, rs) for p, rs in pending if p.envelope is not None]
    except PQVaultError as error:
        return Planned(path, what, problem=error)
    now = {k: None for envelope, _, _ in found for k in envelope.key_ids}
    then = {r.key_id: None for _, _, recipients in found for r in recipients}
    size = sum(size for _, size, _ in found)
    return Planned(path, what, len(found), size, tuple(now), tuple(then), warnings=warnings)
