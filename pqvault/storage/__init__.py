"""Where the bytes of an archive live. Knows names and bytes, no keys and no formats."""

from pqvault.storage.base import ReadAt, Sink, Storage
from pqvault.storage.local import LocalStorage

__all__ = ["LocalStorage", "ReadAt", "Sink", "Storage"]
