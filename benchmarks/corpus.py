"""Make the files the benchmarks run on.

    python benchmarks/corpus.py DIR [--size 1200M] [--kind mixed|small|big]
                                    [--files N] [--file-size BYTES]

Three kinds, all from one fixed seed, so the same Python environment makes the
same bytes each time:

``mixed``   about ``--size`` bytes: small source files (20 %), chat-like JSONL (35 %),
            Parquet (25 %), fp16 tensors (20 %). Source files and sentences come
            from the running Python's standard library and site-packages.
``small``   ``--files`` files of ``--file-size`` bytes of text, a thousand to a folder.
``big``     one file of ``--size`` bytes: text and random blocks of 1 MiB, all different.

Beside DIR a file ``DIR.corpus.json`` says what was made; `ensure` reads it and
makes nothing twice. Sizes are decimal: 1200M is 1,200,000,000 bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import struct
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

Kind = Literal["mixed", "small", "big"]

SEED = 20240813
VERSION = 1  # of the recipe: another number makes `ensure` start over
DEFAULT_SIZE = 1_200_000_000  # bytes
DEFAULT_FILES = 100_000
DEFAULT_FILE_SIZE = 4096  # bytes
FILES_PER_FOLDER = 1000

SOURCE_SUFFIXES = (".py", ".pyi", ".pxd", ".pyx", ".h", ".hpp", ".c", ".txt", ".md", ".rst")
SOURCE_LARGEST = 256 * 1024  # bytes; larger ones are tables and test vectors, not source
SOURCE_FOLDER = 60_000_000  # bytes in one src-N folder

# Shares of the whole, then of each kind's own size, file by file.
MIXED_SHARES = {"source": 0.20, "jsonl": 0.35, "parquet": 0.25, "tensor": 0.20}
JSONL_SHARES = (0.285, 0.210, 0.160, 0.120, 0.095, 0.070, 0.060)
PARQUET_SHARES = (0.25, 0.20, 0.20, 0.15, 0.10, 0.10)
TENSOR_SHARES = (0.40, 0.25, 0.20, 0.15)

BLOCK = 1024 * 1024  # bytes
RANDOM_BLOCKS = 0.35  # share of the blocks of a `big` file that do not compress

EPOCH = 1_700_000_000  # seconds; the mtimes and the times in the records start here


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of file in a corpus. ``size``: bytes."""

    name: str
    files: int
    size: int


@dataclass(frozen=True, slots=True)
class Corpus:
    """What was made, and where."""

    root: Path
    kind: Kind
    parts: tuple[Part, ...]

    @property
    def files(self) -> int:
        return sum(part.files for part in self.parts)

    @property
    def size(self) -> int:
        """Bytes in all files."""
        return sum(part.size for part in self.parts)


