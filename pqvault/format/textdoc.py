"""Text documents: a label, one line of canonical JSON, a MAC line. docs/format.md section 3.

::

    pqvault.dev/envelope@v1
    {"archive":"…",…}
    --- <base64 of 32 bytes>

Canonical means that there is one way to write a value, so a parser can compare its own
marshalling with what it read and needs no list of everything that could differ.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from pqvault.errors import FormatError

__all__ = [
    "ID_SIZE",
    "MAX_INTEGER",
    "MAX_SIZE",
    "Fields",
    "authenticated",
    "b64decode",
    "b64encode",
    "marshal",
    "marshal_json",
    "parse",
    "parse_json",
    "parse_prefix",
]

MAX_SIZE: Final = 4 * 1024 * 1024  # bytes of a whole document (ATTACKS row 42)
MAX_INTEGER: Final = 2**53 - 1  # what every JSON reader agrees on
ID_SIZE: Final = 16  # bytes
MAC_SIZE: Final = 32  # bytes
MAC_MARK: Final = b"--- "
_MAC_LINE: Final = len(MAC_MARK) + 44 + 1
_HEX: Final = re.compile(r"(?:[0-9a-f]{2})*")
_TEXT: Final = re.compile(r"[ !#-\[\]-~]*")  # printable ASCII without " and \


def b64encode(data: bytes) -> str:
    """RFC 4648 section 4, with padding."""
    return base64.b64encode(data).decode("ascii")


def b64decode(text: str, what: str) -> bytes:
    """The one text that encodes some bytes; every other spelling is refused."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError(f"{what} is not base64") from None
    if b64encode(data) != text:
        raise FormatError(f"{what} is not canonical base64")
    return data


def authenticated(label: str, fields: Mapping[str, Any]) -> bytes:
    """What the MAC covers: lines 1 and 2 with their newlines, and the three bytes ``---``."""
    return label.encode("ascii") + b"\n" + marshal_json(fields) + b"\n---"


def marshal(label: str, fields: Mapping[str, Any], mac: bytes) -> bytes:
    """The whole document."""
    if len(mac) != MAC_SIZE:
        raise ValueError(f"a MAC is {MAC_SIZE} bytes")
    return authenticated(label, fields) + b" " + b64encode(mac).encode("ascii") + b"\n"


def parse(data: bytes, label: str, what: str) -> tuple[dict[str, Any], bytes]:
    """The JSON object and the MAC of a document that is all of ``data``."""
    fields, mac, used = parse_prefix(data, label, what)
    if used != len(data):
        raise FormatError(f"{what} has {len(data) - used} bytes after its MAC line")
    return fields, mac


def parse_prefix(data: bytes, label: str, what: str) -> tuple[dict[str, Any], bytes, int]:
    """The JSON object, the MAC and the length of a document at the head of ``data``."""
    if not data.startswith(label.encode("ascii") + b"\n"):
        raise FormatError(f"{what} does not begin with {label!r}: it is no such document")
    start = len(label) + 1
    newline = data.find(b"\n", start, MAX_SIZE)
    end = newline + 1 + _MAC_LINE
    if newline < 0 or end > MAX_SIZE:
        raise FormatError(f"{what} is truncated, or over {MAX_SIZE} bytes")
    line = data[newline + 1 : end]
    if len(line) != _MAC_LINE or not line.startswith(MAC_MARK) or line[-1:] != b"\n":
        raise FormatError(f"{what} has no whole MAC line")
    mac = b64decode(line[len(MAC_MARK) : -1].decode("latin-1"), f"the MAC of {what}")
    if len(mac) != MAC_SIZE:
        raise FormatError(f"the MAC of {what} is not {MAC_SIZE} bytes")
    return parse_json(data[start:newline], what), mac, end


def marshal_json(fields: Mapping[str, Any]) -> bytes:
    """The one way to write an object."""
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def parse_json(line: bytes, what: str) -> dict[str, Any]:
    """An object written by :func:`marshal_json`. Raises FormatError for anything else."""

    def refuse(text: str) -> Any:
        raise ValueError(f"{text} is not an integer")

    def integer(text: str) -> int:
        if len(text) > 16 or not 0 <= int(text) <= MAX_INTEGER:
            raise ValueError("an integer is out of range")
        return int(text)

    try:
        text = line.decode("ascii")
        value = json.loads(text, parse_float=refuse, parse_constant=refuse, parse_int=integer)
        # Duplicate keys, spaces, escapes and leading zeros all change the marshalling.
        same = json.dumps(value, separators=(",", ":"), ensure_ascii=True) == text
    except (ValueError, RecursionError):
        raise FormatError(f"{what} is not JSON as pqvault writes it") from None
    if not same or not isinstance(value, dict):
        raise FormatError(f"{what} is not JSON as pqvault writes it")
    return value


class Fields:
    """Typed reading of a parsed object: exactly the keys expected, in their order."""

    def __init__(self, value: object, keys: tuple[str, ...], what: str) -> None:
        if not isinstance(value, dict) or tuple(value) != keys:
            raise FormatError(f"{what} does not have exactly the keys {', '.join(keys)}")
        self._value = value
        self._what = what

    def text(self, key: str, most: int = 255) -> str:
        """Printable ASCII without quotes and backslashes, at most ``most`` characters."""
        value = self._value[key]
        if not isinstance(value, str) or len(value) > most or not _TEXT.fullmatch(value):
            raise self._bad(key, f"a text of at most {most} printable characters")
        return value

    def integer(self, key: str, least: int = 0) -> int:
        """An integer from ``least`` to 2^53 - 1."""
        value = self._value[key]
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self._bad(key, f"an integer of at least {least}")
        return value

    def hex(self, key: str, size: int) -> str:
        """Lower-case hex of ``size`` bytes."""
        return self.hex_value(self._value[key], size, key)

    def hex_value(self, value: object, size: int, key: str) -> str:
        """``value``, found under ``key``, when it is lower-case hex of ``size`` bytes."""
        if not isinstance(value, str) or len(value) != 2 * size or not _HEX.fullmatch(value):
            raise self._bad(key, f"lower-case hex of {size} bytes")
        return value

    def base64(self, key: str) -> bytes:
        """Canonical base64."""
        value = self._value[key]
        if not isinstance(value, str):
            raise self._bad(key, "base64")
        return b64decode(value, f"{key!r} of {self._what}")

    def items(self, key: str) -> list[Any]:
        """A list, its items unchecked."""
        value = self._value[key]
        if not isinstance(value, list):
            raise self._bad(key, "a list")
        return value

    def _bad(self, key: str, wanted: str) -> FormatError:
        return FormatError(f"{key!r} of {self._what} is not {wanted}")
