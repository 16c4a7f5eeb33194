"""Decode whole zstd frames. docs/format.md section 7.2."""

from __future__ import annotations

import threading

import zstandard

from pqvault.errors import FormatError
from pqvault.format import zstdseek
from pqvault.format.zstdseek import MAX_FRAME

__all__ = ["decode_frame", "decode_frame_into", "new_decompressor"]

_local = threading.local()


def decode_frame(sealed: bytes | bytearray | memoryview, size: int, what: str) -> bytes:
    """The ``size`` bytes of content of one whole zstd frame. Raises FormatError.

    The frame's own headers are checked first, so nothing is allocated that the seek table
    did not announce (ATTACKS row 30), and both readers refuse the same frames.
    """
    zstdseek.check_frame(sealed, size, what)
    try:
        content: bytes = _decompressor().decompress(
            sealed, max_output_size=size, allow_extra_data=False
        )
    except zstandard.ZstdError:
        content = b""
    if len(content) != size:
        raise FormatError(f"{what} does not decompress to what the seek table says")
    return content


def decode_frame_into(sealed: bytes | bytearray | memoryview, out: memoryview, what: str) -> None:
    """The same, straight into ``out``, which is as long as the content."""
    zstdseek.check_frame(sealed, len(out), what)
    try:
        # With room for all of it, zstd decodes a whole frame at once, with no window in between.
        count = _decompressor().stream_reader(sealed).readinto(out)
    except zstandard.ZstdError:
        count = -1
    if count != len(out):
        raise FormatError(f"{what} does not decompress to what the seek table says")


def _decompressor() -> zstandard.ZstdDecompressor:
    found: zstandard.ZstdDecompressor | None = getattr(_local, "decompressor", None)
    if found is None:
        found = _local.decompressor = new_decompressor()
    return found


def new_decompressor() -> zstandard.ZstdDecompressor:
    """One that takes no more memory than the largest frame needs."""
    return zstandard.ZstdDecompressor(max_window_size=MAX_FRAME)
