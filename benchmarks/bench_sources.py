"""Measure how fast JSON lines, CSV and Parquet become rows, against the readers that they replace.

    python benchmarks/bench_sources.py [--size 200M] [--runs 3]

CPU seconds of this process, least of the runs. A source reads JSON lines and CSV twice (once for
the types of the whole file) and refuses what would not come back; the peers read once and do not:
`pyarrow.json.read_json` and `pyarrow.csv.read_csv` with the schema given, `json.loads` by line.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import corpus
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from pqvault.sources import open_source

WORDS = ["".join(random.Random(i).choices("etaoinshrdlu", k=3 + i % 7)) for i in range(4000)]


def chat(rng: random.Random, number: int) -> dict[str, object]:
    """A record of a chat corpus: 2 kB, nearly all text."""
    turns = [
        {"role": role, "content": " ".join(rng.choices(WORDS, k=60)) + '\n"end"'}
        for role in ("system", "user", "assistant")
    ]
    return {"id": number, "messages": turns, "score": rng.random(), "tags": ["en", "web"]}


def metrics(rng: random.Random, number: int) -> dict[str, object]:
    """A record of metrics: 150 bytes, nearly all numbers."""
    return {"step": number, "loss": rng.random() * 4, "lr": 3e-4, "ok": number % 7 > 0,
            "grad": {"norm": rng.random(), "max": rng.random() * 10}}  # fmt: skip


def odd(rng: random.Random, number: int) -> dict[str, object]:
    """The worst case: floats beyond 2^53 in every block, so that all goes by the strict way."""
    return {**metrics(rng, number), "nanos": number * 1e15 + 0.5}


def lines(path: Path, size: int, make: Callable[[random.Random, int], dict[str, object]]) -> None:
    """A file of records, of about ``size`` bytes; a tenth of it, ten times over."""
    rng, body, number = random.Random(1), bytearray(), 0
    while len(body) < size // 10:
        body += json.dumps(make(rng, number)).encode() + b"\n"
        number += 1
    path.write_bytes(bytes(body) * 10)


def table(path: Path, size: int) -> None:
    """CSV: a text with commas and quotes, two numbers, a truth."""
    rng, rows = random.Random(2), bytearray(b"id,text,score,ok\n")
    while len(rows) < size // 10:
        text = ", ".join(rng.choices(WORDS, k=12))
        rows += f'{len(rows)},"{text} ""q""",{rng.random():.6f},true\n'.encode()
    head, body = bytes(rows).split(b"\n", 1)
    path.write_bytes(head + b"\n" + body * 10)


def through(path: Path) -> None:
    """All batches of a source."""
    with open_source(path) as source:
        for _ in source.batches():
            pass


def cpu(work: Callable[[], object], runs: int) -> float:
    """CPU seconds, least of the runs."""
    best = float("inf")
    for _ in range(runs):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


def peers(path: Path, schema: pa.Schema) -> Iterator[tuple[str, Callable[[], object]]]:
    """Readers of the same file that read it once and check less."""
    if path.suffix == ".jsonl":
        parse = pa.json.ParseOptions(explicit_schema=schema)
        yield "pyarrow.json", lambda: pa.json.read_json(path, parse_options=parse)
        yield "json.loads", lambda: [len(json.loads(line)) for line in path.open("rb")]
    elif path.suffix == ".csv":
        convert = pa.csv.ConvertOptions(column_types=schema)
        parse = pa.csv.ParseOptions(newlines_in_values=True)
        yield (
            "pyarrow.csv",
            lambda: pa.csv.read_csv(path, parse_options=parse, convert_options=convert),
        )
    else:
        yield "pyarrow.parquet", lambda: pq.read_table(path)


def main() -> None:
    """Make the files, read them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=corpus.parse_size, default=200_000_000)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pqvault-bench-") as folder:
        work = Path(folder)
        for name, make in (("chat", chat), ("metrics", metrics), ("odd", odd)):
            lines(work / f"{name}.jsonl", args.size, make)
        table(work / "table.csv", args.size)
        found = pa.json.read_json(work / "chat.jsonl")
        pq.write_table(found, work / "chat.parquet", compression="zstd", row_group_size=20_000)
        print("| file | MB | source, MB a CPU second | peer | its MB a CPU second | ratio |")
        print("|---|---|---|---|---|---|")
        for path in sorted(work.iterdir()):
            size = path.stat().st_size / 1e6
            ours = cpu(lambda path=path: through(path), args.runs)
            with open_source(path) as source:
                schema = source.schema
            for peer, read in peers(path, schema):
                theirs = cpu(read, args.runs)
                print(
                    f"| {path.name} | {size:.0f} | {size / ours:.0f} | {peer} |"
                    f" {size / theirs:.0f} | {theirs / ours:.2f}× |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
