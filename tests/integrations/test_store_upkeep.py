"""What changes archives at a store: the lock that makes one process the only one, and under it
re-encryption, merging, pruning."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from faultproxy import FaultProxy, none

import pqvault
from pqvault.errors import Locked, NoKeyFits, NotFound, PQVaultError
from pqvault.storage import Storage, lease, storage_at

pytest_plugins = ["store_kit"]  # an S3 on loopback

HEADER = "pqvault.json"
LOCK = "pqvault.json.lock"


@pytest.fixture
def store(bucket: str) -> Storage:
    """A place with something to lock."""
    storage = storage_at(f"{bucket}/a.pqv")
    storage.put(HEADER, b"{}")
    return storage


# -- the lock --------------------------------------------------------------------------------


def test_one_holder_at_a_time(store: Storage) -> None:
    """The second is told who it is, at once; after the block the lock is gone."""
    with store.locked(HEADER):
        assert store.exists(LOCK)
        with pytest.raises(Locked, match=rf"process {os.getpid()} of \S+ is at work on s3://"):
            store.locked(HEADER).__enter__()
        store.put("x", b"1")
    assert not store.exists(LOCK)
    with pytest.raises(KeyError), store.locked(HEADER):
        raise KeyError
    with store.locked(HEADER):
        assert store.exists(LOCK)
    assert store.list("") == [HEADER, "x"]
    with pytest.raises(NotFound), store.locked("nothing"):
        pass


def test_the_lock_of_a_dead_holder_is_taken_over(
    store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the store's clock: ours may be wrong by hours."""
    monkeypatch.setattr(time, "time", lambda: 4e9)
    store.put(LOCK, b'{"holder": "process 7 of a host\\u001b[2J"}')
    with pytest.raises(Locked, match=r"process 7 of a host%1B\[2J is at work") as caught:
        store.locked(HEADER).__enter__()
    assert "if it was killed" in caught.value.hint
    for theirs in (b'{"holder": "process 7"}', b"", b"[", b"{}", b"3"):
        store.put(LOCK, theirs)
        monkeypatch.setattr(lease, "_DEAD", 120.0)
        with pytest.raises(Locked, match="process"):
            store.locked(HEADER).__enter__()
        monkeypatch.setattr(lease, "_DEAD", -1.0)
        with store.locked(HEADER):
            assert store.read(LOCK, 4096) != theirs
    assert store.list("") == [HEADER]


