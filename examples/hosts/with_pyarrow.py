"""pyarrow.dataset scans a folder of Parquet files inside an archive: columns, filters, threads."""

from __future__ import annotations

import fsspec
import pyarrow.dataset as ds
from sample import sealed_corpus


def main() -> None:
    """Only the row groups and columns that are asked for are read and decrypted."""
    with sealed_corpus() as folder:
        url = f"pqvault://corpus/rows::file://{folder}/corpus.pqv"
        filesystem, path = fsspec.url_to_fs(url)
        rows = ds.dataset(path, filesystem=filesystem, format="parquet")
        table = rows.to_table(columns=["id"], filter=ds.field("id") >= 3500)
        print(
            f"{len(rows.files)} files, {rows.count_rows()} rows, {table.num_rows} pass the filter"
        )
        assert table["id"].to_pylist() == list(range(3500, 4000))


if __name__ == "__main__":
    main()
