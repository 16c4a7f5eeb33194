"""Archives that no pqvault writes: made by a forger who knows a public key and nothing else.

All of it goes through pqvault's own lower layers, past their checks: a :class:`Forger` wraps a
root key of its own to the victim, so everything it writes is authentic ("sealed") and hostile.
"""

from __future__ import annotations

import io
import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

import pqvault
from pqvault.crypto import digest as digests
from pqvault.crypto.cobblestone import MessageWriter
from pqvault.errors import PQVaultError
from pqvault.format import zstdseek
from pqvault.format.catalog import PLAIN_SCHEMA as SCHEMA
from pqvault.format.commit import Commit, PartFile
from pqvault.ids import new_id
from pqvault.rootkey import STREAM_ARCHIVE, STREAM_OBJECT, RootKey

ROOT = Path(__file__).resolve().parent.parent
BOMB = bytes.fromhex("28b52ffde06c06060663636363")  # 13 bytes that claim 7e18 (ATTACKS row 30)

# ---- bytes -------------------------------------------------------------------------------


def seal_plain(key: bytes, context: bytes, plain: bytes) -> bytes:
    """Cobblestone-256 of any plaintext."""
    writer = MessageWriter(key, context)
    out = bytearray(MessageWriter.room(len(plain)) + 16440)
    count = writer.update_into(plain, out)
    return bytes(out[:count]) + writer.finalize()


def stored(content: bytes) -> bytes:
    """A stored frame."""
    return b"".join(bytes(piece) for piece in zstdseek.stored_pieces(memoryview(content)))


def packed(content: bytes, level: int = 3, **options: Any) -> bytes:
    """A compressed frame."""
    return zstandard.ZstdCompressor(level=level, **options).compress(content)


def table(sizes: Iterable[tuple[int, int]], *, count: int | None = None) -> bytes:
    """A seek table that says what it is told: (sealed size, content size) for each frame."""
    pairs = list(sizes)
    body = b"".join(struct.pack("<II", *pair) for pair in pairs)
    count = len(pairs) if count is None else count
    head = struct.pack("<II", 0x184D2A5E, len(body) + 9)
    return head + body + struct.pack("<IBI", count, 0, 0x8F92EAB1)


def tiled(frames: Sequence[bytes], contents: Sequence[int]) -> bytes:
    """Frames with the table that tiles them."""
    return b"".join(frames) + table([(len(f), c) for f, c in zip(frames, contents, strict=True)])


def plain_of(content: bytes, *, frame: int = 64 * 1024, store: bool = False) -> bytes:
    """An honest plaintext of an object."""
    pieces = [content[at : at + frame] for at in range(0, len(content), frame)]
    frames = [stored(p) if store else packed(p) for p in pieces]
    return tiled(frames, [len(p) for p in pieces])


def flip(data: bytes, place: int, bits: int) -> bytes:
    """``data`` with some bits of one byte changed."""
    out = bytearray(data)
    out[place] ^= bits
    return bytes(out)


def blake(content: bytes) -> bytes:
    hasher = digests.new("blake3")
    hasher.update(content)
    return hasher.digest()


# ---- catalogs ----------------------------------------------------------------------------


def row(
    path: bytes,
    kind: str = "f",
    size: int = 0,
    *,
    mode: int = 0o644,
    mtime_ns: int = 10**18,
    link: bytes | None = None,
    digest: bytes | None = None,
    extents: Sequence[tuple[int, int, int]] = (),
) -> dict[str, Any]:
    """One row of a catalog; extents as (object, offset, length)."""
    return {
        "path": path,
        "kind": ord(kind),
        "size": size,
        "mode": mode,
        "mtime_ns": mtime_ns,
        "link": link,
        "digest": digest,
        "extents": [{"object": o, "offset": at, "length": n} for o, at, n in extents],
    }


def file_row(path: bytes, content: bytes, number: int = 0, offset: int = 0) -> dict[str, Any]:
    """The row of a file whose content lies in one object."""
    extents = [(number, offset, len(content))] if content else []
    return row(path, "f", len(content), digest=blake(content), extents=extents)


def parquet(
    rows: Sequence[dict[str, Any]], schema: pa.Schema = SCHEMA, group: int = 8192, **options: Any
) -> bytes:
    """Rows as Parquet, whatever they say."""
    out = io.BytesIO()
    # As pqvault writes them: no dictionary for paths, links and digests.
    plain = {"compression": "zstd", "store_schema": False, "use_dictionary": ["kind", "mode"]}
    options = {**plain, **options}
    with pq.ParquetWriter(out, schema, **options) as writer:
        writer.write_table(pa.Table.from_pylist(list(rows), schema), row_group_size=group)
    return out.getvalue()


# Parquet's footer is Thrift in its compact form. A value is a list of (field, type, value) for a
# struct, (type, list) for a list; enough to change what the metadata says and write it back.

Struct = list[tuple[int, int, Any]]


