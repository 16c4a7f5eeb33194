"""Measure reading for training: sealed archives beside plain files and beside other formats.

    python benchmarks/bench_training.py [--work DIR] [--scale N] [--runs N] [--only NAME]
                                        [--mosaic PYTHON]

``--only``: images, lines, rows, small, formats, pyarrow. Each figure is a ratio of two readings in
the same run, one after the other, the quickest of ``--runs``, the page cache warm. Prints Markdown
tables; exit 1 when a target is missed. Needs `make test-hosts`; formats that are not installed are
left out by name. ``--mosaic``: the interpreter of a venv with `mosaicml-streaming`, which does not
go into the one of the hosts (`benchmarks/README.md` says how to make it).
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import corpus
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pyarrow.fs import FSSpecHandler, PyFileSystem
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

import pqvault
from pqvault import Identity
from pqvault.integrations.torch import SealedFiles, SealedRecords
from pqvault.sealed.writer import RANDOM_FRAME

WORKERS, BATCH = 2, 32
NAMES = ["images", "lines", "rows", "small", "formats", "pyarrow"]


@dataclass(frozen=True)
class Row:
    """A line of a table: ours, another's, seconds each, and the ratio of speeds that is wanted.

    ``cpu``: the same ratio of seconds of processors, which a busy machine bends less.
    """

    what: str
    ours: float
    other: float
    peer: str
    target: float
    cpu: float

    @property
    def ratio(self) -> float:
        return self.other / self.ours


@dataclass(frozen=True)
class Timed:
    """What a job read (samples or bytes), seconds, seconds of processors."""

    count: int
    wall: float
    cpu: float


class Bench:
    """A folder of corpora, each plain and sealed."""

    def __init__(self, work: Path, scale: float, runs: int, mosaic: str | None) -> None:
        self.work, self.scale, self.runs, self.mosaic = work, scale, runs, mosaic
        self.key = work / "key.txt"
        self.identity = Identity.generate()
        self.identity.save_file(self.key)
        self.rows: list[Row] = []
        self.random = random.Random(1)

    def seal(self, name: str, **options: Any) -> Path:
        archive = self.work / f"{name}.pqv"
        if not archive.exists():
            plain = self.work / name
            pqvault.seal(plain, archive, recipients=[self.identity.recipient], **options)
        return archive

    def compare(
        self,
        what: str,
        ours: Callable[[], int],
        other: Callable[[], int | Timed],
        peer: str,
        target: float,
    ) -> None:
        """Run both in turn; they must give the same number of samples (or bytes)."""
        seconds: tuple[list[tuple[float, float]], ...] = ([], [])
        counts = set()
        for number in range(self.runs + 1):
            for side, job in zip(seconds, (ours, other), strict=True):
                one = timed(job)
                counts.add(one.count)
                if number:  # the first warms the page cache
                    side.append((one.wall, one.cpu))
        assert len(counts) == 1, f"{what}: {counts}"
        (mine, my_cpu), (theirs, their_cpu) = (
            (min(one[0] for one in side), min(one[1] for one in side)) for side in seconds
        )
        row = Row(what, mine, theirs, peer, target, their_cpu / my_cpu)
        self.rows.append(row)
        verdict = "ok" if row.ratio >= target else "MISSED"
        verdict = verdict if target else ""
        print(
            f"| {what} | {row.ours:.2f} | {peer} | {row.other:.2f} | {row.ratio:.2f} |"
            f" {row.cpu:.2f} | {target or ''} | {verdict} |",
            flush=True,
        )


def processors() -> float:
    """Seconds that this process and its ended children have used."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage)


def timed(job: Callable[[], int | Timed]) -> Timed:
    """Run it; a job of another process has looked at its own clocks."""
    began, used = time.perf_counter(), processors()
    got = job()
    if isinstance(got, Timed):
        return got
    return Timed(got, time.perf_counter() - began, processors() - used)


def same(batch: list[Any]) -> list[Any]:
    return batch


def drain(loader: Any) -> int:
    return sum(len(batch) for batch in loader)


# -- the same loaders on plain files -----------------------------------------------------------


