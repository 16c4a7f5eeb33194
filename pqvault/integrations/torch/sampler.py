"""EpochSampler: the order of an epoch, exact, seeded, sharded over ranks, resumable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sized
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import torch
from torch.utils.data import Sampler

from pqvault.errors import UsageError
from pqvault.integrations.samples import SampleFiles

__all__ = ["EpochSampler", "Place", "Placed", "permutation", "sampler_state"]

_STATE: Final = "pqvault sampler 1"


def permutation(count: int, *words: object) -> torch.Tensor:
    """A shuffled ``range(count)``; the same for the same words, in every process."""
    text = "\0".join(map(str, words)).encode()
    seed = int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True, slots=True)
class Place:
    """Rank and number of ranks: what was given, else what `torch.distributed` has, which may begin
    after a dataset is made. ``known``: where there is no process group, as in workers."""

    rank: int | None
    world: int | None
    known: tuple[int, int] = (0, 1)

    @classmethod
    def of(cls, rank: int | None, world: int | None) -> Place:
        """Raises UsageError for a rank that there is not."""
        place = cls(rank, world)
        place.now()
        return place

    def now(self) -> tuple[int, int]:
        """Raises UsageError for a rank that there is not."""
        rank, world = self.known
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        rank = rank if self.rank is None else self.rank
        world = world if self.world is None else self.world
        if not 0 <= rank < world:
            raise UsageError(
                f"rank {rank} of {world} is not possible", hint="ranks count from 0 to world - 1"
            )
        return rank, world

    def kept(self) -> Place:
        """As it goes to workers."""
        return replace(self, known=self.now())


class Placed:
    """What has a :class:`Place`, as `_place`."""

    _place: Place

    @property
    def rank(self) -> int:
        """Of this process, and of its workers."""
        return self._place.now()[0]

    @property
    def world(self) -> int:
        """How many ranks there are."""
        return self._place.now()[1]


class EpochSampler(Placed, Sampler):
    """Numbers of samples, each once an epoch, those of one rank.

    ``seed``, and the epoch said with :meth:`set_epoch`, fix the order. ``rank``, ``world``: of
    this process and how many; by default those of `torch.distributed`, if that is running.
    ``drop_last``: drop what does not go round over the ranks; else some samples come twice.
    Ranks take turns, so a state holds for any number of ranks and of workers.
    """

    def __init__(
        self,
        dataset: Sized,
        *,
        seed: int = 0,
        shuffle: bool = True,
        rank: int | None = None,
        world: int | None = None,
        drop_last: bool = False,
    ) -> None:
        self._dataset = dataset
        self._count = len(dataset)
        self.seed = seed
        self.shuffle = shuffle
        self._place = Place.of(rank, world)
        self.drop_last = drop_last
        self.epoch = 0
        self.epoch_is_said = False  # then a state has no say in what comes after its own epoch
        self._consumed = 0  # by all ranks, where the next iteration begins

    def set_epoch(self, epoch: int) -> None:
        """Which epoch is next; it begins at its beginning."""
        self.epoch, self.epoch_is_said = epoch, True
        self._consumed = 0

    @property
    def total(self) -> int:
        """Samples that all ranks take in an epoch together."""
        return self.share(0) * self.world

    def __len__(self) -> int:
        """Samples of this rank that are left of the epoch."""
        return self.share(self._consumed)

    def share(self, consumed: int) -> int:
        """Samples that each rank takes after all together took some. As many for each: a state
        may be of another number of ranks, and a rank that had more would wait for the others."""
        left = max(0, self._count - consumed)
        return left // self.world if self.drop_last else -(-left // self.world)

    def __iter__(self) -> _Order:
        return _Order(self, self.epoch, self._consumed)

    def order(self, epoch: int, consumed: int = 0) -> torch.Tensor:
        """The numbers of an epoch, for all ranks, less those that were consumed."""
        numbers = torch.arange(self._count)
        if self.shuffle:
            numbers = permutation(self._count, "files", self.seed, epoch)
        end = consumed + self.share(consumed) * self.world
        if end > self._count:  # once more from the beginning, so that ranks end together
            numbers = numbers.repeat(-(-end // self._count))
        return numbers[consumed:end]

    @cached_property
    def _of(self) -> str:
        """Which files the numbers are of; of what is not ours nothing is known."""
        return self._dataset.index.digest() if isinstance(self._dataset, SampleFiles) else ""

    def resume(self, state: dict[str, Any]) -> None:
        """Go on where a state was taken: one of an iterator of this class, or of a
        `StatefulDataLoader` that used one, whatever number of workers it had."""
        self.epoch, self._consumed = self.check(sampler_state(state))

    def check(self, state: dict[str, Any]) -> tuple[int, int]:
        """Epoch and samples consumed. Raises UsageError for a state of another order."""
        mine = {"seed": self.seed, "shuffle": self.shuffle, "count": self._count}
        for name, value in mine.items():
            if state.get(name) != value:
                raise UsageError(
                    f"the state has {name} {state.get(name)}, and this sampler {value}",
                    hint="resume with the dataset, seed and order that the state was taken with",
                )
        if state.get("of") != self._of:
            raise UsageError(
                "the state is of other files: some have come since, and as many have gone",
                hint="make the dataset as it was then; as_of=… brings back the parts of then",
            )
        return int(state["epoch"]), int(state["consumed"])


class _Order(Iterator[int]):
    """One iteration; what torchdata calls stateful."""

    def __init__(self, sampler: EpochSampler, epoch: int, consumed: int) -> None:
        self._sampler = sampler
        self._begin(epoch, consumed)

    def _begin(self, epoch: int, consumed: int) -> None:
        self._epoch, self._consumed = epoch, consumed
        rank, self._world = self._sampler._place.now()
        order = self._sampler.order(epoch, consumed)
        self._numbers = iter(order[rank :: self._world].tolist())

    def __next__(self) -> int:
        # Only now: loaders make iterators that they never ask.
        self._sampler._consumed = 0
        number: int = next(self._numbers)
        self._consumed += self._world
        return number

    def state_dict(self) -> dict[str, Any]:
        sampler = self._sampler
        return {
            "kind": _STATE,
            "seed": sampler.seed,
            "shuffle": sampler.shuffle,
            "count": sampler._count,
            "of": sampler._of,
            "epoch": self._epoch,
            "consumed": self._consumed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        epoch, consumed = self._sampler.check(state)
        if not self._sampler.epoch_is_said:
            self._sampler.epoch = epoch
        self._begin(epoch, consumed)


def sampler_state(state: Any) -> dict[str, Any]:
    """Find the state of an :class:`EpochSampler` in the state of a loader. Raises UsageError."""
    found = [one for one in states_in(state) if one.get("kind") == _STATE]
    if not found:
        raise UsageError(
            "there is no state of an EpochSampler in what was given",
            hint="give what StatefulDataLoader.state_dict() returned",
        )
    return found[0]


def states_in(state: Any) -> Iterator[dict[str, Any]]:
    """All states of ours within a nested state, which must be up to date.

    Raises UsageError for a loader that takes snapshots less often than it gives batches.
    """
    if not isinstance(state, dict):
        return
    if state.get("_steps_since_snapshot"):
        raise UsageError(
            "the loader's state is older than the batches that it gave out",
            hint="make the loader with snapshot_every_n_steps=1",
        )
    if str(state.get("kind", "")).startswith("pqvault "):
        yield state
        return
    for value in state.values():
        yield from states_in(value)
