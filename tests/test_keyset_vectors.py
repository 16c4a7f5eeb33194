"""The known-answer keysets of vectors/keysets, read by pqvault and by the reader that was written
from docs/format.md alone."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import independent_tables
import pytest
import testkit
from independent_keys import Damaged

from pqvault.errors import PQVaultError
from pqvault.format.keyset import KeysetContent
from pqvault.keyset import Keyset

keysets: Any = importlib.import_module("vectors.keysets")
assert testkit.kit  # which makes that folder importable
NAMES = sorted(path.stem for path in keysets.FOLDER.glob("*.json"))


def load(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((keysets.FOLDER / f"{name}.json").read_text())
    return value


def test_the_generator_makes_the_very_same_files() -> None:
    made = keysets.make_all()
    assert len(made) >= 40 and set(made) == set(Path(keysets.FOLDER).iterdir())
    assert len(set(made.values())) == len(made)
    assert [path.name for path, data in made.items() if path.read_bytes() != data] == []


@pytest.mark.parametrize("name", NAMES)
def test_read(name: str) -> None:
    vector = load(name)

    def read() -> str:
        content = KeysetContent.parse(vector["content"].encode(), name)
        return Keyset(name, content, ()).unwrap(vector["reference"], vector["name"]).hex()

    if "error" not in vector:
        assert read() == vector["data_key"]
        return
    with pytest.raises(PQVaultError) as caught:
        read()
    assert caught.value.exit_code == vector["error"]


@pytest.mark.parametrize("name", NAMES)
def test_read_from_the_page(name: str) -> None:
    vector = load(name)

    def read() -> str:
        keyset = independent_tables.Keyset(vector["content"].encode())
        return keyset.unwrap(vector["reference"], vector["name"]).hex()

    if "error" not in vector:
        assert read() == vector["data_key"]
        return
    with pytest.raises(Damaged):
        read()
