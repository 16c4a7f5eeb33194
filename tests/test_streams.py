"""Sealed streams, and the writer and reader of one object: whole, or an error."""

from __future__ import annotations

import gc
import gzip
import io
import os
import random
import threading
import zipfile
from bisect import bisect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from conftest import handles, noise
from hypothesis import given, settings
from hypothesis import strategies as st

import pqvault
from pqvault.errors import (
    FormatError,
    IntegrityError,
    NoKeyFits,
    NotFound,
    PQVaultError,
    UsageError,
)
from pqvault.sealed import FrameCache, InOrderReader, SealedReader, SealedWriter

FRAME = 65536
KEY, CONTEXT = bytes(range(32)), b"a test"
SIZES = sorted({0, 1, *(b + d for b in (16384, FRAME, 131072, 3 * FRAME) for d in (-1, 0, 1))})


class Pipe:
    """What can only be read in order, in pieces of no particular size."""

    def __init__(self, data: bytes, most: int = 70_001) -> None:
        self._file = io.BytesIO(data)
        self._most = most

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, self._most))


class Blob:
    """Sealed bytes in memory, read anywhere."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def pread_into(self, buffer: memoryview, offset: int) -> None:
        buffer[:] = self.data[offset : offset + len(buffer)]


def seal(content: bytes, key: pqvault.Identity, **options: Any) -> bytes:
    out = io.BytesIO()
    assert pqvault.encrypt(io.BytesIO(content), out, [key.recipient], **options) == len(
        out.getvalue()
    )
    return out.getvalue()


def unseal_pipe(sealed: bytes, *keys: pqvault.Identity, **options: Any) -> bytes:
    out = io.BytesIO()
    assert pqvault.decrypt(Pipe(sealed), out, keys, **options) == len(out.getvalue())
    return out.getvalue()


def unseal_file(path: Path, sealed: bytes, *keys: pqvault.Identity) -> bytes:
    path.write_bytes(sealed)
    out = io.BytesIO()
    with open(path, "rb") as file:
        pqvault.decrypt(file, out, keys)
    return out.getvalue()


def sealed_object(content: bytes, **options: Any) -> bytes:
    out = io.BytesIO()
    with SealedWriter(out, KEY, CONTEXT, **options) as writer:
        writer.write(content)
    return out.getvalue()


def reader(sealed: bytes, **options: Any) -> SealedReader:
    return SealedReader(Blob(sealed), KEY, CONTEXT, "the blob", **options)


# ---- round trips ---------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 1, 9, 19])
@pytest.mark.parametrize("kind", ["noise", "text"])
def test_round_trip(level: int, kind: str, identity: pqvault.Identity, tmp_path: Path) -> None:
    """Every size at a border comes back from a pipe, from a file, at random and through zstd."""
    for size in SIZES:
        content = (
            noise(size) if kind == "noise" else (b"0123456789abcdef" * (size // 16 + 1))[:size]
        )
        sealed = seal(content, identity, level=level, frame_size=FRAME)
        assert unseal_pipe(sealed, identity) == content
        assert unseal_file(tmp_path / "x.pqv", sealed, identity) == content
        raw = unseal_pipe(sealed, identity, raw=True)
        with zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as stream:
            assert stream.read() == content
        with pqvault.open_stream(tmp_path / "x.pqv", [identity]) as file:
            assert file.read() == content and file.size == size


@pytest.mark.parametrize("frame", [64 * 1024, 100_001, 8 * 1024 * 1024])
@pytest.mark.parametrize("jobs", [1, 3])
def test_frame_sizes(frame: int, jobs: int, identity: pqvault.Identity) -> None:
    """The smallest, an odd and the largest frame; frames keep their order over threads."""
    content = b"".join(noise(90_000, n) + bytes(90_000) for n in range(60))
    sealed = seal(content, identity, frame_size=frame, jobs=jobs)
    assert unseal_pipe(sealed, identity) == content


@pytest.mark.parametrize("options", [{"frame_size": 65535}, {"frame_size": 8388609}, {"level": 23}])
def test_impossible_options_write_nothing(
    options: dict[str, int], identity: pqvault.Identity
) -> None:
    """An impossible frame size or level is a usage error before a byte is written."""
    out = io.BytesIO()
    with pytest.raises(UsageError):
        pqvault.encrypt(io.BytesIO(b"x"), out, [identity.recipient], **options)
    assert out.getvalue() == b""


def test_each_stream_is_new(identity: pqvault.Identity) -> None:
    """attack 16: the same content sealed twice shares nothing but the envelope's plain fields."""
    one, two = seal(b"x" * 1000, identity), seal(b"x" * 1000, identity)
    assert len(one) == len(two) and one[-1000:] != two[-1000:]