class PlainFiles(Dataset):
    """A file an item."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(str(p) for p in folder.rglob("*") if p.is_file())

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[str, bytes]:
        path = self.paths[number]
        with open(path, "rb") as file:
            return path, file.read()


class PlainRecords(IterableDataset):
    """Lines or rows: pieces shuffled, dealt to workers, their records shuffled."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.paths, self.kind = sorted(folder.rglob(f"*.{kind}")), kind

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        pieces = list(self._pieces())
        rng = random.Random(0)
        rng.shuffle(pieces)
        for piece in pieces[info.id :: info.num_workers]:
            if self.kind == "jsonl":
                records = [json.loads(line) for line in self._lines(*piece)]
                rng.shuffle(records)
                yield from records
                continue
            path, group = piece
            table = pq.ParquetFile(path).read_row_group(group, use_threads=False)
            order = torch.randperm(len(table)).tolist()
            table = table.take(pa.array(order))
            for at in range(0, len(table), 1024):
                yield from table.slice(at, 1024).to_pylist()

    def _pieces(self) -> Iterator[tuple[Path, int]]:
        for path in self.paths:
            if self.kind == "jsonl":
                yield from ((path, at) for at in range(0, path.stat().st_size, 4 << 20))
            else:
                yield from ((path, group) for group in range(pq.ParquetFile(path).num_row_groups))

    def _lines(self, path: Path, begin: int) -> list[bytes]:
        with path.open("rb") as file:
            file.seek(begin)
            if begin:
                file.readline()
            data = file.read(max(0, begin + (4 << 20) - file.tell()))
            return (data + file.readline()).splitlines()


def loader(data: Any, **options: Any) -> DataLoader:
    return DataLoader(data, BATCH, num_workers=WORKERS, **({"collate_fn": same} | options))


# -- what is measured --------------------------------------------------------------------------


def decoded(batch: list[tuple[str, bytes]]) -> torch.Tensor:
    """JPEGs as a batch of pixels, 224 x 224."""
    from PIL import Image

    pixels = [
        torch.frombuffer(
            bytearray(Image.open(io.BytesIO(data)).convert("RGB").resize((224, 224)).tobytes()),
            dtype=torch.uint8,
        )
        for _, data in batch
    ]
    return torch.stack(pixels).view(-1, 224, 224, 3)


def make_images(bench: Bench) -> Path:
    """JPEGs of about 100 kB: noise of two scales."""
    from PIL import Image

    folder = bench.work / "images"
    if not folder.exists():
        folder.mkdir()
        noise = bench.random.randbytes
        for number in range(int(2000 * bench.scale)):
            coarse = Image.frombytes("RGB", (80, 80), noise(3 * 80 * 80)).resize((320, 320))
            image = Image.blend(coarse, Image.frombytes("RGB", (320, 320), noise(307_200)), 0.25)
            image.save(folder / f"{number:06}.jpg", quality=90)
    return folder


def images(bench: Bench) -> None:
    """Images of 100 kB: decoded, as training has them, and their bytes alone."""
    folder = make_images(bench)
    sealed = SealedFiles(bench.seal("images"), identities=bench.key)
    plain = PlainFiles(folder)
    for what, collate, target in (
        ("JPEG images of 100 kB, decoded", decoded, 0.9),
        ("their bytes alone, no decoding", same, 0.0),  # nothing is asked: it is the harshest
    ):
        bench.compare(
            what,
            lambda collate=collate: drain(loader(sealed, shuffle=True, collate_fn=collate)),
            lambda collate=collate: drain(loader(plain, shuffle=True, collate_fn=collate)),
            "plain files",
            target,
        )


def texts(bench: Bench) -> list[str]:
    return corpus.sentences(corpus.source_files())


def lines(bench: Bench) -> None:
    """JSONL of prose."""
    folder = bench.work / "lines"
    if not folder.exists():
        folder.mkdir()
        pool = texts(bench)
        for part in range(4):
            with (folder / f"{part}.jsonl").open("w") as file:
                for number in range(int(60_000 * bench.scale)):
                    text = " ".join(bench.random.choices(pool, k=4))
                    file.write(json.dumps({"id": number, "text": text}) + "\n")
    sealed = SealedRecords(bench.seal("lines"), identities=bench.key)
    plain = PlainRecords(folder, "jsonl")
    bench.compare(
        "JSONL lines",
        lambda: drain(loader(sealed)),
        lambda: drain(loader(plain)),
        "plain files",
        0.9,
    )


