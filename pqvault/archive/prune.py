"""Prune: forget old states of an archive. What no state that is kept needs is removed.

A part may go when the oldest kept state, and so all later ones, is the same without it: nothing in
it stands there, and nothing that it hides or removes comes back (docs/format.md 5.3). That is found
out by reading catalogs, before anything is removed.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from pqvault.archive import layout
from pqvault.archive.archive import Archive
from pqvault.archive.merged import view_of
from pqvault.archive.part import OpenPart
from pqvault.archive.publicstate import PublicState
from pqvault.archive.removal import remove_part
from pqvault.archive.settling import settle
from pqvault.archive.view import View
from pqvault.errors import Locked, PolicyRefused, UsageError
from pqvault.format.catalog import entries_of
from pqvault.format.entries import Kind, above
from pqvault.keys import Identity
from pqvault.memory import Memory
from pqvault.policy import ANYBODY, Policy
from pqvault.storage import Storage

__all__ = ["PruneReport", "first_kept", "prune", "unneeded"]


@dataclass(slots=True)
class PruneReport:
    """Part ids: ``kept`` states, ``needed`` older parts that those still need, ``removed``.

    ``size``: sealed bytes of what is removed. ``opened_by``: key ids that open copies of it.
    """

    archive: str = ""
    dry_run: bool = False
    kept: list[str] = field(default_factory=list)
    needed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    size: int = 0
    opened_by: list[str] = field(default_factory=list)


def prune(
    storage: Storage,
    identities: Sequence[Identity],
    *,
    keep_last: int | None = None,
    keep_within: float | None = None,
    dry_run: bool = False,
    memory: Memory | None = None,
    policy: Policy = ANYBODY,
) -> PruneReport:
    """Remove the parts that no kept state needs: a record each, by which readers skip them; `gc`
    frees their space after its grace.

    Kept are the newest ``keep_last`` states, and those of the last ``keep_within`` seconds with the
    one that was the newest then; the newest always. Raises what opening the archive does, and
    Locked when another process changes it.
    """
    if keep_last is None and keep_within is None:
        raise UsageError(
            "nothing says what is to be kept", hint="give --keep-last N or --keep-within TIME"
        )
    if dry_run:
        with Archive(storage, identities, memory=memory, policy=policy) as archive:
            return _chosen(storage, archive, keep_last, keep_within, dry_run=True)
    with storage.locked(layout.HEADER):
        state = PublicState(storage, memory)
        with Archive(storage, identities, memory=memory, policy=policy) as archive:
            settle(state, archive.open_key)
        with Archive(storage, identities, memory=memory, policy=policy) as archive:
            report = _chosen(storage, archive, keep_last, keep_within, dry_run=False)
            state.refresh()
            if state.parts.keys() != {part.id for part in archive.parts}:
                raise Locked(f"{storage.where('')} is changed by others just now")
            # Oldest first: on the way too, nothing that was hidden comes back.
            for part in report.removed:
                first = report.kept[0]
                remove_part(storage, archive.parts[-1].key, state.parts[part], "pruned", (first,))
        if memory is not None:
            state.refresh()
            memory.remember(state.archive, [], state.removed)
        return report


def _chosen(
    storage: Storage,
    archive: Archive,
    keep_last: int | None,
    keep_within: float | None,
    *,
    dry_run: bool,
) -> PruneReport:
    parts = archive.parts
    first = first_kept(parts, keep_last, keep_within)
    gone = unneeded(parts, first)
    report = PruneReport(storage.where(""), dry_run)
    report.kept = [part.id for part in parts[first:]]
    for index, part in enumerate(parts[:first]):
        (report.removed if index in gone else report.needed).append(part.id)
        if index in gone:
            report.size += part.public.size
            opens = part.public.envelope.key_ids if part.public.envelope else ()
            report.opened_by += [k for k in opens if k not in report.opened_by]
    return report


def first_kept(parts: Sequence[OpenPart], keep_last: int | None, keep_within: float | None) -> int:
    """The index of the oldest state that is kept."""
    first = max(0, len(parts) - 1)
    if keep_last is not None:
        first = max(0, len(parts) - max(1, keep_last))
    if keep_within is not None:
        since = (time.time() - keep_within) * 1000
        # By the first that is young enough: clocks of hosts differ, and an older time may follow.
        young = [i for i, part in enumerate(parts) if part.commit.created > since]
        newest_then = max(0, min(young, default=len(parts)) - 1)
        first = newest_then if keep_last is None else min(first, newest_then)
    return first


def unneeded(parts: Sequence[OpenPart], first: int) -> set[int]:
    """The indexes below ``first`` without which the state as of ``parts[first]`` is the same.

    Raises PQVaultError for a catalog that is damaged, PolicyRefused where unsigned parts hide what
    signed ones hold.
    """
    whole = view_of(parts[: first + 1])
    needed = _standing_in(whole)
    while True:
        gone = set(range(first)) - needed
        if not gone:
            return gone
        revived = _revived(whole, gone)
        if not revived:
            return gone
        needed |= revived


def _standing_in(view: View) -> set[int]:
    """The indexes of the parts that hold what stands."""
    numbers = {part.id: index for index, part in enumerate(view.parts)}
    found: set[int] = set()
    for batch, where in view.batches():
        found.update(where)
        kinds = batch.column(1).to_pylist()
        if Kind.TABLE in kinds:
            for entry in entries_of(batch):
                # A table's rows may be those of several parts.
                if entry.kind == Kind.TABLE:
                    found.update(numbers[part.id] for part, _ in view.find_table(entry.path))
    return found


def _revived(whole: View, gone: Collection[int]) -> set[int]:
    """The newest of the parts ``gone`` that hide what would come back without them."""
    left = [part for index, part in enumerate(whole.parts) if index not in gone]
    found: set[int] = set()
    there = _paths(whole)
    known = next(there, None)
    for path, part in _paths(view_of(left)):
        while known is not None and known[0] < path:
            known = next(there, None)
        if known != (path, part):
            found.add(_hider(whole, gone, path))
    return found


def _paths(view: View) -> Iterator[tuple[bytes, str]]:
    for batch, where in view.batches():
        kinds = batch.column(1).to_pylist()
        for path, kind, index in zip(batch.column(0).to_pylist(), kinds, where, strict=True):
            if kind == Kind.TABLE:  # which other parts may belong to
                yield path, " ".join(part.id for part, _ in view.find_table(path))
            else:
                yield path, view.parts[index].id


def _hider(whole: View, gone: Collection[int], path: bytes) -> int:
    for index in sorted(gone, reverse=True):
        part = whole.parts[index]
        if part.find(path) is not None:
            return index
        for name in above(path):
            entry = part.find(name)
            if entry is not None and entry.kind != Kind.FOLDER:
                return index
    raise PolicyRefused("the parts of the archive do not agree on what it holds")
