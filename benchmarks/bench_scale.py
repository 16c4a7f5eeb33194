"""Measure what limits large archives: entries, parts, and the planner.

    python benchmarks/bench_scale.py catalog [--entries 10000000]
    python benchmarks/bench_scale.py parts [--parts 10000] [--latency 0.03]
    python benchmarks/bench_scale.py planner [--entries 100000000]

catalog: an archive of many entries is opened in a process of its own, one
path is found, a folder is listed. parts: an archive of many parts on a store in memory that takes
30 ms for each request. planner: how many objects and parts a corpus makes, and the memory that
dealing takes. The figures go into docs/scale.md. Exit 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

import pqvault
from pqvault.archive import layout
from pqvault.archive.committing import make_commit, make_envelope, put_part
from pqvault.archive.deal import Dealer, ObjectJob, object_size
from pqvault.archive.partwriter import write_catalog
from pqvault.archive.spool import SPOOL_SCHEMA as PLAN
from pqvault.crypto.digest import DEFAULT
from pqvault.format.catalog import HOLE, SCHEMA, Kind
from pqvault.ids import new_id
from pqvault.rootkey import RootKey
from pqvault.storage import Storage, storage_at

TARGETS = {"open s": 2.0, "open MiB": 500.0, "find ms": 50.0, "parts s": 30.0}


def rows(paths: list[bytes], kinds: list[int]) -> pa.Table:
    """A catalog of folders and of files of 100 kB that no object holds (holes), each with a digest
    of its own, so that it takes the room of a real one."""
    count = len(paths)
    files = [kind == Kind.FILE for kind in kinds]
    extent = [{"object": HOLE, "offset": 0, "length": 100_000}]
    columns = {
        "path": pa.array(paths, pa.binary()),
        "kind": pa.array(kinds, pa.uint8()),
        "size": pa.array([100_000 * f for f in files], pa.int64()),
        "mode": pa.array([0o644] * count, pa.uint16()),
        "mtime_ns": pa.array([1_700_000_000_000_000_000] * count, pa.int64()),
        "digest": pa.array([os.urandom(32) if f else None for f in files], pa.binary()),
        "extents": pa.array([extent if f else [] for f in files], SCHEMA.field("extents").type),
    }
    arrays = [columns.get(f.name, pa.nulls(count, f.type)) for f in SCHEMA]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def add_part(storage: Storage, archive: str, recipient: Any, table: pa.Table, seq: Any) -> None:
    """Commit a part that holds ``table``."""
    key = RootKey.generate(archive, new_id(), recipient.profile)
    storage.make_folder(f"parts/{key.part}")
    catalog = write_catalog(table, key, storage, DEFAULT, ())
    commit = make_commit(
        seq, key, [catalog], kind="append", sealed_to=[recipient.key_id], digest=DEFAULT
    )
    put_part(storage, [make_envelope(key, [recipient])], commit)


class Alone:
    """In place of the state of an archive that is being made: parts without parents."""

    def next_seq(self) -> int:
        return 1

    def heads(self) -> list[Any]:
        return []


def peak() -> float:
    """MiB that this process had resident at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def line(what: str, figure: float, unit: str, target: float | None = None) -> bool:
    met = target is None or figure < target
    wanted = "" if target is None else f" | under {target:g} {'✓' if met else '✗'}"
    print(f"| {what} | {figure:,.4g} {unit}{wanted} |", flush=True)
    return met


# -- catalog -------------------------------------------------------------------------------


