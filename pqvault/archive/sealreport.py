"""What a seal did, as it is told to whoever asked for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pqvault.errors import Incomplete
from pqvault.names import printable

if TYPE_CHECKING:
    from pqvault.archive.deal import PartRows
    from pqvault.archive.partwriter import PartTables

__all__ = ["SealReport"]


@dataclass(slots=True)
class SealReport:
    """What a seal did. Sizes in bytes, ``parts``: ids of what was committed, in order."""

    archive: str = ""
    archive_id: str = ""
    dry_run: bool = False
    parts: list[str] = field(default_factory=list)
    files: int = 0
    tables: int = 0
    folders: int = 0
    links: int = 0
    deleted: int = 0
    unchanged: int = 0
    size: int = 0
    sealed_size: int = 0
    seconds: float = 0.0
    recipients: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def count(self, rows: PartRows, tables: PartTables, *, allow_changed: bool) -> None:
        """Count what a part holds. Raises Incomplete when files changed and that is not allowed."""
        row, kinds = 0, dict.fromkeys(b"fdlhxt", 0)
        for batch in rows.batches:
            columns = (batch.column(n).to_pylist() for n in ("path", "kind", "size"))
            for path, kind, size in zip(*columns, strict=True):
                if row in tables.failed:
                    self.failed.append(f"{printable(path)} {tables.failed[row]}")
                else:
                    kinds[kind] += 1
                    self.size += 0 if row in rows.same_as else size
                if row in tables.changed:
                    sentence = f"{printable(path)} {tables.changed[row]}"
                    self.warnings.append(sentence)
                    if not allow_changed:
                        raise Incomplete(
                            f"{sentence}, so its part is not committed",
                            hint="run the command again when nothing writes there,"
                            " or pass --allow-changed to seal what was read",
                        )
                row += 1
        self.files += kinds[ord("f")]
        self.tables += kinds[ord("t")]
        self.warnings += tables.notes
        self.folders += kinds[ord("d")]
        self.links += kinds[ord("l")]
        self.deleted += kinds[ord("x")]