def table(bench: Bench, count: int) -> pa.Table:
    pool = texts(bench)
    return pa.table(
        {
            "id": list(range(count)),
            "text": [" ".join(bench.random.choices(pool, k=3)) for _ in range(count)],
            "score": [bench.random.random() for _ in range(count)],
        }
    )


def rows(bench: Bench) -> None:
    """Parquet rows, byte-exact files."""
    folder = bench.work / "rows"
    if not folder.exists():
        folder.mkdir()
        for part in range(4):
            rows = table(bench, int(50_000 * bench.scale))
            pq.write_table(rows, folder / f"{part}.parquet", row_group_size=10_000)
    sealed = SealedRecords(bench.seal("rows"), identities=bench.key)
    plain = PlainRecords(folder, "parquet")
    bench.compare(
        "Parquet rows",
        lambda: drain(loader(sealed)),
        lambda: drain(loader(plain)),
        "plain files",
        0.9,
    )


def small(bench: Bench) -> None:
    """Compressible files under 64 KiB, sealed with --access random."""
    folder = bench.work / "small"
    if not folder.exists():
        folder.mkdir()
        pool = texts(bench)
        for number in range(int(5000 * bench.scale)):
            text = " ".join(bench.random.choices(pool, k=bench.random.randrange(20, 600)))
            (folder / f"{number:06}.txt").write_text(text[:65_000])
    sealed = SealedFiles(bench.seal("small", frame_size=RANDOM_FRAME), identities=bench.key)
    plain = PlainFiles(folder)
    bench.compare(
        "compressible files under 64 KiB, --access random",
        lambda: drain(loader(sealed, shuffle=True)),
        lambda: drain(loader(plain, shuffle=True)),
        "plain files",
        0.3,
    )


def formats(bench: Bench) -> None:
    """Images by number, shuffled, beside litData and MosaicML streaming."""
    plain = PlainFiles(make_images(bench))
    sealed = SealedFiles(bench.seal("images"), identities=bench.key)
    order = list(range(len(sealed)))
    bench.random.shuffle(order)

    def ours(numbers: list[int]) -> Callable[[], int]:
        return lambda: sum(len(sealed[number].data) for number in numbers)

    def beside(name: str, other: Reader, few: int, target: float) -> None:
        numbers = order[:few]
        bench.compare(
            f"images by number, {len(numbers)} of {len(order)}",
            ours(numbers),
            lambda: other(numbers),
            name,
            target,
        )

    for name, read, load, few, target in litdata(bench, plain):
        beside(name, read, few, target)
        loaded(bench, sealed, name, load, target)
    with ExitStack() as stack:
        for name, read, load, few, target in mosaic(bench, stack):
            beside(name, read, few, target)
            loaded(bench, sealed, name, load, target)


def loaded(bench: Bench, sealed: SealedFiles, name: str, load: Load, target: float) -> None:
    """All images, shuffled, through the loader of each."""
    bench.compare(
        "images through a loader, shuffled",
        lambda: drain(loader(sealed, shuffle=True)),
        load,
        name,
        target,
    )


Reader = Callable[[list[int]], int | Timed]
Load = Callable[[], int | Timed]
# Name, how it reads by number and through a loader, how many by number at most, target.
Peer = tuple[str, Reader, Load, int, float]


def litdata(bench: Bench, plain: PlainFiles) -> Iterator[Peer]:
    if importlib.util.find_spec("litdata") is None:
        print("litData is not installed")
        return
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming.writer import BinaryWriter
    from litdata.utilities.encryption import FernetEncryption

    everything = 10**9
    for name, level, few, target in (
        ("litData", None, everything, 1.0),
        ("litData, Fernet a sample", "sample", everything, 10.0),
        # A chunk is decrypted anew whenever the next sample lies in another.
        ("litData, Fernet a chunk", "chunk", 20, 10.0),
    ):
        folder = bench.work / f"litdata-{level}"
        encryption = FernetEncryption("a password", level=level) if level else None
        shutil.rmtree(folder, ignore_errors=True)
        writer = BinaryWriter(str(folder), chunk_bytes=64 << 20, encryption=encryption)
        for number in range(len(plain)):
            writer[number] = (plain[number][1], number)
        writer.done()
        writer.merge()
        data = StreamingDataset(str(folder), encryption=encryption, shuffle=True)

        def read(numbers: list[int], data: Any = data) -> int:
            return sum(len(data[n][0]) for n in numbers)

        def load(data: Any = data) -> int:
            options = {"batch_size": BATCH, "num_workers": WORKERS, "collate_fn": contents}
            return drain(StreamingDataLoader(data, **options))

        yield name, read, load, few, target