def shards(count: int) -> Iterator[tuple[list[bytes], list[int]]]:
    """A corpus walked in order: folders of 1,000 files, 200,000 rows a part."""
    paths, kinds = [b"corpus"], [int(Kind.FOLDER)]
    for number in range(count // 1000):
        folder = b"corpus/shard-%06d" % number
        paths += [folder, *(folder + b"/sample-%06d.json" % n for n in range(1000))]
        kinds += [int(Kind.FOLDER), *[int(Kind.FILE)] * 1000]
        if len(paths) > 200_000:
            yield paths, kinds
            paths, kinds = [b"corpus"], [int(Kind.FOLDER)]
    if len(paths) > 1:
        yield paths, kinds


PROBE = """
import json, sys, time, resource, os
import pqvault
def seconds(do):
    begin = time.perf_counter(); found = do(); return time.perf_counter() - begin, found
root, key = sys.argv[1:3]
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
key = pqvault.Identity.load_file(key)[0]
took, archive = seconds(lambda: pqvault.open(root, identities=[key]))
out = {"open s": took, "open MiB": peak()}
last = int(sys.argv[3])
finds = [seconds(lambda p=p: archive.find(p))[0] for p in
         (b"corpus/shard-%06d/sample-000500.json" % (last * n // 20) for n in range(20))]
out["first find ms"] = 1000 * finds[0]
out["find ms"] = 1000 * sorted(finds)[10]
took, found = seconds(lambda: sum(1 for _ in archive.entries(b"corpus/shard-%06d" % (last // 2),
                                                              direct=True)))
assert found == 1000, found
out["list a folder ms"] = 1000 * took
out["peak MiB"] = peak()
print(json.dumps(out))
"""


def catalog(count: int, folder: Path) -> bool:
    """Open an archive of ``count`` entries."""
    key = pqvault.Identity.generate()
    key.save_file(folder / "key.txt")
    storage = storage_at(folder / "a.pqv")
    archive = layout.create_archive(storage)
    entries = parts = 0
    for paths, kinds in shards(count):
        add_part(storage, archive, key.recipient, rows(paths, kinds), Alone())
        entries, parts = entries + len(paths), parts + 1
    size = sum(f.stat().st_size for f in (folder / "a.pqv").rglob("*") if f.is_file())
    line("entries", entries, f"in {parts} parts, {size / 1e6:,.0f} MB of catalogs")
    argv = [sys.executable, "-c", PROBE, str(folder / "a.pqv"), str(folder / "key.txt")]
    done = subprocess.run(
        [*argv, str(count // 1000 - 1)], check=True, capture_output=True, text=True
    )
    found = json.loads(done.stdout)
    met = [line(what, found[what], what.split()[-1], TARGETS.get(what)) for what in found]
    return all(met)


# -- parts ---------------------------------------------------------------------------------


def slow_store(latency: float) -> str:
    """The URL of the memory store, each request of which takes so many seconds."""
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    def late(method: str) -> Callable[..., Any]:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            time.sleep(latency)
            with self.lock:
                self.requests[method] = self.requests.get(method, 0) + 1
            return getattr(MemoryFileSystem, method)(self, *args, **kwargs)

        return call

    import threading

    methods: dict[str, Any] = {m: late(m) for m in ("cat_file", "info", "ls")}
    methods |= {"protocol": "slow", "requests": {}, "lock": threading.Lock()}
    slow = type("Slow", (MemoryFileSystem,), methods)
    slow._strip_protocol = classmethod(  # type: ignore[attr-defined]
        lambda cls, path: MemoryFileSystem._strip_protocol(
            path.replace("slow://", "memory://") if isinstance(path, str) else path
        )
    )
    fsspec.register_implementation("slow", slow, clobber=True)
    return "slow://scale/a.pqv"


def parts(count: int, latency: float) -> bool:
    """Open an archive of ``count`` parts at a store."""
    key = pqvault.Identity.generate()
    storage = storage_at("memory://scale/a.pqv")
    archive = layout.create_archive(storage)
    for number in range(count):
        table = rows([b"log-%06d" % number], [int(Kind.FILE)])
        add_part(storage, archive, key.recipient, table, Alone())
    url = slow_store(latency)
    begin, used = time.perf_counter(), time.process_time()
    opened = pqvault.open(url, identities=[key])
    took, used = time.perf_counter() - begin, time.process_time() - used
    met = line(
        f"{count:,} parts opened, {latency * 1000:g} ms a request", took, "s", TARGETS["parts s"]
    )
    line("of processors for it", used, "s")
    begin = time.perf_counter()
    opened.find(b"log-%06d" % (count - 1))
    line("then the newest part's entry found", time.perf_counter() - begin, "s")
    line("peak of memory, store included", peak(), "MiB")
    return met


# -- planner -------------------------------------------------------------------------------


def planned(count: int, size: int) -> Iterator[pa.RecordBatch]:
    """The rows of a walk over ``count`` files of about ``size`` bytes, 8,192 at a time."""
    per = 8192
    names = PLAN.names
    for start in range(0, count, per):
        n = min(per, count - start)
        columns: dict[str, Any] = {
            "path": pa.array([b"corpus/%09d" % i for i in range(start, start + n)], pa.binary()),
            "source": pa.array([b"/x"] * n, pa.binary()),
            "kind": pa.array([int(Kind.FILE)] * n, pa.uint8()),
            "size": pa.array([size // 2 + (i * 7919) % size for i in range(n)], pa.int64()),
        }
        defaults = {"mode": 0o644, "links": 1, "sparse": False, "changed": True}
        arrays = [
            columns[name]
            if name in columns
            else pa.array([defaults.get(name, 0)] * n).cast(PLAN.field(name).type)
            if not pa.types.is_binary(PLAN.field(name).type)
            else pa.nulls(n, PLAN.field(name).type)
            for name in names
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=PLAN)


def planner(count: int, size: int) -> bool:
    """Deal ``count`` files; count what comes of it."""
    begin = time.perf_counter()
    dealer = Dealer(planned(count, size), lambda: object_size(count * size, 4), lambda part: False)
    objects = found = 0
    while (part := dealer.part()) is not None:
        objects += sum(isinstance(job, ObjectJob) for job in dealer.jobs(part))
        found += 1
    took = time.perf_counter() - begin
    line("entries", count, f"of {size:,} bytes, {count * size / 1e12:,.3g} TB")
    line("parts", found, "")
    line("objects", objects, "")
    line("dealt", count / took, "entries a second")
    return line("peak of memory", peak(), "MiB", 500.0)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("what", choices=["catalog", "parts", "planner"], nargs="?")
    options.add_argument("--entries", type=int)
    options.add_argument("--parts", type=int, default=10_000)
    options.add_argument("--latency", type=float, default=0.03)
    options.add_argument("--size", type=int, default=10_000_000, help="bytes of a planned file")
    given = options.parse_args()
    os.environ.setdefault("PQVAULT_HOME", tempfile.mkdtemp())
    met = True
    print("| what | figure | target |\n|---|---|---|")
    if given.what in (None, "catalog"):
        with tempfile.TemporaryDirectory() as folder:
            met &= catalog(given.entries or 10_000_000, Path(folder))
    if given.what in (None, "parts"):
        met &= parts(given.parts, given.latency)
    if given.what in (None, "planner"):
        met &= planner(given.entries or 100_000_000, given.size)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
