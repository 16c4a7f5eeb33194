"""What a seal did, as it is told to whoever asked for it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pqvault.archive.extract.links import climbs_out
from pqvault.errors import Incomplete
from pqvault.format.entries import Kind
from pqvault.names import printable

if TYPE_CHECKING:
    import pyarrow as pa

    from pqvault.archive.deal import PartRows
    from pqvault.archive.partwriter import PartTables
    from pqvault.archive.walk import Source

__all__ = ["SealReport"]

_FOLDER: Final = int(Kind.FOLDER)


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

    def count_planned(self, batches: Iterable[pa.RecordBatch], sources: Sequence[Source]) -> None:
        """Count what would be sealed. ``batches``: of the plan."""
        total, kinds, outside = 0, Counter[int](), list[bytes]()
        names: set[tuple[int, int]] = set()  # device and inode of files of several names
        for batch in batches:
            outside += _outside(batch, sources)
            columns = (
                batch.column(n).to_pylist() for n in ("kind", "size", "links", "device", "inode")
            )
            for kind, size, links, device, inode in zip(*columns, strict=True):
                kinds[kind] += 1
                known = (device, inode) in names
                if size and links > 1:
                    names.add((device, inode))
                total += 0 if known else size
        self._tell_links(outside)
        self.add(kinds, total)

    def _tell_links(self, outside: list[bytes]) -> None:
        """A link is sealed as a link. Where it leads elsewhere, as those of a cache of models to
        its blobs, whoever sealed it may think that he has what it leads to."""
        if outside:
            self.warnings.append(
                f"links that lead out of what is sealed: {len(outside):,}, {printable(outside[0])}"
                " the first; what they lead to is not sealed with them"
            )

    def add(self, kinds: Mapping[int, int], size: int) -> None:
        """Count what is sealed, or would be."""
        self.size += size
        self.files += kinds[ord("f")]
        self.tables += kinds[ord("t")]
        self.folders += kinds[ord("d")]
        self.links += kinds[ord("l")]
        self.deleted += kinds[ord("x")]

    def count(
        self,
        rows: PartRows,
        tables: PartTables,
        sources: Sequence[Source],
        *,
        allow_changed: bool,
    ) -> tuple[Mapping[int, int], int]:
        """What a part holds, for :meth:`add` once it is committed: how many of each kind, and bytes
        of content. What failed is told from now on. Raises Incomplete when files changed and that
        is not allowed."""
        row, content, kinds = 0, 0, Counter[int]()
        changed: list[str] = []
        outside: list[bytes] = []
        for batch in rows.batches:
            outside += _outside(batch, sources)
            columns = (batch.column(n).to_pylist() for n in ("path", "kind", "size"))
            for path, kind, size in zip(*columns, strict=True):
                if row in tables.failed:
                    self.failed.append(f"{printable(path)} {tables.failed[row]}")
                else:
                    kinds[kind] += 1
                    content += 0 if row in rows.same_as else size
                if row in tables.changed:
                    changed.append(f"{printable(path)} {tables.changed[row]}")
                row += 1
        self.warnings += changed
        if changed and not allow_changed:
            more = f", and so did {len(changed) - 1} more" if len(changed) > 1 else ""
            raise Incomplete(
                f"{changed[0]}{more}, so its part is not committed",
                hint="run the command again when nothing writes there, or leave it out with"
                " --exclude, or pass --allow-changed to seal what was read",
            )
        self.warnings += tables.notes
        self._tell_links(outside)
        kinds[_FOLDER] -= rows.again
        return kinds, content


def _outside(batch: pa.RecordBatch, sources: Sequence[Source]) -> list[bytes]:
    """The links that lead to nothing of the sources."""
    paths, targets = batch.column("path"), batch.column("target")
    if targets.null_count == len(batch):
        return []
    links = zip(paths.to_pylist(), targets.to_pylist(), strict=True)
    return [
        path for path, target in links if target is not None and _leads_out(path, target, sources)
    ]


def _leads_out(path: bytes, target: bytes, sources: Sequence[Source]) -> bool:
    if climbs_out(path, target):
        return True
    there = os.path.normpath(os.path.join(os.path.dirname(path), target))
    return not any(
        not source.name or there == source.name or there.startswith(source.name + b"/")
        for source in sources
    )