def test_any_recipient_opens(identity: pqvault.Identity) -> None:
    """Each of several recipients opens the stream, whatever other keys are at hand."""
    keys = [pqvault.Identity.generate() for _ in range(3)]
    out = io.BytesIO()
    pqvault.encrypt(io.BytesIO(b"hello"), out, [k.recipient for k in keys])
    for key in keys:
        assert unseal_pipe(out.getvalue(), identity, key) == b"hello"


@settings(max_examples=50, deadline=None)
@given(
    pieces=st.lists(st.tuples(st.integers(0, 40_000), st.booleans()), max_size=12),
    reads=st.lists(st.tuples(st.integers(0, 300_000), st.integers(0, 100_000)), max_size=6),
    level=st.sampled_from([0, 3]),
)
def test_writes_and_reads_of_any_size(
    pieces: list[tuple[int, bool]], reads: list[tuple[int, int]], level: int
) -> None:
    """However content is cut into writes and reads, it is the same content."""
    contents = [noise(n, n) if hard else bytes(n) for n, hard in pieces]
    out = io.BytesIO()
    with SealedWriter(out, KEY, CONTEXT, level=level, frame_size=FRAME) as writer:
        for content in contents:
            writer.begin_file(len(content))
            assert writer.write(content) == len(content)
    whole = b"".join(contents)
    with reader(out.getvalue(), cache=FrameCache(100_000)) as file:
        assert file.read() == whole
        for offset, length in reads:
            assert file.pread(offset, length) == whole[offset : offset + length]
        file.check_frames()


# ---- not whole, not ours -------------------------------------------------------------------


def test_wrong_key(identity: pqvault.Identity, tmp_path: Path) -> None:
    """A key that is no recipient is `no key fits`, exit 12, from a pipe and from a file."""
    sealed, other = seal(b"hello", identity), pqvault.Identity.generate()
    for action in (
        lambda: unseal_pipe(sealed, other),
        lambda: unseal_pipe(sealed),
        lambda: unseal_file(tmp_path / "x", sealed, other),
        lambda: pqvault.open_stream(tmp_path / "x", [other]),
    ):
        with pytest.raises(NoKeyFits) as caught:
            action()
        assert caught.value.exit_code == 12 and identity.recipient.key_id in str(caught.value)


def refused(sealed: bytes, content: bytes, key: pqvault.Identity, path: Path) -> None:
    """Both readers must refuse; whatever the one in order gave out before is true."""
    out = io.BytesIO()
    with pytest.raises(IntegrityError):
        pqvault.decrypt(Pipe(sealed), out, [key])
    assert content.startswith(out.getvalue())
    with pytest.raises(IntegrityError):
        unseal_file(path, sealed, key)
    with pytest.raises(IntegrityError):
        unseal_pipe(sealed, key, raw=True)


def test_truncated_at_every_chunk(identity: pqvault.Identity, tmp_path: Path) -> None:
    """attack 10: cut at every border of a sealed chunk, and one byte beside it."""
    content = noise(20 * 16384 + 100)
    sealed = seal(content, identity, frame_size=FRAME)
    start = sealed.index(b"\n", sealed.index(b"\n--- ") + 1) + 1
    for chunk in range(21):
        for delta in (-1, 0, 1):
            cut = sealed[: start + 56 + 16400 * chunk + delta]
            refused(cut, content, identity, tmp_path / "x")


def test_truncated_at_every_byte(identity: pqvault.Identity, tmp_path: Path) -> None:
    """attack 10: a small stream cut at every byte, of the envelope too, never reads as whole."""
    sealed = seal(b"a small content", identity)
    path = tmp_path / "x"
    last = len(sealed) - 200
    for length in [*range(0, last, 7), *range(last, len(sealed))]:
        refused(sealed[:length], b"a small content", identity, path)


def test_every_byte_flipped(identity: pqvault.Identity, tmp_path: Path) -> None:
    """attack 6: no byte of a sealed stream can change without an error (12, 13) and output."""
    sealed = seal(b"a small content", identity)
    start = sealed.index(b"\n", sealed.index(b"\n--- ") + 1) + 1
    for at in [*range(0, start, 11), *range(start, len(sealed))]:
        changed = bytearray(sealed)
        changed[at] ^= 1 << (at % 8)
        out = io.BytesIO()
        with pytest.raises((IntegrityError, NoKeyFits)):
            pqvault.decrypt(Pipe(bytes(changed)), out, [identity])
        assert out.getvalue() == b""


