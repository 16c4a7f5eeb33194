"""Turn write-ahead files that nobody writes any more into committed parts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from pqvault.archive import layout
from pqvault.archive.committing import discard
from pqvault.arguments import Identities, to_identities
from pqvault.errors import Locked, NotFound, PQVaultError, UsageError
from pqvault.format.textdoc import MAX_SIZE
from pqvault.logs.closing import close_part, rows_of
from pqvault.logs.openparts import FoundPart, find_parts
from pqvault.logs.places import local
from pqvault.progress import Progress, Report, ignore
from pqvault.rootkey import Keyring, keyring
from pqvault.signing import SigningKey
from pqvault.storage import LocalStorage

__all__ = ["RecoverReport", "RecoveredPart", "recover"]


@dataclass(frozen=True, slots=True)
class RecoveredPart:
    """What came of one part.

    ``complete``: its closing record was there and says the same. Otherwise ``torn`` bytes at the
    end hold no record: a write that was cut off, or a file that was; nobody can tell which.
    ``unmatched``: rows that one of the files lacks. ``damaged``: records that do not open.
    ``lost``: records that the writer could not take, as the log itself says.
    """

    part: str
    rows: int
    complete: bool
    torn: int
    unmatched: int
    damaged: int
    lost: int


@dataclass(slots=True)
class RecoverReport:
    """``finished``: parts that were committed and only had files left. ``live``: parts that a
    process writes now. ``empty``: parts without a whole row, removed."""

    recovered: list[RecoveredPart] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    live: list[str] = field(default_factory=list)
    empty: list[RecoveredPart] = field(default_factory=list)
    problems: list[PQVaultError] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Rows of all parts."""
        return sum(part.rows for part in self.recovered)


def recover(
    archive: str | os.PathLike[str],
    identities: Identities,
    *,
    into: str | os.PathLike[str] | None = None,
    table: str | None = None,
    sign: Sequence[SigningKey] = (),
    accept_damage: bool = False,
    progress: Progress = ignore,
) -> RecoverReport:
    """Commit every part that a process left as write-ahead files.

    ``archive``: where they are. ``into``: the archive that gets the parts, when that is another
    folder: the one of a log that spilled. ``table``: their path in it, in place of the one that
    the log says. ``accept_damage``: commit what opens where records in the middle do not. A part
    keeps its id, its root keys and who it is sealed to, so this can be interrupted and repeated.
    Problems of one part are in the report.
    """
    ring = keyring(to_identities(identities))
    storage = local(archive)
    target = storage if into is None else local(into)
    archive_id = layout.read_header(storage)
    if layout.read_header(target) != archive_id:
        raise UsageError(f"{storage.where('')} is the spill folder of another archive")
    report = RecoverReport()
    parts = find_parts(storage)
    total = sum(part.size for part in parts)
    done = 0
    for part in parts:
        try:
            with part.locked():
                _recover_one(part, target, archive_id, ring, table, sign, accept_damage, report)
        except Locked:
            report.live.append(part.id)
        except NotFound as error:
            if not part.is_gone:
                report.problems.append(error)
        except PQVaultError as error:
            report.problems.append(error)
        done += part.size
        progress(Report("recover", done=done, total=total))
    return report


def _recover_one(
    part: FoundPart,
    into: LocalStorage,
    archive: str,
    ring: Keyring,
    table: str | None,
    sign: Sequence[SigningKey],
    accept_damage: bool,
    report: RecoverReport,
) -> None:
    if into.exists(layout.commit_name(part.id)):
        _remove(part, into)
        report.finished.append(part.id)
        return
    keys, sealed_to = part.open_keys(archive, ring)
    if part.storage.root != into.root:
        for name in part.envelope_names:
            into.put(name, part.storage.read(name, MAX_SIZE))
    rows = rows_of(part.storage, keys)
    committed = close_part(
        rows,
        keys,
        table,
        into=into,
        sealed_to=sealed_to,
        sign=sign,
        accept_damage=accept_damage,
    )
    _remove(part, into)
    done = RecoveredPart(
        part.id,
        rows.rows,
        rows.end is not None and not rows.damaged,
        rows.torn,
        rows.unmatched,
        sum(damage.records for damage in rows.damaged),
        rows.end.lost if rows.end is not None else 0,
    )
    if committed:
        report.recovered.append(done)
    else:
        discard(into, part.id)
        report.empty.append(done)


def _remove(part: FoundPart, into: LocalStorage) -> None:
    """The write-ahead files, the main one last: as long as it is there, this is found again."""
    for name in reversed(part.names):
        part.storage.remove(name)
    if part.storage.root != into.root:
        discard(part.storage, part.id)
