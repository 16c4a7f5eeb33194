"""fsspec: archives and sealed streams as a chained file system, ``pqvault``.

::

    fsspec.open("pqvault://datasets/train.jsonl::file:///data/corpus.pqv")
    pandas.read_parquet("pqvault::s3://bucket/rows.parquet.pqv")
"""

from pqvault.integrations.fsspec.filesystem import PQVaultFileSystem

__all__ = ["PQVaultFileSystem"]
