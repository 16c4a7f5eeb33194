"""Storage at URLs: memory, and S3 as moto serves it over HTTP, with faults in between."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from faultproxy import FaultProxy, none

import pqvault
from pqvault.errors import (
    FormatError,
    IntegrityError,
    NoKeyFits,
    NotFound,
    PQVaultError,
    UsageError,
)
from pqvault.integrations.samples import SampleFiles
from pqvault.sealed import FrameCache
from pqvault.storage import LocalStorage, Storage, storage_at
from pqvault.storage import remote as remote_module
from pqvault.storage.ahead import Ahead, _Shelf
from pqvault.storage.remotefiles import RemoteReader

pytest_plugins = ["store_kit"]  # an S3 on loopback

MIB = 1024 * 1024


@pytest.fixture(params=["memory", "s3"])
def storage(request: pytest.FixtureRequest) -> Storage:
    """An empty place of each kind."""
    if request.param == "memory":
        return storage_at(f"memory://{uuid.uuid4().hex}/a.pqv")
    return storage_at(request.getfixturevalue("bucket") + "/a.pqv")


# --- Places ----------------------------------------------------------------------------


def test_places(tmp_path: Path) -> None:
    """A path and a file:// URL are folders, other URLs are remote."""
    assert storage_at(tmp_path) == storage_at(f"file://{tmp_path}") == LocalStorage(tmp_path)
    assert storage_at("memory://a/b/").where("c") == "memory://a/b/c"


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/a", "s3://key@bucket/a"])
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    """Command lines and logs are read by others (attack 40)."""
    with pytest.raises(UsageError) as caught:
        storage_at(url)
    assert "key" not in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["nonesuch://b/a", "s3://simplecache::b/a"])
def test_urls_that_cannot_be_used(url: str) -> None:
    """A sentence, and no traceback."""
    with pytest.raises(UsageError, match=r"cannot be used|needs a library|chains"):
        storage_at(url).read("a", 1)


# --- What every storage does --------------------------------------------------------------


def test_whole_objects(storage: Storage) -> None:
    """Put, replaced, bounded, gone."""
    storage.put("commits/one", b"first")
    storage.put("commits/one", memoryview(b"second"))
    storage.put("empty", b"")
    assert storage.read("commits/one", 6) == b"second"
    assert storage.read("empty", 0) == b""
    with pytest.raises(FormatError, match="more than 5 bytes"):
        storage.read("commits/one", 5)
    storage.remove("commits/one")
    storage.remove("commits/one")
    for call in (storage.read, lambda n, _: storage.open(n), lambda n, _: storage.mtime(n)):
        with pytest.raises(NotFound, match="commits/one"):
            call("commits/one", 1)
    assert not storage.exists("commits/one") and storage.exists("empty")


def test_put_new_has_one_winner(storage: Storage) -> None:
    """Of many writers at once exactly one is told that it was first."""
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: storage.put_new("x/header", b"%d" % n), range(8)))
    assert won.count(True) == 1
    assert storage.read("x/header", 9) == b"%d" % won.index(True)


def test_replace_only_what_was_read(storage: Storage) -> None:
    """Of many who read the same exactly one may replace it."""
    assert storage.replace("e", b"old", b"new") is False
    storage.put("e", b"old")
    assert storage.replace("e", b"other", b"new") is False
    assert storage.replace("e", b"old", b"new") is True
    assert storage.read("e", 9) == b"new"


def test_replace_has_one_winner(bucket: str) -> None:
    """S3 compares for us, so that a rotation never takes back another's."""
    storage = storage_at(bucket)
    storage.put("e", b"old")
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: storage.replace("e", b"old", b"%d" % n), range(8)))
    assert won.count(True) == 1
    assert storage.read("e", 9) == b"%d" % won.index(True)


