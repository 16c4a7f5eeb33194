"""The write-ahead file: what a torn, cut, damaged, moved or forged one gives out. format.md 12."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pqvault.archive import layout
from pqvault.archive.columngroups import ColumnGroup
from pqvault.archive.layout import part_file
from pqvault.errors import FormatError, IntegrityError, Locked, PQVaultError
from pqvault.format import wal
from pqvault.format.arrowipc import check_stream
from pqvault.ids import new_id
from pqvault.keys import Identity
from pqvault.logs.part import LogPart
from pqvault.logs.rows import LogRows
from pqvault.logs.wal import End, WalReader, WalWriter
from pqvault.rootkey import RootKey
from pqvault.storage import LocalStorage
from pqvault.storage.appending import AppendFile

ARCHIVE, PART = new_id(), new_id()
KEY = RootKey.generate(ARCHIVE, PART)


class Memory:
    """A file in memory, to append to and to read."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)

    @property
    def size(self) -> int:
        return len(self.data)

    def append(self, buffer: Any) -> None:
        self.data += buffer

    def pread_into(self, buffer: Any, offset: int) -> None:
        found = self.data[offset : offset + len(buffer)]
        assert len(found) == len(buffer), "read beyond the end"
        memoryview(buffer)[:] = found


def rows(count: int, first: int = 0) -> pa.RecordBatch:
    numbers = list(range(first, first + count))
    return pa.record_batch({"n": numbers, "text": [f"row {n}" for n in numbers]})


def written(
    batches: int = 5, *, end: bool = True, key: RootKey = KEY, group: str = ""
) -> tuple[bytes, list[int]]:
    """A file of batches of 3 rows, and where each record begins."""
    file = Memory()
    writer = WalWriter(file, key, group)
    starts = []
    for number in range(batches):
        starts.append(file.size)
        writer.write_batch(rows(3, 3 * number))
    starts.append(file.size)
    if end:
        writer.end(3 * batches, 0)
    return bytes(file.data), starts


def read(data: bytes, *, key: RootKey = KEY, group: str = "") -> tuple[list[int], WalReader]:
    """The numbers that come out, and the reader when it is through."""
    reader = WalReader(Memory(data), key, group, "the log")  # type: ignore[arg-type]
    return [n for _, batch in reader.batches() for n in batch.column("n").to_pylist()], reader


class Counting(Memory):
    """Counts the bytes that are read of it."""

    read = 0

    def pread_into(self, buffer: Any, offset: int) -> None:
        self.read += len(buffer)
        super().pread_into(buffer, offset)


def test_looking_for_a_record_behind_damage_does_not_read_the_file_at_every_byte() -> None:
    """A stranger without a key may write a head every few bytes that claims all that follows."""
    head, size = wal.HEADER_SIZE, 128 * 1024
    data = bytearray(64)
    while len(data) < size:
        data += wal.RecordHeader(max(100, size - len(data) - head), 1).marshal()
    file = Counting(bytes(data))
    assert list(WalReader(file, KEY, "", "the log").batches()) == []  # type: ignore[arg-type]
    assert file.read < size // head * 200


def test_all_of_a_whole_file() -> None:
    numbers, reader = read(written()[0])
    assert numbers == list(range(15))
    assert (reader.end, reader.torn, reader.damaged) == (End(15, 0), 0, [])


def test_every_cut_gives_the_records_before_it_and_counts_the_rest() -> None:
    """attack 13: a torn tail is reported with its bytes; nothing before it is lost or altered."""
    data, starts = written()
    for size in range(len(data)):
        numbers, reader = read(data[:size])
        whole = sum(start <= size for start in starts[1:])
        assert numbers == list(range(3 * whole)), size
        assert reader.end is None and reader.damaged == []
        assert reader.torn == size - starts[whole]


@pytest.mark.parametrize("tail", [b"\0" * 10, b"\0" * 100_000, b"x" * 5000, bytes(range(256))])
def test_a_tail_of_anything_is_torn(tail: bytes) -> None:
    """What a lost power supply leaves: zeros, or what was on the disk before."""
    data, _ = written(end=False)
    numbers, reader = read(data + tail)
    assert (numbers, reader.torn) == (list(range(15)), len(tail))


