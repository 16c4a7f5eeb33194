"""Retention: remove what a log holds from before a time, keys first."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from pqvault.archive import layout
from pqvault.archive.committing import remove_files
from pqvault.errors import Locked, NotFound, PQVaultError
from pqvault.format.commit import CATALOG, Commit, is_table
from pqvault.format.envelope import Envelope
from pqvault.format.textdoc import MAX_SIZE
from pqvault.ids import now
from pqvault.keystore import State, index, lifecycle
from pqvault.keystore.change import Unlocked
from pqvault.keystore.store import KeyFacts
from pqvault.logs.openparts import FoundPart, find_parts
from pqvault.storage import LocalStorage, Storage, storage_at

__all__ = ["ExpireReport", "expire"]

_LONGEST: Final = 24 * 3600.0  # seconds that a part may stay open
_RECORD: Final = 4096  # bytes of what says that a part has expired


@dataclass(slots=True)
class ExpireReport:
    """``expired``: parts that are gone, or would be. ``kept``: old parts that hold other things
    than tables, or may. ``live``: old parts that a process still writes. ``destroyed``: key
    versions. ``size``: bytes freed. ``ahead``: parts whose time is in the future: they do not
    expire."""

    dry_run: bool = False
    expired: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    live: list[str] = field(default_factory=list)
    ahead: list[str] = field(default_factory=list)
    destroyed: list[str] = field(default_factory=list)
    problems: list[PQVaultError] = field(default_factory=list)
    size: int = 0


@dataclass(slots=True)
class _Run:
    storage: Storage
    before: float  # Unix seconds
    report: ExpireReport
    key_ids: set[str] = field(default_factory=set)  # that what expired was sealed to

    def committed(self, part: str) -> None:
        """A part with a commit; its envelope may be overwritten already, by a run before."""
        name = layout.commit_name(part)
        commit = Commit.parse(self.storage.read(name, MAX_SIZE), name)
        created = commit.created / 1000
        if created > time.time() + _LONGEST:
            self.report.ahead.append(part)
        elif created >= self.before:
            return
        elif not _is_of_a_log(commit):
            self.report.kept.append(part)
        else:
            self.key_ids.update(commit.sealed_to)
            self._expire(part)

    def open(self) -> None:
        """Parts that were never committed, but for those that a process writes now."""
        for part in find_parts(self.storage):
            if self.storage.exists(layout.commit_name(part.id)) or part.began is None:
                continue
            if part.began / 1000 + _LONGEST >= self.before:
                continue
            _gather(self.report, lambda part=part: self._open(part))  # type: ignore[misc]

    def _open(self, part: FoundPart) -> None:
        try:
            with part.locked():
                self._expire(part.id)
        except Locked:
            self.report.live.append(part.id)
        except NotFound:
            if not part.is_gone:
                raise

    def _expire(self, part: str) -> None:
        """Envelopes first: from then on only copies of them open the part."""
        envelopes = [
            f"envelopes/{name}"
            for name in self.storage.list("envelopes")
            if name.partition(".")[0] == part
        ]
        for name in envelopes:
            self.key_ids.update(_key_ids(self.storage, name))
        files = list(self.storage.walk(f"parts/{part}", leftovers=True))
        size = sum(_size(self.storage, name) for name in (*envelopes, *files))
        if not self.report.dry_run:
            for name in envelopes:
                _shred(self.storage, name)
            self.storage.make_folder("removed")
            record = {"reason": "expired", "time": now()}
            self.storage.put_new(layout.removed_name(part), json.dumps(record).encode() + b"\n")
            _remove_files(self.storage, part)
        self.report.expired.append(part)
        self.report.size += size


def expire(
    archive: str | os.PathLike[str],
    older_than: float,
    *,
    dry_run: bool = False,
    keystore: Unlocked | None = None,
) -> ExpireReport:
    """Remove every part of tables in which all is older than ``older_than`` seconds.

    For each: its envelopes are overwritten and removed, its removal is recorded, its files are
    removed. Can be interrupted and repeated. Parts that hold anything but tables stay, and so do
    parts that are being written. ``keystore``: destroy the key versions of a period that is over
    for as long, when nothing that is left of this archive is sealed to them.
    """
    storage = storage_at(archive)
    archive_id = layout.read_header(storage)
    report = ExpireReport(dry_run=dry_run)
    run = _Run(storage, time.time() - older_than, report)
    removed = set(layout.listed_ids(storage, "removed")[0])
    for part in layout.listed_ids(storage, "commits")[0]:
        if part in removed:
            continue
        _gather(report, lambda part=part: run.committed(part))  # type: ignore[misc]
    _gather(report, run.open)
    for part_id in removed:  # what an interrupted run left; the files of others have gc's grace
        if not dry_run and _is_expired(storage, part_id):
            _gather(report, lambda part_id=part_id: _remove_files(storage, part_id))  # type: ignore[misc]
    if keystore is not None:
        _destroy_keys(storage, archive_id, run, keystore)
    return report


def _is_of_a_log(commit: Commit) -> bool:
    """Whether a part may hold the tables of a log and nothing else, as far as anybody can tell
    without a key. In one of kind `seal`, or without a table, there may be tombstones: when those
    go, what they hide is there again."""
    names = [file.name for file in commit.files if file.name != CATALOG]
    return commit.kind == "append" and bool(names) and all(map(is_table, names))


def _is_expired(storage: Storage, part: str) -> bool:
    """Whether a part was removed here, and not by who put another one in its place."""
    try:
        record = json.loads(storage.read(layout.removed_name(part), _RECORD))
        return bool(record["reason"] == "expired")
    except (PQVaultError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _gather(report: ExpireReport, do: Callable[[], object]) -> None:
    try:
        do()
    except PQVaultError as error:  # what cannot go must not keep the rest from going
        report.problems.append(error)


def _shred(storage: Storage, name: str) -> None:
    """Overwrite and remove; an object store has nothing that could be overwritten in place."""
    if isinstance(storage, LocalStorage):
        storage.shred(name)
    else:
        storage.remove(name)


def _remove_files(storage: Storage, part: str) -> None:
    remove_files(storage, part)
    storage.remove(layout.commit_name(part))


def _key_ids(storage: Storage, name: str) -> set[str]:
    try:
        envelope = Envelope.parse(storage.read(name, MAX_SIZE), name)
    except PQVaultError:
        return set()  # overwritten by a run before, or damaged: it names nobody
    return set(envelope.key_ids)


def _size(storage: Storage, name: str) -> int:
    try:
        with storage.open(name) as file:
            return file.size
    except PQVaultError:
        return 0  # gone, or a link: it frees nothing


# -- keys of a period ----------------------------------------------------------------------


def _destroy_keys(storage: Storage, archive: str, run: _Run, keystore: Unlocked) -> None:
    report = run.report
    left: set[str] = set()
    for name in storage.list("envelopes"):
        if not (report.dry_run and name.partition(".")[0] in report.expired):
            left |= _key_ids(storage, f"envelopes/{name}")
    path = storage.where("").rstrip("/")
    for facts in keystore.store.list():
        if not _is_over(facts, run.before) or facts.key_id in left:
            continue
        if facts.key_id not in run.key_ids and not _opened(keystore, facts, archive):
            continue
        report.destroyed.append(facts.address)
        if report.dry_run:
            continue
        try:
            _forget(keystore, archive, path, left)
            lifecycle.destroy(keystore, facts.address, f"log expired: {path}")
        except PQVaultError as error:
            report.destroyed.pop()
            report.problems.append(error)


def _is_over(facts: KeyFacts, before: float) -> bool:
    """Whether a version is of a period that ended before a time, and not destroyed yet."""
    if not facts.period or facts.state == State.DESTROYED:
        return False
    year, month = map(int, facts.period.split("-"))
    end = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    return end.timestamp() <= before


def _opened(keystore: Unlocked, facts: KeyFacts, archive: str) -> bool:
    dependants = index.dependants(keystore.store.db, facts.key_id)
    return any(dependant.archive == archive for dependant in dependants)


def _forget(keystore: Unlocked, archive: str, path: str, left: Iterable[str]) -> None:
    """The index says that the archive needs the key, and it does not any more."""
    index.replace(archive, path, sorted(left), keystore=keystore.store.path)
