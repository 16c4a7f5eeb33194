"""Files as rows and columns: Parquet, JSON lines, CSV and Arrow, on their way into tables."""

from __future__ import annotations

import os
from typing import Final

from pqvault.sources.badlines import BadLines
from pqvault.sources.base import Source, SourceRefused

__all__ = ["SUFFIXES", "BadLines", "Source", "SourceRefused", "kind_of", "open_source"]

# How a name ends -> the kind of source.
SUFFIXES: Final = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".jsonl.zst": "jsonl",
    ".csv": "csv",
    ".arrow": "arrow",
    ".feather": "arrow",
}


def kind_of(name: str | os.PathLike[str]) -> str | None:
    """``parquet``, ``jsonl``, ``csv`` or ``arrow``; None for a name that no table has."""
    base = os.path.basename(os.fspath(name)).lower()
    found = (kind for suffix, kind in SUFFIXES.items() if base.endswith(suffix))
    return next(found, None)


def open_source(
    path: str | os.PathLike[str], *, name: str | None = None, bad_lines: BadLines | None = None
) -> Source:
    """The file as a source, by how its name ends. Close it after use.

    ``name``: what messages call it, else the path. ``bad_lines``: takes the lines of JSON lines
    and CSV that do not parse; without it the first one is an error. JSON lines and CSV are read
    once here, for their schema, and again for their rows.

    Raises SourceRefused for what would not come back as the same values, NotFound.
    """
    where = os.fspath(path)
    what = where if name is None else name
    kind = kind_of(where)
    if kind is None:
        raise SourceRefused(f"{what} has no name of a table: {', '.join(SUFFIXES)}")
    return _open(kind, where, what, bad_lines)


def _open(kind: str, path: str, name: str, bad_lines: BadLines | None) -> Source:
    if kind == "parquet":
        from pqvault.sources.parquet import ParquetSource

        return ParquetSource(path, name)
    if kind == "arrow":
        from pqvault.sources.arrowfile import ArrowSource

        return ArrowSource(path, name)
    if kind == "jsonl":
        from pqvault.sources.jsonlines import JsonLinesSource

        return JsonLinesSource(path, name, bad_lines)
    from pqvault.sources.csvfile import CsvSource

    return CsvSource(path, name, bad_lines)