def test_every_flipped_byte_costs_its_record_and_no_other() -> None:
    """attack 12: damage in one record is named, and does not poison those behind it."""
    data, starts = written(4)
    ends = [*starts[1:], len(data)]
    for place in range(0, len(data), 19):
        record = sum(place >= end for end in ends)
        bad = data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]
        numbers, reader = read(bad)
        lost = {record}
        if ends[record] - place <= wal.LINK_SIZE:
            lost.add(record + 1)  # it is bound to the last bytes of the one before
        assert numbers == [n for n in range(12) if n // 3 not in lost], place
        if not lost & {4}:  # the closing record is the fifth
            assert reader.end == End(12, 0) and reader.torn == 0
            assert sum(d.records for d in reader.damaged) == len(lost)
        else:
            assert reader.end is None


def test_a_record_left_out_repeated_or_moved_is_seen() -> None:
    data, starts = written(4)
    one, two = data[starts[1] : starts[2]], data[starts[2] : starts[3]]
    without = data[: starts[1]] + data[starts[2] :]
    numbers, reader = read(without)
    assert numbers == [0, 1, 2, 9, 10, 11] and reader.damaged  # 2 is bound to 1, which is gone
    twice = data[: starts[2]] + one + data[starts[2] :]
    numbers, reader = read(twice)
    assert set(numbers) <= set(range(12)) and sorted(numbers) == numbers and reader.damaged
    swapped = data[: starts[1]] + two + one + data[starts[3] :]
    numbers, reader = read(swapped)
    assert numbers == [0, 1, 2] + [9, 10, 11] * (9 in numbers) and (reader.damaged or reader.torn)


def test_nothing_opens_under_another_name() -> None:
    """attack 14: part, archive and group are in the key of every record."""
    data, _ = written()
    for other in (
        RootKey(ARCHIVE, new_id(), KEY.secret),
        RootKey(new_id(), PART, KEY.secret),
        RootKey.generate(ARCHIVE, PART),
    ):
        assert read(data, key=other)[0] == []
    assert read(data, group="content")[0] == []
    assert read(written(group="content")[0])[0] == []


def sealed(content: bytes) -> bytes:
    """A file of one record with any content."""
    file = Memory()
    writer = WalWriter(file, KEY)
    writer._append(content[0], memoryview(content[1:]))  # type: ignore[arg-type]
    return bytes(file.data)


def stream(batch: pa.RecordBatch, *, count: int = 1, **options: Any) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for _ in range(count):
            writer.write_batch(batch)
    return sink.getvalue()


def lying_offsets() -> bytes:
    """A batch whose text is said to reach beyond its buffer."""
    body = bytearray(stream(pa.record_batch({"text": ["abc", "defg"]})))
    place = body.rindex((7).to_bytes(4, "little"))
    body[place : place + 4] = (0x7FFFFFF0).to_bytes(4, "little")
    return bytes(body)


def not_utf8() -> bytes:
    bad = pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())
    return stream(pa.RecordBatch.from_arrays([bad], ["text"]))


