"""Measure what the keystore promises.

    python benchmarks/bench_keystore.py [--keys 10000] [--runs 5]

`key list` of 10,000 keys as a whole process, beside a Python that does nothing; and what
unlocking costs beyond Argon2id, in one process: the same derivation alone is the floor.
Exit 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from measure import Job, compare, median

from pqvault.crypto import passphrase
from pqvault.keys import Identity
from pqvault.keystore import COSTS, Keystore, State
from pqvault.keystore.lifecycle import add_key, add_version

LIST_LIMIT = 0.5  # seconds
UNLOCK_LIMIT = 1.2  # times Argon2id alone
PASSPHRASE = b"benchmark"


def fill(path: Path, count: int) -> None:
    """A keystore of ``count`` keys of one version each, in one change."""
    with Keystore.create(PASSPHRASE, path=path) as store, store.change() as change:
        for number in range(count):
            name = add_key(change, f"key-{number:05}")
            add_version(change, name, Identity.generate(), State.ACTIVE, "benchmark")
        change.audit("fill", "keystore", keys=count)


def seconds(do: Callable[[], object], runs: int) -> float:
    """The median of ``runs`` calls."""
    taken = []
    for _ in range(runs):
        begin = time.perf_counter()
        do()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def unlock(path: Path) -> None:
    with Keystore(path) as store:
        store.unlock(lambda: PASSPHRASE)


def line(what: str, ours: str, peer: str, ratio: float, target: str, met: bool) -> bool:
    print(f"| {what} | {ours} | {peer} | {ratio:.2f}× | {target}{' ✓' if met else ' ✗'} |")
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure listing and unlocking.")
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    print("| what | pqvault | floor | ratio | target |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="pqvault-bench-") as folder:
        os.environ["PQVAULT_HOME"] = folder
        path = Path(folder, "keystore.sqlite")
        fill(path, args.keys)
        pairs = compare(
            Job([sys.executable, "-m", "pqvault_cli", "key", "list"]),
            Job([sys.executable, "-c", "pass"]),
            args.runs,
        )
        took = median(pairs.a).wall
        target = f"< {LIST_LIMIT} s"
        ours, floor = f"{took:.3f} s", f"{median(pairs.b).wall:.3f} s"
        met = line(
            f"`key list` of {args.keys:,} keys", ours, floor, pairs.ratio, target, took < LIST_LIMIT
        )
        argon2 = seconds(
            lambda: passphrase.derive(PASSPHRASE, bytes(16), COSTS["standard"]), args.runs
        )
        opened = seconds(lambda: unlock(path), args.runs)
        ratio = opened / argon2
        ours, floor = f"{opened * 1000:.0f} ms", f"{argon2 * 1000:.0f} ms"
        target = f"≤ {UNLOCK_LIMIT}×"
        met &= line(
            f"unlock, {args.keys:,} keys, against Argon2id alone",
            ours, floor, ratio, target, ratio <= UNLOCK_LIMIT,
        )  # fmt: skip
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
