"""How far an epoch was read: blocks that are done, and how much of the one at hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import torch

from pqvault.errors import UsageError

__all__ = ["Epoch", "Progress", "check", "merged"]

_STATE: Final = "pqvault records 1"
MAX_WORKERS: Final = 1024
_BEFORE: Final = 4  # numbers before those of the workers


class Epoch:
    """Numbers that all workers of a loader see, forked, spawned or persistent: the epoch, and
    which workers have begun where a state says. A copy of a dataset that a later epoch starts its
    workers with holds that state too, and must not begin there again."""

    def __init__(self) -> None:
        self._shared = torch.zeros(_BEFORE + MAX_WORKERS, dtype=torch.int64).share_memory_()

    @property
    def value(self) -> int:
        """The epoch."""
        return int(self._shared[0])

    @value.setter
    def value(self, value: int) -> None:
        self._shared[0] = value

    def new_token(self) -> int:
        """A number for a state that every worker may take once."""
        self._shared[1] += 1
        return int(self._shared[1])

    def claim(self, worker: int, workers: int, token: int) -> bool:
        """Whether a worker of so many may take the state of a token; 0 is of this process alone.
        It is for the first loader: one with more workers after it has some that took nothing yet,
        and begins anew all the same."""
        if worker >= MAX_WORKERS:
            raise UsageError(f"a loader has at most {MAX_WORKERS} workers here")
        if not token:
            return True
        if int(self._shared[2]) < token:  # the same from each of its workers
            self._shared[3], self._shared[2] = workers, token
        mine = _BEFORE + worker
        if int(self._shared[3]) != workers or int(self._shared[mine]) >= token:
            return False
        self._shared[mine] = token
        return True


class Progress:
    """One iteration of one worker.

    ``state``: where to begin: of this worker, or merged of all. A state that was merged says for
    each block begun how many of its records were given out; all other blocks it names are done.
    """

    def __init__(
        self, epoch: int, worker: int, workers: int, fingerprint: str, state: dict[str, Any] | None
    ) -> None:
        self._epoch, self._worker, self._workers = epoch, worker, workers
        self._fingerprint = fingerprint
        self._start: dict[str, Any] = {"done": [], "begun": []}
        self._at = 0  # how many of its blocks this worker has finished
        self.given = 0  # records of the block at hand
        if state:
            self._take(state)

    def _take(self, state: dict[str, Any]) -> None:
        check(state, self._fingerprint)
        self._start = state["start"]
        if "workers" not in state:
            return
        place = (state["worker"], state["workers"])
        if place != (self._worker, self._workers):
            raise UsageError(
                f"the state is of worker {place[0]} of {place[1]}, and this is worker"
                f" {self._worker} of {self._workers}",
                hint="call dataset.resume(state) and make a new loader",
            )
        self._at, self.given = state["at"], state["given"]

    def blocks(self, count: int) -> Iterator[int]:
        """The blocks of this worker, of ``count`` in all; `given` says where the first begins."""
        work = remaining(self._start, count)[self._worker :: self._workers]
        for at in range(self._at, len(work)):
            block, given = work[at]
            # Where a merged state begins, or where this worker stood.
            self.given = max(given, self.given) if at == self._at else given
            self._at = at
            yield block
            self.given = 0
        self._at = max(self._at, len(work))

    def state(self) -> dict[str, Any]:
        """JSON's types only."""
        return {
            "kind": _STATE,
            "of": self._fingerprint,
            "epoch": self._epoch,
            "start": self._start,
            "worker": self._worker,
            "workers": self._workers,
            "at": self._at,
            "given": self.given,
        }


def remaining(start: dict[str, Any], count: int) -> list[tuple[int, int]]:
    """(block, records given out of it) of all blocks that are not done, those begun first."""
    known = {*start["done"], *(block for block, _ in start["begun"])}
    begun = [(block, given) for block, given in start["begun"]]
    return begun + [(block, 0) for block in range(count) if block not in known]


def check(state: dict[str, Any], fingerprint: str) -> None:
    """Raise UsageError for a state of another dataset."""
    if state.get("kind") != _STATE or state.get("of") != fingerprint:
        raise UsageError(
            "the state is not of this dataset: archive, files, seed, buffer or ranks differ",
            hint="make the dataset as it was when the state was taken; as_of=… brings back the"
            " parts of then",
        )


def merged(states: list[dict[str, Any]], fingerprint: str) -> dict[str, Any]:
    """One state of those of all workers of a loader. Raises UsageError when some are missing."""
    states = [state for state in states if state.get("kind") == _STATE]
    for state in states:
        check(state, fingerprint)
    whole = [state for state in states if "workers" not in state]
    if whole:
        return whole[0]
    workers = {state["worker"]: state for state in states}
    if not workers or len(workers) != next(iter(workers.values()))["workers"]:
        raise UsageError(
            "the state does not hold what every worker of the loader has read",
            hint="give what StatefulDataLoader.state_dict() returned",
        )
    first = workers[0]
    start = first["start"]
    done, begun = set(start["done"]), dict(start["begun"])
    count = 1 + max([*done, *begun, -1])
    # Enough blocks to cover what any worker has reached.
    reach = count + sum(state["at"] + 1 for state in workers.values()) * len(workers)
    for number, state in workers.items():
        work = remaining(start, reach)[number :: len(workers)]
        for block, _ in work[: state["at"]]:
            done.add(block)
            begun.pop(block, None)
        if state["given"]:
            begun[work[state["at"]][0]] = state["given"]
    return {
        "kind": _STATE,
        "of": fingerprint,
        "epoch": first["epoch"],
        "start": {"done": sorted(done), "begun": [list(pair) for pair in sorted(begun.items())]},
    }
