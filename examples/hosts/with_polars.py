"""Polars scans Parquet inside an archive lazily: only the columns a query names are decrypted."""

from __future__ import annotations

import polars as pl
from sample import sealed_corpus

from pqvault.integrations.polars import scan_parquet


def main() -> None:
    """`register_io_source`, with columns and a predicate pushed down."""
    with sealed_corpus() as folder:
        rows = scan_parquet(f"pqvault://corpus/rows::file://{folder}/corpus.pqv")
        query = rows.filter(pl.col("text").str.ends_with("7")).select(pl.col("id").sum())
        print(
            f"the sum is {query.collect().item()}, {rows.head(3).collect().height} rows at the head"
        )


if __name__ == "__main__":
    main()
