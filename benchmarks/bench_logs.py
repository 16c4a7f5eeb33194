"""Measure what inference logs promise.

    python benchmarks/bench_logs.py [--seconds 10] [--records 200000] [--recover 1000]

Each measurement is a process of its own, and beside it a peer in the same run: Python's own
QueueHandler that writes JSON lines to a plain file (what `log()` costs the caller, how many records
a second), and pyarrow writing the same rows as plain Parquet (what a recovery costs).
Exit 1 when a target is missed. Figures of a busy machine mean little: look at the ratios.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import logging.handlers
import os
import queue
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RATE = 5_000  # records a second, for the cost of a call
MEDIAN_LIMIT, P99_LIMIT = 20.0, 100.0  # µs
THROUGHPUT_LIMIT = 20_000  # records a second
BURST = 50_000
MEMORY_LIMIT = 100.0  # MB more than before, with a flush size of 8 MiB
RECOVERY_LIMIT = 200.0  # MB of write-ahead file a second
TEXT_SIZE = 8_000_000


@functools.cache
def text() -> str:
    """Words that nobody said in this order: it packs about as well as prose does."""
    drawn = random.Random(1)
    letters = "etaoinshrdlucmfwygpbvk"
    words = ["".join(drawn.choices(letters, k=drawn.randint(2, 11))) for _ in range(20_000)]
    pieces = drawn.choices(
        words, weights=[1 / (n + 1) for n in range(len(words))], k=TEXT_SIZE // 5
    )
    return " ".join(pieces)[:TEXT_SIZE]


def record(number: int) -> dict[str, Any]:
    """About 3 kB of a chat completion, different each time."""
    at = number * 7919 % (TEXT_SIZE - 3000)
    return {
        "request_id": f"req-{number:09}",
        "response_id": f"chatcmpl-{number:09}",
        "model": "llama-3.3-70b",
        "provider": "vllm",
        "operation": "chat",
        "input_messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": text()[at : at + 1150]},
        ],
        "output_messages": [{"role": "assistant", "content": text()[at + 1150 : at + 2500]}],
        "input_tokens": 300 + number % 100,
        "output_tokens": 200 + number % 57,
        "duration_s": 0.25 + number % 13 / 10,
        "finish_reason": "stop",
        "status_code": 200,
        "temperature": 0.7,
    }


class Sealed:
    """Our log."""

    def __init__(self, folder: Path) -> None:
        import pqvault
        from pqvault.logs import InferenceLog

        key = pqvault.Identity.generate()
        self.log = InferenceLog(folder / "log.pqv", recipients=[key.recipient])
        self.call: Callable[[dict[str, Any]], object] = self.log.log

    def flush(self) -> None:
        self.log.flush(None)

    def lost(self) -> int:
        return sum(self.log.stats.dropped.values())


class Plain:
    """The peer: logging's QueueHandler and a file of JSON lines."""

    def __init__(self, folder: Path) -> None:
        class Lines(logging.Handler):
            def __init__(self) -> None:
                super().__init__()
                self.file = (folder / "log.jsonl").open("w")

            def emit(self, item: logging.LogRecord) -> None:
                self.file.write(json.dumps(item.msg) + "\n")

        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lines = Lines()
        self._listener = logging.handlers.QueueListener(self._queue, self._lines)
        self._listener.start()
        handler = _Unformatted(self._queue)
        logger = logging.Logger("peer")
        logger.addHandler(handler)
        self.call: Callable[[dict[str, Any]], object] = logger.info

    def flush(self) -> None:
        self._listener.stop()
        self._lines.file.flush()
        os.fsync(self._lines.file.fileno())

    def lost(self) -> int:
        return 0


class _Unformatted(logging.handlers.QueueHandler):
    def prepare(self, item: logging.LogRecord) -> logging.LogRecord:
        return item  # no text is made of it on the caller's thread


KINDS = {"sealed": Sealed, "plain": Plain}


