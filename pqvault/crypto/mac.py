"""The MAC of text documents: HMAC-SHA-512 cut to 32 bytes."""

from __future__ import annotations

import hmac
from typing import Final

__all__ = ["MAC_KEY_SIZE", "MAC_SIZE", "compute", "equal"]

MAC_KEY_SIZE: Final = 64  # bytes, the output size of SHA-512
MAC_SIZE: Final = 32  # bytes; 256 bits against forgery, 128 against collision


def compute(key: bytes, data: bytes) -> bytes:
    """The first 32 bytes of HMAC-SHA-512 (RFC 2104); ``key`` is 64 bytes."""
    if len(key) != MAC_KEY_SIZE:
        raise ValueError(f"a MAC key is {MAC_KEY_SIZE} bytes")
    return hmac.digest(key, data, "sha512")[:MAC_SIZE]


def equal(a: bytes, b: bytes) -> bool:
    """Whether two secrets or MACs are equal, in time that depends on their length only."""
    return hmac.compare_digest(a, b)