def test_bytes_after_the_end(identity: pqvault.Identity, tmp_path: Path) -> None:
    """A stream with anything behind its end is refused, also another whole stream."""
    sealed = seal(b"hello", identity)
    for tail in (b"\n", b"\0" * 16, sealed):
        refused(sealed + tail, b"hello", identity, tmp_path / "x")


def test_late_damage_gives_only_true_bytes(identity: pqvault.Identity) -> None:
    """attack 11: what was given out before a late failure is authentic, and the failure comes."""
    content = noise(10 * FRAME)
    sealed = bytearray(seal(content, identity, frame_size=FRAME))
    sealed[-20_000] ^= 1
    out = io.BytesIO()
    with pytest.raises(IntegrityError, match="failed authentication"):
        pqvault.decrypt(Pipe(bytes(sealed)), out, [identity])
    assert 0 < len(out.getvalue()) < len(content) and content.startswith(out.getvalue())


def test_chunks_of_two_streams(identity: pqvault.Identity, tmp_path: Path) -> None:
    """attack 12: chunks swapped within a stream or between two are refused."""
    content = noise(5 * 16384)
    one, two = (bytearray(seal(content, identity)) for _ in range(2))
    start = one.index(b"\n", one.index(b"\n--- ") + 1) + 1 + 56
    chunk = [slice(start + 16400 * n, start + 16400 * (n + 1)) for n in range(3)]
    spliced = one[:]
    spliced[chunk[1]] = two[chunk[1]]
    swapped = one[:]
    swapped[chunk[0]], swapped[chunk[1]] = one[chunk[1]], one[chunk[0]]
    body = one[: start - 56] + two[start - 56 :]
    for changed in (spliced, swapped, body):
        refused(bytes(changed), content, identity, tmp_path / "x")


@pytest.mark.parametrize("data", [b"", b"hello\n", b"\x28\xb5\x2f\xfd", b"age-encryption.org/v1\n"])
def test_no_sealed_stream(data: bytes, identity: pqvault.Identity) -> None:
    """What is no sealed stream is said to be none, exit 13, with what makes one."""
    with pytest.raises(IntegrityError) as caught:
        unseal_pipe(data, identity)
    assert caught.value.exit_code == 13 and str(caught.value)


def test_an_archives_envelope_is_no_stream(box: Any) -> None:
    """attack 13: the envelope of an archive's part does not open as a stream."""
    box.tree({"a": b"1"})
    box.seal()
    (envelope,) = (box.archive / "envelopes").iterdir()
    with pytest.raises(IntegrityError, match="copied here"):
        unseal_pipe(envelope.read_bytes(), box.key)


def test_the_hint_of_damage_is_true_of_a_stream(identity: pqvault.Identity) -> None:
    """`pqvault verify` takes archives only, and is not what to do about a stream."""
    sealed = io.BytesIO()
    pqvault.encrypt(io.BytesIO(b"content"), sealed, [identity.recipient])
    with pytest.raises(IntegrityError) as caught:
        pqvault.decrypt(io.BytesIO(sealed.getvalue()[:-1]), io.BytesIO(), [identity])
    assert "copy" in caught.value.hint and "of an archive `pqvault verify`" in caught.value.hint


def test_open_stream_of_nothing(tmp_path: Path, identity: pqvault.Identity) -> None:
    """A file that is not there is exit 10; a FIFO is not opened at random; no handle stays."""
    before = handles()
    with pytest.raises(NotFound) as caught:
        pqvault.open_stream(tmp_path / "no", [identity])
    assert caught.value.exit_code == 10
    (tmp_path / "bad").write_bytes(seal(b"x", identity)[:-1])
    with pytest.raises(IntegrityError):
        pqvault.open_stream(tmp_path / "bad", [identity])
    assert handles() == before


def test_a_read_is_one_request(identity: pqvault.Identity) -> None:
    """Stored content comes in one read of the file a frame, however it lies in the chunks."""
    sink, content = io.BytesIO(), noise(600_000)
    with SealedWriter(sink, KEY, CONTEXT, level=0) as writer:
        writer.write(content)
    asked: list[int] = []

    class Counting(Blob):
        def pread_into(self, buffer: memoryview, offset: int) -> None:
            asked.append(len(buffer))
            super().pread_into(buffer, offset)

    for offset in (0, 5, 16384 - 9, 100_000, 190_000):  # frames end at 262,144
        with SealedReader(Counting(sink.getvalue()), KEY, CONTEXT, "it") as reader:
            asked.clear()
            assert reader.pread(offset, 65536) == content[offset : offset + 65536]
        assert len(asked) == 1 and asked[0] <= offset + 65536 + 2 * 16400 + 3 * 16, asked


