"""What stands already, for a seal to compare with: by the journal, by the archive, or by both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pqvault.archive.archive import Archive
from pqvault.archive.journal import Known
from pqvault.archive.part import OpenPart
from pqvault.archive.plan import Prior
from pqvault.archive.publicstate import PublicState
from pqvault.archive.replacement import successors
from pqvault.archive.tableentry import TableEntry
from pqvault.format.entries import Entry, Kind

__all__ = ["committed", "holders", "priors_of"]


def committed(state: PublicState) -> dict[str, str]:
    """The parts whose content is there, with the digests of their commits: each part, and what
    it says to have replaced. A host without private keys can verify neither."""
    replaced = dict(successors(state.parts.values()).keys())
    return replaced | {part.id: part.commit_digest for part in state.parts.values()}


def holders(state: PublicState) -> dict[str, str]:
    """Part -> the part that holds its content now, of those that were replaced."""
    return {part: new.id for (part, _), new in successors(state.parts.values()).items()}


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
            entry.path, entry.kind, size, entry.mtime_ns, -1, 0, part.id,
            entry.mode, entry.link, digest, part.commit.digest,
        )  # fmt: skip
        ours = row if row is not None and row.path == entry.path else None
        if ours is not None and held.get(ours.part, ours.part) == part.id:
            prior = prior._replace(ctime_ns=ours.ctime_ns, inode=ours.inode)
        yield prior


def _content(part: OpenPart, entry: Entry) -> tuple[int, bytes | None]:
    """Size and digest of the file that an entry was sealed from."""
    if entry.kind != Kind.TABLE:
        return entry.size, entry.digest
    source = TableEntry(part, entry).doc.source
    return (source[0], bytes.fromhex(source[1])) if source is not None else (-1, None)
