"""SealedFiles: a map-style dataset, a file per item."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch.utils.data import Dataset

from pqvault.errors import IntegrityError, PQVaultError
from pqvault.integrations.samples import Sample, SampleFiles
from pqvault.integrations.torch.damage import Damage
from pqvault.integrations.torch.sampler import EpochSampler

__all__ = ["SealedFiles"]


class SealedFiles(SampleFiles, Dataset):
    """The files of an archive, one an item: :class:`Sample`, or what ``transform`` makes of it.

    ``archive``: path or URL. ``identities``: references to keys (``file:…``, ``env:…``,
    ``keystore:…``) or identities, which only forked workers can use. ``globs``: which files.
    ``on_damage``: ``raise``, or ``skip``, which leaves damaged files out of their batch and counts
    them in :attr:`skipped`.

    A batch is read in the order in which its files lie, so that no frame is decoded twice for it.
    Workers open the archive themselves, as it was when this was made. Raises NotFound,
    NoKeyFits, IntegrityError that names the file, RolledBack when a part is gone.
    """

    def __init__(
        self,
        archive: str | os.PathLike[str],
        *,
        identities: Any = None,
        globs: str | Iterable[str] | None = (),
        transform: Callable[[Sample], Any] | None = None,
        on_damage: str = "raise",
        signers: Any = None,
        as_of: str | None = None,
        storage_options: dict[str, Any] | None = None,
    ) -> None:
        self._damage = Damage(on_damage)
        self._transform = transform
        super().__init__(
            archive,
            identities=identities,
            globs=globs,
            signers=signers,
            as_of=as_of,
            storage_options=storage_options,
        )

    @property
    def skipped(self) -> int:
        """How many damaged files all processes have left out so far."""
        return self._damage.count

    def sampler(self, **options: Any) -> EpochSampler:
        """An :class:`EpochSampler` over this dataset: seeded, sharded over ranks, resumable."""
        return EpochSampler(self, **options)

    def __getitems__(self, numbers: Sequence[int]) -> list[Any]:
        """A batch. Raises before any of it is given out; damaged files are left out if asked."""
        samples: list[Any] = [None] * len(numbers)
        bad: IntegrityError | None = None
        for place, sample in self._each(numbers):
            if isinstance(sample, IntegrityError):
                self._damage.note(sample)
                bad = sample
            elif isinstance(sample, PQVaultError):
                raise sample
            else:
                samples[place] = sample
        kept = [sample for sample in samples if sample is not None]
        if bad is not None and not kept:
            raise bad  # nothing is left of the batch, and an empty one would end the epoch
        return kept if self._transform is None else [self._transform(one) for one in kept]

    def __getitem__(self, number: int | slice) -> Any:
        """One file, or a list of those of a slice. Raises IntegrityError when one is damaged, which
        is counted."""
        if isinstance(number, slice):
            return super().__getitem__(number)
        try:
            sample = self._one(number)
        except IntegrityError as error:
            self._damage.note(error)
            raise
        return sample if self._transform is None else self._transform(sample)

    def read(self, numbers: Sequence[int]) -> list[Any]:
        """The same as a batch."""
        return self.__getitems__(numbers)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return object.__reduce_ex__(self, protocol)
