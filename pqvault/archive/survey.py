"""What an unseal has before it: read from the catalogs before anything is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Final

import pyarrow as pa

from pqvault.archive.archive import Archive
from pqvault.archive.globs import Globs
from pqvault.format.entries import Kind
from pqvault.lazy import LazyModule

__all__ = ["Rows", "Survey", "below", "survey_of"]

pc = LazyModule("pyarrow.compute")

Rows = Iterable[tuple[pa.RecordBatch, list[int]]]

_KEPT: Final = 8 * 1024 * 1024  # bytes of rows, some 60,000, that are not read a second time


@dataclass(slots=True)
class Survey:
    """``total``: bytes of content. ``known``: whether that is all, and there are no tables to be
    written as Parquet. ``largest``: sizes of the largest files. ``sources``: the first names of
    hard links, for only they need to be remembered. ``rows``: all there are, as
    `View.batches` gives them."""

    rows: Rows
    total: int = 0
    known: bool = True
    largest: list[int] = field(default_factory=list)
    sources: set[bytes] = field(default_factory=set)


def survey_of(archive: Archive, globs: Globs, inner: bytes, jobs: int) -> Survey:
    """Of what ``globs`` match, with ``inner`` cut off its paths.

    As many of the largest files are told as there are ``jobs``: no more can be above a share.
    """
    kept: list[tuple[pa.RecordBatch, list[int]]] = []
    found = Survey(kept)
    room = _KEPT
    for batch, where in archive.view.batches():
        room -= batch.nbytes
        if room >= 0:
            kept.append((batch, where))
        else:
            kept.clear()
        _count(found, batch, where, globs, inner, jobs)
    if room < 0:
        found.rows = archive.view.batches()
    return found


def _count(
    found: Survey, batch: pa.RecordBatch, where: list[int], globs: Globs, inner: bytes, jobs: int
) -> None:
    links = batch.filter(pc.equal(batch.column(1), int(Kind.HARDLINK))).column(5)
    found.sources |= {below(link, inner) for link in links.to_pylist()}
    batch, _ = globs.select(batch, where)
    tables = pc.equal(batch.column(1), int(Kind.TABLE))
    files = pc.or_(tables, pc.equal(batch.column(1), int(Kind.FILE)))
    sizes = batch.column(2).filter(files).to_pylist()
    found.total += sum(sizes)
    found.known = found.known and 0 not in batch.column(2).filter(tables).to_pylist()
    found.largest = nlargest(jobs, found.largest + sizes)


def below(path: bytes, folder: bytes) -> bytes:
    """A path with ``folder`` cut off."""
    return path[len(folder) + 1 :] if folder else path
