"""What is remembered of archives from one use to the next, so that an older state does not pass
for the newest. The keystore remembers (`pqvault.keystore.seen`); readers only know this."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pqvault.errors import RolledBack

__all__ = ["Memory", "Recalled", "Sight"]


@dataclass(frozen=True, slots=True)
class Sight:
    """A part whose commit and envelope were verified.

    ``generations``: of its envelopes, by their names below ``envelopes/``.
    """

    part: str
    parents: tuple[str, ...]
    generations: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Recalled:
    """What was seen of one archive. ``generations`` that are not here: 1."""

    heads: frozenset[str]
    generations: Mapping[str, int]


class Memory(Protocol):
    """Of each archive its heads and the generations of its envelopes. Safe for threads."""

    def recall(self, archive: str) -> Recalled:
        """What was seen. To be called before the archive is read: what others add and remember
        after that is then no rollback."""

    def missing(
        self,
        archive: str,
        recalled: Recalled,
        parts: Collection[str],
        generations: Mapping[str, int],
    ) -> list[RolledBack]:
        """What was seen of an archive and is not there any more.

        ``parts``: ids of all that have a commit or were removed. ``generations``: of envelopes.
        """

    def remember(self, archive: str, sights: Sequence[Sight], removed: Collection[str]) -> None:
        """Add verified parts of one archive."""