HOSTILE = {
    "unknown kind": b"Zxxxx",
    "no Arrow": b"B" + bytes(200),
    "nothing": b"B",
    "two batches": b"B" + stream(rows(2), count=2),
    "no batch": b"B" + stream(rows(2), count=0),
    "compressed": b"B" + stream(rows(2000), compression="zstd"),
    "dictionary": b"B" + stream(pa.record_batch({"d": pa.array(["a", "b"]).dictionary_encode()})),
    "offsets that lie": b"B" + lying_offsets(),
    "not UTF-8": b"B" + not_utf8(),
    "more behind it": b"B" + stream(rows(2)) + b"more",
    "an end of 15 bytes": b"E" + bytes(15),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_authentic_and_hostile_is_refused(name: str) -> None:
    """attack 32: who knows a public key can seal anything; Arrow does not see it before we do."""
    with pytest.raises(FormatError, match="record 0 of the log"):
        read(sealed(HOSTILE[name]))


def test_what_follows_the_end_is_refused() -> None:
    data, _ = written()
    with pytest.raises(IntegrityError, match="goes on for 4 bytes after its end"):
        read(data + b"more")


def test_an_end_that_counts_other_rows_is_refused() -> None:
    """Format 12.2: where nothing before it is damaged, it has exactly so many."""
    file = Memory()
    writer = WalWriter(file, KEY)
    writer.write_batch(rows(3))
    writer.end(4, 0)
    with pytest.raises(FormatError, match="has 3 rows, its closing record says 4"):
        read(bytes(file.data))


def test_a_record_behind_damage_is_found_wherever_the_windows_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, starts = written(3)
    data = data[: starts[1] - 40] + bytes([data[starts[1] - 40] ^ 1]) + data[starts[1] - 39 :]
    for window in range(64, 64 + 16):
        monkeypatch.setattr("pqvault.logs.wal._WINDOW", window)
        numbers, reader = read(data)
        assert numbers == list(range(3, 9)) and reader.end == End(9, 0), window


def test_a_record_that_no_reader_would_take_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    file = Memory()
    writer = WalWriter(file, KEY)
    writer.write_batch(rows(3))
    before, place = bytes(file.data), writer.place
    monkeypatch.setattr(wal, "MAX_CONTENT", 100)
    with pytest.raises(PQVaultError, match="too large for a log"):
        writer.write_batch(rows(30))
    assert (bytes(file.data), writer.place) == (before, place)


def test_a_stream_as_arrow_writes_it_is_taken() -> None:
    """With and without its end-of-stream mark: the page allows both."""
    body = stream(rows(3))
    for content in (body, body[:-8]):
        check_stream(memoryview(content), "it")
        assert read(sealed(b"B" + content))[0] == [0, 1, 2]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_mangled_streams_never_do_worse_than_an_error(data: st.DataObject) -> None:
    body = bytearray(stream(rows(3)))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    try:
        numbers, _ = read(sealed(b"B" + bytes(body[:cut])))
    except FormatError:
        return
    assert len(numbers) <= 3


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 0xFFFFFFFF), st.integers(0, 2**64 - 1))
def test_headers_parse_to_what_they_were(length: int, sequence: int) -> None:
    data = length.to_bytes(4, "big") + sequence.to_bytes(8, "big")
    try:
        header = wal.RecordHeader.parse(data, "it")
    except FormatError:
        assert not 73 <= length <= 2**30
    else:
        assert header.marshal() == data


def test_every_message_has_a_salt_of_its_own() -> None:
    """attack 16: also a record that is sealed again after a failed write."""
    file = Memory()
    writer = WalWriter(file, KEY)
    salts = set()
    for _ in range(50):
        place, size = writer.place, file.size
        writer.write_batch(rows(1))
        salts.add(bytes(file.data[size + 12 : size + 36]))
        del file.data[size:]
        writer.place = place
    assert len(salts) == 50


# -- the file itself -----------------------------------------------------------------------


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[LocalStorage]:
    yield LocalStorage(tmp_path)


def test_the_lock_says_that_the_writer_lives(storage: LocalStorage) -> None:
    file = storage.append("wal")
    with pytest.raises(Locked, match="is being written"):
        storage.lock("wal")
    file.close()
    storage.lock("wal").close()


def test_an_append_never_replaces(storage: LocalStorage) -> None:
    storage.append("wal").close()
    with pytest.raises(PQVaultError, match="exists already"):
        storage.append("wal")


def test_a_link_in_its_place_is_not_followed(storage: LocalStorage, tmp_path: Path) -> None:
    """attack 27"""
    (tmp_path / "outside").write_bytes(b"precious")
    (tmp_path / "wal").symlink_to("outside")
    for do in (storage.append, storage.lock, storage.shred):
        with pytest.raises(PQVaultError):
            do("wal")
    assert (tmp_path / "outside").read_bytes() == b"precious"


def test_truncate_takes_back(storage: LocalStorage, tmp_path: Path) -> None:
    file = storage.append("wal")
    file.append(b"one")
    file.sync()
    file.append(b"two")
    assert (file.size, file.synced) == (6, 3)
    file.sync()
    file.truncate(3)
    assert (file.size, file.synced) == (3, 3)  # or what comes next would not be made durable
    file.append(b"2")
    file.close()
    assert (tmp_path / "wal").read_bytes() == b"one2"
    with pytest.raises(PQVaultError, match="is closed"):
        file.append(b"x")


