"""Seal sources into an archive: plan, deal, seal objects side by side, commit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from pqvault.archive import layout
from pqvault.archive.adopting import Adopting
from pqvault.archive.archive import Archive
from pqvault.archive.columngroups import ColumnGroup, PartKeys, check_groups, everybody
from pqvault.archive.committing import (
    discard,
    give_up,
    make_commit,
    put_part,
)
from pqvault.archive.deal import Dealer, DigestJob, Job, PartRows, TableJob, object_size
from pqvault.archive.engine import THREADS, Engine
from pqvault.archive.journal import Journal
from pqvault.archive.objects import Sealed, SealOptions
from pqvault.archive.ownfolder import own_files
from pqvault.archive.partwriter import PartTables, load_partwriter, write_catalog
from pqvault.archive.plan import Plan, Prior
from pqvault.archive.priors import priors_for
from pqvault.archive.publicstate import PublicState
from pqvault.archive.sealchecks import (
    check_excludes,
    check_journal,
    check_key_ids,
    check_place,
    check_retired,
    check_sources,
    check_state,
)
from pqvault.archive.sealreport import SealReport
from pqvault.archive.sealtable import TableOptions, as_table, seal_table
from pqvault.archive.tasks import default_jobs, run_tasks
from pqvault.archive.trim import give_back
from pqvault.archive.walk import Source, Walker, inside
from pqvault.crypto import digest as digests
from pqvault.errors import Incomplete, UsageError
from pqvault.format.entries import Kind
from pqvault.keys import Identity, Recipient, one_profile
from pqvault.memory import Memory
from pqvault.names import printable
from pqvault.policy import ANYBODY, Policy
from pqvault.progress import Meter, Progress, Report, ignore
from pqvault.sealed.writer import DEFAULT_FRAME, DEFAULT_LEVEL, check_options
from pqvault.signing import SigningKey, check_suites
from pqvault.storage import Storage

__all__ = ["SealRun"]

PART_SECONDS: Final = 30 * 60
PART_LEAST: Final = 1024**3  # bytes; time alone never ends a part below this


@dataclass(slots=True)
class SealRun:
    """One run of seal. All but ``storage``, ``sources`` and ``recipients`` have defaults.

    ``level``: zstd 0 (store) to 22; ``frame_size``: bytes; ``jobs``: threads. ``sign``: keys that
    sign what is committed; ``policy``: what is read of the archive must have been signed so.
    ``tables``: how files whose names say so become tables; None: they are sealed as files.
    ``engine``: where objects are sealed, ``jobs`` of them at once. ``before_commit``: called when
    the first part is about to be committed.
    """

    storage: Storage
    sources: Sequence[Source]
    recipients: Sequence[Recipient]
    identities: Sequence[Identity] = ()
    level: int = DEFAULT_LEVEL
    frame_size: int = DEFAULT_FRAME
    jobs: int = field(default_factory=default_jobs)
    exclude: Sequence[str | bytes] = ()
    listed: Iterable[str | bytes | os.PathLike[str]] | None = None
    one_file_system: bool = False
    checksum: bool = False
    delete: bool = False
    yes: bool = False
    append: bool = False
    dry_run: bool = False
    allow_changed: bool = False
    allow_retired: bool = False
    sign: Sequence[SigningKey] = ()
    policy: Policy = ANYBODY
    expect_key_ids: Sequence[str] = ()
    tables: TableOptions | None = None
    memory: Memory | None = None
    engine: Engine = THREADS
    progress: Progress = ignore
    before_commit: Callable[[], object] = lambda: None
    report: SealReport = field(default_factory=SealReport, init=False)
    _meter: Meter = field(init=False, repr=False)
    _chosen: list[tuple[Source, bytes]] | None = field(default=None, init=False, repr=False)

    def run(self) -> SealReport:
        """Do it. Raises Incomplete (with all else committed) when some files failed."""
        began = time.monotonic()
        report = self.report
        report.archive = self.storage.where("")
        report.dry_run = self.dry_run
        check_groups(self._groups)
        report.recipients = [r.key_id for r in everybody(self.recipients, self._groups)]
        self._check_options()
        try:
            if self.dry_run and not self.storage.exists(layout.HEADER):
                self._run(None)
            else:
                self._run(layout.create_archive(self.storage))
        finally:
            report.seconds = time.monotonic() - began
        if report.failed:
            count = len(report.failed) + report.files + report.tables
            raise Incomplete(
                f"{len(report.failed)} of {count} files could not be"
                f" sealed; the first: {report.failed[0]}",
                hint="mend what is named and run the same command again: only that is sealed",
            )
        return report

    def _check_options(self) -> None:
        check_options(self.level, self.frame_size)
        check_sources(self.storage, self.sources)
        check_place(self.storage)
        check_excludes(self.sources, self.exclude)
        if self.listed is not None:  # told before anything is written
            self._chosen = [inside(self.sources, name) for name in self.listed]
        if self.delete and (self.append or self.listed is not None):
            raise UsageError("--delete does not go with --append or --files-from")
        if self.checksum and self.append:
            raise UsageError("--append compares nothing, so --checksum does not go with it")
        if (self.delete or self.checksum) and not self.identities:
            option = "--delete" if self.delete else "--checksum"
            raise UsageError(
                f"{option} needs to read the archive, and there is no identity",
                hint="pass the identity file with -i or PQVAULT_IDENTITY",
            )
        check_suites(one_profile(everybody(self.recipients, self._groups)), self.sign)
        check_key_ids(self.report.recipients, self.expect_key_ids)
        self.policy.check_writer(self.sign)

    def _run(self, archive: str | None) -> None:
        report = self.report
        if archive is None:
            self._plan_only()
        else:
            report.archive_id = archive
            state = PublicState(self.storage, self.memory)
            report.warnings += check_state(
                state,
                report.recipients,
                one_profile(self.recipients),
                self.policy,
                signed=bool(self.sign),
                allow_retired=self.allow_retired,
                groups=[group.name for group in self._groups],
            )
            with Journal(archive) as journal:
                opened = self._open(state, journal)
                try:
                    priors: Iterator[Prior] = iter(())
                    if not self.append:
                        priors = priors_for(state, journal, opened, self.tables)
                    adopting = Adopting(state, keep_files=self._keep_files)
                    plan = self._start_plan(priors, None if self.dry_run else adopting)
                    try:
                        if self.dry_run:
                            self._tell(plan)
                        else:
                            self._seal(plan, state, journal, can_read=opened is not None)
                            adopting.flush()
                    finally:
                        report.unchanged = plan.unchanged
                        plan.close()
                finally:
                    if opened is not None:
                        opened.close()

    # -- before ----------------------------------------------------------------------------

    def _open(self, state: PublicState, journal: Journal) -> Archive | None:
        if self.append or not self.identities or not state.parts:
            if not self.append:
                self.report.warnings += check_journal(state, journal)
            return None
        return Archive(self.storage, self.identities, memory=self.memory, policy=self.policy)

    def _start_plan(self, priors: Iterator[Prior], adopting: Adopting | None) -> Plan:
        count = 0

        def on_row() -> None:
            nonlocal count
            count += 1
            if count % 1000 == 0 and not self._meter.done:
                self.progress(Report("plan", files=count))

        walker = Walker(
            self.sources,
            self._note,
            exclude=self.exclude,
            one_file_system=self.one_file_system,
            skip=own_files(self.storage),
        )
        walk = walker.walk() if self._chosen is None else walker.listed(self._chosen)
        if self.tables is not None:
            walk = map(as_table, walk)
        plan = Plan()
        self._meter = Meter("seal", self.progress, lambda: plan.total)
        plan.start(
            walk,
            priors,
            walker,
            checksum=self.checksum,
            delete=self.delete,
            yes=self.yes,
            on_row=on_row,
            adopt=(lambda prior, found: None) if adopting is None else adopting.add,
            after=load_partwriter,
        )
        return plan

    def _plan_only(self) -> None:
        plan = self._start_plan(iter(()), None)
        try:
            self._tell(plan)
        finally:
            self.report.unchanged = plan.unchanged
            plan.close()

    def _tell(self, plan: Plan) -> None:
        plan.wait()
        self.report.count_planned(plan.batches(), self.sources)

    def _note(self, path: bytes, sentence: str, failed: bool) -> None:
        notes = self.report.failed if failed else self.report.skipped
        notes.append(f"{printable(path)} {sentence}")

    # -- sealing ---------------------------------------------------------------------------

    def _seal(self, plan: Plan, state: PublicState, journal: Journal, *, can_read: bool) -> None:
        if self.delete:  # nothing is done before it is known that not too much would go
            plan.wait()
        started = [time.monotonic()]

        def is_over(part: PartRows) -> bool:
            return part.size >= PART_LEAST and time.monotonic() - started[0] > PART_SECONDS

        profile = one_profile(everybody(self.recipients, self._groups))
        options = SealOptions(self.level, self.frame_size, profile.digest)
        dealer = Dealer(
            plan.batches(),
            lambda: object_size(plan.size, self.jobs),
            is_over,
            keep_files=self._keep_files,
        )
        with ThreadPoolExecutor(self.jobs, "pqvault-seal") as pool:
            while (rows := dealer.part()) is not None:
                started[0] = time.monotonic()
                keys = PartKeys.generate(state.archive, self._groups, profile)
                tables = PartTables(options.digest, keep_files=self._keep_files)
                try:
                    self._run_jobs(pool, dealer.jobs(rows), keys, tables, options)
                    self._commit(keys, rows, tables, options, state, journal, can_read, plan)
                except BaseException:
                    self._meter.stop.set()
                    pool.shutdown(wait=True, cancel_futures=True)
                    give_up(self.storage, keys.root.part)
                    raise

    def _run_jobs(
        self,
        pool: ThreadPoolExecutor,
        jobs: Iterator[Job],
        keys: PartKeys,
        tables: PartTables,
        options: SealOptions,
    ) -> None:
        key, meter = keys.root, self._meter

        def do(job: Job) -> Sealed:
            if isinstance(job, DigestJob):
                return self.engine.digest(job, options.digest, meter.check)
            if isinstance(job, TableJob):
                assert self.tables is not None
                return seal_table(job, keys, self.storage, options, self.tables, meter.tell)
            return self.engine.seal(job, key, self.storage, options, meter.tell)

        self.storage.make_folder(f"parts/{key.part}/objects")
        if self.tables is not None:
            self.storage.make_folder(f"parts/{key.part}/tables")
        run_tasks(pool, self.jobs, jobs, do, tables.add, meter.stop)

    def _commit(
        self,
        keys: PartKeys,
        rows: PartRows,
        tables: PartTables,
        options: SealOptions,
        state: PublicState,
        journal: Journal,
        can_read: bool,
        plan: Plan,
    ) -> None:
        key = keys.root
        give_back()
        table = tables.table(rows)
        changed = self.allow_changed
        counted = self.report.count(rows, tables, self.sources, allow_changed=changed)
        give_back()
        if tables.failed and not plan.folders and _only_folders(table):
            # Those around what failed, and none has changed: a run every hour over a file that
            # cannot be read is not to add a part every hour.
            table = table.slice(0, 0)
        if not table.num_rows:
            discard(self.storage, key.part)
            return
        catalog = write_catalog(table, key, self.storage, options.digest, tables.files)
        files = [*tables.files, catalog]
        envelopes = keys.envelopes(self.recipients, self._groups, self.sign)
        self._check_groups(state, tables)
        if not self.report.parts:
            self.before_commit()
        with journal.turn():
            state.refresh()
            state.refuse_rolled_back()
            # Again: a key may have been retired while we sealed.
            retired = check_retired(
                self.storage, self.report.recipients, self.policy, allow=self.allow_retired
            )
            self.report.warnings += [text for text in retired if text not in self.report.warnings]
            commit = make_commit(
                state,
                key,
                files,
                kind="seal" if can_read else "append",
                sealed_to=self.report.recipients,
                digest=options.digest,
                sign=self.sign,
            )
            digest = digests.of(commit.marshal(), options.digest)
            journal.record(key.part, digest.hex(), tables.known(rows, key.part))
            put_part(self.storage, envelopes, commit)
        self.report.add(*counted)
        state.remember(commit)
        self.report.parts.append(key.part)
        self.report.sealed_size += sum(file.size for file in files)

    @property
    def _keep_files(self) -> bool:
        return self.tables is not None and self.tables.keep_files

    @property
    def _groups(self) -> Sequence[ColumnGroup]:
        return self.tables.groups if self.tables is not None else ()

    def _check_groups(self, state: PublicState, tables: PartTables) -> None:
        """A column of a group that no table has may be a slip, and then what it was to keep from
        others is sealed to them."""
        if self.tables is None or not tables.tables:
            return
        missing = [c for g in self._groups for c in g.columns if c not in self.tables.seen]
        if missing:
            sentence = f"no table of this run has a column {missing[0]!r}, which a group names"
            if not state.parts:
                raise UsageError(sentence, hint="check the names of the columns after --group")
            self.report.warnings.append(sentence)


def _only_folders(table: Any) -> bool:
    return set(table["kind"].unique().to_pylist()) <= {int(Kind.FOLDER)}