# ---- files that are slow, short or strange -------------------------------------------------


class Short:
    """A file that takes or gives only a little at a time, as raw files may."""

    def __init__(self, data: bytes = b"", most: int = 1000) -> None:
        self.file = io.BytesIO(data)
        self._most = most

    def write(self, data: Any, /) -> int:
        return self.file.write(data[: self._most])

    def readinto(self, room: Any, /) -> int:
        return self.file.readinto(room[: self._most])

    def read(self, size: int, /) -> bytes:
        return self.file.read(min(size, self._most))


def test_short_reads_and_writes(identity: pqvault.Identity) -> None:
    """Files that take and give a little at a time lose nothing."""
    content = noise(150_000)
    sealed = Short()
    size = pqvault.encrypt(Short(content), sealed, [identity.recipient], frame_size=FRAME)
    assert size == len(sealed.file.getvalue())
    out = Short()
    assert pqvault.decrypt(Short(sealed.file.getvalue()), out, [identity]) == len(content)
    assert out.file.getvalue() == content


def test_a_source_that_is_not_ready(identity: pqvault.Identity) -> None:
    """A non-blocking source without data at the moment is not at its end."""

    class NotReady(Short):
        def readinto(self, room: Any, /) -> Any:
            return None

    out = io.BytesIO()
    with pytest.raises(BlockingIOError):
        pqvault.encrypt(NotReady(), out, [identity.recipient])


@pytest.mark.parametrize("ready", [0, 100, 2_500, None])
def test_a_stream_that_is_not_ready_is_not_damaged(
    ready: int | None, identity: pqvault.Identity
) -> None:
    """A pipe that does not wait says that nothing is there yet, wherever in the stream it is."""
    sealed = io.BytesIO()
    pqvault.encrypt(io.BytesIO(noise(1000)), sealed, [identity.recipient])
    there = io.BytesIO(sealed.getvalue()[:ready])

    class Slow:
        def read(self, size: int, /) -> bytes | None:
            return there.read(min(size, 700)) or None

    with pytest.raises(BlockingIOError):
        pqvault.decrypt(Slow(), io.BytesIO(), [identity])


@pytest.mark.parametrize(("data", "said"), [(b"", "is empty"), (b"pqvault.de", "ends before")])
def test_a_stream_that_has_not_begun(data: bytes, said: str, identity: pqvault.Identity) -> None:
    """What the end of a failed pipe looks like is told as that."""
    with pytest.raises(FormatError, match=said) as caught:
        pqvault.decrypt(io.BytesIO(data), io.BytesIO(), [identity])
    assert "fail" in caught.value.hint


def test_an_output_that_is_not_ready(identity: pqvault.Identity) -> None:
    """An output that takes nothing is an error, not a loop or a loss."""

    class NotReady:
        def write(self, data: Any, /) -> None:
            return None

    with pytest.raises(BlockingIOError):
        pqvault.encrypt(io.BytesIO(b"x"), NotReady(), [identity.recipient])


def test_real_pipes(identity: pqvault.Identity) -> None:
    """Through pipes of the system, both ways, whose buffers are smaller than the content."""
    content = noise(600_000)

    def through(action: Callable[[Any, Any], object], data: bytes) -> bytes:
        read_in, write_in = os.pipe()
        read_out, write_out = os.pipe()

        def feed() -> None:
            with open(write_in, "wb") as file:
                file.write(data)

        def run() -> None:
            with open(read_in, "rb", buffering=0) as source, open(write_out, "wb") as output:
                action(source, output)

        threads = [threading.Thread(target=feed), threading.Thread(target=run)]
        for thread in threads:
            thread.start()
        with open(read_out, "rb") as file:
            result = file.read()
        for thread in threads:
            thread.join()
        return result

    sealed = through(lambda i, o: pqvault.encrypt(i, o, [identity.recipient]), content)
    assert through(lambda i, o: pqvault.decrypt(i, o, [identity]), sealed) == content


def test_a_source_that_fails(identity: pqvault.Identity) -> None:
    """An error of the source leaves an output that reads as truncated."""

    class Broken(Short):
        def readinto(self, room: Any, /) -> int:
            if self.file.tell() > 100_000:
                raise OSError("broken")
            return super().readinto(room)

    out = io.BytesIO()
    with pytest.raises(OSError, match="broken"):
        pqvault.encrypt(Broken(noise(200_000), 30_000), out, [identity.recipient], frame_size=FRAME)
    with pytest.raises(IntegrityError):
        unseal_pipe(out.getvalue(), identity)


