"""What can be read of an archive without a key: the parts there are, and those that are gone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from pqvault.archive import layout
from pqvault.archive.publicpart import PublicPart, check_parents, read_envelope, read_public
from pqvault.archive.removal import FOLDER as REMOVED
from pqvault.archive.removal import lost
from pqvault.archive.replacement import check_replaced
from pqvault.archive.tasks import side_by_side
from pqvault.errors import PQVaultError
from pqvault.format.commit import Commit
from pqvault.format.envelope import Envelope
from pqvault.memory import Memory, Sight
from pqvault.storage import Storage

__all__ = ["TRIES", "PublicState"]

TRIES: Final = 5  # parts may be replaced by others while they are read


class PublicState:
    """All that an archive shows without a key. Nothing of it is verified."""

    def __init__(self, storage: Storage, memory: Memory | None = None) -> None:
        self.storage = storage
        self.memory = memory
        self.archive = layout.read_header(storage)
        self.parts: dict[str, PublicPart] = {}
        self.refresh()

    def refresh(self) -> None:
        """Look again; commits never change, so only new ones are read."""
        recalled = self.memory.recall(self.archive) if self.memory is not None else None
        before = self.parts
        for _ in range(TRIES):
            ids = self._look(before)
            whole = all(part.envelope is not None for part in self.parts.values())
            # Of a part that is replaced under our hands, the envelope goes first.
            if (whole and not self.problems) or not self.moved():
                break
        damaged = set(ids) - set(self.parts)
        self.rolled_back = check_parents(self.parts, self.removed | damaged)
        self.rolled_back += check_replaced(self.parts)
        self.rolled_back += lost(self.storage, self.archive, self.removed | damaged, self.parts)
        if self.memory is not None and recalled is not None:
            new = [p for p in self.parts.values() if p.id not in before]
            generations = {p.id: p.envelope.generation for p in new if p.envelope}
            generations |= self._of_groups(recalled.generations, {p.id for p in new})
            there = self.removed.union(ids)
            missing = self.memory.missing(self.archive, recalled, there, generations)
            self.rolled_back += missing
        self.problems += self.rolled_back

    def _look(self, before: Mapping[str, PublicPart]) -> list[str]:
        """The parts that are there and those that are removed; the ids of all with a commit."""
        # Removals first: a part that gives way to another in between is seen with that one.
        self.removed = set(layout.listed_ids(self.storage, REMOVED)[0])
        ids, self.strange = layout.listed_ids(self.storage, "commits")
        self.problems: list[PQVaultError] = []
        self.parts = {}
        kept = [part for part in ids if part not in self.removed]
        unread = [part for part in kept if part not in before]
        read = side_by_side(self.storage.requests, self._read, unread)
        found = {**before, **dict(zip(unread, read, strict=True))}
        for part in kept:
            public = found[part]
            if isinstance(public, PQVaultError):
                self.problems.append(public)
            else:
                self.parts[part] = public
        return ids

    def _read(self, part: str) -> PublicPart:
        return read_public(self.storage, self.archive, part)

    def _of_groups(self, names: Iterable[str], parts: set[str]) -> dict[str, int]:
        """The generations of the envelopes of column groups of ``parts``, of those in ``names``."""
        groups = [name for name in names if "." in name and name.partition(".")[0] in parts]
        read = side_by_side(self.storage.requests, self._read_group, groups)
        # One that is missing or damaged is told where it is needed.
        found = zip(groups, read, strict=True)
        return {name: e.generation for name, e in found if not isinstance(e, PQVaultError)}

    def _read_group(self, name: str) -> Envelope:
        part, _, group = name.partition(".")
        return read_envelope(self.storage, self.archive, part, group)

    def moved(self) -> bool:
        """Whether parts were removed since: what was met then may be no damage."""
        return set(layout.listed_ids(self.storage, REMOVED)[0]) != self.removed

    def refuse_rolled_back(self) -> None:
        """Raise RolledBack where a part is missing or another than it was."""
        if self.rolled_back:
            raise self.rolled_back[0]

    def remember(self, commit: Commit) -> None:
        """Note a part that was just committed, whose envelope is its first."""
        if self.memory is not None:
            sight = Sight(commit.part, commit.parent_ids, {commit.part: 1})
            self.memory.remember(self.archive, [sight], self.removed)

    def next_seq(self) -> int:
        """1 + the highest seq that writers who take turns could have reached.

        A commit is public and anybody can write one: a seq beyond the number of parts there
        ever were is nobody's, and must not use up the numbers.
        """
        count = len(self.parts) + len(self.removed) + len(self.problems)
        honest = (p.commit.seq for p in self.parts.values() if p.commit.seq <= count)
        return 1 + max(honest, default=0)

    def ordered(self) -> list[PublicPart]:
        """Parts in the order in which the later one wins."""
        return sorted(self.parts.values(), key=lambda part: part.commit.order)

    def heads(self) -> list[PublicPart]:
        """The parts without a child: what the next part names as its parents.

        Not those without an envelope, which nobody can open: a commit that somebody dropped
        there must not become something that has to be kept.
        """
        parents = {p for part in self.parts.values() for p in part.commit.parent_ids}
        return [p for p in self.ordered() if p.id not in parents and p.envelope is not None]
