"""Local storage: whole files, streams, names, full disks, kills and races."""

from __future__ import annotations

import errno
import fcntl
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from pqvault.errors import FormatError, IntegrityError, Locked, NotFound, PQVaultError, UsageError
from pqvault.storage import LocalStorage, Storage, replacing, storage_at
from pqvault.storage.base import check_name, explain
from pqvault.storage.s3 import PART, Upload

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    local: Storage = LocalStorage(tmp_path / "a.pqv")
    local.make_folder("parts/p1/objects")
    local.make_folder("commits")
    return local


@pytest.fixture
def root(storage: Storage) -> Path:
    return Path(storage.where(""))


def run_python(program: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a real process with pqvault on its path."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], cwd=REPOSITORY, stdout=subprocess.PIPE
    )


def everything(root: Path) -> list[str]:
    """All files below a folder, temporary ones too."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


# --- Whole files ----------------------------------------------------------------------


def test_put_and_read(storage: Storage, root: Path) -> None:
    storage.put("commits/one", b"first")
    storage.put("commits/one", memoryview(b"second"))
    storage.put("empty", b"")
    assert storage.read("commits/one", 6) == b"second"
    assert storage.read("empty", 0) == b""
    assert everything(root) == ["commits/one", "empty"]


def test_files_get_the_mode_that_the_umask_leaves(storage: Storage, root: Path) -> None:
    before = os.umask(0o027)
    try:
        storage.put("a", b"")
        storage.put_new("b", b"")
        storage.create("c").finish()
    finally:
        os.umask(before)
    assert {(root / name).stat().st_mode & 0o777 for name in "abc"} == {0o640}


def test_read_refuses_more_than_its_limit(storage: Storage) -> None:
    storage.put("big", bytes(11))
    with pytest.raises(FormatError, match=r"a\.pqv/big has 11 bytes, more than 10"):
        storage.read("big", 10)


def test_read_of_a_huge_file_allocates_nothing(storage: Storage, root: Path) -> None:
    with open(root / "sparse", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FormatError, match="more than 4,096"):
        storage.read("sparse", 4_096)


@pytest.mark.parametrize("name", ["absent", "no/folder/file"])
def test_absent_files_are_not_found(storage: Storage, name: str) -> None:
    for call in (
        lambda: storage.read(name, 1),
        lambda: storage.open(name),
        lambda: storage.mtime(name),
    ):
        with pytest.raises(NotFound, match=name):
            call()
    assert not storage.exists(name)
    storage.remove(name)


def test_put_new_never_replaces(storage: Storage, root: Path) -> None:
    assert storage.put_new("pqvault.json", b"mine") is True
    assert storage.put_new("pqvault.json", b"theirs") is False
    assert storage.read("pqvault.json", 10) == b"mine"
    assert everything(root) == ["pqvault.json"]


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_put_new_works_without_hard_links(
    storage: Storage, root: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(code, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    assert storage.put_new("pqvault.json", b"mine") is True
    assert storage.put_new("pqvault.json", b"theirs") is False
    assert storage.read("pqvault.json", 10) == b"mine"
    assert everything(root) == ["pqvault.json"]


# --- Reading at any place -------------------------------------------------------------


def test_open_reads_anywhere_and_exactly(storage: Storage) -> None:
    storage.put("object", bytes(range(100)))
    with storage.open("object") as file:
        assert file.size == 100
        buffer = bytearray(10)
        file.pread_into(buffer, 90)
        assert buffer == bytes(range(90, 100))
        file.pread_into(memoryview(buffer)[2:4], 0)
        assert buffer[:5] == bytes([90, 91, 0, 1, 94])
        file.pread_into(bytearray(), 100)
        with pytest.raises(IntegrityError, match=r"ends early.*byte 100"):
            file.pread_into(buffer, 95)
        with pytest.raises(UsageError, match="negative"):
            file.pread_into(buffer, -1)
    file.close()


def test_a_file_that_shrinks_while_open_is_an_integrity_error(storage: Storage, root: Path) -> None:
    storage.put("object", bytes(100))
    with storage.open("object") as file:
        os.truncate(root / "object", 40)
        with pytest.raises(IntegrityError, match=r"ends early.*byte 40"):
            file.pread_into(bytearray(100), 0)
        with pytest.raises(IntegrityError, match=r"ends early.*byte 40"):
            file.read_all()  # type: ignore[attr-defined]


def test_attack_47_short_reads_are_continued(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = random.Random(1).randbytes(1_000)
    storage.put("object", content)
    preadv, pread = os.preadv, os.pread
    monkeypatch.setattr(os, "preadv", lambda fd, bufs, at: preadv(fd, [bufs[0][:7]], at))
    monkeypatch.setattr(os, "pread", lambda fd, count, at: pread(fd, min(count, 7), at))
    with storage.open("object") as file:
        buffer = bytearray(900)
        file.pread_into(buffer, 50)
    assert buffer == content[50:950]
    assert storage.read("object", 1_000) == content


def test_many_threads_read_one_file(storage: Storage) -> None:
    content = random.Random(2).randbytes(1 << 20)
    storage.put("object", content)
    with storage.open("object") as file, ThreadPoolExecutor(8) as pool:

        def check(offset: int) -> bool:
            buffer = bytearray(4_096)
            file.pread_into(buffer, offset)
            return buffer == content[offset : offset + 4_096]

        assert all(pool.map(check, range(0, (1 << 20) - 4_096, 1_021)))


# --- Streams --------------------------------------------------------------------------


def test_a_sink_finishes_on_a_clean_exit(storage: Storage) -> None:
    with storage.create("parts/p1/objects/o") as sink:
        assert sink.write(b"abc") == 3
        assert sink.write(memoryview(bytearray(b"def"))) == 3
        assert sink.written == 6
    storage.sync_folder("parts/p1/objects")
    assert storage.read("parts/p1/objects/o", 6) == b"abcdef"
    sink.abort()
    assert storage.exists("parts/p1/objects/o")
    for call in (sink.finish, lambda: sink.write(b"x")):
        with pytest.raises(UsageError, match="is closed"):
            call()


def test_a_sink_leaves_nothing_after_an_exception(storage: Storage, root: Path) -> None:
    with pytest.raises(ZeroDivisionError), storage.create("o") as sink:
        sink.write(b"abc")
        raise ZeroDivisionError
    assert everything(root) == []
    sink.abort()


def test_create_is_exclusive(storage: Storage) -> None:
    storage.put("o", b"there")
    with pytest.raises(PQVaultError, match=r"cannot create .*/o: it exists already") as caught:
        storage.create("o")
    assert caught.value.hint
    assert storage.read("o", 9) == b"there"


def test_attack_47_short_writes_are_continued(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    with storage.create("o") as sink:
        assert sink.write(bytes(range(100))) == 100
    storage.put("p", bytes(range(100)))
    monkeypatch.undo()
    assert storage.read("o", 100) == storage.read("p", 100) == bytes(range(100))


def test_attack_47_a_failed_fsync_leaves_nothing(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    sink = storage.create("o")
    sink.write(b"abc")
    monkeypatch.setattr(os, "fsync", broken)
    for call in (sink.finish, lambda: storage.put("p", b""), lambda: storage.put_new("q", b"")):
        with pytest.raises(PQVaultError, match=r"cannot write .*: the device reports an input"):
            call()
    assert everything(root) == []


def test_attack_47_a_failed_close_leaves_nothing(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Network file systems say there that they could not keep what was written."""
    sink, close = storage.create("o"), os.close
    sink.write(b"abc")
    fd = sink._fd  # type: ignore[attr-defined]

    def broken(number: int) -> None:
        close(number)
        if number == fd:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "close", broken)
    with pytest.raises(PQVaultError, match="quota"):
        sink.finish()
    assert everything(root) == []