def test_from_the_middle_of_a_file(tmp_path: Path, identity: pqvault.Identity) -> None:
    """A stream is read from where the file stands, buffered or not."""
    content = noise(100_000)
    (tmp_path / "x").write_bytes(b"head" * 3 + seal(content, identity))
    for buffering in (0, -1):
        out = io.BytesIO()
        with open(tmp_path / "x", "rb", buffering=buffering) as file:
            file.read(12)
            pqvault.decrypt(file, out, [identity])
        assert out.getvalue() == content


def test_a_stream_in_gzip(tmp_path: Path, identity: pqvault.Identity) -> None:
    """A source that has a file number but other bytes is read by its read(), not by the number."""
    content = noise(100_000)
    with gzip.open(tmp_path / "x.gz", "wb") as file:
        file.write(seal(content, identity))
    out = io.BytesIO()
    with gzip.open(tmp_path / "x.gz", "rb") as source:
        pqvault.decrypt(source, out, [identity])  # type: ignore[arg-type]
    assert out.getvalue() == content


# ---- the writer ----------------------------------------------------------------------------


def check_truncated(sealed: bytes) -> None:
    with pytest.raises(IntegrityError):
        reader(sealed)


@pytest.mark.parametrize("threads", [1, 3])
def test_exception_in_the_block(threads: int) -> None:
    """The last chunk is written by success only: an exception leaves what reads as truncated."""
    out = io.BytesIO()
    with (
        pytest.raises(ZeroDivisionError),
        SealedWriter(out, KEY, CONTEXT, frame_size=FRAME, threads=threads) as writer,
    ):
        writer.write(noise(200_000))
        raise ZeroDivisionError
    check_truncated(out.getvalue())
    with pytest.raises(PQVaultError, match="aborted"):
        writer.finish()
    check_truncated(out.getvalue())


@pytest.mark.parametrize("wrap", [lambda w: w, io.BufferedWriter], ids=["bare", "BufferedWriter"])
def test_collected(wrap: Callable[[Any], Any]) -> None:
    """A writer that is collected, closed or wrapped leaves what reads as truncated."""
    out = io.BytesIO()
    writer = SealedWriter(out, KEY, CONTEXT, frame_size=FRAME)
    writer.write(noise(100_000))
    try:
        wrapped = wrap(writer)
        del wrapped
    except (AttributeError, TypeError):
        pass  # it is no io class, so that nothing of io finishes it
    writer.close()
    del writer
    gc.collect()
    check_truncated(out.getvalue())


def test_finish_and_after() -> None:
    """finish() once; a second one and every write after it are errors and change nothing."""
    out = io.BytesIO()
    writer = SealedWriter(out, KEY, CONTEXT)
    writer.write(b"hello")
    writer.finish()
    done = out.getvalue()
    for action in (
        writer.finish,
        lambda: writer.write(b"more"),
        lambda: writer.begin_file(5),
        writer.reserve,
    ):
        with pytest.raises(PQVaultError, match="finished"):
            action()
    writer.close()
    assert out.getvalue() == done and reader(done).read() == b"hello"


def test_finished_in_the_block() -> None:
    """finish() within the block is fine, and an exception after it takes nothing back."""
    out = io.BytesIO()
    with pytest.raises(ZeroDivisionError), SealedWriter(out, KEY, CONTEXT) as writer:
        writer.write(b"hello")
        writer.finish()
        raise ZeroDivisionError
    assert reader(out.getvalue()).read() == b"hello"


@pytest.mark.parametrize("threads", [1, 2])
def test_a_sink_that_fails_once(threads: int) -> None:
    """An error that somebody caught is not the end of it: without what was lost no reader opens the
    rest, so nothing more is taken and no end is written, neither by `finish` nor by a block."""

    class Once(io.BytesIO):
        calls = 0

        def write(self, data: Any, /) -> int:
            self.calls += 1
            if self.calls == 2:
                raise OSError("full")
            return super().write(data)

    out = Once()
    with pytest.raises(PQVaultError, match="broken"):  # noqa: SIM117
        with SealedWriter(out, KEY, CONTEXT, level=0, frame_size=FRAME, threads=threads) as writer:
            with pytest.raises(OSError, match="full"):
                for _ in range(9):
                    writer.write(noise(FRAME))
            with pytest.raises(PQVaultError, match="broken"):
                writer.write(b"more")
            with pytest.raises(PQVaultError, match="broken"):
                writer.finish()
    check_truncated(out.getvalue())


