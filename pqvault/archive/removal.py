"""Records of removed parts: written, read, checked. docs/format.md 5.7."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from pqvault.archive import layout
from pqvault.archive.publicpart import PublicPart
from pqvault.archive.replacement import replaced_ids
from pqvault.errors import NotFound, PQVaultError, RolledBack
from pqvault.format.removed import Reason, Removed
from pqvault.format.textdoc import MAX_SIZE
from pqvault.ids import now
from pqvault.rootkey import RootKey
from pqvault.storage import Storage

if TYPE_CHECKING:  # it imports pyarrow
    from pqvault.archive.part import OpenPart

__all__ = ["FOLDER", "check_state", "lost", "problems", "read_record", "remove_part"]

FOLDER: Final = "removed"


def remove_part(
    storage: Storage, key: RootKey, part: PublicPart, reason: Reason, by: tuple[str, ...]
) -> None:
    """Write the record that hides a part. ``key``: of a part that stays, which vouches for it.

    ``by``: the parts that hold its content, or the one from whose state on nothing needs it. A
    record that is there already stays as it is.
    """
    record = key.remove(
        Removed(
            archive=key.archive,
            part=key.part,
            removed=part.id,
            seq=part.commit.seq,
            committed=part.commit.created,
            commit=part.commit_digest,
            reason=reason,
            by=tuple(sorted(by)),
            created=now(),
        )
    )
    storage.make_folder(FOLDER)
    storage.put_new(layout.removed_name(part.id), record.marshal())


def read_record(storage: Storage, archive: str, part: str) -> Removed | None:
    """A record, unverified; None where something else bears its name, which counts as well."""
    name = layout.removed_name(part)
    try:
        record = Removed.parse(storage.read(name, MAX_SIZE), name)
    except PQVaultError:
        return None
    return record if (record.archive, record.removed) == (archive, part) else None


def lost(
    storage: Storage, archive: str, removed: set[str], parts: Mapping[str, PublicPart]
) -> list[RolledBack]:
    """Parts that removed ones gave way to, by their records, and that are not there."""
    found: dict[str, RolledBack] = {}
    accounted = {replaced for part in parts.values() for replaced in replaced_ids(part)}
    for part in sorted(removed - accounted):
        record = read_record(storage, archive, part)
        for other in record.by if record else ():
            if other not in parts and other not in removed:
                found[other] = RolledBack(
                    f"part {other} is missing, which the removed part {part} gave way to",
                    hint="restore it from a copy",
                )
    return list(found.values())


def check_state(
    storage: Storage,
    archive: str,
    removed: set[str],
    chosen: Sequence[PublicPart],
    until: datetime | None,
) -> None:
    """Raise NotFound when an earlier state of the archive is no longer whole.

    ``chosen``: the parts of that state that are there, in their order. ``until``: its time, None
    when it is that of its last part. Format section 5.7.
    """
    read = {part: read_record(storage, archive, part) for part in removed}
    records = {part: record for part, record in read.items() if record is not None}
    held = _held(records, {part.id for part in chosen})
    for part, record in records.items():
        if until is not None:
            belongs = record.committed <= until.timestamp() * 1000
        else:
            belongs = bool(chosen) and (record.seq, record.committed) <= chosen[-1].commit.order[:2]
        if belongs and part not in held:
            why = "pruned" if record.reason == "pruned" else "merged into a later one"
            raise NotFound(
                f"that state is no longer whole: its part {record.removed} was {why}",
                hint="`pqvault parts` lists the parts; the states of the newest are whole",
            )


def _held(records: Mapping[str, Removed], there: set[str]) -> set[str]:
    """The parts that are there, and the removed ones of which all that they gave way to is held.
    Those that gave way to each other, in a circle, are not: nothing holds them."""
    held = set(there)
    left = {part: set(record.by) - held for part, record in records.items()}
    waiting: dict[str, list[str]] = {}  # part id -> those that gave way to it
    for part, by in left.items():
        for other in by:
            waiting.setdefault(other, []).append(part)
    found = [part for part, by in left.items() if not by]
    while found:
        part = found.pop()
        held.add(part)
        for other in waiting.get(part, ()):
            left[other].discard(part)
            if not left[other]:
                found.append(other)
    return held


def problems(
    storage: Storage, archive: str, removed: set[str], opened: Mapping[str, OpenPart]
) -> Iterator[PQVaultError]:
    """What is wrong with the MACs of records, as far as the parts that are open can tell."""
    for part in sorted(removed):
        record = read_record(storage, archive, part)
        try:
            if record is not None and record.part in opened:
                opened[record.part].key.check_removed(record, layout.removed_name(part))
        except PQVaultError as error:
            yield error
