"""The known-answer tables of vectors/tables, read by pqvault. One fault each, or none."""

from __future__ import annotations

import base64
import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import testkit  # noqa: F401  (puts vectors/ on the path)

from pqvault.archive.part import OpenPart
from pqvault.archive.tableentry import TableEntry
from pqvault.archive.tablerows import TableRows
from pqvault.errors import FormatError, IntegrityError
from pqvault.format.catalog import Entry, Kind
from pqvault.format.table import TableDoc
from pqvault.rootkey import RootKey
from pqvault.storage import LocalStorage

vectors: Any = importlib.import_module("vectors.tables")
NAMES = sorted(path.stem for path in vectors.FOLDER.glob("*.json"))


def entry_of(value: dict[str, Any], root: Path) -> TableEntry:
    """A part that is open, as far as a table needs it."""
    part, keys = value["part"], {}
    for name in ("root_key", "group_key"):
        keys[name] = RootKey(value["archive"], part, bytes.fromhex(value[name]))
    files = {name: base64.b64decode(text) for name, text in value["files"].items()}
    for name, data in files.items():
        path = root / "parts" / part / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    opened: Any = SimpleNamespace(
        id=part,
        storage=LocalStorage(root),
        key=keys["root_key"],
        _group_key=lambda _: keys["group_key"],
        table_size=lambda name: len(files[name]),
        bad=lambda sentence: FormatError(f"the catalog of part {part} {sentence}"),
    )
    opened.table_key = lambda file: OpenPart.table_key(opened, file)
    return TableEntry(opened, Entry(b"t", Kind.TABLE, table=value["table"].encode()))


@pytest.mark.parametrize("name", NAMES)
def test_table(name: str, tmp_path: Path) -> None:
    """Rows, or an error of exit 13."""
    value = json.loads((vectors.FOLDER / f"{name}.json").read_text())
    if value["rows"] is None:
        with pytest.raises(IntegrityError):
            list(TableRows([entry_of(value, tmp_path)]).row_groups())
        return
    entry = entry_of(value, tmp_path)
    tables = list(TableRows([entry]).row_groups())
    found = {c: [v for t in tables for v in t.column(c).to_pylist()] for c in value["rows"]}
    assert found == value["rows"] and TableRows([entry]).schema.names == list(value["rows"])
    assert TableDoc.parse(value["table"].encode(), "it").marshal() == value["table"].encode()


def test_generator_makes_the_very_same_files() -> None:
    """Nobody edits a vector by hand, and none is left over."""
    made = vectors.make_all()
    assert set(made) == set(vectors.FOLDER.iterdir()) and len(made) > 15
    assert [path.name for path, data in made.items() if path.read_bytes() != data] == []
