"""A file of a part as it lies in storage, which its commit lists with a size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pqvault.crypto.cobblestone import Source
from pqvault.errors import IntegrityError, NotFound
from pqvault.storage import InMemory, ReadAt, Storage

__all__ = ["STEP", "open_listed", "pieces_of"]

STEP: Final = 1024 * 1024  # bytes: a piece and its plaintext stay in the processor's cache


def open_listed(storage: Storage, path: str, size: int, in_memory: int = 0) -> ReadAt:
    """A file of ``size`` bytes, open to be read. One of up to ``in_memory`` is read now, and so
    holds no descriptor.

    Raises IntegrityError when it is missing, for it is not what the user asked for but what its
    commit lists, and when it has another size.
    """
    try:
        small = size <= in_memory
        source = InMemory(storage.read(path, in_memory)) if small else storage.open(path)
    except NotFound:
        raise IntegrityError(f"{path} is missing") from None
    if source.size != size:
        source.close()
        raise IntegrityError(f"{path} has {source.size} bytes, its commit says {size}")
    return source


def pieces_of(source: Source) -> Iterator[memoryview]:
    """The sealed bytes in order, in a buffer that is used again."""
    buffer = memoryview(bytearray(min(STEP, source.size)))
    for at in range(0, source.size, STEP):
        data = buffer[: min(STEP, source.size - at)]
        source.pread_into(data, at)
        yield data
