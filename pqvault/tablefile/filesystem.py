"""Where a file of an archive is, in pyarrow's words."""

from __future__ import annotations

from typing import Any

from pqvault.errors import UsageError
from pqvault.lazy import LazyModule
from pqvault.storage import LocalStorage, Storage

__all__ = ["arrow_place"]

pafs = LazyModule("pyarrow.fs")


def arrow_place(storage: Storage, name: str) -> tuple[Any, str]:
    """A pyarrow file system and a path in it. Its own file system, so that no scan calls back
    into Python, which can abort the interpreter at its end (landmine of pyarrow 26)."""
    if isinstance(storage, LocalStorage):
        return pafs.LocalFileSystem(), storage.where(name)
    raise UsageError(f"tables cannot be read from {storage.where('')} yet")