def parse_size(text: str) -> int:
    """Bytes of ``1200M``, ``2G``, ``64KiB`` or ``4096``: K, M, G decimal, KiB, MiB, GiB binary."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?B?))?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(f"not a size: {text!r} (say 1200M, 2G, 64KiB)")
    number, letter, rest = match.groups()
    base = 1024 if rest and rest[0] in "iI" else 1000
    return int(float(number) * base ** (" KMGT".index(letter.upper()) if letter else 0))


# --- real text ---------------------------------------------------------------


def source_files() -> list[Path]:
    """Source files of the running Python, in a fixed order."""
    found: dict[Path, None] = {}
    paths = sysconfig.get_paths()
    for name in ("stdlib", "purelib", "platlib"):
        root = Path(paths[name])
        for folder, folders, files in os.walk(root):
            folders[:] = sorted(
                each
                for each in folders
                # the library's own site-packages may belong to another environment
                if each not in ("__pycache__", "site-packages", "dist-packages", "lib2to3")
                and not each.startswith("cryptography_vectors")
            )
            for each in sorted(files):
                path = Path(folder, each)
                if each.endswith(SOURCE_SUFFIXES) and not path.is_symlink():
                    found[path] = None
    kept = [path for path in found if 0 < path.stat().st_size <= SOURCE_LARGEST]
    random.Random(SEED).shuffle(kept)
    return kept


_PROSE = re.compile(r'"""(.*?)"""', re.DOTALL)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n\s*\n")
_WORDS = re.compile(r"[A-Za-z']{2,}")


def sentences(paths: list[Path], limit: int = 6_000_000) -> list[str]:
    """Distinct sentences of the docstrings and manuals at ``paths``, about ``limit`` bytes."""
    found: dict[str, None] = {}
    total = 0
    for path in paths:
        text = path.read_text("utf-8", "replace")
        prose = _PROSE.findall(text) if path.suffix in (".py", ".pyi") else []
        if path.suffix in (".md", ".rst"):
            prose = [text]
        for piece in prose:
            for raw in _SENTENCE_END.split(piece):
                sentence = " ".join(raw.split())
                if not 30 <= len(sentence) <= 400 or len(_WORDS.findall(sentence)) < 5:
                    continue
                letters = sum(map(str.isalpha, sentence)) + sentence.count(" ")
                if letters < 0.85 * len(sentence) or sentence in found:
                    continue
                found[sentence] = None
                total += len(sentence)
        if total >= limit:
            break
    if len(found) < 100:
        raise SystemExit("corpus: this Python has no library sources to take sentences from")
    return list(found)


class Prose:
    """An endless supply of text: real sentences in random order, some of them spliced.

    A share of the sentences begins as one and ends as another, so that few
    repeat as a whole within a compressor's window.
    """

    def __init__(self, pool: list[str], seed: int) -> None:
        self._pool = pool
        self._words = [sentence.split(" ") for sentence in pool]
        self._random = random.Random(seed)

    def sentence(self) -> str:
        draw = self._random.random
        count = len(self._pool)
        first = int(draw() * count)
        if draw() < 0.4:
            return self._pool[first]
        head, tail = self._words[first], self._words[int(draw() * count)]
        return " ".join(head[: len(head) // 2] + tail[len(tail) // 2 :])

    def paragraph(self, low: int, high: int) -> str:
        return " ".join([self.sentence() for _ in range(self._random.randint(low, high))])

    def text(self, size: int) -> bytes:
        """At least ``size`` bytes of lines."""
        lines: list[bytes] = []
        total = 0
        while total < size:
            line = self.paragraph(2, 6).encode() + b"\n"
            lines.append(line)
            total += len(line)
        return b"".join(lines)


# --- mixed -------------------------------------------------------------------


def _stamp(path: Path, number: int) -> None:
    """A fixed mtime, with nanoseconds, different from file to file."""
    nanoseconds = EPOCH * 10**9 + number * 61_000_000_123
    os.utime(path, ns=(nanoseconds, nanoseconds))


def _edited(data: bytes, rng: random.Random) -> bytes:
    """``data`` with one to three new lines in it."""
    lines = data.split(b"\n")
    for _ in range(rng.randint(1, 3)):
        note = f"# revision {rng.getrandbits(32):08x}, see change {rng.randint(100, 99999)}"
        lines.insert(rng.randint(0, len(lines)), note.encode())
    return b"\n".join(lines)


def _make_sources(root: Path, paths: list[Path], size: int) -> Part:
    """Real source files in src-0, src-1, …; from the second time round each with an edit."""
    rng = random.Random(SEED + 1)
    bases = sorted(
        {Path(each) for each in sysconfig.get_paths().values()},
        key=lambda base: len(base.parts),
        reverse=True,
    )
    files = total = 0
    folder, folder_start, turn = 0, 0, 0
    while total < size:
        for path in paths:
            if total >= size:
                break
            data = path.read_bytes()
            if turn:
                data = _edited(data, rng)
            base = next(each for each in bases if path.is_relative_to(each))
            if total - folder_start >= SOURCE_FOLDER:
                folder, folder_start = folder + 1, total
            target = root / f"src-{folder}" / path.relative_to(base)
            while target.exists():  # the same name from another turn, or another base
                target = target.with_name(f"{target.stem}_{turn}{target.suffix}")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            if data.startswith(b"#!"):
                target.chmod(0o755)
            _stamp(target, files)
            files += 1
            total += len(data)
        turn += 1
    return Part("source", files, total)


def _records(prose: Prose, rng: random.Random, file: int) -> Iterator[bytes]:
    """Chat-like records, one line of JSON each."""
    number = 0
    clock = EPOCH + file * 86_400
    while True:
        clock += rng.randint(0, 40)
        messages: list[dict[str, str]] = []
        if rng.random() < 0.5:
            system = "You are a careful assistant. Answer the question and show the steps."
            messages.append({"role": "system", "content": system})
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            messages.append({"role": "user", "content": prose.paragraph(1, 4)})
            answer = "\n\n".join(prose.paragraph(2, 7) for _ in range(rng.randint(1, 4)))
            messages.append({"role": "assistant", "content": answer})
        record = {
            "id": f"chat-{file:02d}-{number:08d}-{rng.getrandbits(48):012x}",
            "created": clock,
            "source": rng.choice(("forum", "support", "docs", "synthetic")),
            "language": "en",
            "messages": messages,
            "tokens": sum(len(each["content"]) for each in messages) // 4,
            "quality": round(rng.random(), 4),
        }
        yield json.dumps(record).encode() + b"\n"
        number += 1


def _make_jsonl(root: Path, pool: list[str], size: int) -> Part:
    folder = root / "chat"
    folder.mkdir()
    total = 0
    for file, share in enumerate(JSONL_SHARES):
        path = folder / f"conversations-{file:02d}.jsonl"
        seed = SEED + 100 + file
        written = 0
        with path.open("wb", buffering=BLOCK) as out:
            for line in _records(Prose(pool, seed), random.Random(seed), file):
                written += out.write(line)
                if written >= share * size:
                    break
        _stamp(path, file)
        total += written
    return Part("jsonl", len(JSONL_SHARES), total)


class Columns:
    """Random Arrow columns from one seed, made without numpy."""

    def __init__(self, pool: list[str], seed: int) -> None:
        import pyarrow as pa

        self._pa = pa
        self._rng = random.Random(seed)
        self._pool = pa.array(pool)
        self._normal = pa.array(normal_table(), pa.float64())

    def uint16(self, count: int) -> Any:
        pa = self._pa
        data = pa.py_buffer(self._rng.randbytes(2 * count))
        return pa.Array.from_buffers(pa.uint16(), count, [None, data])

    def uniform(self, count: int) -> Any:
        """float64 in [0, 1)."""
        import pyarrow.compute as pc

        return pc.random(count, initializer=self._rng.getrandbits(62))

    def below(self, count: int, limit: int) -> Any:
        """int64 in [0, limit)."""
        import pyarrow.compute as pc

        return pc.cast(pc.floor(pc.multiply(self.uniform(count), limit)), self._pa.int64())

    def normal(self, count: int) -> Any:
        """float64, mean 0, deviation 1."""
        return self._normal.take(self.uint16(count))

    def text(self, count: int, pieces: int) -> Any:
        """``pieces`` sentences a row."""
        import pyarrow.compute as pc

        drawn = [self._pool.take(self.below(count, len(self._pool))) for _ in range(pieces)]
        return pc.binary_join_element_wise(*drawn, " ")


def normal_table() -> list[float]:
    """The standard normal distribution as 65,536 equally likely values."""
    inverse = NormalDist().inv_cdf
    return [inverse((step + 0.5) / 65536) for step in range(65536)]


def _events(columns: Columns, start: int, count: int) -> Any:
    """Rows of a web crawl: ids, times, labels, scores, a sentence or three."""
    import pyarrow as pa
    import pyarrow.compute as pc

    labels = pa.array(["news", "wiki", "code", "forum", "shop", "paper", "mail", "other"])
    return pa.table(
        {
            "id": pa.array(range(start, start + count), pa.int64()),
            "time": pc.add(columns.below(count, 86_400_000), EPOCH * 1000),
            "user": pc.cast(
                pc.multiply(pc.power(columns.uniform(count), 3), 5e6), pa.int32(), safe=False
            ),
            "label": labels.take(columns.below(count, len(labels))).dictionary_encode(),
            "score": columns.uniform(count),
            "loss": pc.cast(pc.abs_checked(columns.normal(count)), pa.float32()),
            "text": columns.text(count, 3),
        }
    )


def _embeddings(columns: Columns, start: int, count: int) -> Any:
    """Rows of a vector index: an id, a title, 64 float32 values."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = pc.cast(pc.multiply(columns.normal(count * 64), 0.125), pa.float32())
    return pa.table(
        {
            "id": pa.array(range(start, start + count), pa.int64()),
            "title": columns.text(count, 1),
            "vector": pa.FixedSizeListArray.from_arrays(values, 64),
        }
    )


