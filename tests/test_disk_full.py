"""No room and no permission: a small tmpfs, a limit on file sizes, a user who may not.

Each time: a sentence that names the file, a hint, the exit code, nothing half-written, the space
given back, and after the cause is gone the same command works.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import hostile as h
import pytest

import pqvault
from pqvault.errors import PQVaultError
from pqvault.logs import InferenceLog, LogView

pytestmark = pytest.mark.usefixtures("home")

KEY = pqvault.Identity.generate()
MIB = 1 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")


class Disk:
    """A tmpfs of a few MiB."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"mounting a tmpfs is not permitted here: {done.stderr.strip()}")

    def free(self) -> int:
        facts = os.statvfs(self.path)
        return facts.f_bavail * facts.f_frsize

    def fill(self, leave: int) -> Path:
        """All but ``leave`` bytes taken by one file."""
        ballast = self.path / "ballast"
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, self.free() - leave)
        return ballast

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.path)], check=False, capture_output=True)


@pytest.fixture
def disk() -> Iterator[Disk]:
    # Not below tmp_path: what a killed run leaves mounted there would trouble pytest's clean-up.
    disk = Disk(Path(tempfile.mkdtemp(prefix="pqvault-disk-")))
    try:
        yield disk
    finally:
        disk.unmount()
        disk.path.rmdir()


CLI = """
import resource, sys
limit = int(sys.argv[1])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from pqvault_cli.main import main
main(sys.argv[2:])
"""


def cli(home: Path, *args: object, limit: int = 0) -> subprocess.CompletedProcess[str]:
    return h.run_child(CLI, limit, *args, home=home)