def test_a_holder_renews_its_lock(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_RENEWED", 0.01)
    with store.locked(HEADER):
        first = store.read(LOCK, 4096)
        deadline = time.monotonic() + 60
        while store.read(LOCK, 4096) == first:
            assert time.monotonic() < deadline
    assert not store.exists(LOCK)


def test_who_lost_the_lock_writes_no_more(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that slept: another one took over, and this one must not undo its work."""
    monkeypatch.setattr(lease, "_TRUSTED", 0.0)
    with store.locked(HEADER):
        store.put("mine", b"1")  # still ours: renewed, and written
        store.put("old", b"1")
    with pytest.raises(Locked, match="was taken over"), store.locked(HEADER):
        monkeypatch.setattr(lease, "_leases", {})
        store.put(LOCK, b"another's")
        monkeypatch.undo()
        monkeypatch.setattr(lease, "_TRUSTED", 0.0)
        for write in (
            lambda: store.put("new", b"1"),
            lambda: store.put_new("new", b"1"),
            lambda: store.replace("old", b"1", b"2"),
            lambda: store.create("new"),
            lambda: store.remove("old"),
        ):
            with pytest.raises(Locked):
                write()
        store.put("new", b"1")
    assert store.list("") == ["mine", "old", HEADER, LOCK]
    assert store.read(LOCK, 99) == b"another's"  # and is left alone


def test_a_renewal_whose_answer_is_lost_keeps_the_lock(
    store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has it, and this process has heard nothing: the next one finds it still ours."""
    replace = type(store).replace

    def deaf(self: Storage, name: str, old: bytes, new: bytes) -> bool:
        replace(self, name, old, new)
        raise PQVaultError("no answer")

    monkeypatch.setattr(lease, "_TRUSTED", 0.0)
    with store.locked(HEADER):
        for _ in range(2):
            with monkeypatch.context() as patched, pytest.raises(PQVaultError, match="no answer"):
                patched.setattr(type(store), "replace", deaf)
                store.put("x", b"1")
        store.put("x", b"2")
        with monkeypatch.context() as patched, pytest.raises(PQVaultError, match="no answer"):
            patched.setattr(type(store), "replace", deaf)
            store.put("x", b"3")
    assert store.list("") == [HEADER, "x"] and store.read("x", 9) == b"2"


def test_a_child_of_fork_does_not_renew_its_parent_s_lock(
    store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_TRUSTED", 0.0)
    with store.locked(HEADER):
        held = store.read(LOCK, 4096)
        pid = os.fork()
        if not pid:
            os._exit(len(lease._leases))
        assert os.waitpid(pid, 0)[1] == 0
        assert store.read(LOCK, 4096) == held


# -- under it --------------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"hello\n" * 1000)
    (folder / "inner/large").write_bytes(os.urandom(12 * 1024 * 1024))
    return folder


def parts_of(corpus: Path, url: str, key: pqvault.Identity, count: int) -> None:
    """An archive of several parts."""
    for number in range(count):
        (corpus / f"new{number}").write_bytes(b"%d" % number)
        pqvault.seal(corpus, url, recipients=[key.recipient])


def content(url: str, *keys: pqvault.Identity) -> dict[bytes, bytes]:
    with pqvault.open(url, identities=keys) as archive:
        return {
            entry.path: archive.open_file(entry.path).read()
            for entry in archive.entries()
            if entry.kind == "file"
        }


@pytest.mark.parametrize("what", [None, "503", "lost"])
def test_a_key_that_leaked_opens_nothing_any_more(
    bucket: str, proxy: FaultProxy, corpus: Path, what: Any
) -> None:
    """New root keys, then one part of all, where the archive is; by a store that loses answers."""
    old, new = (pqvault.Identity.generate() for _ in range(2))
    url = f"{bucket}/c.pqv"
    parts_of(corpus, url, old, 3)
    before = content(url, old)
    proxy.fault = (lambda n, method, path: what if n % 7 == 0 else None) if what else none
    report = pqvault.reencrypt(url, identities=[old], to=new.recipient)
    assert (report.parts, report.finished) == (3, 1)
    with pytest.raises(NoKeyFits):
        pqvault.open(url, identities=[old])
    assert content(url, new) == before
    merged = pqvault.compact(url, identities=[new])
    assert (merged.parts, merged.left) == (3, 1)
    assert content(url, new) == before
    (corpus / "new0").unlink()
    pqvault.seal(corpus, url, recipients=[new.recipient], identities=[new], delete=True, yes=True)
    (corpus / "a.txt").write_bytes(b"other")
    pqvault.seal(corpus, url, recipients=[new.recipient])
    pqvault.prune(url, identities=[new], keep_last=1)
    pqvault.gc(url, older_than=0)
    proxy.fault = none
    assert content(url, new) == {
        path: (corpus.parent / os.fsdecode(path)).read_bytes()
        for path in before
        if path != b"data/new0"
    }
    assert pqvault.verify(url, identities=[new]).problems == []
    storage = storage_at(url)
    assert not storage.exists(LOCK)
    kept = set(storage.list("parts"))
    assert kept == {name.partition(".")[0] for name in storage.list("envelopes")}


REENCRYPT = """
import sys, pqvault
url, old, new = sys.argv[1:]
pqvault.reencrypt(url, identities=[old], to=new)
"""


@pytest.mark.parametrize("at", [2, 4, 6, 9, 12])
def test_killed_at_a_request_and_carried_on(
    bucket: str,
    proxy: FaultProxy,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
) -> None:
    """The lock of a killed process keeps others out until it is old; then they finish its work."""
    old, new = (pqvault.Identity.generate() for _ in range(2))
    (tmp_path / "old").write_text(old.text)
    (tmp_path / "old").chmod(0o600)
    url = f"{bucket}/c.pqv"
    parts_of(corpus, url, old, 2)
    before = content(url, old)
    argv = [sys.executable, "-c", REENCRYPT, url, str(tmp_path / "old"), new.recipient.text]
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    writes = 0

    def kill(number: int, method: str, path: str) -> Any:
        nonlocal writes
        writes += method not in ("GET", "HEAD")
        if writes == at:
            process.kill()
        return None

    proxy.fault = kill
    assert process.wait() == -signal.SIGKILL
    proxy.fault = none
    assert content(url, old, new) == before
    with pytest.raises(Locked, match="is at work"):
        pqvault.reencrypt(url, identities=[old, new], to=new.recipient)
    monkeypatch.setattr(lease, "_DEAD", -1.0)
    pqvault.reencrypt(url, identities=[old, new], to=new.recipient)
    assert content(url, new) == before
    assert pqvault.verify(url, identities=[new]).problems == []
    with pytest.raises(NoKeyFits):
        pqvault.open(url, identities=[old])
