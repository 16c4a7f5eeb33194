"""Dask reads Parquet inside an archive in several processes; each opens the archive itself."""

from __future__ import annotations

import dask.dataframe as dd
from sample import sealed_corpus


def main() -> None:
    """What goes to the processes are paths and references to keys."""
    with sealed_corpus() as folder:
        url = f"pqvault://corpus/rows/*.parquet::file://{folder}/corpus.pqv"
        options = {"identities": f"file:{folder}/key.txt"}
        frame = dd.read_parquet(url, storage_options=options)
        total = frame[frame.id % 2 == 0].id.sum().compute(scheduler="processes", num_workers=2)
        print(f"{frame.npartitions} partitions, the sum of even ids is {total}")


if __name__ == "__main__":
    main()