def test_a_sink_that_fails_at_the_end() -> None:
    """A sink that fails while finishing gives its error, and nothing can be finished again."""

    class Full(io.BytesIO):
        def write(self, data: Any, /) -> int:
            if len(data) < 1000:
                raise OSError("full")
            return super().write(data)

    out = Full()
    writer = SealedWriter(out, KEY, CONTEXT, frame_size=FRAME)
    writer.write(noise(100_000))
    with pytest.raises(OSError, match="full"):
        writer.finish()
    with pytest.raises(PQVaultError):
        writer.finish()


def test_fork() -> None:
    """attack 16: a child of fork may not go on writing: the same nonces would be used twice."""
    out = io.BytesIO()
    writer = SealedWriter(out, KEY, CONTEXT, frame_size=FRAME)
    writer.write(b"hello")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            writer.write(b"child")
        except PQVaultError:
            try:
                writer.finish()
            except PQVaultError:
                code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    writer.finish()
    assert reader(out.getvalue()).read() == b"hello"


def test_zipfile_writes_into_it() -> None:
    """STYLE rule 6: a zip file is written straight into a sealed object."""
    out = io.BytesIO()
    with SealedWriter(out, KEY, CONTEXT) as writer, zipfile.ZipFile(writer, "w") as archive:  # type: ignore[call-overload]
        archive.writestr("a.txt", b"hello" * 1000)
        archive.writestr("b.bin", noise(50_000))
    with zipfile.ZipFile(reader(out.getvalue())) as archive:
        assert archive.testzip() is None and archive.read("b.bin") == noise(50_000)


def test_pyarrow_writes_into_it() -> None:
    """A Parquet file is written straight into a sealed object."""
    table = pa.table({"n": list(range(1000))})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    sealed = sealed_object(sink.getvalue())
    assert pq.read_table(pa.PythonFile(reader(sealed), mode="r")).equals(table)


def test_no_salt_twice() -> None:
    """attack 16: objects under one key have salts of their own."""
    assert len({sealed_object(b"")[:24] for _ in range(500)}) == 500


# ---- the reader as a file ------------------------------------------------------------------


def test_the_reader_is_a_file() -> None:
    """Positions, ends, odd buffers and closing behave as those of any binary file."""
    content = b"line one\nline two\nlast"
    file = reader(sealed_object(content))
    assert file.readable() and file.seekable() and not file.writable()
    assert file.readline() == b"line one\n" and file.tell() == 9
    assert file.read(4) == b"line" and file.seek(-4, os.SEEK_END) == 18 and file.read() == b"last"
    assert file.read() == b"" and file.read(5) == b"" and file.readinto(bytearray(3)) == 0
    assert file.seek(100) == 100 and file.read(1) == b"" and file.pread(100, 5) == b""
    assert file.seek(5) == 5 and file.seek(-2, os.SEEK_CUR) == 3
    assert list(reader(sealed_object(content))) == content.splitlines(keepends=True)
    for action in (
        lambda: file.seek(-1),
        lambda: file.seek(0, 7),
        lambda: file.pread(-1, 1),
        lambda: file.pread(0, -1),
    ):
        with pytest.raises(ValueError):
            action()
    with pytest.raises((io.UnsupportedOperation, NotImplementedError)):
        file.write(b"x")
    with pytest.raises(TypeError):
        file.seek(1.5)  # type: ignore[arg-type]
    file.close()
    file.close()
    for action in (file.read, lambda: file.pread(0, 1), lambda: file.seek(0), lambda: file.read(0)):
        with pytest.raises(ValueError):
            action()


@settings(max_examples=200)
@given(
    lines=st.lists(st.binary(max_size=30) | st.just(b"x" * 100_000), max_size=8),
    moves=st.lists(st.tuples(st.integers(0, 300_000), st.integers(-1, 120_000) | st.none())),
)
def test_lines_are_those_of_any_file(
    lines: list[bytes], moves: list[tuple[int, int | None]]
) -> None:
    """Wherever one begins and however much of a line is wanted, over the borders of blocks."""
    content = b"\n".join(lines)
    file, plain = reader(sealed_object(content)), io.BytesIO(content)
    assert list(file) == plain.readlines() and file.readline() == b""
    for place, size in moves:
        assert file.seek(place) == plain.seek(place)
        assert file.readline(size) == plain.readline(size) and file.tell() == plain.tell()
        assert file.read(3) == plain.read(3)


