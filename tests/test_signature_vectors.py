"""The known-answer signatures of vectors/signatures, checked by pqvault and by a reader that was
written from docs/format.md alone."""

from __future__ import annotations

import base64
import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import testkit
from independent_documents import signed_by
from independent_keys import Damaged

from pqvault.errors import PolicyRefused
from pqvault.format.commit import Commit
from pqvault.format.envelope import Envelope
from pqvault.format.retired import Retired
from pqvault.policy import Policy
from pqvault.signing import Signer

vectors: Any = importlib.import_module("vectors.signatures")
assert testkit.kit  # which makes that folder importable
NAMES = sorted(path.stem for path in vectors.FOLDER.glob("*.json"))
KINDS: dict[str, Any] = {"commit": Commit, "envelope": Envelope, "retired": Retired}


def load(name: str) -> tuple[dict[str, str], bytes]:
    """The vector, and its document."""
    value: dict[str, str] = json.loads((vectors.FOLDER / f"{name}.json").read_text())
    return value, base64.b64decode(value["file"])


def test_the_generator_makes_the_very_same_files() -> None:
    made = vectors.make_all()
    assert len(made) >= 25 and set(made) == set(Path(vectors.FOLDER).iterdir())
    assert [path.name for path, data in made.items() if path.read_bytes() != data] == []


@pytest.mark.parametrize("name", NAMES)
def test_pqvault(name: str) -> None:
    """Who has signed, or exit 14; every line is kept as it is."""
    value, data = load(name)
    document = KINDS[value["kind"]].parse(data)
    signer = Signer.parse(value["signer"])
    assert document.marshal() == data
    if value["answer"] == "wrong":
        with pytest.raises(PolicyRefused) as caught:
            Policy.of([signer]).signed_by(document, "it")
        assert caught.value.exit_code == 14
        return
    found = Policy.of([signer]).signed_by(document, "it")
    assert found == ((signer.signer_id,) if value["answer"] == "signed" else ())


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_from_the_page_alone(name: str) -> None:
    value, data = load(name)
    if value["answer"] == "wrong":
        with pytest.raises(Damaged):
            signed_by(data, value["kind"], value["signer"])
        return
    assert signed_by(data, value["kind"], value["signer"]) == (value["answer"] == "signed")
