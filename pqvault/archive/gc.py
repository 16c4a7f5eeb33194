"""gc: remove what no commit names and nothing has changed for a while."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from pqvault.archive import layout
from pqvault.archive.publicstate import PublicState
from pqvault.errors import FormatError, NotFound, PQVaultError
from pqvault.storage import Storage

__all__ = ["GRACE", "GcReport", "collect"]

GRACE: Final = 7 * 24 * 3600.0  # seconds


@dataclass(slots=True)
class GcReport:
    """What was removed, or would be. ``kept``: young leftovers, perhaps of a seal that runs now.

    ``size``: bytes freed.
    """

    dry_run: bool = False
    removed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    problems: list[PQVaultError] = field(default_factory=list)
    size: int = 0


def collect(storage: Storage, *, older_than: float = GRACE, dry_run: bool = False) -> GcReport:
    """Remove parts without a commit, objects that their commit does not list, envelopes without
    a part, unfinished files, and parts with a ``removed`` record.

    ``older_than``: seconds. A part goes only when nothing in it changed for that long, and
    never while it holds a ``wal``. A part whose commit is damaged is kept: it may be mended.
    """
    state = PublicState(storage)
    report = GcReport(dry_run=dry_run)
    now = time.time()
    envelopes = layout.envelope_names(storage)
    committed = set(layout.listed_ids(storage, "commits")[0]) - state.removed
    gone = state.removed.intersection(layout.listed_ids(storage, "commits")[0])
    for part in sorted(gone.union(layout.listed_ids(storage, "parts")[0])):
        if part in committed:
            continue
        names = _names(storage, part, report)
        if names is None:
            continue
        before = now - older_than
        if part in state.removed:
            # The envelope first: from then on nothing here opens what is still there.
            names = [*envelopes.get(part, ()), layout.commit_name(part), *names]
            # Counted from the removal. The record itself stays: children still name the part.
            old = storage.mtime(layout.removed_name(part)) <= before
            before = now if old else 0.0
        if f"parts/{part}/wal" in names:
            report.kept.append(f"parts/{part}")
            continue
        # One that was just made is of a part whose first file is about to be written.
        made = _mtime(storage, f"parts/{part}")
        _remove(storage, names, before, report)
        if not dry_run and made is not None and made <= before:
            storage.remove_folder(f"parts/{part}")
    for part in sorted(envelopes.keys() - committed - state.removed):
        left = _names(storage, part, report)
        if left is not None and set(report.removed).issuperset(left):
            _remove(storage, envelopes[part], now - older_than, report)
    for public in state.ordered():
        listed = {layout.part_file(public.id, file.name) for file in public.commit.files}
        for name in _names(storage, public.id, report) or ():
            if name not in listed:
                _remove(storage, [name], now - older_than, report)
    for name in _leftovers(storage):
        _remove(storage, [name], now - older_than, report)
    return report


def _names(storage: Storage, part: str, report: GcReport) -> list[str] | None:
    """All that a part has; None, with a problem, when it or a folder of it is a link."""
    try:
        return list(storage.walk(f"parts/{part}", leftovers=True))
    except PQVaultError as error:
        if error.message not in {problem.message for problem in report.problems}:
            report.problems.append(error)
        return None


def _leftovers(storage: Storage) -> Iterator[str]:
    """Unfinished documents of writers that were killed."""
    yield from storage.unfinished("")
    for folder in ("commits", "envelopes", "removed", "retired"):
        yield from storage.unfinished(folder)


def _remove(storage: Storage, names: list[str], before: float, report: GcReport) -> None:
    """Remove all of ``names``, or none when any changed after ``before``."""
    there = [(name, _mtime(storage, name)) for name in names]
    present = [(name, mtime) for name, mtime in there if mtime is not None]
    if any(mtime > before for _, mtime in present):
        report.kept += [name for name, _ in present]
        return
    for name, _ in present:
        try:
            size = _size(storage, name)
            if not report.dry_run:
                storage.remove(name)
        except PQVaultError as error:  # what cannot go must not keep the rest from going
            report.problems.append(error)
            continue
        report.size += size
        report.removed.append(name)


def _size(storage: Storage, name: str) -> int:
    try:
        with storage.open(name) as file:
            return file.size
    except FormatError:
        return 0  # a link, a FIFO: garbage that takes no room


def _mtime(storage: Storage, name: str) -> float | None:
    try:
        return storage.mtime(name)
    except NotFound:
        return None
