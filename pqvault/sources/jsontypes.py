"""The type of each column of JSON lines, over all of the lines.

null gives way to anything, integers give way to floats (where each of them is exact as one),
objects unite their keys, lists the types of their items. Anything else in one column is an error
that names both lines.
"""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa

from pqvault.sources.base import SourceRefused
from pqvault.sources.strictjson import Path, shown

__all__ = ["EXACT", "Types"]

EXACT: Final = 2**53  # integers up to it are exact as 64-bit floats
MAX_COLUMNS: Final = 10_000  # more are no columns: keys that are data

_NULL, _BOOL, _INT, _FLOAT, _TEXT, _LIST, _OBJECT = range(7)
_WORDS: Final = ("null", "true or false", "an integer", "a float", "text", "a list", "an object")
_KINDS: Final = {
    type(None): _NULL, bool: _BOOL, int: _INT, float: _FLOAT, str: _TEXT, list: _LIST, dict: _OBJECT
}  # fmt: skip
_LEAVES: Final = {_NULL: pa.null(), _BOOL: pa.bool_(), _INT: pa.int64(), _FLOAT: pa.float64(),
                  _TEXT: pa.string()}  # fmt: skip


class _Node:
    """A column, or a level of one. ``line``: where its kind was first seen."""

    __slots__ = ("fields", "item", "kind", "line")

    def __init__(self) -> None:
        self.kind = _NULL
        self.line = 0
        self.item: _Node | None = None
        self.fields: dict[str, _Node] = {}


class Types:
    """What has been learnt of a file. ``columns``: levels and leaves so far. ``promoted``: paths
    of columns of integers that turned to floats, so that what was read before counts anew."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._root = _Node()
        self._root.kind = _OBJECT
        self._schema: pa.Schema | None = None
        self.columns = 0
        self.promoted: list[str] = []

    def learn(self, value: dict[str, Any], line: int) -> None:
        """Widen the types so that they hold an object. Raises SourceRefused."""
        self._object(self._root, value, (), line)

    def _learn(self, node: _Node, value: Any, path: Path, line: int) -> None:
        kind = _KINDS[type(value)]
        if kind == _NULL:
            return
        if kind != node.kind:
            kind = self._unite(node, kind, path, line)
        if kind == _OBJECT:
            self._object(node, value, path, line)
        elif kind == _LIST:
            item = node.item
            if item is None:
                item = node.item = self._new(line)
            path = (*path, "[]")
            for each in value:
                self._learn(item, each, path, line)
        elif kind == _FLOAT and type(value) is int and not -EXACT <= value <= EXACT:
            raise SourceRefused(
                f"{self._name}, line {line}: the column {shown(path)} has floats, and the integer"
                f" {value} is not exact as one"
            )

    def _object(self, node: _Node, value: dict[str, Any], path: Path, line: int) -> None:
        fields = node.fields
        for key, item in value.items():
            field = fields.get(key)
            if field is None:
                field = fields[key] = self._new(line)
            self._learn(field, item, (*path, key), line)

    def _new(self, line: int) -> _Node:
        self.columns += 1
        self._schema = None
        if self.columns > MAX_COLUMNS:
            raise SourceRefused(
                f"{self._name}, line {line}: there are over {MAX_COLUMNS:,} columns: its keys are"
                " data"
            )
        return _Node()

    def _unite(self, node: _Node, kind: int, path: Path, line: int) -> int:
        if node.kind == _FLOAT and kind == _INT:
            return _FLOAT
        if node.kind == _INT and kind == _FLOAT:
            self.promoted.append(shown(path))
        elif node.kind != _NULL:
            raise SourceRefused(
                f"{self._name}, line {line}: the column {shown(path)} is {_WORDS[kind]}, and in"
                f" line {node.line} it is {_WORDS[node.kind]}"
            )
        node.kind, node.line = kind, line
        self._schema = None
        return kind

    @property
    def schema(self) -> pa.Schema:
        """As Arrow has it, for the lines so far."""
        if self._schema is None:
            fields = self._root.fields.items()
            self._schema = pa.schema([pa.field(key, _type(node)) for key, node in fields])
        return self._schema

    def check(self) -> None:
        """Raise SourceRefused for what Parquet has no form for: objects that never have a key."""
        stack: list[tuple[_Node, Path]] = [(self._root, ())]
        while stack:
            node, path = stack.pop()
            if node.kind == _OBJECT and not node.fields and path:
                raise SourceRefused(
                    f"{self._name}, line {node.line}: the column {shown(path)} is {{}} in all of"
                    " the lines, and Parquet has no columns for that"
                )
            stack += [(field, (*path, key)) for key, field in node.fields.items()]
            if node.item is not None:
                stack.append((node.item, (*path, "[]")))


def _type(node: _Node) -> pa.DataType:
    if node.kind == _OBJECT:
        return pa.struct([pa.field(key, _type(field)) for key, field in node.fields.items()])
    if node.kind == _LIST:
        return pa.list_(pa.null() if node.item is None else _type(node.item))
    return _LEAVES[node.kind]