def test_lines_are_read_in_blocks() -> None:
    """A reader of JSON lines waits for no read of each byte."""
    file = reader(sealed_object(b"a line of a text\n" * 20_000))
    reads: list[int] = []
    whole = file.pread
    file.pread = lambda at, length: reads.append(at) or whole(at, length)  # type: ignore[method-assign,func-returns-value]
    assert sum(1 for _ in file) == 20_000 and len(reads) < 10


@pytest.mark.parametrize("level", [0, 3])
def test_the_reader_under_other_files(level: int) -> None:
    """BufferedReader, TextIOWrapper, zipfile and Parquet work over it."""
    lines = [f"line {n} é\n" for n in range(20_000)]
    sealed = sealed_object("".join(lines).encode(), level=level, frame_size=FRAME)
    with io.TextIOWrapper(io.BufferedReader(reader(sealed)), encoding="utf-8") as text:
        assert text.readlines() == lines
    table = pa.table({"n": list(range(50_000)), "s": [f"{n}" for n in range(50_000)]})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=5000)
    with reader(sealed_object(sink.getvalue(), level=level, frame_size=FRAME)) as file:
        parquet = pq.ParquetFile(file)
        assert parquet.read_row_group(7).equals(table.slice(35_000, 5000))
        assert parquet.read().equals(table)
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("a", noise(200_000))
    with zipfile.ZipFile(reader(sealed_object(sink.getvalue(), level=level))) as archive:
        assert archive.read("a") == noise(200_000)


@pytest.mark.parametrize("level", [0, 3])
@pytest.mark.parametrize("cache", [0, 200_000, None])
def test_pread_of_many_threads(level: int, cache: int | None) -> None:
    """Eight threads read one reader at random places, and each gets its own bytes."""
    content = b"".join(noise(40_000, n) + b"text" * 10_000 for n in range(20))
    options = {} if cache is None else {"cache": FrameCache(cache)}
    file = reader(sealed_object(content, level=level, frame_size=FRAME), **options)
    wrong: list[object] = []

    def work(seed: int) -> None:
        import random

        draw = random.Random(seed)
        try:
            for _ in range(60):
                offset, length = draw.randrange(len(content)), draw.randrange(150_000)
                if file.pread(offset, length) != content[offset : offset + length]:
                    wrong.append((offset, length))
        except BaseException as error:  # noqa: BLE001
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    file.close()


def test_large_reads_fan_out() -> None:
    """A read of many frames at once, over threads, is in order; damage in it is an error."""
    content = noise(20 * 1024 * 1024)
    sealed = bytearray(sealed_object(content, level=0, frame_size=1024 * 1024))
    assert reader(bytes(sealed)).read() == content
    sealed[10_000_000] ^= 1
    file = reader(bytes(sealed))
    room = bytearray(len(content))
    with pytest.raises(IntegrityError, match="chunk"):
        file.readinto(room)
    assert file.tell() == 0


def test_stored_content_across_frames() -> None:
    """At first the blocks' headers are read too, then both frames at once: the same bytes."""
    content = noise(3 * 1024 * 1024 + 12_345)
    file = reader(sealed_object(content))
    draw = random.Random(7)
    ranges = [(draw.randrange(len(content)), draw.randrange(1, 300_000)) for _ in range(300)]
    crossed = 0
    for offset, length in ranges * 2:
        length = min(length, len(content) - offset)
        data = file.stored(offset, length)
        first, last = file.table.frame_at(offset), file.table.frame_at(offset + length - 1)
        assert data == (content[offset : offset + length] if last - first < 2 else None)
        crossed += last > first
    assert crossed > 100
    assert reader(sealed_object(bytes(100_000))).stored(0, 10) is None  # that is compressed


