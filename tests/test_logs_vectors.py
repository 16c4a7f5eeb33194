"""The known-answer write-ahead files of vectors/wals, read by pqvault."""

from __future__ import annotations

import base64
import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import testkit
from test_logs_wal import Memory

from pqvault.errors import IntegrityError
from pqvault.logs.wal import End, WalReader
from pqvault.rootkey import RootKey

wals: Any = importlib.import_module("vectors.wals")
assert testkit.kit  # which makes that folder importable
NAMES = sorted(path.stem for path in wals.FOLDER.glob("*.json"))


def load(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((wals.FOLDER / f"{name}.json").read_text())
    return value


def test_the_generator_makes_the_very_same_files() -> None:
    made = wals.make_all()
    assert len(made) >= 25 and set(made) == set(Path(wals.FOLDER).iterdir())
    assert [path.name for path, data in made.items() if path.read_bytes() != data] == []


@pytest.mark.parametrize("name", NAMES)
def test_read(name: str) -> None:
    vector = load(name)
    key = RootKey(vector["archive"], vector["part"], bytes.fromhex(vector["root_key"]))
    source: Any = Memory(base64.b64decode(vector["file"]))
    reader = WalReader(source, key, "", name)
    rows = []

    def read() -> None:
        for _, batch in reader.batches():
            rows.extend(batch.column("n").to_pylist())

    if "error" in vector:
        with pytest.raises(IntegrityError) as caught:
            read()
        assert caught.value.exit_code == vector["error"]
        return
    read()
    assert rows == vector["rows"]
    assert reader.torn == vector["torn"]
    assert sum(damage.records for damage in reader.damaged) == vector["damaged"]
    assert reader.end == (End(*vector["end"]) if vector["end"] else None)