def test_attack_47_an_append_that_fails_leaves_nothing(
    storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of a record in the middle of a file would cost those behind it."""
    file, pwrite = storage.append("wal"), os.pwrite
    file.append(b"one")

    def full(fd: int, data: memoryview, at: int) -> int:
        if at > 3:
            raise OSError(errno.ENOSPC, "full")
        return pwrite(fd, data[:2], at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(PQVaultError, match="no space left"):
            file.append(b"torn record")
    assert file.size == 3 and (tmp_path / "wal").read_bytes() == b"one"
    file.append(b"2")
    file.close()
    assert (tmp_path / "wal").read_bytes() == b"one2"


def test_shred_overwrites_before_it_removes(
    storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_bytes(b"wrapped key")
    (tmp_path / "other name").hardlink_to(tmp_path / "secret")
    storage.shred("secret")
    assert (tmp_path / "other name").read_bytes() == bytes(11)
    assert not (tmp_path / "secret").exists()
    storage.shred("secret")  # gone already


def test_only_the_main_file_says_what_table_it_becomes(tmp_path: Path) -> None:
    """Format 12.1: the path is in the metadata of `wal`, and no part of the rows' schema."""
    storage = LocalStorage(tmp_path / "a.pqv")
    layout.create_archive(storage)
    one = Identity.generate().recipient
    group = ColumnGroup("content", ("text",), (one,))
    part = LogPart(storage, layout.read_header(storage), [one], [group], (), "logs/b")
    part.append(rows(3))
    part.sync()
    for name, key, said in (
        ("", part.keys.root, "logs/b"),
        ("content", part.keys.groups["content"], ""),
    ):
        file = Memory((storage.root / part_file(part.id, wal.wal_name(name))).read_bytes())
        reader = WalReader(file, key, name, "the log")  # type: ignore[arg-type]
        ((_, batch),) = reader.batches()
        assert reader.table == said and batch.schema.metadata is None
    part.close()


@pytest.fixture
def part(tmp_path: Path) -> Iterator[LogPart]:
    """One with a column group, into which nothing is written yet."""
    storage = LocalStorage(tmp_path / "a.pqv")
    layout.create_archive(storage)
    one = Identity.generate().recipient
    group = ColumnGroup("content", ("text",), (one,))
    part = LogPart(storage, layout.read_header(storage), [one], [group], (), "")
    yield part
    part.close()


def files_of(part: LogPart) -> dict[str, bytes]:
    folder = part.storage.root / "parts" / part.id
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_attack_16_a_child_of_fork_writes_nothing_with_its_parents_keys(
    part: LogPart, monkeypatch: pytest.MonkeyPatch
) -> None:
    part.append(rows(3))
    before, parent = files_of(part), os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    for write in (lambda: part.append(rows(3)), part.end):
        with pytest.raises(PQVaultError, match="into another process"):
            write()
    assert files_of(part) == before and not part.ended


def test_rows_are_written_into_all_files_or_none(
    part: LogPart, monkeypatch: pytest.MonkeyPatch
) -> None:
    """attack 47: the group's file took them, the main one did not: then both are as before."""
    part.append(rows(3))
    before, append = files_of(part), AppendFile.append

    def full(file: AppendFile, buffer: Any) -> None:
        if file.where.endswith("/wal"):
            raise PQVaultError("no space left")
        append(file, buffer)

    with monkeypatch.context() as patch:
        patch.setattr(AppendFile, "append", full)
        with pytest.raises(PQVaultError, match="no space left"):
            part.append(rows(3, 3))
    assert files_of(part) == before and part.rows == 3
    part.append(rows(3, 6))
    part.end()
    found = {}
    for name, key in (("", part.keys.root), ("content", part.keys.groups["content"])):
        file = Memory(files_of(part)[wal.wal_name(name)])
        reader = WalReader(file, key, name, "it")  # type: ignore[arg-type]
        found[name] = [len(batch) for _, batch in reader.batches()]
        assert reader.end == End(6, 0) and not reader.damaged
    assert found == {"": [3, 3], "content": [3, 3]}


@pytest.mark.parametrize("table", ["../x", "a//b", "/a", "a/./b", "x" * 300])
def test_a_table_that_no_entry_can_be(table: str) -> None:
    """Whoever knows a public key can write such a file: refused before its rows go anywhere."""
    file = Memory()
    WalWriter(file, KEY, "", table).write_batch(rows(1))
    with pytest.raises(FormatError, match="is of no table"):
        read(bytes(file.data))


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    """Format 12.1: no table could have them, and of a row as JSON one would be lost."""
    file = Memory()
    twice = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["n", "n"])
    WalWriter(file, KEY).write_batch(twice)
    storage = LocalStorage(tmp_path)
    storage.make_folder(f"parts/{PART}")
    storage.put(part_file(PART, wal.WAL), file.data)
    with pytest.raises(FormatError, match="a column twice"):
        list(LogRows(storage, {"": KEY}).batches())
