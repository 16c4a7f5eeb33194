"""The type of each column of CSV, over all of the rows: integers, floats, true and false, or text.

Text is what is left, so nothing is refused here. A column of numbers has only texts that its
values stand for: `007`, an integer beyond 64 bits, or a float of 20 digits make it text.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["Column"]

_TRUE: Final = ("true", "True", "TRUE")
_FALSE: Final = ("false", "False", "FALSE")
_BOTH: Final = pa.array(_TRUE + _FALSE)
# JSON's numbers. What looks like an integer has up to 15 digits, which every float keeps; others
# up to 17, as many as it takes to write a float so that it reads as the same.
_FLOAT: Final = (
    r"^-?(?:0|[1-9][0-9]{0,14}|(?:0|[1-9][0-9]*)\.[0-9]+(?:[eE][+-]?[0-9]{1,3})?"
    r"|(?:0|[1-9][0-9]*)[eE][+-]?[0-9]{1,3})$"
)
_TOO_LONG: Final = r"^-?[0.]*[1-9](?:\.?[0-9]){17}"
_ZERO: Final = r"^-?[0.]+(?:[eE].*)?$"


class Column:
    """One column: what its values so far may all be."""

    def __init__(self) -> None:
        self._seen = False
        self._int = self._float = self._bool = True

    def learn(self, texts: pa.Array) -> None:
        """``texts``: a string array; null where a field was empty."""
        values = texts.drop_null()
        if not len(values):
            return
        self._seen = True
        is_int = (self._int or self._float) and _are_integers(values)
        if self._float:
            self._float = _are_floats(values)
        self._int = self._int and is_int
        self._bool = self._bool and bool(pc.all(pc.is_in(values, value_set=_BOTH)).as_py())

    @property
    def type(self) -> pa.DataType:
        """Text for a column without any value."""
        if not self._seen:
            return pa.string()
        if self._int:
            return pa.int64()
        if self._float:
            return pa.float64()
        return pa.bool_() if self._bool else pa.string()


def convert(texts: pa.Array, to: pa.DataType) -> pa.Array:
    """The values that the texts stand for."""
    if pa.types.is_boolean(to):
        return pc.if_else(pc.is_valid(texts), pc.is_in(texts, value_set=pa.array(_TRUE)), None)
    return texts.cast(to)


def _are_integers(values: pa.Array) -> bool:
    try:
        return bool(values.cast(pa.int64()).cast(pa.string()).equals(values))
    except pa.ArrowInvalid:
        return False


def _are_floats(values: pa.Array) -> bool:
    written = pc.match_substring_regex(values, _FLOAT)
    if not pc.all(written).as_py() or pc.any(pc.match_substring_regex(values, _TOO_LONG)).as_py():
        return False
    floats = values.cast(pa.float64())
    if not pc.all(pc.is_finite(floats)).as_py():
        return False
    zeros = values.filter(pc.equal(floats, 0.0))
    return bool(pc.all(pc.match_substring_regex(zeros, _ZERO), min_count=0).as_py())
