"""Verification reads each object once for all that there is to look at, and names what is bad."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import Box

import pqvault
from pqvault.archive.archive import Archive
from pqvault.archive.deal import LEAST_OBJECT
from pqvault.archive.verify import VerifyReport, verify
from pqvault.archive.witness import Witness
from pqvault.crypto import digest as digests
from pqvault.storage import InMemory, LocalStorage, ReadAt


class _Counted:
    def __init__(self, source: ReadAt, name: str, read: Counter[str]) -> None:
        self._source, self._name, self._read = source, name, read
        self.size = source.size

    def pread_into(self, buffer: Any, offset: int) -> None:
        self._source.pread_into(buffer, offset)
        self._read[self._name] += memoryview(buffer).nbytes

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> _Counted:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Far:
    """A store, as far as verification knows, that counts what is read of each object."""

    requests = 4

    def __init__(self, root: Path) -> None:
        self._storage = LocalStorage(root)
        self.read_of: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def open(self, name: str) -> Any:
        return _Counted(self._storage.open(name), name, self.read_of)


@pytest.fixture
def sealed(box: Box) -> Box:
    """Small files in one object, a large one in three of its own."""
    rng = random.Random(5)
    small = {f"s{i:03}": rng.randbytes(rng.randrange(3000)) * 3 for i in range(300)}
    box.tree({**small, "large": rng.randbytes(2 * LEAST_OBJECT + 2**20), "empty": b""})
    box.seal(level=1)
    return box


def _verify(box: Box, storage: Any, told: list[int] | None = None) -> VerifyReport:
    found = [] if told is None else told
    with Archive(storage, [box.key], strict=False) as archive:
        return verify(storage, archive, jobs=1, progress=lambda at: found.append(at.done))


def _objects(box: Box) -> dict[str, Path]:
    (part,) = (box.archive / "parts").iterdir()
    return {f"parts/{part.name}/objects/{p.name}": p for p in (part / "objects").iterdir()}


def test_at_a_store_an_object_is_read_once(sealed: Box) -> None:
    """Bytes cost there: its digest is taken while its content is looked at."""
    storage = _Far(sealed.archive)
    told = list[int]()
    report = _verify(sealed, storage, told)
    assert report.problems == [] and report.level == "sealed"
    # Progress is told on the way, of every byte, and not an object at a time.
    assert told == sorted(told) and len(told) > 20
    assert told[-1] == sum(
        p.stat().st_size for p in (sealed.archive / "parts").rglob("*") if p.is_file()
    )
    sizes = {name: path.stat().st_size for name, path in _objects(sealed).items()}
    assert len(sizes) >= 3
    large = {name: size for name, size in sizes.items() if size > 2**20}
    for name, size in large.items():
        # Two frames may share a chunk, which is read with both.
        assert size <= storage.read_of[name] <= size * 1.08 + 2**17


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("where", [40, -1, "middle"])
def test_every_bad_object_is_named_with_what_is_in_it(
    sealed: Box, far: bool, where: int | str
) -> None:
    """Not the first of them, and not only the entries."""
    objects = _objects(sealed)
    for path in objects.values():
        data = bytearray(path.read_bytes())
        data[len(data) // 2 if where == "middle" else int(where)] ^= 1
        path.write_bytes(data)
    storage = _Far(sealed.archive) if far else LocalStorage(sealed.archive)
    report = _verify(sealed, storage)
    messages = [problem.message for problem in report.problems]
    assert not any("cannot read" in message for message in messages)
    for name in objects:
        assert any(m.startswith(name) or f" of {name}" in m for m in messages), name
    assert any(m.startswith("src/large: ") for m in messages), messages[-3:]


def test_an_authentic_object_of_another_digest_is_found(sealed: Box) -> None:
    """attack 35: who has the root key can make one; its content decodes, and is not the commit's.

    Every content of it is right, so that only the digest of the file tells.
    """
    import hostile as h

    from pqvault.crypto.cobblestone import MessageReader

    name, path = min(_objects(sealed).items(), key=lambda item: item[1].stat().st_size)
    with pqvault.open(sealed.archive, identities=[sealed.key]) as opened:
        key = opened.parts[0].key.object(f"objects/{path.name}")
    reader = MessageReader(*key, name)
    plain = reader.update(path.read_bytes()) + reader.finalize()
    path.write_bytes(h.seal_plain(*key, plain))
    for storage in (LocalStorage(sealed.archive), _Far(sealed.archive)):
        (problem,) = _verify(sealed, storage).problems
        assert problem.message == f"{name} does not have the digest that its commit says"


def test_a_witness_takes_the_digest_of_what_is_read_in_any_order() -> None:
    """Whatever is read, twice, out of order or not at all: it is that of the file."""
    rng = random.Random(6)
    for _ in range(200):
        data, told = rng.randbytes(rng.randrange(1, 5000)), list[int]()
        witness = Witness(InMemory(data), "blake3", told.append)
        for _ in range(rng.randrange(6)):
            begin = rng.randrange(len(data))
            out = bytearray(rng.randrange(len(data) - begin + 1))
            witness.pread_into(out, begin)
            assert out == data[begin : begin + len(out)]
        hasher = digests.new("blake3")
        hasher.update(data)
        assert witness.digest() == hasher.digest().hex()
        assert sum(told) == len(data)
