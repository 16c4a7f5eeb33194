"""Hugging Face datasets streams files of an archive.

Streaming leaves nothing on the disk. Without it, ``load_dataset`` writes all rows as Arrow files,
in plaintext, below HF_DATASETS_CACHE: set that to a RAM disk (/dev/shm) or to an encrypted one,
and look with `pqvault doctor --leaks`.
"""

from __future__ import annotations

from datasets import load_dataset
from sample import sealed_corpus


def main() -> None:
    """JSONL and Parquet, streamed and shuffled."""
    with sealed_corpus() as folder:
        archive = f"{folder}/corpus.pqv"  # or s3://…; file:/// loses a slash inside datasets
        lines = load_dataset(
            "json",
            data_files=f"pqvault://corpus/train.jsonl::{archive}",
            split="train",
            streaming=True,
        )
        first = next(iter(lines.shuffle(seed=1, buffer_size=100)))
        files = [f"pqvault://corpus/rows/part-{n}.parquet::{archive}" for n in range(4)]
        rows = load_dataset("parquet", data_files=files, split="train", streaming=True)
        print(f"a line has {sorted(first)}; {sum(1 for _ in rows)} rows of Parquet streamed")


if __name__ == "__main__":
    main()
