"""DuckDB runs SQL over Parquet inside an archive; nothing is written to its temporary folder."""

from __future__ import annotations

import duckdb
from sample import sealed_corpus

from pqvault.integrations.fsspec import PQVaultFileSystem


def main() -> None:
    """A registered file system, a glob, a filter that is pushed down."""
    with sealed_corpus() as folder, duckdb.connect() as db:
        # What does not fit in memory would be spilled in plaintext: off, or on an encrypted disk.
        db.execute("SET temp_directory = ''")
        db.register_filesystem(PQVaultFileSystem(f"{folder}/corpus.pqv"))
        rows = db.sql(
            "SELECT count(*), min(id) FROM 'pqvault://corpus/rows/*.parquet' WHERE id > 99"
        )
        ((count, least),) = rows.fetchall()
        print(f"{count} rows, the least id is {least}")


if __name__ == "__main__":
    main()
