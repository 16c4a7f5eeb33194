"""Where the bytes of an archive live. Knows names and bytes, no keys and no formats."""

from pqvault.storage.base import ReadAt, Sink, Storage
from pqvault.storage.local import LocalStorage
from pqvault.storage.memory import InMemory
from pqvault.storage.places import is_archive, is_url, storage_at

__all__ = [
    "InMemory",
    "LocalStorage",
    "ReadAt",
    "Sink",
    "Storage",
    "is_archive",
    "is_url",
    "storage_at",
]
