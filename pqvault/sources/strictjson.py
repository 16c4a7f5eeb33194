"""One line of JSON as a Python object, or the reason why it is not one that a table can hold.

Stricter than RFC 8259 where readers differ: a duplicate key, an integer beyond 64 bits, a number
beyond a 64-bit float, a lone surrogate and ``NaN`` have no value that everybody reads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

__all__ = ["MAX_DEPTH", "BadLine", "Path", "parse_line", "shown"]

MAX_DEPTH: Final = 32  # lists and objects in each other; Parquet's own limit is 100 of its levels
_LEAST: Final = -(2**63)
_MOST: Final = 2**63 - 1
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_NOT_ZERO: Final = re.compile(r"[1-9]")
_SHOWN: Final = 40  # characters of a value that a message repeats


class BadLine(Exception):
    """Why a line is refused, as half a sentence."""


class _Bad(BadLine):
    """What stands for a value that has none, while the column is looked for that it is in."""


Path = tuple[str, ...]


def shown(path: Path) -> str:
    """``'messages[].role'``."""
    return repr(".".join(path).replace(".[]", "[]"))


def parse_line(line: bytes) -> dict[str, Any]:
    """The object in ``line``. Raises BadLine, which names the column where it can."""
    try:
        text = line.decode("utf-8")
        value = _DECODER.decode(text)
    except _Bad as reason:
        raise _named(text, reason) from None
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
        _check_text(value, ())
    return value


def _named(text: str, reason: _Bad) -> BadLine:
    """The reason with the column that it is about: read again, and looked for."""
    try:
        found = _find(_MARKING.decode(text), ())
    except (ValueError, RecursionError):
        found = None  # it is not JSON either, further on
    return found or BadLine(str(reason))


def _find(value: Any, path: Path) -> BadLine | None:
    if isinstance(value, _Bad):
        return BadLine(f"the column {shown(path)}: {value}" if path else str(value))
    pairs = ((key, value[key]) for key in value) if isinstance(value, dict) else ()
    items = (("[]", item) for item in value) if isinstance(value, list) else pairs
    return next((bad for key, item in items if (bad := _find(item, (*path, key)))), None)


def _words(message: str) -> str:
    return message[:1].lower() + message[1:]


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Bad:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    seen = set[str]()
    twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return _Bad(f"the key {_cut(twice)!r} is there twice in one object")


def _integer(text: str) -> int | _Bad:
    # The length first: int() of a million digits takes its time.
    if len(text) > 20 or not _LEAST <= (value := int(text)) <= _MOST:
        return _Bad(f"the integer {_cut(text)} is beyond 64 bits")
    return value


def _float(text: str) -> float | _Bad:
    value = float(text)
    if value in (_INFINITE, -_INFINITE):
        return _Bad(f"the number {_cut(text)} is beyond a 64-bit float")
    if not value and _NOT_ZERO.search(re.split("[eE]", text)[0]):
        return _Bad(f"the number {_cut(text)} is too small for a 64-bit float")
    return value


def _constant(text: str) -> _Bad:
    return _Bad(f"{text} is no JSON number")


_INFINITE: Final = float("inf")


def _raising(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def strict(given: Any) -> Any:
        value = hook(given)
        if isinstance(value, _Bad):
            raise value
        return value

    return strict


_HOOKS: Final = {
    "object_pairs_hook": _object,
    "parse_int": _integer,
    "parse_float": _float,
    "parse_constant": _constant,
}
_MARKING: Final = json.JSONDecoder(**_HOOKS)  # type: ignore[arg-type]
_DECODER: Final = json.JSONDecoder(**{name: _raising(hook) for name, hook in _HOOKS.items()})  # type: ignore[arg-type]


def _too_deep() -> BadLine:
    return BadLine(f"it is nested deeper than {MAX_DEPTH} levels")


def _check_depth(value: Any, depth: int) -> None:
    if not isinstance(value, dict | list):
        return
    if depth > MAX_DEPTH:
        raise _too_deep()
    for item in value.values() if isinstance(value, dict) else value:
        _check_depth(item, depth + 1)


def _check_text(value: Any, path: Path) -> None:
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise BadLine(
                f"the column {shown(path)} has half a surrogate pair, which is no character"
            ) from None
    elif isinstance(value, list):
        for item in value:
            _check_text(item, (*path, "[]"))
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(key, path)
            _check_text(item, (*path, key))
