"""pandas reads files of an archive, and writes a new one with the public key only."""

from __future__ import annotations

import pandas as pd
from sample import sealed_corpus

from pqvault import Identity


def main() -> None:
    """Parquet and JSONL in, Parquet and CSV out."""
    with sealed_corpus() as folder:
        archive = f"file://{folder}/corpus.pqv"
        frame = pd.read_parquet(f"pqvault://corpus/rows/part-1.parquet::{archive}")
        print(frame.head(2), f"\n{len(frame)} rows of Parquet")

        lines = pd.read_json(f"pqvault://corpus/train.jsonl::{archive}", lines=True)
        print(f"{len(lines)} lines of JSONL")

        # A reference to a file of public keys: nothing secret is in the options.
        recipient = Identity.load_file(folder / "key.txt")[0].recipient.text
        (folder / "key.pub").write_text(recipient + "\n")
        options = {"recipients": f"file:{folder}/key.pub"}
        odd = frame[frame.id % 2 == 1]
        odd.to_parquet(f"pqvault://derived/odd.parquet::{archive}", storage_options=options)
        odd.to_csv(f"pqvault://derived/odd.csv::{archive}", index=False, storage_options=options)
        again = pd.read_csv(f"pqvault://derived/odd.csv::{archive}")
        print(f"{len(again)} rows written into the archive and read back")


if __name__ == "__main__":
    main()