class _Thrift:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def varint(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def value(self, kind: int) -> Any:
        if kind in (1, 2):  # a boolean field: its type is its value
            return None
        if kind == 3:
            return self.byte()
        if kind in (4, 5, 6):
            number = self.varint()
            return number >> 1 ^ -(number & 1)
        if kind == 8:
            size = self.varint()
            self.at += size
            return self.data[self.at - size : self.at]
        if kind == 9:
            head = self.byte()
            count = head >> 4 if head >> 4 < 15 else self.varint()
            return (head & 15, [self.value(head & 15) for _ in range(count)])
        assert kind == 12, kind
        return self.struct()

    def struct(self) -> Struct:
        fields: Struct = []
        number = 0
        while head := self.byte():
            if head >> 4:
                number += head >> 4
            else:
                coded = self.varint()
                number = coded >> 1 ^ -(coded & 1)
            fields.append((number, head & 15, self.value(head & 15)))
        return fields


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _thrift(kind: int, value: Any) -> bytes:
    if kind in (1, 2):
        return b""
    if kind == 3:
        return bytes([value])
    if kind in (4, 5, 6):
        return _varint((value << 1 ^ value >> 63) & (2**64 - 1))
    if kind == 8:
        return _varint(len(value)) + value
    if kind == 9:
        inner, items = value
        count = len(items)
        head = bytes([count << 4 | inner]) if count < 15 else bytes([0xF0 | inner]) + _varint(count)
        return head + b"".join(_thrift(inner, item) for item in items)
    out = b""
    last = 0
    for number, inner, item in value:
        assert 0 < number - last < 16
        out += bytes([number - last << 4 | inner]) + _thrift(inner, item)
        last = number
    return out + b"\0"


def lie(data: bytes, column: int, claims: Mapping[int, int | None]) -> bytes:
    """Parquet whose footer says something else of a column in every row group.

    ``claims``: field of ColumnMetaData -> value, None to leave it out. 5 number of values, 6 and
    7 bytes unpacked and packed, 9 where the first data page is, 11 where the dictionary is.
    """
    size = int.from_bytes(data[-8:-4], "little")
    footer = _Thrift(data[-8 - size : -8]).struct()
    for group in next(value for number, _, value in footer if number == 4)[1]:
        chunk = group[0][2][1][column]
        index = next(i for i, field in enumerate(chunk) if field[0] == 3)
        meta = {number: (kind, value) for number, kind, value in chunk[index][2]}
        for number, claim in claims.items():
            if claim is None:
                meta.pop(number, None)
            else:
                meta[number] = (6 if number > 1 else 5, claim)
        chunk[index] = (3, 12, [(number, *meta[number]) for number in sorted(meta)])
    text = _thrift(12, footer)
    return data[: -8 - size] + text + len(text).to_bytes(4, "little") + b"PAR1"


def level_histogram(data: bytes) -> bytes:
    """Parquet whose first column has a histogram of three repetition levels instead of one."""
    size = int.from_bytes(data[-8:-4], "little")
    footer = _Thrift(data[-8 - size : -8]).struct()
    for group in next(value for number, _, value in footer if number == 4)[1]:
        chunk = group[0][2][1][0]
        index = next(i for i, field in enumerate(chunk) if field[0] == 3)
        meta = [field for field in chunk[index][2] if field[0] < 16]
        chunk[index] = (3, 12, [*meta, (16, 12, [(2, 9, (6, [1, 2, 3]))])])
    text = _thrift(12, footer)
    return data[: -8 - size] + text + len(text).to_bytes(4, "little") + b"PAR1"


# ---- parts -------------------------------------------------------------------------------


class Forger:
    """Adds parts to an archive, with the public key alone.

    ``objects``: number -> plaintext (frames and table, see :func:`plain_of`). ``catalog``: the
    Parquet bytes, or rows; ``catalog_plain``: the whole plaintext of the catalog object.
    """

    def __init__(self, archive: Path, recipient: pqvault.Recipient) -> None:
        self.archive = archive
        self.recipient = recipient
        header = archive / "pqvault.json"
        if not header.exists():
            for name in ("commits", "envelopes", "parts"):
                (archive / name).mkdir(parents=True)
            text = f'{{"format":"pqvault.dev/archive@v1","archive":"{new_id()}"}}\n'
            header.write_text(text)
        self.id = header.read_text().split('"')[7]

    def part(
        self,
        catalog: bytes | Sequence[dict[str, Any]] = (),
        objects: Mapping[int, bytes] | None = None,
        *,
        catalog_plain: bytes | None = None,
        kind: str = "seal",
        seq: int = 1,
        parents: Sequence[tuple[str, str]] = (),
        listed: Sequence[int] = (),
    ) -> str:
        """Seal and commit; returns the part id. ``listed``: objects in the commit alone."""
        key = RootKey.generate(self.id, new_id())
        folder = self.archive / "parts" / key.part
        (folder / "objects").mkdir(parents=True)
        if not isinstance(catalog, bytes):
            catalog = parquet(catalog)
        plains = {"catalog": catalog_plain or plain_of(catalog, frame=1 << 18, store=True)}
        for number, plain in (objects or {}).items():
            plains[f"objects/{number:06d}-{os.urandom(4).hex()}"] = plain
        files = []
        for name, plain in plains.items():
            data = seal_plain(*key.object(name), plain)
            (folder / name).write_bytes(data)
            files.append(PartFile(name, len(data), blake(data).hex()))
        files += [PartFile(f"objects/{n:06d}-00000000", 100, bytes(32).hex()) for n in listed]
        commit = Commit(
            self.id, key.part, seq, int(time.time() * 1000), key.profile.name, "blake3", kind,
            tuple(parents), (), key.commit_id, (self.recipient.key_id,),
            tuple(sorted(files, key=lambda f: f.name)),
        )  # fmt: skip
        envelope = key.envelope([self.recipient], created=1)
        (self.archive / "envelopes" / key.part).write_bytes(envelope.marshal())
        (self.archive / "commits" / key.part).write_bytes(key.sign_off(commit).marshal())
        return key.part


def stream(recipient: pqvault.Recipient, plain: bytes) -> bytes:
    """A sealed stream of any plaintext."""
    key = RootKey.generate(STREAM_ARCHIVE, new_id())
    envelope = key.envelope([recipient], created=1).marshal()
    return envelope + seal_plain(*key.object(STREAM_OBJECT), plain)


# ---- looking at what a reader makes of it ------------------------------------------------


def fails(do: Any, *, code: int | None = None, kind: type[PQVaultError] = PQVaultError) -> Any:
    """The error that ``do()`` raises, which must be pqvault's, with a sentence and a code."""
    try:
        result = do()
    except PQVaultError as error:
        check_error(error, code)
        assert isinstance(error, kind), repr(error)
        return error
    raise AssertionError(f"nothing was refused: {result!r}")


def check_error(error: BaseException, code: int | None = None) -> None:
    """One sentence, an exit code, no traceback type."""
    assert isinstance(error, PQVaultError), repr(error)
    assert error.message and "\n" not in error.message and "Traceback" not in error.message
    assert error.exit_code == code or code is None, f"exit {error.exit_code}: {error.message}"


def tree(folder: Path) -> dict[bytes, bytes | str]:
    """What lies below a folder: content of files, targets of links, ``folder`` for folders."""
    found: dict[bytes, bytes | str] = {}
    base = os.fsencode(folder)
    for top, folders, files in os.walk(base):
        for name in folders + files:
            path = os.path.join(top, name)
            key = os.path.relpath(path, base)
            if os.path.islink(path):
                found[key] = "-> " + os.fsdecode(os.readlink(path))
            elif os.path.isdir(path):
                found[key] = "folder"
            else:
                with open(path, "rb") as file:
                    found[key] = file.read()
    return found


def contents(archive: pqvault.Archive) -> dict[bytes, bytes | str]:
    """What an opened archive holds, in the terms of :func:`tree`."""
    found: dict[bytes, bytes | str] = {}
    for entry in archive.entries():
        if entry.kind.letter == "d":
            found[entry.path] = "folder"
        elif entry.kind.letter == "l":
            found[entry.path] = "-> " + os.fsdecode(entry.link or b"")
        else:
            with archive.open_file(entry.path) as file:
                found[entry.path] = file.read()
    return found


def contents_of_readable(archive: pqvault.Archive) -> dict[bytes, bytes | str]:
    """:func:`contents` without the files that raise; those errors must be pqvault's."""
    found: dict[bytes, bytes | str] = {}
    for entry in archive.entries():
        if entry.kind.letter == "d":
            found[entry.path] = "folder"
        elif entry.kind.letter == "l":
            found[entry.path] = "-> " + os.fsdecode(entry.link or b"")
        else:
            try:
                with archive.open_file(entry.path) as file:
                    found[entry.path] = file.read()
            except PQVaultError as error:
                check_error(error)
    return found


def peak() -> int:
    """The most memory this process ever held, in MiB.

    Not ``ru_maxrss``: Linux counts there what the parent held when it started this process.
    """
    with open("/proc/self/status") as file:
        (line,) = (line for line in file if line.startswith("VmHWM:"))
    return int(line.split()[1]) // 1024


# ---- children ----------------------------------------------------------------------------


def child_code(text: str) -> list[str]:
    """A command that runs ``text`` with this checkout's pqvault."""
    head = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
    return [sys.executable, "-c", head + textwrap.dedent(text)]


def child_env(home: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "PQVAULT_HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1", **more}


def run_child(
    text: str, *args: object, home: Path, timeout: float = 120, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run ``text`` in a process of its own; its arguments are in ``sys.argv``."""
    return subprocess.run(
        [*child_code(text), *map(str, args)],
        env=child_env(home),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        **options,
    )


def start_child(text: str, *args: object, home: Path, **options: Any) -> subprocess.Popen[str]:
    """The same, not waited for; in a session of its own."""
    return subprocess.Popen(
        [*child_code(text), *map(str, args)],
        env=child_env(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def kill(process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
    """Signal one child that we started."""
    if process.poll() is None:
        os.kill(process.pid, number)


def every(count: int, step: int) -> Iterator[int]:
    """0, step, 2 step, …"""
    return iter(range(0, count, step))
