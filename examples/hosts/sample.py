"""A small sealed corpus for the examples beside this file, in a folder that goes away."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import pqvault


@contextmanager
def sealed_corpus() -> Iterator[Path]:
    """A folder with ``corpus.pqv``, an archive, and its key in PQVAULT_IDENTITY."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = folder / "corpus"
        (corpus / "rows").mkdir(parents=True)
        for part in range(4):
            ids = range(part * 1000, part * 1000 + 1000)
            table = pa.table({"id": ids, "text": [f"sample {i}" for i in ids]})
            pq.write_table(table, corpus / "rows" / f"part-{part}.parquet", row_group_size=250)
        lines = [json.dumps({"id": i, "text": f"line {i}"}) for i in range(1000)]
        (corpus / "train.jsonl").write_text("\n".join(lines) + "\n")

        identity = pqvault.Identity.generate()
        identity.save_file(folder / "key.txt")
        os.environ["PQVAULT_IDENTITY"] = str(folder / "key.txt")
        os.environ["PQVAULT_HOME"] = str(folder / "home")
        pqvault.seal(corpus, folder / "corpus.pqv", recipients=[identity.recipient])
        yield folder