@pytest.mark.parametrize("size", [0, 1, 9 * MIB - 1, 9 * MIB, 9 * MIB + 1, 90 * MIB])
def test_streams(storage: Storage, size: int) -> None:
    """Written in uneven pieces, read back anywhere."""
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    with storage.create("parts/p/o") as sink:
        for at in range(0, size, 7 * MIB + 3):
            sink.write(memoryview(data)[at : at + 7 * MIB + 3])
        assert sink.written == size
    with storage.open("parts/p/o") as file:
        assert file.size == size
        for offset, length in ((0, min(size, 100)), (size // 2, size - size // 2), (size, 0)):
            out = bytearray(length)
            file.pread_into(out, offset)
            assert out == data[offset : offset + length]
        with pytest.raises(IntegrityError, match="ends early"):
            file.pread_into(bytearray(2), max(0, size - 1))


def test_parts_grow_before_a_store_takes_no_more(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 takes 10,000 parts of an object: those of 9 MiB would end at 94 GB."""
    import s3fs

    monkeypatch.setattr("pqvault.storage.s3._SMALL_PARTS", 2)
    monkeypatch.setattr("pqvault.storage.s3._LARGE_PART", 20 * MIB)
    data = os.urandom(45 * MIB)
    with storage_at(bucket).create("o") as sink:
        sink.write(data)
    fs = s3fs.S3FileSystem(skip_instance_cache=True)
    heads = [
        fs.call_s3("head_object", Bucket=bucket[5:], Key="o", PartNumber=number)
        for number in range(1, 5)
    ]
    assert [head["ContentLength"] for head in heads] == [9 * MIB, 9 * MIB, 20 * MIB, 7 * MIB]
    assert fs.cat_file(f"{bucket}/o") == data


@pytest.mark.parametrize("size", [10, 40 * MIB])
def test_an_aborted_stream_leaves_nothing(storage: Storage, size: int) -> None:
    """By an exception, at any size; and it takes no more bytes."""
    with pytest.raises(KeyError), storage.create("parts/p/o") as sink:
        sink.write(bytes(size))
        raise KeyError
    assert not storage.exists("parts/p/o")
    with pytest.raises(PQVaultError):
        sink.write(b"more")


def test_aborted_uploads_are_not_kept_by_the_store(bucket: str) -> None:
    """Parts of an upload cost money until it is aborted."""
    import s3fs

    with pytest.raises(KeyError), storage_at(bucket).create("o") as sink:
        sink.write(bytes(40 * MIB))
        raise KeyError
    fs = s3fs.S3FileSystem(skip_instance_cache=True)
    assert "Uploads" not in fs.call_s3("list_multipart_uploads", Bucket=bucket[5:])


def test_lists(storage: Storage) -> None:
    """One folder, or all below it."""
    for name in ("commits/b", "commits/a", "commits/.x.0011aabb.tmp", "parts/p/objects/o"):
        storage.put(name, b"1")
    assert storage.list("commits") == ["a", "b"]
    assert storage.unfinished("commits") == ["commits/.x.0011aabb.tmp"]
    assert storage.list("none") == [] and storage.list("parts") == ["p"]
    assert list(storage.walk("parts")) == ["parts/p/objects/o"]
    assert list(storage.walk("commits")) == ["commits/a", "commits/b"]


def test_what_is_pickled_is_a_url(storage: Storage) -> None:
    """Workers get a place, and connect on their own (attack 40)."""
    data = pickle.dumps(storage)
    assert b"test" not in data.replace(b"pytest", b"")
    pickle.loads(data).put("a", b"1")  # noqa: S301
    assert storage.read("a", 1) == b"1"


def test_a_batch_of_samples_is_fetched_side_by_side(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order asked for, two of one frame by one request; what is damaged is named."""
    key = pqvault.Identity.generate()
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number in range(8):  # stored; and many of a frame
        (corpus / f"{number}").write_bytes(os.urandom(2 * MIB))
        (corpus / f"t{number}").write_bytes(b"%d" % number * 1000)
    pqvault.seal(corpus, f"{bucket}/a.pqv", recipients=[key.recipient], prefix="c")
    files = SampleFiles(f"{bucket}/a.pqv", identities=key)
    under_way: set[int] = set()
    four = threading.Event()
    asked: list[int] = []
    fetch = RemoteReader._range

    def fetched(reader: RemoteReader, start: int, end: int) -> bytes:
        asked.append(start)
        if end - start > MIB // 4:
            under_way.add(threading.get_ident())
            if len(under_way) == 4:
                four.set()
            assert four.wait(60)
        return fetch(reader, start, end)

    files.read([0])
    monkeypatch.setattr(RemoteReader, "_range", fetched)
    numbers = [6, 15, 0, 8, -14, 3, 9]
    got = files.read(numbers)
    assert [sample.path for sample in got] == [files.path(number) for number in numbers]
    for sample in got:
        assert sample.data == (tmp_path / sample.path.removeprefix("c/")).read_bytes()
    assert len(asked) == len(set(asked))
    monkeypatch.undo()
    storage = storage_at(f"{bucket}/a.pqv")
    (damaged,) = (name for name in storage.walk("parts") if "objects" in name)
    with storage.open(damaged) as file:
        data = bytearray(file.size)
        file.pread_into(data, 0)
    data[5 * MIB] ^= 1
    storage.put(damaged, data)
    with pytest.raises(IntegrityError, match=r"sample c/corpus/2: chunk"):
        SampleFiles(f"{bucket}/a.pqv", identities=key).read(range(16))


FORKS = """
import gc, os, sys
from pqvault.integrations.samples import SampleFiles
files = SampleFiles(sys.argv[1], identities="file:" + sys.argv[2])
assert files[0].data == b"1"
for _ in range(2):
    pid = os.fork()
    if not pid:
        assert files[0].data == b"1"
        gc.collect()
        assert files[0].data == b"1"
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
assert files[0].data == b"1"
"""


def test_the_child_of_a_fork_leaves_the_connections_of_its_parent_alone(
    bucket: str, tmp_path: Path
) -> None:
    """Loaders of torch fork: what s3fs said of connections of another loop filled the terminal."""
    key = pqvault.Identity.generate()
    (tmp_path / "key").write_text(key.text)
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "file").write_bytes(b"1")
    pqvault.seal(tmp_path / "file", f"{bucket}/a.pqv", recipients=[key.recipient])
    argv = [sys.executable, "-W", "ignore", "-c", FORKS, f"{bucket}/a.pqv", str(tmp_path / "key")]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# --- Read ahead -------------------------------------------------------------------------


def test_read_ahead_gives_the_same_bytes_in_fewer_requests() -> None:
    """In order, at random and from several threads."""
    data = os.urandom(20 * MIB)
    asked: list[tuple[int, int]] = []

    def fetch(start: int, end: int) -> bytes:
        asked.append((start, end))
        return data[start:end]

    ahead = Ahead(fetch, len(data))
    for at in range(0, len(data), 64 * 1024):
        out = bytearray(64 * 1024)
        ahead.read_into(memoryview(out), at)
        assert out == data[at : at + 64 * 1024]
    assert len(asked) < 12 and max(end - start for start, end in asked) <= 8 * MIB
    asked.clear()
    ahead = Ahead(fetch, len(data))
    for at in (9 * MIB, 5, 3 * MIB, 9 * MIB + 7, 3 * MIB - 500):
        ahead.read_into(memoryview(bytearray(1000)), at)
    assert asked == [(a, a + 128 * 1024) for a in (9 * MIB, 5, 3 * MIB)] + [
        (3 * MIB - 500, 3 * MIB)
    ]
    asked.clear()
    small = Ahead(fetch, 1000)
    for at in (900, 0, 500):
        small.read_into(memoryview(bytearray(10)), at)
    assert asked == [(0, 1000)]

    def reader(start: int) -> bool:
        out = bytearray(4 * MIB)
        for at in range(0, len(out), 100_000):
            stop = min(len(out), at + 100_000)
            ahead.read_into(memoryview(out)[at:stop], start + at)
        return out == data[start : start + len(out)]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(reader, [0, 5 * MIB, 10 * MIB, 16 * MIB]))


@pytest.mark.parametrize("overlap", [0, 16_400])
def test_who_reads_on_keeps_several_requests_under_way(overlap: int) -> None:
    """Reads of whole sealed chunks, of which two that meet share one: each is in order."""
    size, step = 64 * MIB, 264 * 1024
    under_way = most = 0
    asked: list[tuple[int, int]] = []
    lock = threading.Lock()

    def fetch(start: int, end: int) -> bytes:
        nonlocal under_way, most
        with lock:
            asked.append((start, end))
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.01)
        with lock:
            under_way -= 1
        return bytes(end - start)

    ahead = Ahead(fetch, size)
    at = 0
    while at < size:
        out = memoryview(bytearray(min(size, at + step) - at))
        ahead.read_into(out, at)
        at += len(out) - (overlap if at + len(out) < size else 0)
    assert most >= 4 and len(asked) < 40
    asked.sort()  # nothing twice, nothing left out
    assert [end for _, end in asked[:-1]] == [start for start, _ in asked[1:]]
    assert max(end - start for start, end in asked) <= 4 * MIB
    assert sum(w.end - w.start for w in ahead.windows) <= 8 * MIB
    ahead.close()


