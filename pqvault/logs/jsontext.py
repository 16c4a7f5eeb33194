"""Any value as JSON text, whatever it is: what people log was not made to be JSON.

Whatever JSON lacks has a rule: non-finite floats are the strings ``NaN``, ``Infinity`` and
``-Infinity``; bytes are base64; objects of other kinds are what they hold, else their text; what
is nested too deep for Python's encoder is written down to 200 levels and replaced below.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from typing import Any, Final

__all__ = ["DEPTH", "escape_surrogates", "to_json"]

DEPTH: Final = 200  # levels that are kept of what is too deep
_NODES: Final = 1_000_000  # values that are kept of what is too deep: it may hold itself
_DEEP: Final = "(nested too deep)"
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def _other(value: Any) -> Any:
    """What stands for a value that JSON does not know."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode("ascii")
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, type):
        return str(value)
    dump = getattr(value, "model_dump", None)  # pydantic, which responses of clients are made of
    if callable(dump):
        return dump()
    if isinstance(value, Mapping):
        return dict(value)
    return _items(value)


def _items(value: Any) -> Any:
    """Of arrays, tensors and their numbers, which are those of Python then; of what else has any.
    Moments of numpy would be bare numbers, and its long numbers are themselves: they are texts."""
    tolist = getattr(value, "tolist", None)
    if callable(tolist) and getattr(getattr(value, "dtype", None), "kind", "") not in ("M", "m"):
        items = tolist()
        if type(items) is not type(value):
            return items
    if not isinstance(value, Iterable):
        return str(value)
    try:
        return list(value)
    except TypeError:  # an array without a dimension has only the method
        return str(value)


_encode: Final = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":"), default=_other
)


def _encoder() -> Any:
    """The C encoder made once: `JSONEncoder.encode` makes one for each call."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return lambda value, _: _encode.iterencode(value)
    basestring = json.encoder.encode_basestring
    return make(None, _other, basestring, None, ":", ",", False, False, False)


_pieces: Final = _encoder()


def to_json(value: object) -> tuple[str, bool]:
    """JSON text, and whether it says all: False when something nested too deep was left out.

    Raises what an object raises that does not let itself be looked at: anything.
    """
    try:
        return "".join(_pieces(value, 0)), True
    except (ValueError, TypeError, RecursionError):
        tame = _Tame()
        return "".join(_pieces(tame.copy(value, DEPTH), 0)), tame.whole


class _Tame:
    """Copies values into what JSON has."""

    def __init__(self) -> None:
        self.whole = True
        self._nodes = 0

    def copy(self, value: Any, depth: int) -> Any:
        self._nodes += 1
        if value is None or isinstance(value, str | bool):
            return value
        if isinstance(value, int):
            return _whole(value)
        if isinstance(value, float):
            return value if math.isfinite(value) else _non_finite(value)
        if depth == 0 or self._nodes > _NODES:
            self.whole = False
            return _DEEP
        if isinstance(value, Mapping):
            return {str(k): self.copy(v, depth - 1) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.copy(v, depth - 1) for v in value]
        return self.copy(_other(value), depth - 1)


def _whole(value: int) -> int | str:
    try:
        int.__repr__(value)
    except ValueError:  # over 4,300 digits, which Python neither writes nor reads
        return hex(value)
    return value


def _non_finite(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def escape_surrogates(text: str) -> str:
    """JSON text in which a lone half of a surrogate pair is an escape, as UTF-8 has none."""
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
