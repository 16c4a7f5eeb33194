"""What the tests of host libraries share: a key by reference and a sealed corpus."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pqvault
from pqvault import Identity
from pqvault.integrations.fsspec import PQVaultFileSystem
from pqvault.streams import encrypt


@dataclass(frozen=True)
class SealedCorpus:
    """A folder, the archive it is sealed in, and where its key is."""

    plain: Path
    archive: Path
    key: Path
    identity: Identity

    def url(self, inner: str = "") -> str:
        return f"pqvault://{inner}::file://{self.archive}"

    @property
    def options(self) -> dict[str, Any]:
        return {"identities": f"file:{self.key}"}

    def fs(self, **options: Any) -> PQVaultFileSystem:
        return PQVaultFileSystem(
            str(self.archive), "file", skip_instance_cache=True, **(self.options | options)
        )

    def seal_file(self, path: Path) -> Path:
        """A sealed stream beside a file."""
        sealed = path.with_name(path.name + ".pqv")
        with path.open("rb") as source, sealed.open("wb") as output:
            encrypt(source, output, [self.identity.recipient])
        return sealed


def seal(plain: Path, key_file: Path, **options: Any) -> SealedCorpus:
    identity = Identity.generate()
    identity.save_file(key_file)
    archive = plain.with_name(plain.name + ".pqv")
    pqvault.seal(plain, archive, recipients=[identity.recipient], **options)
    return SealedCorpus(plain, archive, key_file, identity)


@pytest.fixture
def seal_files(tmp_path: Path) -> Callable[..., SealedCorpus]:
    """Seal ``{"a/b.txt": b"..."}`` as the folder ``data``."""

    def run(files: dict[str, bytes], **options: Any) -> SealedCorpus:
        plain = tmp_path / "data"
        for name, content in files.items():
            path = plain / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return seal(plain, tmp_path / "key.txt", **options)

    return run


def rows(count: int = 5000) -> pa.Table:
    return pa.table(
        {
            "id": list(range(count)),
            "text": [f"a sample of text, number {i % 97}" for i in range(count)],
            "label": [i % 5 for i in range(count)],
        }
    )


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[SealedCorpus]:
    """Parquet, JSONL, CSV and text in folders."""
    plain = tmp_path / "data"
    (plain / "rows").mkdir(parents=True)
    for part in range(3):
        table = rows().slice(part * 1000, 1000)
        pq.write_table(table, plain / "rows" / f"part-{part}.parquet", row_group_size=250)
    (plain / "train.jsonl").write_text(
        "".join(json.dumps({"n": n, "text": "word " * (n % 9)}) + "\n" for n in range(2000))
    )
    (plain / "table.csv").write_text("n,s\n" + "".join(f"{n},s{n}\n" for n in range(500)))
    (plain / "notes").mkdir()
    (plain / "notes" / "a.txt").write_text("first\nsecond\n")
    yield seal(plain, tmp_path / "key.txt")
    fsspec.get_filesystem_class("pqvault").clear_instance_cache()