def test_what_all_readers_hold_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that are read a little and left do not fill the memory, nor keep others from it."""
    monkeypatch.setattr("pqvault.storage.ahead._shelf", shelf := _Shelf())
    data = os.urandom(12 * MIB)
    readers = [Ahead(lambda start, end: data[start:end], len(data)) for _ in range(40)]
    for at in range(0, 3 * MIB, MIB // 2):
        for ahead in readers:
            out = bytearray(MIB // 2)
            ahead.read_into(memoryview(out), at)
            assert out == data[at : at + len(out)]
            held = [w for reader in readers for w in reader.windows]
            assert sum(w.end - w.start for w in held) == shelf.size <= 128 * MIB
    for ahead in readers:
        ahead.close()
    assert shelf.size == 0


def test_what_is_collected_in_the_midst_of_a_read_is_closed_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The garbage collector closes readers on a thread that may hold the lock of all."""
    monkeypatch.setattr("pqvault.storage.ahead._shelf", shelf := _Shelf())
    gone, here = (Ahead(lambda start, end: bytes(end - start), MIB) for _ in range(2))
    gone.read_into(memoryview(bytearray(10)), 0)
    assert shelf.size == MIB
    with shelf.lock:
        gone.close()
    here.read_into(memoryview(bytearray(10)), 0)
    assert shelf.size == MIB and not gone.windows
    here.close()
    assert shelf.size == 0
    cache = FrameCache(100)
    cache.put(1, 0, bytes(60))
    with cache.lock:
        cache.forget(1)
    cache.put(2, 0, bytes(60))
    assert cache.get(1, 0) is None and cache.get(2, 0) == bytes(60)


