"""Named digests of files and objects. A digest never stands without its name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from types import MappingProxyType
from typing import Final, Protocol

from blake3 import blake3

from pqvault.errors import FormatError

__all__ = ["DEFAULT", "SIZES", "Hasher", "new", "of"]

DEFAULT: Final = "blake3"


class Hasher(Protocol):
    """What hashlib and blake3 have in common."""

    def update(self, data: bytes | bytearray | memoryview, /) -> object: ...
    def digest(self) -> bytes: ...


_MAKERS: Final = MappingProxyType[str, Callable[[], Hasher]](
    {"blake3": blake3, "sha256": hashlib.sha256, "sha384": hashlib.sha384}
)

SIZES: Final = MappingProxyType({"blake3": 32, "sha256": 32, "sha384": 48})  # bytes


def new(name: str = DEFAULT) -> Hasher:
    """A hasher by its name in commits. Raises FormatError for a name that is not known."""
    maker = _MAKERS.get(name)
    if maker is None:
        raise FormatError(f"digest {name!r} is not one of {', '.join(_MAKERS)}")
    return maker()


def of(data: bytes | bytearray | memoryview, name: str = DEFAULT) -> bytes:
    """The digest of bytes at hand."""
    hasher = new(name)
    hasher.update(data)
    return hasher.digest()
