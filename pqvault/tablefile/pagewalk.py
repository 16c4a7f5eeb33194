"""The headers of the pages of a column chunk: how much comes out of them, before any is unpacked.

Nothing else says so. A footer repeats what its writer claims, and pyarrow unpacks a row group
whole; a text that stands once in a dictionary is written out for each row that has it, so half a
megabyte can become gigabytes, in a table that anybody made with public keys.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from pqvault.crypto.modules import ModuleOpener
from pqvault.errors import FormatError
from pqvault.format.thrift import Struct, parse
from pqvault.tablefile.encryption import MAGIC

__all__ = ["Page", "PageWalk", "ReadRange"]

ReadRange = Callable[[int, int], bytes]  # of a file: (offset, length)

_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3  # PageType
_BY_DICTIONARY: Final = {2, 8}  # Encoding: PLAIN_DICTIONARY, RLE_DICTIONARY
_DELTA: Final = 7  # DELTA_BYTE_ARRAY: each value may begin with all of the one before
_BODY, _DICT_BODY, _HEAD, _DICT_HEAD = b"\2", b"\3", b"\4", b"\5"  # kinds of modules
_length_at: Final = struct.Struct("<I").unpack_from
_FIRST: Final = 512  # bytes that hold most headers
_LARGEST: Final = 16 * 1024 * 1024  # bytes of a header, as pyarrow has it
_CODECS: Final = {"UNCOMPRESSED", "ZSTD", "SNAPPY", "GZIP", "BROTLI"}
_SCANNED: Final = 2**20  # entries of a dictionary whose lengths are looked at
_UNPACKED: Final = 256 * 1024 * 1024  # bytes of such a dictionary


@dataclass(frozen=True, slots=True)
class Page:
    """What comes out of a page: ``values``; ``size`` bytes however few of them are read; and
    ``each``, the most bytes that every one of them takes besides."""

    values: int
    size: int
    each: int


class PageWalk:
    """Reads the headers of one file's pages. ``key``, ``aad_prefix``: the file's."""

    def __init__(
        self, read: ReadRange, size: int, key: bytes, aad_prefix: bytes, what: str
    ) -> None:
        self._read = read
        self._size = size
        self._what = what
        self._modules = ModuleOpener(key, aad_prefix + self._unique(), f"a page of {what}")

    def _bad(self, why: object) -> FormatError:
        return FormatError(f"{self._what} is damaged: {why}")

    def _unique(self) -> bytes:
        """What the file adds to the AAD prefix, from the plain struct before its footer."""
        (length,) = struct.unpack("<I", self._read(self._size - 8, 4))
        if length > self._size - 8 - len(MAGIC):
            raise self._bad("its footer is longer than it")
        head = self._read(self._size - 8 - length, min(length, _LARGEST))
        try:
            algorithm = parse(head)[0][1]
            unique = algorithm[1][2]  # AES_GCM_V1
        except (ValueError, KeyError, TypeError):
            raise self._bad("it is not encrypted by AES_GCM_V1") from None
        return bytes(unique)

    def pages(self, chunk: Any, group: int, column: int, most: int) -> Iterator[Page]:
        """The pages of a column chunk, up to the number of values that it has.

        ``chunk``: its metadata; ``group``, ``column``: its place in the file; ``most``: bytes
        that the texts of a dictionary may become before their lengths are looked at.
        """
        begin, end = self.extent(chunk)
        place = struct.pack("<HH", group, column)
        # As pyarrow chooses the context of the first page: by what the footer says.
        first = chunk.has_dictionary_page
        left, number, texts = chunk.num_values, 0, 0
        while left > 0 and begin < end:
            aad = place if first else place + struct.pack("<H", number)
            head, begin = self._head(begin, end, (_DICT_HEAD if first else _HEAD) + aad)
            packed, unpacked = self._numbers(head, 3, 2)
            if begin + packed > end:
                raise self._bad("a page is longer than its column chunk")
            if head.get(1) == _DICTIONARY:
                (count,) = self._numbers(head.get(7), 1)
                texts = unpacked
                if texts * left > most and count <= _SCANNED and unpacked <= _UNPACKED:
                    body = self._read(begin, packed)
                    texts = self._longest(
                        body, unpacked, chunk.compression, (_DICT_BODY if first else _BODY) + aad
                    )
                yield Page(0, unpacked, 0)
            else:
                page = self._page(head, unpacked, texts)
                left -= page.values
                number += 1
                yield page
            first = False
            begin += packed

    def extent(self, chunk: Any) -> tuple[int, int]:
        """Where a column chunk begins and ends. Raises FormatError."""
        begin = chunk.data_page_offset
        if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < begin:
            begin = chunk.dictionary_page_offset
        end = begin + chunk.total_compressed_size
        if not len(MAGIC) <= begin <= end <= self._size:
            raise self._bad("a column chunk is said to lie outside of it")
        return begin, end

    def _numbers(self, found: Any, *fields: int) -> list[int]:
        """Fields of a struct that are to be there, and not negative."""
        values = [found.get(field) if isinstance(found, dict) else None for field in fields]
        if not all(isinstance(value, int) and 0 <= value < 2**31 for value in values):
            raise self._bad("the header of a page makes no sense")
        return values  # type: ignore[return-value]

    def _page(self, head: Struct, unpacked: int, texts: int) -> Page:
        if head.get(1) == _DATA:
            values, encoding = self._numbers(head.get(5), 1, 2)
        elif head.get(1) == _DATA_V2:
            values, encoding = self._numbers(head.get(8), 1, 4)
        else:
            raise self._bad("it has a page of an unknown kind")
        if encoding in _BY_DICTIONARY:
            return Page(values, unpacked, texts)
        return Page(values, unpacked, unpacked if encoding == _DELTA else 0)

    def _head(self, begin: int, end: int, aad: bytes) -> tuple[Struct, int]:
        """The header that begins there, and where it ends."""
        data = self._read(begin, min(_FIRST, end - begin))
        if len(data) < 4:
            raise self._bad("a column chunk ends within a page")
        (length,) = struct.unpack_from("<I", data)
        if length > min(_LARGEST, end - begin - 4):
            raise self._bad("the header of a page is longer than its column chunk")
        if length + 4 > len(data):
            data = self._read(begin, length + 4)
        head = self._modules.open(memoryview(data)[4 : 4 + length], aad)
        try:
            return parse(head)[0], begin + 4 + length
        except ValueError as error:
            raise self._bad(f"the header of a page cannot be read: {error}") from None

    def _longest(self, body: bytes, unpacked: int, codec: str, aad: bytes) -> int:
        """The length of the longest text of a dictionary, or what it does not exceed."""
        if codec not in _CODECS:
            return unpacked
        data = self._modules.open(memoryview(body)[4:], aad)
        if codec != "UNCOMPRESSED":
            try:
                data = pa.decompress(data, unpacked, codec.lower(), asbytes=True)
            except (pa.ArrowException, OSError) as error:
                raise self._bad(f"a page cannot be unpacked: {error}") from None
        at, longest, end = 0, 0, len(data) - 4
        while at <= end:  # a million times, it may be
            (length,) = _length_at(data, at)
            if length > longest:
                longest = length
            at += 4 + length
        return min(longest, unpacked)