@pytest.mark.parametrize("step", [1, FRAME // 2, FRAME, 2 * FRAME + 5, 10 * FRAME])
def test_steps_end_where_frames_do(step: int) -> None:
    """So none is decoded twice, or kept for the next step."""
    content = b"words and words, " * 20_000 + noise(100_000)
    cache = FrameCache()
    file = reader(sealed_object(content, frame_size=FRAME), cache=cache)
    ends = list(file.table.content[1:])
    at, stops = 0, []
    while at < len(content):
        stop = file.stop(at, step)
        assert file.pread(at, stop - at) == content[at:stop]
        stops.append(stop)
        assert stop in ends and (stop <= at + step or ends.index(stop) == bisect(ends, at))
        at = stop
    assert stops[-1] == len(content) and cache.decoded <= len(content)
    assert cache.get(file._number, 0) is None
    assert step < 2 * FRAME or len(stops) < len(ends)
    # From the middle of a frame: to its end, or to that of one of the next.
    assert file.stop(FRAME // 2, 1) == ends[0]


@pytest.mark.parametrize("level", [0, 3])
def test_an_object_inside_an_object(level: int) -> None:
    """Readers that read through each other in one thread do not share memory."""
    words = b"".join(b"%d " % (number * number) for number in range(600_000))
    content = words if level else noise(4 * 1024 * 1024)
    inner = sealed_object(content, level=level)
    outer = sealed_object(inner, level=level)
    top = reader(outer)
    with SealedReader(top, KEY, CONTEXT, "inner") as nested:
        for offset, length in ((0, len(content)), (70_001, len(content) - 140_002), (5, 200_000)):
            assert nested.pread(offset, length) == content[offset : offset + length]
            assert top.pread(0, len(inner)) == inner


def test_a_frame_whose_content_is_damaged() -> None:
    """Found by zstd alone, for who seals can put anything into a frame: read whole or in part."""
    content = b"".join(b"%d " % number for number in range(20_000))
    frame = bytearray(zstandard.ZstdCompressor(write_content_size=True).compress(content))
    frame[-8:] = bytes(8)  # where the bits of its last sequences begin
    out = io.BytesIO()
    with SealedWriter(out, KEY, CONTEXT) as writer:
        writer.put_frame(frame, len(content))
    for offset, length in ((0, len(content)), (1, 10)):
        with pytest.raises(FormatError, match="does not decompress"):
            reader(out.getvalue()).pread(offset, length)


def test_wrong_key_or_name_of_an_object() -> None:
    """attack 1: another key or another name fails at the commitment, before any chunk."""
    sealed = sealed_object(b"hello")
    for key, context in ((bytes(32), CONTEXT), (KEY, b"another")):
        with pytest.raises(IntegrityError, match="this key and this name"):
            SealedReader(Blob(sealed), key, context, "it")


@pytest.mark.parametrize("lie", ["swapped sizes", "one frame less", "one byte more"])
def test_a_seek_table_that_lies(lie: str) -> None:
    """attack 44: a table that is not that of the frames is refused, in order and at random."""
    out = io.BytesIO()
    with SealedWriter(out, KEY, CONTEXT, frame_size=FRAME) as writer:
        for n in (10, 20, 30):
            writer.write(noise(FRAME, n) if n == 20 else bytes([n]) * FRAME)
        writer.write(b"end")
        writer.reserve()
        sizes = writer._content_sizes
        if lie == "swapped sizes":
            writer.begin_file(FRAME)  # the short frame is closed only by what follows
            sizes[0], sizes[1] = sizes[1] - 1, sizes[0] + 1
        elif lie == "one frame less":
            writer._sealed_sizes[0] += writer._sealed_sizes.pop(1)
            sizes[0] += sizes.pop(1)
        else:
            sizes[2] += 1
    with pytest.raises(FormatError):
        list(InOrderReader(Pipe(out.getvalue()), KEY, CONTEXT, "it").frames())
    with pytest.raises(FormatError):
        reader(out.getvalue()).read()


def test_stored_reads_touch_little() -> None:
    """A small read of a stored object fetches only chunks around it, not a frame."""
    sealed = sealed_object(noise(8 * 1024 * 1024), level=0)
    fetched = []

    class Counting(Blob):
        def pread_into(self, buffer: memoryview, offset: int) -> None:
            fetched.append(len(buffer))
            super().pread_into(buffer, offset)

    file = SealedReader(Counting(sealed), KEY, CONTEXT, "it")
    fetched.clear()
    assert file.pread(5_000_000, 100) == noise(8 * 1024 * 1024)[5_000_000:5_000_100]
    assert sum(fetched) < 500_000


def test_an_object_within_an_object_reads_as_itself() -> None:
    """A reader that is the source of another one, on the same thread: neither sees the other's
    bytes in memory that each uses again, also for frames of several megabytes."""
    half = b"".join(noise(1000, n) + bytes(1000) for n in range(2000))
    for content in (noise(1_500_000), b"".join(b"%d " % n for n in range(200_000)), half):
        nested = reader(sealed_object(sealed_object(content, frame_size=1 << 22)))
        deep = SealedReader(nested, KEY, CONTEXT, "the inner one")
        for start, size in ((0, len(content)), (1, 300_000), (131_000, 200), (700_001, 400_000)):
            assert deep.pread(start, size) == content[start : start + size]
            assert nested.pread(start, 100) != content[start : start + 100]
        assert deep.stored(5, 300) in (None, content[5:305])
