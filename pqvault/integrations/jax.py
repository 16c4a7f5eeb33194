"""JAX: a random-access source for grain, which is Python's ``len`` and ``[number]``.

::

    source = SealedSource("corpus.pqv", identities="file:key.txt", globs="**/*.npy")
    grain.MapDataset.source(source).shuffle(seed=0).map(decode).batch(32)

Nothing of JAX is imported. Grain's workers get references to keys and open the archive themselves.
"""

from __future__ import annotations

from typing import Any

from pqvault.integrations.samples import Sample, SampleFiles

__all__ = ["Sample", "SealedSource"]


class SealedSource(SampleFiles):
    """The files of an archive: ``source[number]`` is a :class:`Sample`."""

    def __repr__(self) -> str:
        # Grain puts it into the names of its iterators, so it must be the same in every process.
        return f"SealedSource({self._opening.place!r}, {self._globs!r})"

    def _getitems(self, numbers: list[int]) -> list[Any]:
        """Several at once, as grain asks for them; each frame is decoded once."""
        return self.read(numbers)
