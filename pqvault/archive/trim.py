"""Memory that was freed, given back to the system before more is taken for something else."""

from __future__ import annotations

import ctypes

import pyarrow as pa

__all__ = ["give_back"]

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's


def give_back() -> None:
    """What threads freed stays with the pools that malloc keeps for them: after a seal at level 9
    by four of them, 60 MiB, just when the tables of the part need room."""
    pa.default_memory_pool().release_unused()
    if _trim is not None:
        _trim(0)
