"""One line of JSON as a Python object, or the reason why it is not one that a table can hold.

Stricter than RFC 8259 where readers differ: a duplicate key, an integer beyond 64 bits, a number
beyond a 64-bit float, a lone surrogate and ``NaN`` have no value that everybody reads.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

__all__ = ["MAX_DEPTH", "BadLine", "parse_line"]

MAX_DEPTH: Final = 32  # lists and objects in each other; Parquet's own limit is 100 of its levels
_LEAST: Final = -(2**63)
_MOST: Final = 2**63 - 1
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_NOT_ZERO: Final = re.compile(r"[1-9]")
_SHOWN: Final = 40  # characters of a value that a message repeats


class BadLine(Exception):
    """Why a line is refused, as half a sentence."""


def parse_line(line: bytes) -> dict[str, Any]:
    """The object in ``line``. Raises BadLine."""
    try:
        value = _DECODER.decode(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadLine(f"column {error.start + 1}: it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise BadLine(f"column {error.colno}: it is not JSON ({_words(error.msg)})") from None
    except RecursionError:
        raise _too_deep() from None
    if not isinstance(value, dict):
        raise BadLine("column 1: it is no JSON object")
    # Each level takes a bracket, and most lines have few: those need no walk.
    if line.count(b"{") + line.count(b"[") > MAX_DEPTH:
        _check_depth(value, 1)
    if _SURROGATE.search(line):
        _check_text(value)
    return value


def _words(message: str) -> str:
    return message[:1].lower() + message[1:]


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen = set[str]()
        for key, _ in pairs:
            if key in seen:
                raise BadLine(f"the key {_shown(key)!r} is there twice in one object")
            seen.add(key)
    return value


def _integer(text: str) -> int:
    # The length first: int() of a million digits takes its time.
    if len(text) > 20 or not _LEAST <= (value := int(text)) <= _MOST:
        raise BadLine(f"the integer {_shown(text)} is beyond 64 bits")
    return value


def _float(text: str) -> float:
    value = float(text)
    if value in (_INFINITE, -_INFINITE):
        raise BadLine(f"the number {_shown(text)} is beyond a 64-bit float")
    if not value and _NOT_ZERO.search(re.split("[eE]", text)[0]):
        raise BadLine(f"the number {_shown(text)} is too small for a 64-bit float")
    return value


_INFINITE: Final = float("inf")


def _constant(text: str) -> NoReturn:
    raise BadLine(f"{text} is no JSON number")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
)


def _too_deep() -> BadLine:
    return BadLine(f"it is nested deeper than {MAX_DEPTH} levels")


def _check_depth(value: Any, depth: int) -> None:
    if not isinstance(value, dict | list):
        return
    if depth > MAX_DEPTH:
        raise _too_deep()
    for item in value.values() if isinstance(value, dict) else value:
        _check_depth(item, depth + 1)


def _check_text(value: Any) -> None:
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise BadLine("a text has half a surrogate pair, which is no character") from None
    elif isinstance(value, list):
        for item in value:
            _check_text(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(key)
            _check_text(item)
