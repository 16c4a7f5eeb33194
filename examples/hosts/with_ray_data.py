"""Ray Data reads JSON lines of an archive and writes what it makes of them as a new part.

Reading tasks get a reference to a key. Writing tasks get the key of the object that they write,
sealed to a key of their own; to write takes public keys only. Blocks live in shared memory, and
Ray spills them to disk in plaintext when that is full: see `with_ray.py`.
"""

from __future__ import annotations

import logging
import os

from sample import sealed_corpus

import pqvault


def main() -> None:
    """One machine here; on a cluster only the address differs."""
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    import ray

    from pqvault.integrations.ray.datasink import SealedDatasink
    from pqvault.integrations.ray.datasource import SealedDatasource

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
            key = f"file:{folder}/key.txt"
            lines = ray.data.read_datasource(
                SealedDatasource(folder / "corpus.pqv", key, globs="**/*.jsonl")
            )
            short = lines.filter(lambda row: len(row["text"]) < 8)
            public = pqvault.Identity.load_file(folder / "key.txt")[0].recipient.text
            sink = SealedDatasink(folder / "short.pqv", public, format="jsonl", prefix="short")
            short.write_datasink(sink)
            again = ray.data.read_datasource(SealedDatasource(folder / "short.pqv", key))
            print(f"{lines.count()} lines read, {again.count()} of them written and read back")
        finally:
            ray.shutdown()


if __name__ == "__main__":
    main()
