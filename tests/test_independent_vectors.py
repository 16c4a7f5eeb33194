"""A reader written from docs/format.md alone says of every vector what the vector says."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from independent_keys import Damaged
from independent_reader import Item, NoKey, RolledBack, open_archive, open_stream, verify
from testkit import load_vectors

ERRORS: dict[int, type[Exception]] = {12: NoKey, 13: Damaged, 15: RolledBack}


def unpack(vector: Any, folder: Path) -> None:
    """The files of a vector."""
    for name, data in vector.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def line(path: bytes, item: Item) -> bytes:
    """One line of the listing of vectors/README.md."""
    link = "-" if item.link is None else item.link.hex()
    digest = "-" if item.content is None else hashlib.sha256(item.content).hexdigest()
    size = len(item.content or b"")
    return (
        f"{item.kind} {path.hex()} {size} {item.mode:o} {item.mtime_ns} {link} {digest}\n".encode()
    )


def found(vector: Any, folder: Path) -> bytes:
    """The content of a stream, or the listing of an archive that was verified."""
    if vector.kind == "stream":
        return open_stream(folder / "stream", vector.identity)
    verify(folder, vector.identity)
    view = open_archive(folder, vector.identity)
    return b"".join(line(path, item) for path, item in sorted(view.items()))


@pytest.mark.parametrize("vector", load_vectors(), ids=lambda vector: vector.name)
def test_vectors(vector: Any, tmp_path: Path) -> None:
    """The content that is said, or a refusal of the kind that is said."""
    unpack(vector, tmp_path)
    if vector.exit:
        with pytest.raises(ERRORS[vector.exit]):
            found(vector, tmp_path)
        return
    assert hashlib.sha256(found(vector, tmp_path)).hexdigest() == vector.released
