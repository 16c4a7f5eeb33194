"""Ids of archives and parts."""

from __future__ import annotations

import secrets

__all__ = ["new_id"]


def new_id() -> str:
    """16 random bytes in lower-case hex: an archive id or a part id."""
    return secrets.token_hex(16)
