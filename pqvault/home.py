"""``PQVAULT_HOME``: where this host keeps journals. Never a key, never content."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

__all__ = ["folder"]


def folder(*names: str) -> Path:
    """A folder below ``PQVAULT_HOME`` (default: the user's data folder), made with mode 0700."""
    root = os.environ.get("PQVAULT_HOME") or platformdirs.user_data_dir("pqvault", appauthor=False)
    path = Path(root).joinpath(*names)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