def test_the_child_of_a_fork_does_not_wait_for_what_its_parent_fetches() -> None:
    """Its threads are not there; and what the child drops is not the parent's."""
    gate = threading.Event()
    data = os.urandom(20 * MIB)
    parent = os.getpid()

    def fetch(start: int, end: int) -> bytes:
        if start >= MIB and os.getpid() == parent:
            gate.wait()
        return data[start:end]

    def read(at: int) -> bytes:
        out = bytearray(MIB // 2)
        ahead.read_into(memoryview(out), at)
        return bytes(out)

    ahead = Ahead(fetch, len(data))
    assert read(0) + read(MIB // 2) == data[:MIB]
    assert any(not window.data.done() for window in ahead.windows)
    pid = os.fork()
    if not pid:
        signal.alarm(60)
        good = all(read(at) == data[at : at + MIB // 2] for at in range(0, 19 * MIB, MIB // 2))
        ahead.close()
        os._exit(0 if good else 1)
    assert os.waitpid(pid, 0)[1] == 0
    gate.set()
    assert read(MIB) == data[MIB : MIB + MIB // 2]
    ahead.close()


# --- Faults ----------------------------------------------------------------------------


def every(what: Any, least: int = 4) -> Any:
    """A fault for each third request."""
    return lambda number, method, path: what if number % least == 0 else None


def test_a_fetch_that_failed_is_not_remembered() -> None:
    """The next reader asks again."""
    answers: list[Any] = [NotFound("gone"), b"12345"]

    def fetch(start: int, end: int) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return bytes(answer)

    ahead = Ahead(fetch, 5)
    out = bytearray(2)
    with pytest.raises(NotFound):
        ahead.read_into(memoryview(out), 1)
    ahead.read_into(memoryview(out), 1)
    assert out == b"23"


@pytest.mark.parametrize("what", ["503", "cut", "lost", "half", (400, "IncompleteBody"), 0.05])
def test_a_store_that_fails_for_a_moment(bucket: str, proxy: FaultProxy, what: Any) -> None:
    """503s, cut connections, lost answers, damaged requests, slow answers: each call succeeds, and
    tells the truth."""
    storage = storage_at(bucket)
    storage.put("warm", b"1")
    proxy.fault = every(what)
    data = os.urandom(40 * MIB)
    for number in range(6):
        assert storage.put_new(f"commits/{number}", b"%d" % number) is True
        assert storage.put_new(f"commits/{number}", b"other") is False
        assert storage.replace(f"commits/{number}", b"%d" % number, b"new") is True
        assert storage.read(f"commits/{number}", 9) == b"new"
    with storage.create("o") as sink:
        sink.write(data)
    with storage.open("o") as file:
        out = bytearray(len(data))
        file.pread_into(out, 0)
    assert out == data
    assert storage.list("commits") == list("012345")


def test_an_answer_that_is_damaged_under_way(bucket: str, proxy: FaultProxy) -> None:
    """It is shorter than it says, and the store is asked again."""
    storage = storage_at(bucket)
    storage.put("commits/x", b"0123456789")
    proxy.fault = every("torn")
    for _ in range(6):
        assert storage.read("commits/x", 10) == b"0123456789"


@pytest.mark.parametrize("what", ["503", "cut"])
def test_a_store_that_stays_down(bucket: str, proxy: FaultProxy, what: str) -> None:
    """An error in the end that names the object, no hang, no traceback."""
    storage = storage_at(bucket)
    storage.put("warm", b"1")
    proxy.fault = lambda *_: what
    for call in (
        lambda: storage.read("warm", 9),
        lambda: storage.put_new("commits/x", b"1"),
        lambda: storage.list("commits"),
        lambda: storage.create("o").finish(),
    ):
        with pytest.raises(PQVaultError, match=rf"cannot \w+ {bucket}/") as caught:
            call()
        assert caught.value.hint


def test_a_name_that_was_taken_in_between(bucket: str, proxy: FaultProxy) -> None:
    """Refused by a store that does not repeat the condition, as not all do: taken, and no error."""
    storage = storage_at(bucket)

    def taken(number: int, method: str, path: str) -> Any:
        return (412, "PreconditionFailed") if method == "PUT" else None

    proxy.fault = taken
    assert storage.put_new("commits/x", b"1") is False


REACH = """
import sys
from pqvault.errors import PQVaultError
from pqvault.storage import storage_at
try:
    storage_at(sys.argv[1]).put("a", b"1")
except PQVaultError as error:
    print(error.message, error.hint, sep="\\n")
"""


@pytest.mark.parametrize(
    ("environment", "wrong", "hint"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "Could not connect", "check its endpoint"),
        ({"AWS_PROFILE": "nobody"}, "nobody", "AWS_PROFILE"),
        ({}, "no such bucket", "make the bucket"),
    ],
)
def test_a_store_that_is_not_there(
    bucket: str, environment: dict[str, str], wrong: str, hint: str
) -> None:
    """What a first try meets: each is named, with what to do."""
    argv = [sys.executable, "-c", REACH, "s3://no-such-bucket/a.pqv"]
    done = subprocess.run(argv, env=os.environ | environment, capture_output=True, text=True)
    assert done.stderr == ""
    message, what_to_do = done.stdout.splitlines()
    assert message.startswith("cannot write s3://no-such-bucket/a.pqv/a: ") and wrong in message
    assert hint in what_to_do


def test_expired_credentials(bucket: str, proxy: FaultProxy, monkeypatch: Any) -> None:
    """Refused at once, and said as that."""
    storage = storage_at(bucket)

    def refuse(fs: Any, path: str) -> bytes:
        raise PermissionError("The provided token has expired.")

    with pytest.raises(PQVaultError, match="token has expired") as caught:
        storage._do("read", "a", refuse)  # type: ignore[attr-defined]
    assert "credentials" in caught.value.hint


# --- Archives --------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A few files, one of them of several frames."""
    folder = tmp_path / "data"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"hello\n" * 1000)
    (folder / "inner/large").write_bytes(os.urandom(3 * MIB) + bytes(9 * MIB))
    (folder / "empty").write_bytes(b"")
    return folder


@pytest.mark.parametrize("what", [None, "503", "cut", "half"])
def test_an_archive_on_s3(
    bucket: str, proxy: FaultProxy, corpus: Path, tmp_path: Path, what: Any
) -> None:
    """Sealed, read, verified, appended to and unsealed, also while requests fail."""
    key = pqvault.Identity.generate()
    url = f"{bucket}/c.pqv"
    pqvault.seal(corpus, url, recipients=[key.recipient])
    proxy.fault = every(what, 5) if what else none
    (corpus / "b").write_bytes(b"more")
    report = pqvault.seal(corpus, url, recipients=[key.recipient])
    assert report.files == 1
    with pqvault.open(url, identities=[key]) as archive:
        assert [entry.path for entry in archive.entries()][:3] == [
            b"data",
            b"data/a.txt",
            b"data/b",
        ]
        archive.unseal(tmp_path / "out")
        assert archive.open_file("data/inner/large").pread(3 * MIB - 2, 4)[2:] == b"\0\0"
    assert pqvault.verify(url, identities=[key]).problems == []
    assert pqvault.verify(url).problems == []
    done = subprocess.run(["diff", "-r", corpus, tmp_path / "out/data"], capture_output=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("what", [None, "503", "lost"])
def test_rotation_on_s3(bucket: str, proxy: FaultProxy, corpus: Path, what: Any) -> None:
    """Envelopes are rewrapped where the archive is, also by a store that loses answers."""
    old, new = (pqvault.Identity.generate() for _ in range(2))
    url = f"{bucket}/c.pqv"
    pqvault.seal(corpus, url, recipients=[old.recipient])
    proxy.fault = every(what, 5) if what else none
    report = pqvault.rotate(url, identities=[old], to=new.recipient)
    assert (report.rewrapped, report.finished) == (1, 1)
    with pytest.raises(NoKeyFits):
        pqvault.open(url, identities=[old])
    assert pqvault.verify(url, identities=[new]).problems == []


@pytest.fixture
def rclone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a bucket of another program that speaks S3: rclone from 1.65 on, in this
    environment or on PATH. Debian's cannot."""
    pytest.importorskip("s3fs")
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    program = shutil.which("rclone", path=beside) or "rclone"
    try:
        told = subprocess.run([program, "serve", "s3", "-h"], capture_output=True).stdout
    except FileNotFoundError:
        told = b""
    if b"over s3" not in told.lower():
        pytest.skip("no rclone that can `serve s3`")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "store/bucket").mkdir(parents=True)
    where = ["--addr", f"127.0.0.1:{port}", "--auth-key", "test,testtest"]
    server = subprocess.Popen(
        [program, "serve", "s3", tmp_path / "store", *where],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testtest")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        remote_module._reach.cache_clear()
        yield "s3://bucket"
    finally:
        server.kill()
        server.wait()
        remote_module._reach.cache_clear()


def test_a_store_that_is_not_moto(rclone: str, corpus: Path, tmp_path: Path) -> None:
    """The same archive on another program's S3: sealed twice, rotated, verified, unsealed."""
    key, new = pqvault.Identity.generate(), pqvault.Identity.generate()
    url = f"{rclone}/c.pqv"
    pqvault.seal(corpus, url, recipients=[key.recipient])
    (corpus / "b").write_bytes(os.urandom(40 * MIB))
    assert pqvault.seal(corpus, url, recipients=[key.recipient]).files == 1
    assert pqvault.rotate(url, identities=[key], to=new.recipient).rewrapped == 2
    assert pqvault.verify(url, identities=[new]).problems == []
    with pqvault.open(url, identities=[new]) as archive:
        archive.unseal(tmp_path / "out")
    done = subprocess.run(["diff", "-r", corpus, tmp_path / "out/data"], capture_output=True)
    assert done.returncode == 0, done.stdout
    storage = storage_at(url)
    assert storage.put_new("commits/x", b"1") is True
    assert storage.put_new("commits/x", b"2") is False


def test_a_reader_while_a_writer_commits(bucket: str, corpus: Path) -> None:
    """A reader sees the archive with the part or without it, never half of it."""
    key = pqvault.Identity.generate()
    url = f"{bucket}/c.pqv"
    pqvault.seal(corpus, url, recipients=[key.recipient])
    stop = threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not stop.is_set():
            with pqvault.open(url, identities=[key]) as archive:
                files = [e.path for e in archive.entries() if e.path.startswith(b"data/new")]
                for path in files:
                    assert archive.open_file(path).read() == path
                seen.append(len(files))

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        for number in range(4):
            (corpus / f"new{number}").write_bytes(b"data/new%d" % number)
            pqvault.seal(corpus, url, recipients=[key.recipient])
        stop.set()
        reading.result()
    assert seen == sorted(seen)


def test_no_listing_but_of_commits(bucket: str, proxy: FaultProxy, corpus: Path) -> None:
    """Opening an archive lists `commits/` and `removed/`; nobody lists the bucket."""
    key = pqvault.Identity.generate()
    pqvault.seal(corpus, f"{bucket}/c.pqv", recipients=[key.recipient])
    proxy.log.clear()
    with pqvault.open(f"{bucket}/c.pqv", identities=[key]) as archive:
        archive.open_file("data/a.txt").read()
    listed = [path for _, path in proxy.log if "list-type" in path]
    assert listed and all("commits" in path or "removed" in path for path in listed)


def test_the_command_line_on_s3(bucket: str, corpus: Path, tmp_path: Path) -> None:
    """The words of the issue: `pqvault seal datasets/ -o s3://…`, and what reads it."""
    env = {**os.environ, "PQVAULT_HOME": str(tmp_path / "home")}
    tool = Path(sys.executable).with_name("pqvault")
    script = f"""
    {tool} keygen -o key.txt > key.pub 2> /dev/null
    {tool} seal {corpus} -o {bucket}/c.pqv -r @key.pub -q
    {tool} ls {bucket}/c.pqv -i key.txt
    {tool} cat {bucket}/c.pqv data/a.txt -i key.txt --range 0:5 && echo
    {tool} verify {bucket}/c.pqv -i key.txt
    {tool} inspect {bucket}/c.pqv | head -n 1
    {tool} gc {bucket}/c.pqv
    {tool} unseal {bucket}/c.pqv -i key.txt -q && diff -r c/data {corpus} && echo equal
    {tool} ls {bucket}/none.pqv -i key.txt || echo $?
    """
    done = subprocess.run(
        ["bash", "-ec", script], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    assert lines[:5] == ["data", "data/a.txt", "data/empty", "data/inner", "data/inner/large"]
    assert lines[5] == "hello" and lines[6].startswith("sealed: 1 part")
    assert lines[7].startswith(f"{bucket}/c.pqv: archive")
    assert lines[-2:] == ["equal", "10"], done.stderr
