"""FrameCache: decoded frames, for one reader or for many."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from pqvault.closing import Sweeping

__all__ = ["CACHE_SIZE", "FrameCache"]

CACHE_SIZE: Final = 32 * 1024 * 1024  # bytes of decoded frames kept


class FrameCache(Sweeping[int]):
    """Decoded frames, the least recently used dropped first; several readers may share one.

    ``limit``: bytes of content. A frame larger than that is not kept.
    """

    def __init__(self, limit: int = CACHE_SIZE) -> None:
        super().__init__()
        self.decoded = 0  # bytes of content decoded so far, for who wants to know what reads cost
        self._limit = limit
        self._held = 0
        self._frames: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    def get(self, reader: int, frame: int) -> bytes | None:
        """The content of a frame, if it is here."""
        with self.lock:
            content = self._frames.get((reader, frame))
            if content is not None:
                self._frames.move_to_end((reader, frame))
            return content

    def put(self, reader: int, frame: int, content: bytes) -> None:
        """Keep a frame."""
        with self.lock:
            self.sweep()
            if (reader, frame) not in self._frames and len(content) <= self._limit:
                self._frames[reader, frame] = content
                self._held += len(content)
            while self._held > self._limit:
                self._held -= len(self._frames.popitem(last=False)[1])

    def forget(self, reader: int) -> None:
        """Drop the frames of one reader."""
        self.leave(reader)

    def _let_go(self, item: int) -> None:
        for key in [key for key in self._frames if key[0] == item]:
            self._held -= len(self._frames.pop(key))
