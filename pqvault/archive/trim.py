"""Memory that was freed, given back to the system before more is taken for something else."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Final

from pqvault.lazy import LazyModule

if TYPE_CHECKING:
    import pyarrow as pa
else:  # not for worker processes
    pa = LazyModule("pyarrow")

__all__ = ["give_back", "keep_apart", "keep_for_next"]

_LARGE: Final = 20 * 1024 * 1024  # bytes; frames, and parts of uploads, are smaller
_MMAP_THRESHOLD: Final = -3  # mallopt(3)
_TRIM_THRESHOLD: Final = -1
_KEPT: Final = 64 * 1024 * 1024  # bytes; twice what frames are kept of
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
_mallopt = getattr(ctypes.CDLL(None), "mallopt", None)


def give_back() -> None:
    """What threads freed stays with the pools that malloc keeps for them: after a seal at level 9
    by four of them, 60 MiB, just when the tables of the part need room."""
    pa.default_memory_pool().release_unused()
    if _trim is not None:
        _trim(0)


def keep_apart() -> None:
    """Let memory of 20 MiB and more go back to the system when it is freed.

    zstd takes 24 MiB a thread at level 9. Once it was freed, malloc would keep that much for each
    thread, at the end of a pool, where :func:`give_back` does not reach: 70 MiB of a seal on four.
    It holds for all of the process, so it is for programs to call, not for libraries.
    """
    if _mallopt is not None:
        _mallopt(_MMAP_THRESHOLD, _LARGE)


def keep_for_next() -> None:
    """Let memory that was freed be used again, and not go back: frames come and go, and new pages
    for each take as long as a seventh of what is done with it. For worker processes."""
    if _mallopt is not None:
        _mallopt(_MMAP_THRESHOLD, _LARGE)
        _mallopt(_TRIM_THRESHOLD, _KEPT)