def latency(kind: str, folder: Path, seconds: float) -> dict[str, float]:
    """What a call costs the caller at RATE records a second."""
    log = KINDS[kind](folder)
    count = int(seconds * RATE)
    items = [record(n) for n in range(1000)]
    for item in items:
        log.call(item)
    taken = []
    cpu = time.process_time()
    begin = time.perf_counter()
    for number in range(count):
        due = begin + number / RATE
        while (left := due - time.perf_counter()) > 0:
            time.sleep(left)
        item = items[number % 1000]
        before = time.perf_counter()
        log.call(item)
        taken.append(time.perf_counter() - before)
    log.flush()
    cpu = time.process_time() - cpu
    taken.sort()
    return {
        "median": 1e6 * taken[count // 2],
        "p99": 1e6 * taken[count * 99 // 100],
        "p999": 1e6 * taken[count * 999 // 1000],
        "cpu": 1e6 * cpu / count,
        "lost": log.lost(),
    }


def throughput(kind: str, folder: Path, count: int) -> dict[str, float]:
    """Records a second, from the first call until all are on the disk."""
    log = KINDS[kind](folder)
    items = [record(n) for n in range(1000)]
    cpu = time.process_time()
    begin = time.perf_counter()
    for number in range(count):
        log.call(items[number % 1000])
    log.flush()
    taken = time.perf_counter() - begin
    return {
        "rate": count / taken,
        "cpu": 1e6 * (time.process_time() - cpu) / count,
        "lost": log.lost(),
    }


def memory(kind: str, folder: Path, count: int) -> dict[str, float]:
    """MB that the process grew by while ``count`` records were logged as fast as they go."""
    log = KINDS[kind](folder)
    for number in range(200):
        log.call(record(number))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(count):
        log.call(record(number))
    log.flush()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"grown": grown / 1000, "lost": log.lost()}


def make_wal(folder: Path, size: int) -> dict[str, float]:
    """An archive with a write-ahead file of about ``size`` MB, as a killed process leaves it."""
    import pqvault
    from pqvault.logs import InferenceLog

    key = pqvault.Identity.generate()
    key.save_file(folder / "key")
    log = InferenceLog(folder / "log.pqv", recipients=[key.recipient], part_size=2**40)
    for number in range(size * 1000 // 3):
        log.log(record(number))
    log.flush(None)
    sys.stdout.write("{}")
    sys.stdout.flush()
    os._exit(0)


def recovery(folder: Path) -> dict[str, float]:
    """MB a second of `recover`, and of pyarrow writing the same rows as plain Parquet."""
    import pyarrow.parquet as pq

    import pqvault
    from pqvault.logs import LogView, recover

    key = pqvault.Identity.load_file(folder / "key")
    size = sum(p.stat().st_size for p in folder.glob("log.pqv/parts/*/wal")) / 1e6
    cpu = time.process_time()
    begin = time.perf_counter()
    report = recover(folder / "log.pqv", key)
    taken = time.perf_counter() - begin
    cpu = time.process_time() - cpu
    with LogView(folder / "log.pqv", key) as view:
        tables = list(view.rows())
    begin = time.perf_counter()
    with pq.ParquetWriter(
        folder / "plain.parquet", tables[0].schema, compression="zstd", compression_level=1
    ) as writer:
        for table in tables:
            writer.write_table(table)
    plain = time.perf_counter() - begin
    return {
        "rows": report.rows,
        "size": size,
        "rate": size / taken,
        "cpu": size / cpu,
        "plain": size / plain,
    }


# -- the parent ----------------------------------------------------------------------------


def run(what: str, folder: Path, *args: object) -> dict[str, float]:
    """One measurement in a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, __file__, "--child", what, str(folder), *map(str, args)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def best(samples: list[dict[str, float]], name: str, pick: Callable[..., float] = min) -> float:
    return pick(sample[name] for sample in samples)


def line(what: str, ours: str, peer: str, ratio: str, target: str, met: bool) -> bool:
    print(f"| {what} | {ours} | {peer} | {ratio} | {target}{' ✓' if met else ' ✗'} |", flush=True)
    return met


def main(arguments: argparse.Namespace) -> bool:
    met = []
    print("| what | pqvault | peer | ratio | target |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        root = Path(name)
        runs = range(arguments.runs)

        def both(what: str, *args: object) -> tuple[list[Any], list[Any]]:
            ours, peer = [], []
            for number in runs:
                ours.append(run(what, root / f"{what}-s{number}", "sealed", *args))
                peer.append(run(what, root / f"{what}-p{number}", "plain", *args))
            return ours, peer

        ours, peer = both("latency", arguments.seconds)
        for name, limit in (("median", MEDIAN_LIMIT), ("p99", P99_LIMIT)):
            mine, theirs = best(ours, name), best(peer, name)
            met.append(
                line(
                    f"log() at 5,000 records/s of 3 kB, {name}",
                    f"{mine:.1f} µs",
                    f"{theirs:.1f} µs",
                    f"{mine / theirs:.2f}×",
                    f"< {limit:.0f} µs",
                    mine < limit and not best(ours, "lost", max),
                )
            )
        mine, theirs = best(ours, "cpu"), best(peer, "cpu")
        line("CPU a record, both threads", f"{mine:.1f} µs", f"{theirs:.1f} µs",
             f"{mine / theirs:.2f}×", "none", True)  # fmt: skip

        ours, peer = both("throughput", arguments.records)
        mine, theirs = best(ours, "rate", max), best(peer, "rate", max)
        met.append(
            line(
                "as fast as it goes, until all is on the disk",
                f"{mine:,.0f}/s",
                f"{theirs:,.0f}/s",
                f"{mine / theirs:.2f}×",
                f"≥ {THROUGHPUT_LIMIT:,}/s",
                mine >= THROUGHPUT_LIMIT,
            )
        )
        burst = run("throughput", root / "burst", "sealed", BURST)
        met.append(
            line(
                f"a burst of {BURST:,}", f"{burst['lost']:.0f} lost", "", "", "0", not burst["lost"]
            )
        )
        ours, peer = both("memory", arguments.records // 2)
        mine, theirs = statistics.median(s["grown"] for s in ours), best(peer, "grown")
        met.append(
            line(
                f"memory, {arguments.records // 2:,} records as fast as they go",
                f"+{mine:.0f} MB",
                f"+{theirs:.0f} MB",
                f"{mine / theirs:.2f}×",
                f"< {MEMORY_LIMIT:.0f} MB",
                mine < MEMORY_LIMIT,
            )
        )
        if arguments.recover:
            run("make_wal", root / "recover", arguments.recover)
            found = run("recovery", root / "recover")
            met.append(
                line(
                    f"recovery of {found['size']:.0f} MB ({found['cpu']:.0f} MB a CPU second)",
                    f"{found['rate']:.0f} MB/s",
                    f"{found['plain']:.0f} MB/s",
                    f"{found['rate'] / found['plain']:.2f}×",
                    f"≥ {RECOVERY_LIMIT:.0f} MB/s",
                    found["rate"] >= RECOVERY_LIMIT,
                )
            )
    return all(met)


def child(what: str, folder: str, args: list[str]) -> dict[str, float]:
    place = Path(folder)
    if what == "latency":
        return latency(args[0], place, float(args[1]))
    if what == "throughput":
        return throughput(args[0], place, int(args[1]))
    if what == "memory":
        return memory(args[0], place, int(args[1]))
    return make_wal(place, int(args[0])) if what == "make_wal" else recovery(place)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(sys.argv[2], sys.argv[3], sys.argv[4:])))
        sys.stdout.flush()
        os._exit(0)  # closing the part is not what is measured here
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--recover", type=int, default=1000, help="MB; 0 leaves it out")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", help="where to write [default: the system's]")
    sys.exit(0 if main(parser.parse_args()) else 1)
