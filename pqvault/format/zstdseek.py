"""zstd frames with a seek table, and frames that hold their content as it is.

RFC 8878 (zstd) and the zstd seekable format 0.1.0. docs/format.md section 7. All integers
are little-endian.

::

    frame 0 ‖ frame 1 ‖ … ‖ seek table

    seek table = 0x184D2A5E, its length (4)        a skippable frame, which `zstd -d` passes over
                 (compressed size (4), content size (4)) for each frame
                 number of frames (4), descriptor 0x00, 0x8F92EAB1
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from pqvault.errors import FormatError

__all__ = [
    "BLOCK_HEADER_SIZE",
    "BLOCK_SIZE",
    "FOOTER_SIZE",
    "HEAD_SIZE",
    "MAX_FRAME",
    "MAX_SEALED_FRAME",
    "MIN_FRAME",
    "STORED_HEADER_SIZE",
    "SeekTable",
    "check_frame",
    "parse_block_header",
    "parse_frame_header",
    "stored_block_header",
    "stored_block_offset",
    "stored_header",
    "stored_pieces",
    "stored_size",
    "table_size",
]

MIN_FRAME: Final = 64 * 1024  # bytes of content a writer may choose, at least
MAX_FRAME: Final = 8 * 1024 * 1024  # bytes of content, and of window, a reader accepts
MAX_FRAMES: Final = 0x8000000  # the seekable format's own limit
BLOCK_SIZE: Final = 131072  # bytes; RFC 8878 section 3.1.1.2.4, the largest block there is
FOOTER_SIZE: Final = 9
HEAD_SIZE: Final = 18  # the longest frame header
STORED_HEADER_SIZE: Final = 9
BLOCK_HEADER_SIZE: Final = 3

_ZSTD_MAGIC: Final = 0xFD2FB528
_SKIPPABLE_MAGIC: Final = 0x184D2A5E
_SEEKABLE_MAGIC: Final = 0x8F92EAB1
# Frame_Header_Descriptor: Frame_Content_Size_flag 2 (4 bytes), Single_Segment_flag, no checksum.
_STORED_DESCRIPTOR: Final = 0b1010_0000


def table_size(frames: int) -> int:
    """The size in bytes of the seek table of ``frames`` frames."""
    return 8 + 8 * frames + FOOTER_SIZE


@dataclass(frozen=True, slots=True)
class SeekTable:
    """Where frames begin: ``sealed`` and ``content`` have one offset more than there are frames."""

    sealed: array[int]
    content: array[int]

    @classmethod
    def of(cls, sealed_sizes: array[int], content_sizes: array[int]) -> SeekTable:
        """From the sizes of each frame, compressed and not."""
        return cls(
            array("Q", accumulate(sealed_sizes, initial=0)),
            array("Q", accumulate(content_sizes, initial=0)),
        )

    @property
    def frames(self) -> int:
        """How many frames there are."""
        return len(self.content) - 1

    @property
    def size(self) -> int:
        """Bytes of content in all frames."""
        return self.content[-1]

    def frame_at(self, offset: int) -> int:
        """The frame that holds the byte of content at ``offset``."""
        return bisect_right(self.content, offset) - 1

    def marshal(self) -> bytes:
        """The skippable frame."""
        body = array("I")
        for i in range(self.frames):
            body.append(self.sealed[i + 1] - self.sealed[i])
            body.append(self.content[i + 1] - self.content[i])
        head = struct.pack("<II", _SKIPPABLE_MAGIC, 8 * self.frames + FOOTER_SIZE)
        return head + _little(body).tobytes() + struct.pack("<IBI", self.frames, 0, _SEEKABLE_MAGIC)

    @staticmethod
    def size_from_footer(footer: bytes, total: int, what: str) -> int:
        """The table's size from its last 9 bytes, checked against the object's ``total``."""
        if len(footer) != FOOTER_SIZE:
            raise FormatError(f"{what} is too short to have a seek table")
        frames, descriptor, magic = struct.unpack("<IBI", footer)
        if magic != _SEEKABLE_MAGIC or descriptor != 0:
            raise FormatError(f"{what} does not end with a seek table as pqvault writes it")
        if frames > MAX_FRAMES or table_size(frames) > total:
            raise FormatError(f"the seek table of {what} claims {frames} frames, more than fit")
        return table_size(frames)

    @classmethod
    def parse(cls, data: bytes | bytearray, total: int, what: str) -> SeekTable:
        """From the bytes of the table of an object of ``total`` bytes, which it must tile."""
        size = cls.size_from_footer(bytes(data[-FOOTER_SIZE:]), total, what)
        magic, length = struct.unpack_from("<II", data)
        if size != len(data) or magic != _SKIPPABLE_MAGIC or length != size - 8:
            raise FormatError(f"the seek table of {what} is not one skippable frame")
        pairs = array("I")
        pairs.frombytes(bytes(data[8:-FOOTER_SIZE]))
        pairs = _little(pairs)
        table = cls.of(pairs[0::2], pairs[1::2])
        if table.sealed[-1] != total - size:
            raise FormatError(f"the seek table of {what} lies: its frames do not fill the object")
        if table.frames and not (min(pairs[1::2]) > 0 and max(pairs[1::2]) <= MAX_FRAME):
            raise FormatError(f"the seek table of {what} has a frame of no or too much content")
        return table


def _little(values: array[int]) -> array[int]:
    if struct.pack("=I", 1) != struct.pack("<I", 1):  # pragma: no cover, big-endian hosts
        values = array("I", values)
        values.byteswap()
    return values


def parse_frame_header(data: bytes | bytearray | memoryview, what: str) -> tuple[int, int]:
    """The header's length and the content size of a frame, before anything is allocated for it.

    The content size must be present and at most 8 MiB, so must the window; no dictionary, no
    checksum (ATTACKS row 30: a 13-byte frame may claim a terabyte). RFC 8878 section 3.1.1.1.
    ``data``: the first 18 bytes of the frame, or all when there are fewer.
    """
    head = bytes(data[:HEAD_SIZE])
    if len(head) < 6 or int.from_bytes(head[:4], "little") != _ZSTD_MAGIC:
        raise FormatError(f"{what} is not a zstd frame")
    descriptor = head[4]
    single = bool(descriptor & 0x20)
    if descriptor & 0b0001_1111 or (descriptor >> 6 == 0 and not single):
        raise FormatError(f"{what} has a dictionary, a checksum, a reserved bit or no content size")
    at = 5
    window = 0
    if not single:
        exponent, mantissa = head[5] >> 3, head[5] & 7
        window = (1 << (10 + exponent)) * (8 + mantissa) // 8
        at = 6
    width = 1 << (descriptor >> 6)
    size = int.from_bytes(head[at : at + width], "little") + (256 if width == 2 else 0)
    if len(head) < at + width or not 0 < size <= MAX_FRAME or window > MAX_FRAME:
        raise FormatError(f"{what} has no content, or content or a window over {MAX_FRAME} bytes")
    return at + width, size


def parse_block_header(data: bytes | bytearray | memoryview, what: str) -> tuple[int, bool]:
    """The bytes that follow a 3-byte block header, and whether the block is the last."""
    value = int.from_bytes(bytes(data[:BLOCK_HEADER_SIZE]), "little")
    kind, size = value >> 1 & 3, value >> 3
    if kind == 3 or size > BLOCK_SIZE:
        raise FormatError(f"{what} has a block that zstd does not know")
    return (1 if kind == 1 else size), bool(value & 1)  # 1: RLE, one byte stands for all


def check_frame(data: bytes | bytearray | memoryview, content: int, what: str) -> None:
    """Check one whole frame of ``content`` bytes, block by block, up to its very last byte.

    Raises FormatError. What is left for the decompressor is the blocks' content.
    """
    at, size = parse_frame_header(data, what)
    if size != content:
        raise FormatError(f"{what} does not have the size that the seek table says")
    last = False
    while not last and at + BLOCK_HEADER_SIZE <= len(data):
        block, last = parse_block_header(data[at : at + BLOCK_HEADER_SIZE], what)
        at += BLOCK_HEADER_SIZE + block
    if not last or at != len(data):
        raise FormatError(f"{what} does not end where the seek table says")


def stored_size(content: int) -> int:
    """The size of a stored frame of ``content`` bytes (at least 1)."""
    return STORED_HEADER_SIZE + content + BLOCK_HEADER_SIZE * (-(-content // BLOCK_SIZE))


# No writer makes a frame longer than a stored one of the most content.
MAX_SEALED_FRAME: Final = stored_size(MAX_FRAME)


def stored_header(content: int) -> bytes:
    """The frame header of a stored frame: magic, descriptor, content size in 4 bytes."""
    return struct.pack("<IBI", _ZSTD_MAGIC, _STORED_DESCRIPTOR, content)


def stored_block_header(content: int, block: int) -> bytes:
    """The header of block ``block``: last-block bit, type 0 (raw), size in 21 bits."""
    start = block * BLOCK_SIZE
    size = min(BLOCK_SIZE, content - start)
    last = start + size == content
    return (size << 3 | last).to_bytes(BLOCK_HEADER_SIZE, "little")


def stored_block_offset(block: int) -> int:
    """Where the header of block ``block`` stands within a stored frame."""
    return STORED_HEADER_SIZE + block * (BLOCK_SIZE + BLOCK_HEADER_SIZE)


def stored_place(content: int) -> int:
    """Where the byte ``content`` of the content stands within a stored frame."""
    return STORED_HEADER_SIZE + BLOCK_HEADER_SIZE * (content // BLOCK_SIZE + 1) + content


def stored_pieces(view: memoryview) -> list[bytes | memoryview]:
    """A stored frame of ``view`` as pieces to write one after the other, content not copied."""
    content = len(view)
    pieces: list[bytes | memoryview] = [stored_header(content)]
    for block in range(-(-content // BLOCK_SIZE)):
        pieces.append(stored_block_header(content, block))
        pieces.append(view[block * BLOCK_SIZE : (block + 1) * BLOCK_SIZE])
    return pieces