def refused(run: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """An exit code, a sentence with these words, a hint, no traceback."""
    assert run.returncode == code, (run.returncode, run.stderr)
    assert "Traceback" not in run.stderr and "internal error" not in run.stderr
    for word in words:
        assert word in run.stderr, run.stderr
    assert "hint" in run.stderr.lower(), run.stderr


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key.txt"
    KEY.save_file(path)
    return path


def noise(path: Path, size: int, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(random.Random(seed).randbytes(size))
    return path


def part_files(archive: Path) -> list[str]:
    """All that a failed seal must not leave."""
    names = ("commits", "envelopes", "parts")
    return [str(p) for name in names for p in (archive / name).rglob("*")]


# ---- seal --------------------------------------------------------------------------------


def test_seal_objects_on_a_full_disk(disk: Disk, tmp_path: Path, home: Path) -> None:
    disk.mount("size=8m")
    for number in range(5):
        noise(tmp_path / "src" / f"{number}", 4 * MIB, number)
    archive = disk.path / "x.pqv"
    before = disk.free()
    args = ("seal", tmp_path / "src", "-o", archive, "-r", KEY.recipient.text)
    refused(cli(home, *args), 1, "no space left", "objects/")
    assert part_files(archive) == []
    assert before - disk.free() < 64 * 1024, "the space is not given back"
    disk.mount("remount,size=40m")
    assert cli(home, *args).returncode == 0
    assert pqvault.verify(archive, identities=[KEY]).problems == []


def test_a_later_part_on_a_full_disk(
    disk: Disk, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed before stays, and is not sealed again."""
    from pqvault.archive import deal

    disk.mount("size=8m")
    for number in range(6):
        noise(tmp_path / "src" / f"{number}", 2 * MIB, number)
    archive = disk.path / "x.pqv"
    monkeypatch.setattr(deal, "PART_SIZE", 2 * MIB)
    error = h.fails(
        lambda: pqvault.seal(tmp_path / "src", archive, recipients=[KEY.recipient]), code=1
    )
    assert "no space left" in error.message and "free some space" in error.hint
    commits = os.listdir(archive / "commits")
    assert len(commits) in (2, 3)
    assert len(os.listdir(archive / "parts")) == len(os.listdir(archive / "envelopes"))
    assert pqvault.verify(archive, identities=[KEY]).problems == []
    disk.mount("remount,size=40m")
    report = pqvault.seal(tmp_path / "src", archive, recipients=[KEY.recipient])
    assert report.files == 6 - len(commits)
    with pqvault.open(archive, identities=[KEY]) as reader:
        reader.unseal(tmp_path / "out")
    assert h.tree(tmp_path / "out" / "src") == h.tree(tmp_path / "src")


def test_the_catalog_on_a_full_disk(disk: Disk, tmp_path: Path) -> None:
    disk.mount("size=600k")
    (tmp_path / "src").mkdir()
    rng = random.Random(1)
    for _ in range(8000):
        (tmp_path / "src" / rng.randbytes(90).hex()).touch()
    archive = disk.path / "x.pqv"
    error = h.fails(
        lambda: pqvault.seal(tmp_path / "src", archive, recipients=[KEY.recipient]), code=1
    )
    assert "catalog" in error.message and "no space left" in error.message and error.hint
    assert part_files(archive) == []
    disk.mount("remount,size=20m")
    pqvault.seal(tmp_path / "src", archive, recipients=[KEY.recipient])
    assert pqvault.verify(archive, identities=[KEY]).problems == []


def fill_steps(disk: Disk, tmp_path: Path, prepare: Callable[[int], object], steps: range) -> int:
    """Seal with a little more room each time, until it works: no step may leave anything."""
    noise(tmp_path / "src" / "a", 9000)
    archive = disk.path / "x.pqv"
    failures = 0
    for room in steps:
        shutil.rmtree(archive, ignore_errors=True)
        (disk.path / "ballast").unlink(missing_ok=True)
        archive.mkdir()
        prepare(room)
        try:
            pqvault.seal(tmp_path / "src", archive, recipients=[KEY.recipient])
        except PQVaultError as error:
            failures += 1
            h.check_error(error, 1)
            assert "no space left" in error.message and error.hint
            assert part_files(archive) == [], f"room for {room}"
        else:
            assert pqvault.verify(archive, identities=[KEY]).problems == []
            return failures
    raise AssertionError("there was never room")


def test_room_for_some_pages(disk: Disk, tmp_path: Path) -> None:
    """Objects, catalog, envelope, commit: each is the first to find no room."""
    disk.mount("size=2m")
    failures = fill_steps(disk, tmp_path, lambda room: disk.fill(room * PAGE), range(64))
    assert failures >= 6
    print(f"{failures} failures before there was room")


def test_room_for_some_inodes(disk: Disk, tmp_path: Path) -> None:
    disk.mount("size=2m,nr_inodes=200")

    def prepare(room: int) -> None:
        spare = disk.path / "x.pqv" / "removed" / "spare"
        spare.mkdir(parents=True)
        free = os.statvfs(disk.path).f_ffree
        for number in range(free - room):
            (spare / str(number)).touch()

    failures = fill_steps(disk, tmp_path, prepare, range(40))
    assert failures >= 6
    print(f"{failures} failures before there was room")


@pytest.mark.parametrize("room", [0, 1, 10, 40])
def test_the_home_on_a_full_disk(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """Journal and plan are there; the archive is elsewhere."""
    disk.mount("size=1m")
    (tmp_path / "src").mkdir()
    for number in range(2000):
        (tmp_path / "src" / f"{number:06d}").write_bytes(b"x")
    monkeypatch.setenv("PQVAULT_HOME", str(disk.path / "home"))
    disk.fill(room * PAGE)
    archive = tmp_path / "x.pqv"
    error = h.fails(
        lambda: pqvault.seal(tmp_path / "src", archive, recipients=[KEY.recipient]), code=1
    )
    assert str(disk.path) in error.message and error.hint
    assert part_files(archive) == []


@pytest.mark.parametrize("place", ["/proc/nowhere", "{tmp}/file", "/dev/null/x"])
def test_a_home_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    noise(tmp_path / "src" / "a", 10)
    (tmp_path / "file").touch()
    monkeypatch.setenv("PQVAULT_HOME", place.format(tmp=tmp_path))
    error = h.fails(
        lambda: pqvault.seal(tmp_path / "src", tmp_path / "x.pqv", recipients=[KEY.recipient])
    )
    assert "PQVAULT_HOME" in error.message + error.hint


# ---- unseal ------------------------------------------------------------------------------


def test_unseal_on_a_full_disk(disk: Disk, tmp_path: Path, home: Path, key_file: Path) -> None:
    disk.mount("size=8m")
    for number in range(12):
        noise(tmp_path / "src" / f"{number}", MIB, number)
    noise(tmp_path / "src" / "large", 6 * MIB, 99)
    archive = tmp_path / "x.pqv"
    pqvault.seal(tmp_path / "src", archive, recipients=[KEY.recipient])
    target = disk.path / "out"
    run = cli(home, "unseal", archive, "-o", target, "-i", key_file)
    refused(run, 1, "no space")
    good = h.tree(tmp_path)
    for path, content in h.tree(target).items():
        assert content == good[path], f"{path!r} is half-written"
    disk.mount("remount,size=40m")
    run = cli(home, "unseal", archive, "-o", target, "-i", key_file, "--force")
    assert run.returncode == 0, run.stderr
    assert h.tree(target) == {p: c for p, c in good.items() if p.split(b"/")[0] == b"src"}


def test_unseal_without_room_for_small_files(disk: Disk, tmp_path: Path) -> None:
    disk.mount("size=1m,nr_inodes=50")
    for number in range(100):
        noise(tmp_path / "src" / f"{number}", 3, number)
    archive = tmp_path / "x.pqv"
    pqvault.seal(tmp_path / "src", archive, recipients=[KEY.recipient])
    with pqvault.open(archive, identities=[KEY]) as reader:
        error = h.fails(lambda: reader.unseal(disk.path / "out"), code=1)
    assert "no space" in error.message and error.hint
    assert not list(disk.path.rglob(".pqvault*"))


# ---- streams -----------------------------------------------------------------------------


def test_encrypt_and_decrypt_on_a_full_disk(
    disk: Disk, tmp_path: Path, home: Path, key_file: Path
) -> None:
    disk.mount("size=4m")
    plain = noise(tmp_path / "plain", 9 * MIB)
    before = disk.free()
    args: tuple[object, ...] = (
        "encrypt",
        plain,
        "-o",
        disk.path / "s.pqv",
        "-r",
        KEY.recipient.text,
    )
    refused(cli(home, *args), 1, "no space left", "s.pqv")
    assert h.tree(disk.path) == {} and disk.free() == before
    assert cli(home, "encrypt", plain, "-o", tmp_path / "s.pqv", *args[4:]).returncode == 0
    args = ("decrypt", tmp_path / "s.pqv", "-o", disk.path / "plain", "-i", key_file)
    refused(cli(home, *args), 1, "no space left", "plain")
    assert h.tree(disk.path) == {} and disk.free() == before
    disk.mount("remount,size=40m")
    assert cli(home, *args).returncode == 0
    assert (disk.path / "plain").read_bytes() == plain.read_bytes()


def test_a_full_standard_output(tmp_path: Path, home: Path, key_file: Path) -> None:
    plain = noise(tmp_path / "plain", MIB)
    cli(home, "encrypt", plain, "-o", tmp_path / "s.pqv", "-r", KEY.recipient.text)
    for args in (
        ("decrypt", tmp_path / "s.pqv", "-i", key_file),
        ("encrypt", plain, "-r", KEY.recipient.text),
    ):
        with open("/dev/full", "wb") as full:
            run = subprocess.run(
                [*h.child_code(CLI), "0", *map(str, args)],
                env=h.child_env(home), stdout=full, stderr=subprocess.PIPE, text=True, check=False,
            )  # fmt: skip
        assert run.returncode == 1 and "Traceback" not in run.stderr
        assert "space" in run.stderr, run.stderr


# ---- a limit on the size of files --------------------------------------------------------


def test_a_limit_of_file_sizes(tmp_path: Path, home: Path, key_file: Path) -> None:
    plain = noise(tmp_path / "src" / "a", 3 * MIB)
    archive = tmp_path / "x.pqv"
    args: tuple[object, ...] = ("seal", plain.parent, "-o", archive, "-r", KEY.recipient.text)
    refused(cli(home, *args, limit=MIB), 1, "largest file size", "ulimit")
    assert part_files(archive) == []
    assert cli(home, *args).returncode == 0
    args = ("unseal", archive, "-o", tmp_path / "out", "-i", key_file)
    run = cli(home, *args, limit=MIB)
    assert run.returncode in (1, 3) and "Traceback" not in run.stderr
    assert set(h.tree(tmp_path / "out")) <= {b"src"}
    args = ("encrypt", plain, "-o", tmp_path / "s.pqv", "-r", KEY.recipient.text)
    refused(cli(home, *args, limit=MIB), 1, "largest file size", "s.pqv")
    assert not [p for p in tmp_path.iterdir() if "s.pqv" in p.name]
    assert cli(home, *args).returncode == 0
    args = ("decrypt", tmp_path / "s.pqv", "-o", tmp_path / "plain", "-i", key_file)
    refused(cli(home, *args, limit=MIB), 1, "largest file size", "plain")
    assert not [p for p in tmp_path.iterdir() if "plain" in p.name]


# ---- a user who may not ------------------------------------------------------------------

NOBODY = 65534
AS_NOBODY = """
import importlib, json, os, sys, traceback
import hostile as h
import pqvault
for name in ("api", "archive.unseal", "archive.extract", "archive.verify", "archive.gc",
             "archive.inspect", "streams"):
    importlib.import_module("pqvault." + name)
pqvault.archive.partwriter.load_partwriter()  # nobody may not be able to read it
from pqvault.errors import PQVaultError
from pqvault.logs import InferenceLog, LogView
os.setgroups([]); os.setgid(65534); os.setuid(65534)
what, base, identity = sys.argv[1:]
key = pqvault.Identity.parse(identity)
archive, source = base + "/x.pqv", base + "/src"
try:
    if what == "seal":
        pqvault.seal(source, archive, recipients=[key.recipient])
    elif what == "unseal":
        with pqvault.open(archive, identities=[key]) as reader:
            report = reader.unseal(base + "/out")
            if report.failed:
                raise report.failed[0]
    elif what == "verify":
        problems = pqvault.verify(archive, identities=[key]).problems
        if problems:
            raise problems[0]
    elif what == "gc":
        pqvault.gc(archive, older_than=0)
    answer = [0, "", ""]
except PQVaultError as error:
    h.check_error(error)
    answer = [error.exit_code, error.message, error.hint]
print(json.dumps(answer))
"""


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that a user who is not root reaches and may write to."""
    if os.geteuid():
        pytest.skip("only root can become another user")
    base = Path(tempfile.mkdtemp(prefix="pqvault-nobody-"))
    base.chmod(0o777)
    (base / "home").mkdir()
    (base / "home").chmod(0o777)
    noise(base / "src" / "a", 100, 1)
    noise(base / "src" / "d" / "b", 100, 2)
    noise(base / "src" / "z", 100, 3)
    try:
        yield base
    finally:
        shutil.rmtree(base)


def as_nobody(what: str, base: Path) -> tuple[int, str, str]:
    run = h.run_child(AS_NOBODY, what, base, KEY.text, home=base / "home")
    assert not run.returncode, run.stderr
    code, message, hint = json.loads(run.stdout)
    return code, message, hint


def test_an_unreadable_source_file(shared: Path) -> None:
    (shared / "src" / "a").chmod(0)
    code, message, hint = as_nobody("seal", shared)
    assert code == 3 and "src/a" in message and "Permission denied" in message and hint
    with pqvault.open(shared / "x.pqv", identities=[KEY]) as reader:
        found = h.contents(reader)
    assert set(found) == {b"src", b"src/d", b"src/d/b", b"src/z"}
    (shared / "src" / "a").chmod(0o644)
    assert as_nobody("seal", shared)[0] == 0
    with pqvault.open(shared / "x.pqv", identities=[KEY]) as reader:
        assert len(list(reader.entries())) == 5


def test_an_unreadable_source_folder(shared: Path) -> None:
    (shared / "src" / "d").chmod(0)
    code, message, hint = as_nobody("seal", shared)
    assert code == 3 and "src/d" in message and hint
    with pqvault.open(shared / "x.pqv", identities=[KEY]) as reader:
        assert b"src/d/b" not in h.contents(reader)
    (shared / "src" / "d").chmod(0o755)
    assert as_nobody("seal", shared)[0] == 0
    with pqvault.open(shared / "x.pqv", identities=[KEY]) as reader:
        assert b"src/d/b" in h.contents(reader)


def test_nothing_of_the_source_is_readable(shared: Path) -> None:
    (shared / "src").chmod(0)
    code, message, hint = as_nobody("seal", shared)
    assert code in (2, 3) and "src" in message and hint


@pytest.mark.parametrize("place", ["", "commits", "envelopes", "parts"])
def test_a_read_only_archive(shared: Path, place: str) -> None:
    """As a mount that is read-only for this user."""
    assert as_nobody("seal", shared)[0] == 0
    noise(shared / "src" / "new", 100, 9)
    for path in [shared / "x.pqv" / place, *(shared / "x.pqv").iterdir()]:
        if path.is_dir() and (not place or path.name == place):
            os.chown(path, 0, 0)
            path.chmod(0o555)
    before = h.tree(shared / "x.pqv")
    code, message, hint = as_nobody("seal", shared)
    if place:
        assert code == 1 and "permission denied" in message and str(shared) in message and hint
        assert h.tree(shared / "x.pqv") == before
    assert as_nobody("verify", shared)[0] == 0
    code, message, hint = as_nobody("gc", shared)
    assert code in (0, 1)


def test_an_unreadable_archive(shared: Path) -> None:
    pqvault.seal(shared / "src", shared / "x.pqv", recipients=[KEY.recipient])
    (obj,) = (shared / "x.pqv").glob("parts/*/objects/*")
    obj.chmod(0)
    for verb in ("unseal", "verify"):
        code, message, hint = as_nobody(verb, shared)
        assert code == 1 and "permission denied" in message and obj.name in message and hint
    (shared / "x.pqv").chmod(0)
    for verb in ("unseal", "verify", "seal", "gc"):
        code, message, hint = as_nobody(verb, shared)
        assert code == 1 and "ermission denied" in message and "x.pqv" in message and hint


def test_a_target_that_cannot_be_written(shared: Path) -> None:
    pqvault.seal(shared / "src", shared / "x.pqv", recipients=[KEY.recipient])
    shared.chmod(0o555)
    try:
        code, message, hint = as_nobody("unseal", shared)
    finally:
        shared.chmod(0o777)
    assert code in (1, 2) and "out" in message and hint
    (shared / "out").mkdir(mode=0o555)
    code, message, hint = as_nobody("unseal", shared)
    assert code in (1, 2) and "out" in message


def test_modes_of_what_a_seal_writes(shared: Path) -> None:
    """Ciphertext follows the umask; the journal is for its owner alone."""
    pqvault.seal(shared / "src", shared / "x.pqv", recipients=[KEY.recipient])
    home = Path(os.environ["PQVAULT_HOME"])
    for path in home.rglob("*"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


# ---- logs --------------------------------------------------------------------------------


def test_a_log_on_a_full_disk_waits_for_room(disk: Disk) -> None:
    """A real one: nothing is lost under `block`, and the log goes on when there is room again."""
    from pqvault.logs import InferenceLog, LogView

    disk.mount("size=12m")
    archive = disk.path / "l.pqv"
    log = InferenceLog(
        archive, recipients=[KEY.recipient], fsync="flush", flush_size=200_000, block_seconds=60
    )
    for number in range(100):
        log.log({"request_id": str(number), "prompt": random.Random(number).randbytes(750).hex()})
    log.flush()
    ballast = disk.fill(20 * PAGE)
    for number in range(100, 300):
        log.log({"request_id": str(number), "prompt": random.Random(number).randbytes(750).hex()})
    with pytest.raises(PQVaultError, match="no space left"):
        log.flush(1.0)
    assert 100 <= log.acknowledged < 300 and log.stats.dropped.total() == 0
    ballast.unlink()
    log.flush()
    log.close()
    with LogView(archive, [KEY]) as view:
        ids = [i for table in view.rows() for i in table["request_id"].to_pylist()]
    assert ids == [str(number) for number in range(300)]


# ---- a log on a disk that nobody may write to --------------------------------------------


def test_a_log_on_a_disk_that_is_read_only(disk: Disk, home: Path, key_file: Path) -> None:
    """It is read, what was left open too; who wants to write is told so at once; and nothing is
    said to have expired that is still there."""
    disk.mount("size=20m")
    archive = disk.path / "l.pqv"
    code = """
    import os, sys
    from pqvault.logs import InferenceLog
    log = InferenceLog(sys.argv[1], recipients=[sys.argv[2]], fsync="flush")
    log.log({"model": "m"})
    log.flush()
    os._exit(0)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(archive), KEY.recipient.text]
    subprocess.run(command, check=True)
    with InferenceLog(archive, recipients=[KEY.recipient]) as log:
        log.log({"model": "m"})
    disk.mount("remount,ro")
    try:
        with LogView(archive, [KEY]) as view:
            assert [part.state for part in view.parts()] == ["committed", "open or cut"]
            assert view.problems == []
        refused(cli(home, "log", "recover", archive, "-i", key_file), 3, "read-only", "parts/")
        done = cli(home, "log", "expire", archive, "--older-than", "0s", "--json")
        refused(done, 3, "read-only", "envelopes/")
        assert json.loads(done.stdout)["expired"] == [] and json.loads(done.stdout)["size"] == 0
        pipe = cli(home, "log", "pipe", archive, "-r", KEY.recipient.text)
        refused(pipe, 1, "read-only", "envelopes")
    finally:
        disk.mount("remount,rw")
