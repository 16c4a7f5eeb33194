"""Measure sealed tables against plain Parquet with the same codec, level and row groups.

    python benchmarks/bench_tables.py [--rows 400000] [--runs 5] [--only NAME]

Each pair runs by turns in this process, plain and sealed, sealed and plain, …; the ratio is that of
the fastest runs, so that a busy machine slows neither. Writing makes a new file or archive, what
the run before wrote being removed first, and ends with the bytes on the disk (fsync) on both sides.
Ratios of speed: 1 is as fast as plain. Exit 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pds
import pyarrow.parquet as pq

import pqvault
from pqvault import tables

KEY = pqvault.Identity.generate()
GROUPS = tables.RowGroups(rows=64 * 1024, size=2**40)


def text_table(rows: int) -> pa.Table:
    """Numbers, times, a few words, and texts of about 400 bytes: as logs of prompts are."""
    rng = random.Random(7)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(4000)]
    texts = [" ".join(rng.choices(words, k=60)) for _ in range(20_000)]
    return pa.table(
        {
            "id": pa.array(range(rows), pa.int64()),
            "time": pa.array((1_700_000_000_000 + i * 37 for i in range(rows)), pa.timestamp("ms")),
            "score": pa.array((rng.random() for _ in range(rows)), pa.float64()),
            "model": pa.array(rng.choices(["a", "b", "c"], k=rows)),
            "prompt": pa.array(
                (f"{texts[rng.randrange(20_000)]} {i:x}" for i in range(rows)), pa.string()
            ),
        }
    )


def blob_table(size: int) -> pa.Table:
    """Values of 64 KiB that do not compress."""
    return pa.table({"blob": [os.urandom(64 * 1024) for _ in range(size // (64 * 1024))]})


def wide_table(rows: int) -> pa.Table:
    """A small column beside 39 of texts."""
    rng = random.Random(9)
    columns = {"n": pa.array(range(rows), pa.int32())}
    for number in range(39):
        values = [f"{rng.getrandbits(256):x}" for _ in range(2000)]
        columns[f"text{number}"] = pa.array(rng.choices(values, k=rows))
    return pa.table(columns)


def many_columns() -> pa.Table:
    """100 columns, to be written as 10 row groups."""
    return pa.table({f"c{i}": pa.array(range(10_000), pa.int64()) for i in range(100)})


class Bench:
    """One table, plain and sealed."""

    def __init__(self, folder: Path, name: str, table: pa.Table, groups: tables.RowGroups) -> None:
        self.plain = folder / f"{name}.parquet"
        self.archive = folder / f"{name}.pqv"
        self.name, self.table, self.groups = name, table, groups
        self._archive: pqvault.Archive | None = None

    def write_plain(self) -> None:
        with open(self.plain, "wb") as file:
            pq.write_table(
                self.table, file, compression="zstd", compression_level=3,
                row_group_size=self.groups.rows,
            )  # fmt: skip
            file.flush()
            os.fsync(file.fileno())

    def write_sealed(self) -> None:
        tables.write_table(
            self.archive, self.name, self.table, recipients=[KEY.recipient],
            row_groups=self.groups,
        )  # fmt: skip

    def remove(self) -> None:
        """What both wrote: neither gets memory of the other's, or of new pages, to write into."""
        self.plain.unlink(missing_ok=True)
        shutil.rmtree(self.archive, ignore_errors=True)

    def write(self, runs: int) -> list[float]:
        """Seconds of the fastest write of each; both are there afterwards."""
        best = fastest(self.write_plain, self.write_sealed, runs, self.remove)
        self.remove()
        self.write_plain()
        self.write_sealed()
        return best

    def open_plain(self) -> pds.Dataset:
        data = pds.dataset(self.plain)
        assert next(iter(data.get_fragments())).metadata.num_rows == len(self.table)
        return data

    def open_sealed(self) -> pds.Dataset:
        if self._archive is None:
            self._archive = pqvault.open(self.archive, identities=[KEY])
        return tables.dataset(self._archive, self.name)


def fastest(
    plain: Callable[[], object],
    sealed: Callable[[], object],
    runs: int,
    before: Callable[[], object] = lambda: None,
) -> list[float]:
    """Seconds of the fastest run of each, without what is done ``before`` it."""
    best = [float("inf"), float("inf")]
    for run in range(runs):
        for which in (0, 1) if run % 2 else (1, 0):
            before()
            os.sync()
            begin = time.perf_counter()
            (plain, sealed)[which]()
            best[which] = min(best[which], time.perf_counter() - begin)
    return best


def line(what: str, best: list[float], target: float) -> bool:
    ratio = best[0] / best[1]
    met = ratio >= target
    print(
        f"| {what} | {best[1] * 1000:.1f} ms | {best[0] * 1000:.1f} ms | {ratio:.2f}× |"
        f" ≥ {target:.2f}× {'✓' if met else '✗'} |",
        flush=True,
    )
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--blobs", type=int, default=256, help="MiB")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", choices=["text", "blobs", "wide", "open"])
    options = parser.parse_args()
    runs, met = options.runs, True
    print("| what | sealed | plain Parquet | ratio of speed | target |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=os.environ.get("PQVAULT_BENCH")) as where:
        folder = Path(where)

        def bench(name: str, table: pa.Table, groups: tables.RowGroups = GROUPS) -> Bench:
            made = Bench(folder, name, table, groups)
            made.write_plain()
            made.write_sealed()
            return made

        if options.only in (None, "text"):
            made = bench("text", text_table(options.rows))
            size = f"{made.table.nbytes / 1e6:.0f} MB of text and numbers"
            met &= line(f"write {size}", made.write(runs), 0.95)
            plain, sealed = made.open_plain(), made.open_sealed()
            met &= line(f"scan {size}", fastest(plain.to_table, sealed.to_table, runs), 0.95)
        if options.only in (None, "blobs"):
            groups = tables.RowGroups(rows=1024, size=2**40)
            made = bench("blobs", blob_table(options.blobs << 20), groups)
            size = f"{options.blobs} MiB of blobs"
            met &= line(f"write {size}", made.write(runs), 0.8)
            plain, sealed = made.open_plain(), made.open_sealed()
            met &= line(f"scan {size}", fastest(plain.to_table, sealed.to_table, runs), 0.6)
        if options.only in (None, "wide"):
            made = bench("wide", wide_table(100_000))
            plain, sealed = made.open_plain(), made.open_sealed()
            small = fastest(
                lambda: plain.to_table(columns=["n"]),
                lambda: sealed.to_table(columns=["n"]),
                runs * 10,
            )
            met &= line("one small column of 40", small, 1 / 1.5)
        if options.only in (None, "open"):
            made = bench("open", many_columns(), tables.RowGroups(rows=1000))
            made.open_sealed()
            opened = fastest(made.open_plain, made.open_sealed, runs * 10)
            met &= line("open 100 columns × 10 row groups", opened, 1.0)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
