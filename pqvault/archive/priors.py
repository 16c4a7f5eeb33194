"""What stands already, for a seal to compare with: by the journal, by the archive, or by both."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping

from pqvault.archive import layout
from pqvault.archive.archive import Archive
from pqvault.archive.journal import KEPT_TABLE, Journal, Known
from pqvault.archive.part import OpenPart
from pqvault.archive.plan import Prior
from pqvault.archive.publicstate import PublicState
from pqvault.archive.replacement import successors
from pqvault.archive.sealtable import TableOptions
from pqvault.archive.tableentry import TableEntry
from pqvault.format.entries import Entry, Kind

__all__ = ["committed", "priors_for", "without_groups"]


def committed(state: PublicState) -> dict[str, str]:
    """The parts whose content is there, with the digests of their commits: each part, and what
    it says to have replaced. A host without private keys can verify neither."""
    replaced = dict(successors(state.parts.values()).keys())
    return replaced | {part.id: part.commit_digest for part in state.parts.values()}


def holders(state: PublicState) -> dict[str, str]:
    """Part -> the part that holds its content now, of those that were replaced."""
    return {part: new.id for (part, _), new in successors(state.parts.values()).items()}


def without_groups(state: PublicState, names: Iterable[str]) -> list[str]:
    """The parts that lack some of the column groups ``names``."""
    wanted = set(names)
    if not wanted:  # as for most seals, which need not list the envelopes for it
        return []
    found = layout.envelope_names(state.storage)
    have = {part: {name.partition(".")[2] for name in found.get(part, ())} for part in state.parts}
    return [part.id for part in state.ordered() if not wanted <= have[part.id]]


def priors_for(
    state: PublicState, journal: Journal, opened: Archive | None, tables: TableOptions | None
) -> Iterator[Prior]:
    """What the journal knows, together with the archive where it is open."""
    known, held = journal.known(committed(state)), holders(state)
    if opened is None:
        priors: Iterator[Prior] = (Prior(*row) for row in known)
    else:
        priors = priors_of(opened, known, held)
    if tables is None:
        return priors
    lacking = set(without_groups(state, (group.name for group in tables.groups)))
    lacking |= {old for old, new in held.items() if new in lacking}
    return _tables_of(priors, lacking, keep_files=tables.keep_files)


def _tables_of(
    priors: Iterator[Prior], lacking: Container[str], *, keep_files: bool
) -> Iterator[Prior]:
    """Those of a run that makes tables: one that it would make in another way has changed. It gets
    the kind that nothing has which is found on disk."""
    for prior in priors:
        if prior.kind in (Kind.TABLE, KEPT_TABLE):
            same = prior.part not in lacking and (prior.kind == KEPT_TABLE or not keep_files)
            prior = prior._replace(kind=int(Kind.TABLE) if same else KEPT_TABLE)
        yield prior


def priors_of(archive: Archive, known: Iterator[Known], held: Mapping[str, str]) -> Iterator[Prior]:
    """What stands in the archive, with times from the journal where it knows the very entry.

    ``held``: part -> the part that holds its content now.
    """
    row: Known | None = next(known, None)
    for part, entry in archive.located():
        while row is not None and row.path < entry.path:
            row = next(known, None)
        size, digest = _content(part, entry)
        prior = Prior(
            entry.path, _kind(entry, size), size, entry.mtime_ns, -1, 0, part.id,
            entry.mode, entry.link, digest, part.commit.digest,
        )  # fmt: skip
        ours = row if row is not None and row.path == entry.path else None
        if ours is not None and held.get(ours.part, ours.part) == part.id:
            prior = prior._replace(ctime_ns=ours.ctime_ns, inode=ours.inode)
        yield prior


def _kind(entry: Entry, size: int) -> int:
    """``size``: of the file that it was sealed from."""
    return KEPT_TABLE if entry.kind == Kind.TABLE and entry.size == size else int(entry.kind)


def _content(part: OpenPart, entry: Entry) -> tuple[int, bytes | None]:
    """Size and digest of the file that an entry was sealed from."""
    if entry.kind != Kind.TABLE:
        return entry.size, entry.digest
    source = TableEntry(part, entry).doc.source
    return (source[0], bytes.fromhex(source[1])) if source is not None else (-1, None)
