"""Ray Data reads Parquet inside an archive on all workers of a cluster.

Workers get references to keys: an environment variable, or a path that they all see. Blocks live
in shared memory; when that is full Ray spills them to disk in plaintext, so either size it or put
the spill folder on an encrypted disk (`pqvault doctor --leaks` shows where it is).
"""

from __future__ import annotations

import logging
import os

from sample import sealed_corpus


def main() -> None:
    """One machine here; on a cluster only the address differs."""
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    import ray
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    from pqvault.integrations.fsspec import PQVaultFileSystem

    with sealed_corpus() as folder:
        ray.init(
            num_cpus=2,
            object_store_memory=80 * 1024 * 1024,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
        try:
            ray.data.DataContext.get_current().enable_progress_bars = False
            archive = PQVaultFileSystem(f"{folder}/corpus.pqv", identities=f"file:{folder}/key.txt")
            rows = ray.data.read_parquet(
                "corpus/rows", filesystem=PyFileSystem(FSSpecHandler(archive))
            )
            odd = rows.filter(lambda row: row["id"] % 2 == 1)
            print(f"{rows.count()} rows, {odd.count()} of them odd")
        finally:
            ray.shutdown()


if __name__ == "__main__":
    main()
