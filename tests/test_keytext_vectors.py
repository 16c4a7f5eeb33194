"""The known-answer keys of vectors/keys, read by pqvault and by a reader that was written from
docs/format.md alone."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import testkit
from independent_documents import load_signer, signer_id
from independent_keys import Damaged, load_identity, load_recipient

from pqvault.errors import UsageError
from pqvault.keys import Identity, Recipient
from pqvault.signing import Signer

vectors: Any = importlib.import_module("vectors.keytexts")
assert testkit.kit  # which makes that folder importable
NAMES = sorted(path.stem for path in vectors.FOLDER.glob("*.json"))
OURS: dict[str, Callable[[str], str]] = {
    "recipient": lambda text: Recipient.parse(text).key_id,
    "identity": lambda text: Identity.parse(text).recipient.key_id,
    "signer": lambda text: Signer.parse(text).signer_id,
}
THEIRS: dict[str, Callable[[str], bytes]] = {
    "recipient": load_recipient,
    "identity": lambda text: load_identity(text).key_id,
    "signer": lambda text: signer_id(*load_signer(text)),
}


def load(name: str) -> dict[str, str]:
    value: dict[str, str] = json.loads((vectors.FOLDER / f"{name}.json").read_text())
    return value


def test_the_generator_makes_the_very_same_files() -> None:
    made = vectors.make_all()
    assert len(made) >= 35 and set(made) == set(Path(vectors.FOLDER).iterdir())
    assert [path.name for path, data in made.items() if path.read_bytes() != data] == []


@pytest.mark.parametrize("name", NAMES)
def test_pqvault(name: str) -> None:
    """Its id, or exit 2."""
    value = load(name)
    if value["id"]:
        assert OURS[value["kind"]](value["text"]) == value["id"]
        return
    with pytest.raises(UsageError) as caught:
        OURS[value["kind"]](value["text"])
    assert caught.value.exit_code == 2 and caught.value.hint


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_from_the_page_alone(name: str) -> None:
    value = load(name)
    if value["id"]:
        assert THEIRS[value["kind"]](value["text"]).hex() == value["id"]
        return
    with pytest.raises(Damaged):
        THEIRS[value["kind"]](value["text"])
