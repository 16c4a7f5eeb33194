"""What an unseal has before it: read from the catalogs before anything is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import nlargest

from pqvault.archive.archive import Archive
from pqvault.archive.globs import Globs
from pqvault.format.entries import Kind

__all__ = ["Survey", "below", "survey_of"]


@dataclass(slots=True)
class Survey:
    """``total``: bytes of content. ``known``: whether that is all, and there are no tables to be
    written as Parquet. ``largest``: sizes of the largest files. ``sources``: the first names of
    hard links, for only they need to be remembered."""

    total: int = 0
    known: bool = True
    largest: list[int] = field(default_factory=list)
    sources: set[bytes] = field(default_factory=set)


def survey_of(archive: Archive, globs: Globs, inner: bytes, jobs: int) -> Survey:
    """Of what ``globs`` match, with ``inner`` cut off its paths.

    As many of the largest files are told as there are ``jobs``: no more can be above a share.
    """
    found = Survey()
    for batch in archive.batches():
        kinds = batch.column(1).to_pylist()
        if Kind.HARDLINK in kinds:
            rows = zip(kinds, batch.column(5).to_pylist(), strict=True)
            found.sources |= {below(link, inner) for kind, link in rows if kind == Kind.HARDLINK}
        if globs:
            batch = batch.filter(globs.mask(batch.column(0)))
            kinds = batch.column(1).to_pylist()
        rows = zip(kinds, batch.column(2).to_pylist(), strict=True)
        files = [row for row in rows if row[0] in (Kind.FILE, Kind.TABLE)]
        sizes = [size for _, size in files]
        found.total += sum(sizes)
        found.known = found.known and all(size or kind == Kind.FILE for kind, size in files)
        found.largest = nlargest(jobs, found.largest + sizes)
    return found


def below(path: bytes, folder: bytes) -> bytes:
    """A path with ``folder`` cut off."""
    return path[len(folder) + 1 :] if folder else path
