"""What stands already, for a seal to compare with: by the journal, by the archive, or by both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pqvault.archive.archive import Archive, PublicState
from pqvault.archive.journal import Known
from pqvault.archive.plan import Prior
from pqvault.archive.replacement import successors

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
        prior = Prior(
            entry.path, entry.kind, entry.size, entry.mtime_ns, -1, 0, part.id,
            entry.mode, entry.link, entry.digest, part.commit.digest,
        )  # fmt: skip
        ours = row if row is not None and row.path == entry.path else None
        if ours is not None and held.get(ours.part, ours.part) == part.id:
            prior = prior._replace(ctime_ns=ours.ctime_ns, inode=ours.inode)
        yield prior
