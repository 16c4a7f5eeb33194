"""What happens to damaged samples: an error, or, when asked for, a count."""

from __future__ import annotations

import torch
from torch.utils.data import get_worker_info

from pqvault.errors import PQVaultError, UsageError

__all__ = ["Damage"]

_SLOTS = 1024  # counters, one a worker, so that none waits for another


class Damage:
    """``raise`` or ``skip``. Counts over all worker processes, forked or spawned."""

    def __init__(self, policy: str) -> None:
        if policy not in ("raise", "skip"):
            raise UsageError(f"on_damage is {policy!r}", hint="choose raise or skip")
        self._skip = policy == "skip"
        self._counts = torch.zeros(_SLOTS, dtype=torch.int64).share_memory_()

    @property
    def count(self) -> int:
        """Samples left out so far."""
        return int(self._counts.sum())

    def note(self, error: PQVaultError) -> None:
        """Count a damaged sample, or raise what is wrong with it."""
        if not self._skip:
            raise error
        worker = get_worker_info()
        self._counts[0 if worker is None else 1 + worker.id % (_SLOTS - 1)] += 1