def _make_parquet(root: Path, pool: list[str], size: int) -> Part:
    import pyarrow.parquet as pq

    folder = root / "tables"
    folder.mkdir()
    files = total = 0
    for file, share in enumerate(PARQUET_SHARES):
        make: Callable[[Columns, int, int], Any] = _embeddings if file % 3 == 2 else _events
        compression = "snappy" if file % 2 else "zstd"
        columns = Columns(pool, SEED + 200 + file)
        path = folder / f"{make.__name__[1:]}-{file:02d}.{compression}.parquet"
        rows = max(500, min(25_000, int(share * size) // 1600))  # a row is about 300 bytes
        row = 0
        with path.open("wb") as out:
            writer = None
            while out.tell() < share * size:
                table = make(columns, row, rows)
                if writer is None:
                    writer = pq.ParquetWriter(out, table.schema, compression=compression)
                writer.write_table(table)
                row += rows
            if writer is not None:
                writer.close()
        _stamp(path, file)
        files += 1
        total += path.stat().st_size
    return Part("parquet", files, total)


def _half_floats(rng: random.Random, deviation: float, count: int) -> Iterator[bytes]:
    """``count`` little-endian float16 values of one normal distribution, in blocks."""
    import pyarrow as pa

    table = struct.pack("<65536e", *(value * deviation for value in normal_table()))
    values = pa.Array.from_buffers(pa.uint16(), 65536, [None, pa.py_buffer(table)])
    while count:
        step = min(count, BLOCK)
        draw = pa.py_buffer(rng.randbytes(2 * step))
        taken = values.take(pa.Array.from_buffers(pa.uint16(), step, [None, draw]))
        yield taken.buffers()[1].to_pybytes()[: 2 * step]
        count -= step


def _make_tensors(root: Path, size: int) -> Part:
    """Weights: safetensors-like files (length, JSON header, tensors) and bare .bin files."""
    folder = root / "model"
    folder.mkdir()
    total = 0
    for file, share in enumerate(TENSOR_SHARES):
        rng = random.Random(SEED + 300 + file)
        named = file % 2 == 0
        path = folder / (f"model-{file:02d}.safetensors" if named else f"embeddings-{file:02d}.bin")
        width = 1024 if size > 20_000_000 else 64
        layers = 12 if named else 1
        rows = max(1, int(share * size) // (2 * width * layers))
        length = 2 * rows * width
        with path.open("wb") as out:
            if named:
                header = json.dumps(
                    {
                        f"model.layers.{layer}.mlp.weight": {
                            "dtype": "F16",
                            "shape": [rows, width],
                            "data_offsets": [layer * length, (layer + 1) * length],
                        }
                        for layer in range(layers)
                    }
                ).encode()
                header += b" " * (-len(header) % 8)
                out.write(struct.pack("<Q", len(header)) + header)
            for layer in range(layers):
                for block in _half_floats(rng, 0.02 * (1 + layer / 8), rows * width):
                    out.write(block)
        _stamp(path, file)
        total += path.stat().st_size
    return Part("tensor", len(TENSOR_SHARES), total)


def make_mixed(root: Path, size: int = DEFAULT_SIZE) -> Corpus:
    """Fill ``root`` with about ``size`` bytes of source, JSONL, Parquet and tensors."""
    paths = source_files()
    pool = sentences(paths)
    parts = (
        _make_sources(root, paths, int(size * MIXED_SHARES["source"])),
        _make_jsonl(root, pool, int(size * MIXED_SHARES["jsonl"])),
        _make_parquet(root, pool, int(size * MIXED_SHARES["parquet"])),
        _make_tensors(root, int(size * MIXED_SHARES["tensor"])),
    )
    return Corpus(root, "mixed", parts)


# --- small and big -----------------------------------------------------------


def make_small(
    root: Path, files: int = DEFAULT_FILES, file_size: int = DEFAULT_FILE_SIZE
) -> Corpus:
    """Fill ``root`` with ``files`` texts of ``file_size`` bytes, no two alike."""
    rng = random.Random(SEED + 400)
    text = Prose(sentences(source_files()), SEED + 401).text(32 * 1024 * 1024 + file_size)
    last = len(text) - file_size
    for number in range(files):
        folder = root / f"{number // FILES_PER_FOLDER:04d}"
        if number % FILES_PER_FOLDER == 0:
            folder.mkdir()
        start = int(rng.random() * last)
        head = f"{number:08d} {rng.getrandbits(64):016x}\n".encode()
        data = (head + text[start : start + file_size])[:file_size]
        handle = os.open(folder / f"{number:08d}.txt", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            os.write(handle, data)
        finally:
            os.close(handle)
    return Corpus(root, "small", (Part("small", files, files * file_size),))


def make_big(root: Path, size: int = DEFAULT_SIZE) -> Corpus:
    """Write ``root/big.bin`` of ``size`` bytes, block by block."""
    rng = random.Random(SEED + 500)
    text = Prose(sentences(source_files()), SEED + 501).text(48 * BLOCK)
    last = len(text) - BLOCK
    left, number = size, 0
    with (root / "big.bin").open("wb") as out:
        while left:
            if rng.random() < RANDOM_BLOCKS:
                block = rng.randbytes(BLOCK)
            else:
                start = int(rng.random() * last)
                head = f"block {number} {rng.getrandbits(64):016x}\n".encode()
                block = head + text[start : start + BLOCK - len(head)]
            left -= out.write(block[:left])
            number += 1
    return Corpus(root, "big", (Part("big", 1, size),))


# --- making each once --------------------------------------------------------


def ensure(
    root: Path,
    kind: Kind = "mixed",
    *,
    size: int = DEFAULT_SIZE,
    files: int = DEFAULT_FILES,
    file_size: int = DEFAULT_FILE_SIZE,
) -> Corpus:
    """The corpus at ``root``: the one already there if it was made so, else a new one.

    Raises FileExistsError when ``root`` holds something this module did not make.
    """
    note = root.with_name(root.name + ".corpus.json")
    recipe: dict[str, object] = {"kind": kind, "version": VERSION, "seed": SEED}
    recipe |= {"files": files, "file_size": file_size} if kind == "small" else {"size": size}
    if note.exists():
        known = json.loads(note.read_text())
        if known["recipe"] == recipe and known["parts"] and root.is_dir():
            return Corpus(root, kind, tuple(Part(**part) for part in known["parts"]))
        shutil.rmtree(root, ignore_errors=True)
    if root.exists() and any(root.iterdir()):
        raise FileExistsError(f"{root} is not empty and was not made by corpus.py")
    root.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps({"recipe": recipe, "parts": []}))  # half made, until the end
    if kind == "small":
        made = make_small(root, files, file_size)
    elif kind == "big":
        made = make_big(root, size)
    else:
        made = make_mixed(root, size)
    parts = [asdict(part) for part in made.parts]
    note.write_text(json.dumps({"recipe": recipe, "parts": parts}, indent=2) + "\n")
    return made


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make a corpus for the benchmarks.")
    parser.add_argument("dir", type=Path, metavar="DIR")
    parser.add_argument("--kind", choices=("mixed", "small", "big"), default="mixed")
    parser.add_argument("--size", type=parse_size, default=DEFAULT_SIZE, help="mixed, big: bytes")
    parser.add_argument("--files", type=int, default=DEFAULT_FILES, help="small: how many")
    parser.add_argument("--file-size", type=parse_size, default=DEFAULT_FILE_SIZE, help="small")
    args = parser.parse_args(argv)
    try:
        made = ensure(
            args.dir, args.kind, size=args.size, files=args.files, file_size=args.file_size
        )
    except FileExistsError as error:
        print(f"corpus: {error}", file=sys.stderr)
        return 1
    for part in made.parts:
        print(f"{part.name:8} {part.files:8,} files {part.size / 1e6:10,.1f} MB")
    print(f"{'all':8} {made.files:8,} files {made.size / 1e6:10,.1f} MB  {made.root}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