def contents(batch: list[Any]) -> list[bytes]:
    """litData gives views of its files, which no worker can send."""
    return [bytes(data) for data, _ in batch]


def mosaic(bench: Bench, stack: ExitStack) -> Iterator[Peer]:
    """MosaicML streaming, in a process of its own with an interpreter of its own."""
    if bench.mosaic is None:
        print("MosaicML streaming is left out: no --mosaic PYTHON")
        return
    program = Path(__file__).with_name("mosaic_peer.py")
    process = stack.enter_context(
        subprocess.Popen(
            [bench.mosaic, program, bench.work / "images", bench.work / "mds"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    )
    assert process.stdin and process.stdout
    asked, answers = process.stdin, process.stdout
    ready = answers.readline()
    if not ready:
        sys.exit(f"{bench.mosaic} has no MosaicML streaming that works (its words are above)")

    def ask(what: Any) -> Timed:
        print(json.dumps(what), file=asked, flush=True)
        return Timed(*json.loads(answers.readline()))

    options = {"batch_size": BATCH, "num_workers": WORKERS}
    name = f"MosaicML streaming {json.loads(ready)['version']}"
    yield name, ask, lambda: ask(options), 10**9, 1.0


def pyarrow(bench: Bench) -> None:
    """Whole Parquet files through the file system of fsspec."""
    folder = bench.work / "pyarrow"
    if not folder.exists():
        folder.mkdir()
        pq.write_table(table(bench, int(400_000 * bench.scale)), folder / "text.parquet")
        blobs = [bench.random.randbytes(100_000) for _ in range(int(2000 * bench.scale))]
        pq.write_table(pa.table({"blob": blobs}), folder / "blobs.parquet", compression="none")
    url = f"pqvault::file://{bench.seal('pyarrow')}"
    fs, _ = fsspec.url_to_fs(url, identities=f"file:{bench.key}")
    # Wrapped by hand: pyarrow takes its own file system in place of fsspec's local one.
    local = PyFileSystem(FSSpecHandler(fsspec.filesystem("file")))
    for name, what, target in (("text", "text table", 0.85), ("blobs", "blobs", 0.5)):
        bench.compare(
            f"pyarrow, a whole Parquet file: {what}",
            lambda name=name: pq.read_table(f"pyarrow/{name}.parquet", filesystem=fs).nbytes,
            lambda name=name: pq.read_table(folder / f"{name}.parquet").nbytes,
            "plain file",
            target,
        )
        # What of it is fsspec's: the plain file by the same way.
        bench.compare(
            f"— {what}, beside the plain file through fsspec",
            lambda name=name: pq.read_table(f"pyarrow/{name}.parquet", filesystem=fs).nbytes,
            lambda name=name: pq.read_table(f"{folder}/{name}.parquet", filesystem=local).nbytes,
            "plain file",
            0,
        )


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", action="append", choices=NAMES)
    parser.add_argument("--mosaic", metavar="PYTHON")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    work = args.work or Path(tempfile.mkdtemp(prefix="pqvault-bench-"))
    work.mkdir(parents=True, exist_ok=True)
    os.environ["PQVAULT_HOME"] = str(work / "home")
    for left in (work / "key.txt", *work.glob("*.pqv")):
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    try:
        bench = Bench(work, args.scale, args.runs, args.mosaic)
        print("| what | pqvault, s | peer | peer, s | times as fast | by CPU time | wanted | |")
        print("|---|---|---|---|---|---|---|---|")
        for name in args.only or NAMES:
            globals()[name](bench)
    finally:
        if args.work is None:
            shutil.rmtree(work)
    return int(any(row.ratio < row.target for row in bench.rows))


if __name__ == "__main__":
    sys.exit(main())