@pytest.mark.parametrize("code", [errno.EIO, errno.EINVAL])
def test_attack_47_a_folder_that_is_not_made_durable_is_said(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """But for file systems that have nothing to make durable in a folder."""

    def broken(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", broken)
    if code == errno.EINVAL:
        storage.sync_folder("commits")
        return
    with pytest.raises(PQVaultError, match="input/output error"):
        storage.sync_folder("commits")


def test_attack_33_names_are_durable_when_a_call_returns(
    storage: LocalStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file before it has its name, or before it loses it; the folder after that."""
    fsync, said = os.fsync, list[tuple[str, bool]]()
    folder = root / "commits"

    def note(fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        said.append((os.path.relpath(path, root), (folder / "one").exists()))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", note)
    for call, before, named in (
        (lambda: storage.put_new("commits/one", b"first"), False, True),
        (lambda: storage.put("commits/one", b"second"), True, True),
        (lambda: storage.replace("commits/one", b"second", b"third"), True, True),
        (lambda: storage.shred("commits/one"), True, False),
        (lambda: storage.append("commits/one").close(), True, True),
    ):
        said.clear()
        call()
        (file, there), last = said
        assert file.startswith("commits/") and there is before
        assert last == ("commits", named)
    said.clear()
    storage.make_folder("parts/p2/objects")
    assert [path for path, _ in said] == ["parts", "parts/p2"]
    said.clear()
    LocalStorage(root / "new/archive").make_folder("")
    assert [path for path, _ in said] == [".", "new"]


# --- Folders --------------------------------------------------------------------------


def test_list_and_walk(storage: Storage, root: Path) -> None:
    for name in ("commits/b", "commits/a", "parts/p1/catalog", "parts/p1/objects/0", "x"):
        storage.put(name, b"")
    (root / "commits/.a.0123abcd.tmp").touch()
    assert storage.list("commits") == ["a", "b"]
    assert storage.list("") == ["commits", "parts", "x"]
    assert storage.list("envelopes") == storage.list("envelopes/deep") == []
    assert list(storage.walk("parts")) == ["parts/p1/catalog", "parts/p1/objects/0"]
    assert list(storage.walk("")) == [
        "commits/a",
        "commits/b",
        "parts/p1/catalog",
        "parts/p1/objects/0",
        "x",
    ]
    assert next(iter(storage.walk("commits", leftovers=True))) == "commits/.a.0123abcd.tmp"
    assert list(storage.walk("absent")) == []


def test_walk_names_links_and_does_not_follow_them(storage: Storage, root: Path) -> None:
    os.symlink("/", root / "parts/out")
    assert list(storage.walk("parts")) == ["parts/out"]


def test_remove_and_remove_folder(storage: Storage, root: Path) -> None:
    storage.put("parts/p1/objects/o", b"")
    storage.remove_folder("parts/p1")
    assert storage.exists("parts/p1/objects/o")
    storage.remove("parts/p1/objects/o")
    storage.remove_folder("parts/p1")
    storage.remove_folder("parts/p1")
    assert storage.list("parts") == []


def test_make_folder_makes_the_root_and_its_parents(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "x/y.pqv")
    storage.make_folder("")
    storage.make_folder("")
    assert (tmp_path / "x/y.pqv").is_dir()
    storage.put("file", b"")
    with pytest.raises(FormatError, match="not a folder"):
        storage.make_folder("file/inner")
    with pytest.raises(FormatError, match="not a folder"):
        storage.make_folder("file")


def test_mtime_is_now(storage: Storage) -> None:
    storage.put("o", b"")
    assert abs(storage.mtime("o") - time.time()) < 60


def test_storage_survives_pickling_and_another_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    storage = LocalStorage(Path("a.pqv"))
    storage.make_folder("")
    monkeypatch.chdir("/")
    storage.put("o", b"x")
    assert pickle.loads(pickle.dumps(storage)).read("o", 1) == b"x"  # noqa: S301
    assert (tmp_path / "a.pqv/o").exists()


# --- Names and strangers in the tree --------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", "/", "/etc/passwd", "..", "../x", "a/../b", "a//b", "a/", ".", "a/./b", "a\0b"]
)
def test_attack_25_names_that_leave_the_root_are_refused(storage: Storage, name: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: check_name(name),
        lambda: storage.read(name, 1),
        lambda: storage.open(name),
        lambda: storage.put(name, b""),
        lambda: storage.put_new(name, b""),
        lambda: storage.create(name),
        lambda: storage.remove(name),
        lambda: storage.exists(name),
        lambda: storage.mtime(name),
    ]
    if name:  # "" is the root where a folder is meant
        calls += [
            lambda: storage.list(name),
            lambda: list(storage.walk(name)),
            lambda: storage.make_folder(name),
            lambda: storage.sync_folder(name),
        ]
    for call in calls:
        with pytest.raises(FormatError, match="not a plain path"):
            call()


def test_attack_27_symbolic_links_are_not_opened(storage: Storage, root: Path) -> None:
    (root.parent / "secret").write_bytes(b"secret")
    os.symlink("../secret", root / "link")
    for call in (lambda: storage.open("link"), lambda: storage.read("link", 9)):
        with pytest.raises(FormatError, match="/link: it is a symbolic link"):
            call()
    with pytest.raises(PQVaultError, match="exists already"):
        storage.create("link")
    assert storage.put_new("link", b"") is False
    storage.put("link", b"mine")
    assert (root.parent / "secret").read_bytes() == b"secret"
    assert storage.read("link", 9) == b"mine"


def test_attack_27_symbolic_links_to_folders_are_not_entered(storage: Storage, root: Path) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "victim").touch()
    os.symlink(outside, root / "parts/evil")
    for call in (
        lambda: storage.put("parts/evil/new", b""),
        lambda: storage.create("parts/evil/new"),
        lambda: storage.remove("parts/evil/victim"),
        lambda: storage.open("parts/evil/victim"),
        lambda: storage.list("parts/evil"),
        lambda: storage.make_folder("parts/evil/inner"),
    ):
        with pytest.raises(FormatError, match="not a folder"):
            call()
    assert everything(outside) == ["victim"]


@pytest.mark.timeout(20)
def test_fifos_sockets_devices_and_folders_are_refused_at_once(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(root / "fifo")
    monkeypatch.chdir(root)  # the path of a socket may have 107 bytes only
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    for name, reason in (
        ("fifo", "not a regular file"),
        ("socket", "a socket or a device"),
        ("commits", "not a regular file"),
    ):
        with pytest.raises(FormatError, match=reason):
            storage.open(name)
        with pytest.raises(FormatError, match=reason):
            storage.read(name, 10)


# --- Errors of the operating system ---------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.ENOSPC, "no space left on the device"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "input/output error"),
    ],
)
def test_errors_are_a_sentence_with_the_path_and_a_hint(code: int, reason: str) -> None:
    error = explain(OSError(code, os.strerror(code)), "write", "/a/b")
    assert str(error).startswith("cannot write /a/b: ")
    assert reason in str(error)
    assert error.hint
    assert error.exit_code == 1


def test_unknown_errors_keep_the_words_of_the_system() -> None:
    assert str(explain(OSError(errno.ESTALE, "Stale file handle"), "read", "/a")) == (
        "cannot read /a: Stale file handle"
    )
    assert "TimeoutError" in str(explain(TimeoutError(), "read", "/a"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_attack_47_a_full_disk_leaves_nothing_half_written(small_disk: Path) -> None:
    storage = LocalStorage(small_disk / "a.pqv")
    storage.make_folder("")
    storage.put("kept", b"old")
    data = bytes(1 << 20)
    for call in (
        lambda: storage.create("o").write(data),
        lambda: storage.put("kept", data),
        lambda: storage.put_new("new", data),
    ):
        with pytest.raises(PQVaultError, match=r"cannot write .*: no space left on the device"):
            call()
    assert everything(storage.root) == ["kept"]
    assert storage.read("kept", 3) == b"old"
    storage.put("after", bytes(100_000))


LIMITED = """
import resource, sys
from pathlib import Path
from pqvault.errors import PQVaultError
from pqvault.storage import LocalStorage

storage = LocalStorage(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
data = bytes(20_000)
sink = storage.create("sink")
sink.write(bytes(9_999))
for call in (
    lambda: sink.write(data),
    lambda: storage.put("kept", data),
    lambda: storage.put_new("new", data),
):
    try:
        call()
    except PQVaultError as error:
        print(error)
"""


def test_attack_47_a_file_size_limit_leaves_nothing_half_written(
    storage: Storage, root: Path
) -> None:
    """The kernel takes a part of the write first, so this is a short write as well."""
    storage.put("kept", b"old")
    process = run_python(LIMITED, str(root))
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert said.decode().splitlines() == [
        f"cannot write {root}/{name}: the largest file size is reached"
        for name in ("sink", "kept", "new")
    ]
    assert everything(root) == ["kept"]
    assert storage.read("kept", 3) == b"old"


# --- Kills and races ------------------------------------------------------------------

PUTTER = """
import sys
from pathlib import Path
from pqvault.storage import LocalStorage

storage = LocalStorage(Path(sys.argv[1]))
print(flush=True)
while True:
    for letter in b"ab":
        storage.put("commits/one", bytes([letter]) * 300_000)
"""


def test_attack_33_put_is_whole_after_kill_9(storage: Storage, root: Path) -> None:
    whole = {b"z", b"a" * 300_000, b"b" * 300_000}
    storage.put("commits/one", b"z")
    chance = random.Random(33)
    for _ in range(8):
        with run_python(PUTTER, str(root)) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chance.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert storage.read("commits/one", 300_000) in whole
        assert storage.list("commits") == ["one"]
    left = set(storage.walk("", leftovers=True)) - {"commits/one"}
    assert all(name.startswith("commits/.one.") and name.endswith(".tmp") for name in left)


RACER = """
import sys
from pathlib import Path
from pqvault.storage import LocalStorage

storage = LocalStorage(Path(sys.argv[1]))
print(flush=True)
sys.stdin.readline()
wins = [storage.put_new(f"commits/{i}", sys.argv[2].encode() * 1000) for i in range(100)]
print("".join("01"[won] for won in wins))
"""


def test_put_new_between_two_processes_has_one_winner(storage: Storage, root: Path) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(root), name],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "xy"
    ]
    for racer in racers:
        assert racer.stdout is not None
        racer.stdout.readline()
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    x, y = (racer.communicate(timeout=60)[0].strip() for racer in racers)
    assert len(x) == len(y) == 100
    for i, won in enumerate(zip(x, y, strict=True)):
        assert sorted(won) == ["0", "1"]
        winner = b"x" if won[0] == "1" else b"y"
        assert storage.read(f"commits/{i}", 1_000) == winner * 1_000


# --- Replacing ------------------------------------------------------------------------

COUNT = """
import sys
from pathlib import Path
from pqvault.storage import LocalStorage
storage = LocalStorage(Path(sys.argv[1]))
for _ in range(100):
    while True:
        old = storage.read("commits/count", 100)
        if storage.replace("commits/count", old, b"%d" % (int(old) + 1)):
            break
"""


def test_replace_only_what_was_read(storage: Storage, root: Path) -> None:
    """attack 37: exactly one of two who read the same is told that it has replaced it."""
    storage.put("commits/one", b"first")
    (root / "commits/one").chmod(0o640)
    assert storage.replace("commits/one", b"first", b"second")
    assert not storage.replace("commits/one", b"first", b"third")
    assert not storage.replace("commits/one", b"second and more", b"third")
    assert not storage.replace("commits/one", b"sec", b"third")
    assert not storage.replace("commits/gone", b"", b"third")
    assert storage.read("commits/one", 100) == b"second"
    assert (root / "commits/one").stat().st_mode & 0o777 == 0o640
    assert everything(root) == ["commits/one"]


def test_replace_follows_no_link(storage: Storage, root: Path, tmp_path: Path) -> None:
    """attack 27: what a planted link points to is not replaced."""
    (tmp_path / "outside").write_bytes(b"first")
    (root / "commits/one").symlink_to(tmp_path / "outside")
    with pytest.raises(FormatError):
        storage.replace("commits/one", b"first", b"second")
    assert (tmp_path / "outside").read_bytes() == b"first"


def test_processes_that_replace_one_file_lose_no_change(storage: Storage, root: Path) -> None:
    """attack 37: four of them count to 100 each."""
    storage.put("commits/count", b"0")
    counting = [run_python(COUNT, str(root)) for _ in range(4)]
    for process in counting:
        process.communicate(timeout=100)
        assert process.returncode == 0
    assert storage.read("commits/count", 100) == b"400"
    assert everything(root) == ["commits/count"]


def test_replace_gives_up_on_a_process_that_hangs(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replacing.lock_file, "__defaults__", (0.05,))
    storage.put("commits/one", b"first")
    with (root / "commits/one").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Locked, match=r"at work on .*commits/one"):
            storage.replace("commits/one", b"first", b"second")
    assert storage.replace("commits/one", b"first", b"second")


def test_a_url_of_one_slash_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As pathlib writes it: what belongs into a bucket would lie here."""
    monkeypatch.chdir(tmp_path)
    for place in ("s3:/bucket/a.pqv", Path("s3://bucket/a.pqv")):
        with pytest.raises(UsageError, match="one slash where a URL has two"):
            storage_at(place)
    (tmp_path / "s3:").mkdir()
    assert storage_at("s3:/a.pqv").where("") == str(tmp_path / "s3:/a.pqv")


def test_one_at_a_time_and_nobody_waits(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """attack 37: who changes an archive may take hours; others are told at once."""
    storage.put("pqvault.json", b"")
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waits"))
    with storage.locked("pqvault.json"):
        with pytest.raises(Locked, match="at work"), storage.locked("pqvault.json"):
            pass
        with pytest.raises(NotFound), storage.locked("gone"):
            pass
    with storage.locked("pqvault.json"):
        pass


def test_a_file_at_a_url_is_whole_or_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finished once on a clean exit, dropped on an error; one that cannot be created is an error of
    ours."""
    memory = fsspec.filesystem("memory")
    storage = storage_at("memory://a-file-at-a-url")
    with storage.create("whole") as sink:
        sink.write(b"one")
        sink.finish()
    assert storage.read("whole", 10) == b"one"
    with pytest.raises(UsageError, match="closed"):
        sink.write(b"two")
    with pytest.raises(KeyError), storage.create("half") as sink:
        sink.write(b"one")
        raise KeyError
    assert not storage.exists("half")

    def refused(*_: object, **__: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(type(memory), "open", refused)
    with pytest.raises(PQVaultError, match="cannot create"):
        storage.create("more")


def test_an_upload_that_is_interrupted_waits_for_its_parts() -> None:
    """Ctrl-C while a part is waited for: it must not land after the abort, to be paid for."""
    begun, done, log = threading.Event(), threading.Event(), []

    class Store:
        def split_path(self, path: str) -> tuple[str, str, None]:
            return "bucket", path, None

        def call_s3(self, method: str, **options: object) -> dict[str, str]:
            if options.get("PartNumber") == 1:
                begun.set()
                assert done.wait(20)
            log.append(method)
            return {"UploadId": "u", "ETag": "t"}

    def interrupt() -> None:
        begun.wait(20)
        time.sleep(0.1)  # until the writer waits for the first part
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        done.set()
        time.sleep(0.2)  # until a part that nobody waits for has landed

    upload = Upload(Store(), "o", "s3://bucket/o")
    other = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells may ignore it
    try:
        other.start()
        with pytest.raises(KeyboardInterrupt):
            for _ in range(10):
                upload.write(bytes(PART))
        other.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert log[0] == "create_multipart_upload" and log[-1] == "abort_multipart_upload"
    assert log.count("upload_part") == len(log) - 2
