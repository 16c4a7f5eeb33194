"""Plain values that become JSON later, on the writer's thread: a copy of what can change.

Most records are dicts, lists, texts and numbers. Of those only the containers are copied while
the caller waits, which is a tenth of writing them as JSON, for texts are not even looked at.
Anything else (an object, a number that JSON may refuse, much nesting, much text) is not held: what
it raises or loses must be known before the call returns.
"""

from __future__ import annotations

from typing import Any, Final

from pqvault.logs.jsontext import to_json

__all__ = ["Held", "hold"]

_DEPTH: Final = 8  # levels of containers
_MOST: Final = 1024 * 1024  # bytes
_ITEM: Final = 48  # bytes that a value takes besides its text
_CONTAINER: Final = 160  # bytes, besides what is in it
_CONSTANTS: Final = frozenset({float, bool, type(None)})
_LARGEST: Final = 64  # bits of a whole number: Python refuses to print some very large ones


class Held:
    """A value that nobody else can change. ``size``: about how many bytes it takes, with one for
    each character; its text has at most six times as many characters, if all become escapes."""

    __slots__ = ("_value", "size")

    def __init__(self, value: Any, size: int) -> None:
        self._value = value
        self.size = size

    def text(self) -> str:
        """The JSON text. Raises nothing, for all of it is plain."""
        return to_json(self._value)[0]


class _NotPlainError(Exception):
    """Something in a value is not to be held."""


def hold(value: Any) -> Held | None:
    """A copy of ``value`` if all of it is plain and it is of ordinary size."""
    copier = _Copier()
    try:
        copied = copier.copy(value, _DEPTH)
    except _NotPlainError:
        return None
    return Held(copied, copier.size) if copier.size <= _MOST else None


class _Copier:
    __slots__ = ("size",)

    def __init__(self) -> None:
        self.size = 0

    def copy(self, value: Any, depth: int) -> Any:
        kind = type(value)  # exactly: what inherits from them may do anything
        if kind is str:
            self.size += len(value) + _ITEM
            return value
        if kind is dict or kind is list:
            if not depth or self.size + _ITEM * len(value) > _MOST:
                raise _NotPlainError
            # All at once: another thread may change it while we look at what is in it.
            copied = value.copy()
            self.size += _CONTAINER
            for key, item in copied.items() if kind is dict else enumerate(copied):
                if kind is dict:
                    if type(key) is not str:
                        raise _NotPlainError
                    self.size += len(key)
                if type(item) is str:
                    self.size += len(item) + _ITEM
                else:
                    copied[key] = self.copy(item, depth - 1)
            return copied
        if kind not in _CONSTANTS and (kind is not int or value.bit_length() > _LARGEST):
            raise _NotPlainError
        self.size += _ITEM
        return value
