"""What documents are marked with: ids of archives and parts, and times."""

from __future__ import annotations

import secrets
import time

__all__ = ["new_id", "now"]


def new_id() -> str:
    """16 random bytes in lower-case hex: an archive id or a part id."""
    return secrets.token_hex(16)


def now() -> int:
    """Unix time in ms, as documents and the keystore have it."""
    return int(time.time() * 1000)
