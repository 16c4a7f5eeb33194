"""Write-ahead files to a table of a committed part: what a log does every hour, and `recover`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Final

from pqvault.archive.columngroups import PartKeys
from pqvault.archive.layout import commit_name
from pqvault.archive.tablepart import TablePart
from pqvault.errors import IntegrityError
from pqvault.format.wal import is_wal
from pqvault.logs.ahead import ahead
from pqvault.logs.rows import LogRows
from pqvault.signing import SigningKey
from pqvault.storage import LocalStorage
from pqvault.tablefile import RowGroups

__all__ = ["LEVEL", "TABLE", "close_part", "damage_of", "rows_of"]

TABLE: Final = "inference"  # of a log that names none
LEVEL: Final = 1  # of zstd: what a serving host has to spare
_ROW_GROUPS: Final = RowGroups(size=16 * 1024 * 1024)  # in memory twice while a part closes
_AHEAD: Final = 16 * 1024 * 1024  # bytes that are opened while a row group is packed


def rows_of(storage: LocalStorage, keys: PartKeys) -> LogRows:
    """The rows of a part of which all keys are at hand."""
    return LogRows(storage, {"": keys.root, **keys.groups})


def close_part(
    rows: LogRows,
    keys: PartKeys,
    table: str | None,
    *,
    into: LocalStorage,
    sealed_to: Sequence[str],
    sign: Sequence[SigningKey],
    accept_damage: bool = False,
) -> bool:
    """Write the rows as a table of their part and commit it; the write-ahead files stay.

    ``table``: its path; None: as the rows say, or :data:`TABLE`. ``into``: the archive.
    ``sealed_to``: the key ids that the part's envelopes name. Returns False, and commits nothing,
    when there are no rows. Raises IntegrityError when records are damaged, unless
    ``accept_damage``.
    """
    _clear(into, rows.part)
    # Opening records and packing pages keep a processor busy each.
    with (
        closing(ahead(rows.batches(), lambda batch: batch.nbytes, _AHEAD)) as batches,
        TablePart(into, (), keys=keys, sealed_to=sealed_to, sign=sign, allow_retired=True) as part,
    ):
        sink = None
        for batch in batches:
            if sink is None:
                sink = part.table(
                    table or rows.table or TABLE,
                    batch.schema,
                    mode="append",
                    level=LEVEL,
                    columns=rows.columns,
                    row_groups=_ROW_GROUPS,
                )
            sink.write(batch)
        if not accept_damage and (damage := damage_of(rows)) is not None:
            raise damage
        if sink is None:
            return False
        part.commit()
        return True


def _clear(into: LocalStorage, part: str) -> None:
    """Remove what a try that was cut off left beside the write-ahead files, whose locks we hold."""
    if into.exists(commit_name(part)):
        raise IntegrityError(f"part {part} is committed already")
    for name in list(into.walk(f"parts/{part}", leftovers=True)):
        if not is_wal(name.rpartition("/")[2]):
            into.remove(name)


def damage_of(rows: LogRows) -> IntegrityError | None:
    """What is wrong with records that were read, beyond a torn tail."""
    hint = "restore parts/ from a copy, or recover what opens with `pqvault log recover --damaged`"
    part = rows.part
    if rows.damaged:
        return IntegrityError(
            f"record {rows.damaged[0].sequence} of the log in part {part} is damaged, and others"
            " follow it",
            hint=hint,
        )
    if rows.torn and not rows.rows and not rows.unfinished:
        return IntegrityError(
            f"no record opens in the {rows.torn:,} bytes of the log in part {part}", hint=hint
        )
    return None
