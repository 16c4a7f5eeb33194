"""Processes that end when nobody expects it: kill -9 and Ctrl-C at any moment of seal and unseal,
and at every single system call with which the storage changes something.

After each: the archive opens, the same command carries on, nothing that was committed is done
again, the result is complete, and what is left over goes with ``gc``.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hostile as h
import pytest

import pqvault
from pqvault.errors import PQVaultError
from pqvault.format.commit import Commit
from pqvault.storage import LocalStorage

pytestmark = pytest.mark.usefixtures("home")

KEY = pqvault.Identity.generate()


def make_corpus(root: Path, folders: int, each: int, noise: int) -> Path:
    rng = random.Random(11)
    for folder in range(folders):
        path = root / f"folder{folder:02d}"
        path.mkdir(parents=True)
        for number in range(each):
            text = f"file {number} of {folder}\n" * rng.randrange(60)
            (path / f"file{number:03d}.txt").write_text(text)
        (path / "noise").write_bytes(rng.randbytes(rng.randrange(noise)))
    (root / "folder00" / "soft").symlink_to("file001.txt")
    os.link(root / "folder00" / "file002.txt", root / "folder00" / "hard")
    return root


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 3,000 small files and 10 MB in larger ones."""
    return make_corpus(tmp_path_factory.mktemp("corpus") / "src", 30, 100, 600_000)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 300 small files and 5 MB in larger ones."""
    return make_corpus(tmp_path_factory.mktemp("quick") / "src", 10, 30, 1_000_000)


def count_files(source: Path) -> int:
    return sum(p.is_file() and not p.is_symlink() for p in source.rglob("*"))


SEAL = """
import json, sys
import pqvault
from pqvault.archive import deal
deal.PART_SIZE, deal.LEAST_OBJECT, deal.OBJECT_SIZE = 1 << 20, 1 << 18, 1 << 18
source, archive, recipient = sys.argv[1:]
print("ready", flush=True)
report = pqvault.seal(source, archive, recipients=[recipient], jobs=2)
print(json.dumps([report.files, report.unchanged, len(report.parts)]))
"""


def seal(corpus: Path, archive: Path, home: Path) -> list[int]:
    """One undisturbed run: [files, unchanged, parts]."""
    run = h.run_child(SEAL, corpus, archive, KEY.recipient.text, home=home)
    assert not run.returncode, run.stderr
    result: list[int] = json.loads(run.stdout.splitlines()[-1])
    return result


def interrupted(
    text: str, *args: object, home: Path, after: float, number: int
) -> tuple[int, float, str]:
    """Start, wait for ``ready``, ``after`` seconds, signal: code, seconds to the end, stderr."""
    child = h.start_child(text, *args, home=home)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(after)
        began = time.monotonic()
        h.kill(child, number)
        _, errors = child.communicate(timeout=30)
        return child.returncode, time.monotonic() - began, errors
    finally:
        h.kill(child)
        with child:  # waits, and closes its pipes
            pass


def listed_files(archive: Path) -> set[str]:
    """What the commits promise, and the documents themselves."""
    found = {"pqvault.json"}
    for path in (archive / "commits").iterdir():
        commit = Commit.parse(path.read_bytes())
        found |= {f"commits/{commit.part}", f"envelopes/{commit.part}"}
        found |= {f"parts/{commit.part}/{file.name}" for file in commit.files}
    return found


def all_files(archive: Path) -> set[str]:
    """Without the unfinished header of a writer that was killed: see
    test_gc_takes_an_unfinished_header."""
    names = {str(p.relative_to(archive)) for p in archive.rglob("*") if not p.is_dir()}
    return {name for name in names if not name.startswith(".pqvault.json.")}


def committed(archive: Path) -> dict[str, bytes]:
    if not (archive / "commits").is_dir():
        return {}
    return {
        p.name: p.read_bytes()
        for p in (archive / "commits").iterdir()
        if not p.name.startswith(".")
    }


def sealed_files(archive: Path) -> int:
    """How many files a reader of the archive finds now; it must always be possible."""
    if not (archive / "pqvault.json").exists():
        return 0
    with pqvault.open(archive, identities=[KEY]) as reader:
        return sum(entry.kind.letter in "fh" for entry in reader.entries())


def check_whole(archive: Path, source: Path, target: Path) -> None:
    """Verified, unsealed, compared; then gc takes the leftovers and nothing else."""
    assert pqvault.verify(archive, identities=[KEY]).problems == []
    report = pqvault.gc(archive, older_than=0)
    assert report.kept == []
    assert all_files(archive) == listed_files(archive)
    assert pqvault.verify(archive, identities=[KEY]).problems == []
    with pqvault.open(archive, identities=[KEY]) as reader:
        assert reader.unseal(target).failed == []
    same_tree(target / source.name, source)


def same_tree(found: Path, source: Path) -> None:
    assert h.tree(found) == h.tree(source)
    for path in source.rglob("*"):
        ours = found / path.relative_to(source)
        one, other = path.lstat(), ours.lstat()
        assert (one.st_mode, one.st_mtime_ns) == (other.st_mode, other.st_mtime_ns), ours


def moments(count: int, length: float) -> Iterator[float]:
    """One at random in each of ``count`` equal stretches of the run."""
    rng = random.Random(os.urandom(8))
    for index in range(count):
        yield length * (index + rng.random()) / count


# ---- at random moments -------------------------------------------------------------------


def kill_seals(corpus: Path, tmp_path: Path, home: Path, count: int, number: int) -> None:
    began = time.monotonic()
    total = count_files(corpus)
    assert seal(corpus, tmp_path / "probe.pqv", home)[0] == total
    length = (time.monotonic() - began) * 0.8
    outcomes = []
    for index, after in enumerate(moments(count, length)):
        archive = tmp_path / f"{index}.pqv"
        args = (corpus, archive, KEY.recipient.text)
        code, seconds, errors = interrupted(SEAL, *args, home=home, after=after, number=number)
        assert code in (0, -number, 1 if number == signal.SIGINT else -number), errors
        if number == signal.SIGINT:
            assert seconds < 10 and ("KeyboardInterrupt" in errors or not errors), errors
            if (archive / "commits").is_dir():
                # Folders come first: without the header there is nothing in them.
                begun = (archive / "pqvault.json").exists()
                expected = listed_files(archive) if begun else set()
                assert all_files(archive) == expected, "something is half-written"
        before = committed(archive)
        done = sealed_files(archive)
        files, _, parts = seal(corpus, archive, home)
        assert files == total - done, "files of committed parts were sealed again"
        assert before.items() <= committed(archive).items()
        check_whole(archive, corpus, tmp_path / f"{index}.out")
        outcomes.append((f"{after:.2f} s", len(before), parts))
        shutil.rmtree(archive)
        shutil.rmtree(tmp_path / f"{index}.out")
    print("(after, parts committed by then, parts of the resume):", *outcomes)


def test_seal_killed_at_random(quick: Path, tmp_path: Path, home: Path) -> None:
    kill_seals(quick, tmp_path, home, 8, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_seal_killed_at_50_random_moments(corpus: Path, tmp_path: Path, home: Path) -> None:
    kill_seals(corpus, tmp_path, home, 50, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_seal_interrupted_at_30_random_moments(corpus: Path, tmp_path: Path, home: Path) -> None:
    kill_seals(corpus, tmp_path, home, 30, signal.SIGINT)


def test_seal_interrupted_at_random(quick: Path, tmp_path: Path, home: Path) -> None:
    kill_seals(quick, tmp_path, home, 2, signal.SIGINT)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_seal_killed_again_and_again(corpus: Path, tmp_path: Path, home: Path) -> None:
    """Each run gets a little further; in the end everything is there once."""
    archive = tmp_path / "x.pqv"
    rng = random.Random(os.urandom(8))
    for _ in range(40):
        args = (corpus, archive, KEY.recipient.text)
        after = rng.random() * 0.6
        code, _, _ = interrupted(SEAL, *args, home=home, after=after, number=signal.SIGKILL)
        if code == 0:
            break
    seal(corpus, archive, home)
    check_whole(archive, corpus, tmp_path / "out")
    with pqvault.open(archive, identities=[KEY]) as reader:
        rows = sum(part.catalog.rows for part in reader.parts)
        entries = sum(1 for _ in reader.entries())
    print(f"{len(committed(archive))} parts, {rows} rows for {entries} entries")
    assert rows - entries <= 4 * len(committed(archive))  # the folders above, once a part


UNSEAL = """
import sys
import pqvault
archive, identity, target, force = sys.argv[1:]
key = pqvault.Identity.parse(identity)
with pqvault.open(archive, identities=[key]) as reader:
    print("ready", flush=True)
    report = reader.unseal(target, force=force == "force", jobs=2)
assert not report.failed, report.failed
"""


def kill_unseals(corpus: Path, tmp_path: Path, home: Path, count: int, number: int) -> None:
    archive = tmp_path / "x.pqv"
    seal(corpus, archive, home)
    began = time.monotonic()
    run = h.run_child(UNSEAL, archive, KEY.text, tmp_path / "probe", "", home=home)
    assert not run.returncode, run.stderr
    length = (time.monotonic() - began) * 0.6
    good = h.tree(corpus.parent)
    for index, after in enumerate(moments(count, length)):
        target = tmp_path / f"out{index}"
        args = (archive, KEY.text, target, "")
        code, seconds, errors = interrupted(UNSEAL, *args, home=home, after=after, number=number)
        assert code in (0, -number, 1 if number == signal.SIGINT else -number), errors
        assert seconds < 10
        spare = 0
        for path, content in h.tree(target).items() if target.exists() else ():
            if os.path.basename(path).startswith(b".pqvault-"):
                spare += 1
                assert number == signal.SIGKILL, "an interrupted unseal left a temporary file"
            else:
                assert content == good[path], f"{path!r} is half-written"
        run = h.run_child(UNSEAL, archive, KEY.text, target, "force", home=home)
        assert not run.returncode, run.stderr
        for path in target.rglob(".pqvault-*.tmp-*"):
            path.unlink()  # see test_a_forced_unseal_clears_what_a_killed_one_left
        assert h.tree(target) == good
        print(f"after {after:.2f} s: {spare} temporary files were left")
        shutil.rmtree(target)


def test_unseal_killed_at_random(quick: Path, tmp_path: Path, home: Path) -> None:
    kill_unseals(quick, tmp_path, home, 3, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_unseal_killed_at_50_random_moments(corpus: Path, tmp_path: Path, home: Path) -> None:
    kill_unseals(corpus, tmp_path, home, 50, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_unseal_interrupted_at_random(corpus: Path, tmp_path: Path, home: Path) -> None:
    kill_unseals(corpus, tmp_path, home, 20, signal.SIGINT)


@pytest.mark.parametrize(
    "name",
    [
        ".pqvault-0011223344556677-3.tmp",
        ".pqvault-0011223344556677-0.tmp-\xe9",
    ],
)  # fmt: skip
def test_a_forced_unseal_clears_what_a_killed_one_left(tmp_path: Path, name: str) -> None:
    forger = h.Forger(tmp_path / "x.pqv", KEY.recipient)
    forger.part([h.file_row(b"a", b"content")], {0: h.plain_of(b"content")})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(b"half")
    with pqvault.open(forger.archive, identities=[KEY]) as reader:
        reader.unseal(tmp_path / "out", force=True)
    assert h.tree(tmp_path / "out") == {b"a": b"content"}


def test_an_entry_named_like_a_leftover_is_an_entry(tmp_path: Path) -> None:
    """What a killed unseal left, sealed and unsealed again: nothing may go in silence."""
    name = b".pqvault-0011223344556677-3.tmp"
    forger = h.Forger(tmp_path / "x.pqv", KEY.recipient)
    forger.part([h.file_row(name, b"content")], {0: h.plain_of(b"content")})
    with pqvault.open(forger.archive, identities=[KEY]) as reader:
        report = reader.unseal(tmp_path / "out", force=True)
    assert h.tree(tmp_path / "out") == {name: b"content"} or report.failed


# ---- Ctrl-C must end it ------------------------------------------------------------------

VERIFY = """
import sys
import pqvault
archive, identity = sys.argv[1:]
key = pqvault.Identity.parse(identity)
print("ready", flush=True)
pqvault.verify(archive, identities=[key])
"""


def stops_soon(text: str, *args: object, home: Path) -> None:
    """Ctrl-C after a second: what is running may finish its piece, not its terabyte."""
    try:
        code, seconds, errors = interrupted(text, *args, home=home, after=1, number=signal.SIGINT)
    except subprocess.TimeoutExpired:
        pytest.fail("Ctrl-C did not end it")
    # A terabyte of zeros takes minutes; on a busy machine a piece may take seconds.
    assert seconds < 20 and "KeyboardInterrupt" in errors, (code, seconds, errors)


def sparse(path: Path, size: int) -> None:
    path.touch()
    try:
        os.truncate(path, size)
    except OSError:
        pytest.skip("no sparse terabyte here")


@pytest.mark.slow
def test_ctrl_c_while_the_digest_of_a_large_file_is_taken(tmp_path: Path, home: Path) -> None:
    (tmp_path / "src").mkdir()
    sparse(tmp_path / "src" / "sparse", 1 << 40)
    stops_soon(SEAL, tmp_path / "src", tmp_path / "x.pqv", KEY.recipient.text, home=home)


@pytest.mark.slow
def test_ctrl_c_while_a_large_file_is_verified(tmp_path: Path, home: Path) -> None:
    forger = h.Forger(tmp_path / "x.pqv", KEY.recipient)
    forger.part([h.row(b"a", size=1 << 40, extents=[(-1, 0, 1 << 40)])])
    stops_soon(VERIFY, tmp_path / "x.pqv", KEY.text, home=home)


@pytest.mark.slow
def test_ctrl_c_while_a_large_file_is_unsealed(tmp_path: Path, home: Path) -> None:
    forger = h.Forger(tmp_path / "x.pqv", KEY.recipient)
    forger.part([h.row(b"a", size=1 << 40, extents=[(-1, 0, 1 << 40)])])
    stops_soon(UNSEAL, tmp_path / "x.pqv", KEY.text, tmp_path / "out", "", home=home)
    assert not (tmp_path / "out").exists() or h.tree(tmp_path / "out") == {}


# ---- at every step of the storage --------------------------------------------------------

# One driver process imports everything once and forks: a child that seals and meets its end at
# step k, then a child that looks at what is left, seals again and compares.
STEPS = '''
import errno, json, os, signal, sys, time, traceback
from pathlib import Path
import hostile as h
import pqvault, pqvault.api, pqvault.archive.unseal, pqvault.archive.extract
import pqvault.archive.verify, steps_kit
from pqvault.archive import deal
import test_crash as t

source, base, identity, mode, first, step = sys.argv[1:]
key = t.KEY = pqvault.Identity.parse(identity)
source, base = Path(source), Path(base)
deal.PART_SIZE = 1000  # bytes: several parts

class Shim:
    """The `os` of the storage, which ends at the k-th call that changes something."""
    def __init__(self, k, mode):
        self.k, self.mode, self.calls = k, mode, 0
    def __getattr__(self, name):
        real = getattr(os, name)
        if name not in ("open", "write", "fsync", "link", "rename", "unlink", "mkdir", "rmdir"):
            return real
        def call(*args, **kwargs):
            if name == "open" and not (args[1] & os.O_CREAT):
                return real(*args, **kwargs)
            self.calls += 1
            if self.calls != self.k:
                return real(*args, **kwargs)
            if self.mode == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.mode == "short" and name == "write":
                real(args[0], memoryview(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            if self.mode == "error":
                raise OSError(errno.EIO, "an error of the shim")
            result = real(*args, **kwargs)
            if self.mode == "late error" and name != "open":
                raise OSError(errno.EIO, "an error of the shim")
            if self.mode == "interrupt":
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
            return result
        return call

def seal():
    return pqvault.seal(source, base / "x.pqv", recipients=[key.recipient], jobs=1)

def forked(do):
    """Exit code and what it printed to a pipe."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        signal.alarm(60)
        try:
            do(lambda text: os.write(write, text.encode()))
            code = 0
        except KeyboardInterrupt:
            code = 130
        except BaseException:
            os.write(write, traceback.format_exc().encode()[-3000:])
            code = 1
        os._exit(code)
    os.close(write)
    text = b""
    while piece := os.read(read, 65536):
        text += piece
    os.close(read)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text.decode()

def attempt(k):
    def do(say):
        shim = Shim(k, mode)
        for module in steps_kit.storage_modules():
            module.os = shim
        try:
            seal()
        except pqvault.errors.PQVaultError as error:
            h.check_error(error)
            assert mode in ("error", "late error"), error
            if shim.calls < k:
                raise
        say(str(shim.calls))
    return do

def check(say):
    archive = base / "x.pqv"
    before = t.committed(archive)
    t.sealed_files(archive)
    seal()
    assert before.items() <= t.committed(archive).items()
    t.check_whole(archive, source, base / "out")

import shutil
os.environ["PQVAULT_HOME"] = str(base / "home")
k, failed = int(first), []
while True:
    for name in ("x.pqv", "home", "out"):
        shutil.rmtree(base / name, ignore_errors=True)
    code, text = forked(attempt(k))
    if code == 0 and text.isdigit() and int(text) < k:
        print(json.dumps({"steps": int(text), "failed": failed}))
        break
    if code == 1:
        failed.append([k, "the run itself: " + text])
    code, text = forked(check)
    if code:
        failed.append([k, text or f"exit {code}"])
    k += int(step)
'''


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Three parts of 1,000 bytes."""
    source = tmp_path / "src"
    (source / "d").mkdir(parents=True)
    for name in ("a", "b", "d/c"):
        (source / name).write_bytes(name.encode() * 1100)
    (source / "empty").touch()
    os.link(source / "a", source / "hard")
    return source


def every_step(small: Path, tmp_path: Path, mode: str, first: int, step: int) -> None:
    (tmp_path / "base").mkdir()
    args = (small, tmp_path / "base", KEY.text, mode, first, step)
    run = h.run_child(STEPS, *args, home=tmp_path / "home", timeout=900)
    assert not run.returncode, run.stderr[-3000:]
    result: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    print(f"{mode}: {result['steps']} steps, failed at {[k for k, _ in result['failed']]}")
    assert result["steps"] > 40
    for k, text in result["failed"]:
        print(f"step {k}: {text}", file=sys.stderr)
    assert not result["failed"]


MODES = ["kill", "short", "error", "late error", "interrupt"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", MODES)
def test_the_end_at_every_step(small: Path, tmp_path: Path, mode: str) -> None:
    every_step(small, tmp_path, mode, 1, 1)


@pytest.mark.parametrize(("mode", "first"), [("kill", 3), ("error", 2)])
def test_the_end_at_some_steps(small: Path, tmp_path: Path, mode: str, first: int) -> None:
    every_step(small, tmp_path, mode, first, 14)


@pytest.mark.parametrize("how", [KeyboardInterrupt, OSError(5, "Input/output error")])
def test_a_committed_part_is_never_discarded(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Any
) -> None:
    """Ctrl-C or an I/O error in the fsync of commits/, just after the commit was linked."""
    import pqvault.storage.local as local

    archive, real = tmp_path / "x.pqv", local.sync_fd

    def sync(fd: int) -> None:
        real(fd)
        folder = os.readlink(f"/proc/self/fd/{fd}")
        if folder.endswith("/commits") and committed(archive):
            raise how

    with monkeypatch.context() as patch:
        patch.setattr(local, "sync_fd", sync)
        with pytest.raises((KeyboardInterrupt, pqvault.errors.PQVaultError)):
            pqvault.seal(small, archive, recipients=[KEY.recipient])
    assert listed_files(archive) <= all_files(archive), "a committed part lost its files"
    pqvault.seal(small, archive, recipients=[KEY.recipient])
    check_whole(archive, small, tmp_path / "out")


def test_gc_takes_an_unfinished_header(small: Path, tmp_path: Path) -> None:
    archive = tmp_path / "x.pqv"
    pqvault.seal(small, archive, recipients=[KEY.recipient])
    (archive / ".pqvault.json.01234567.tmp").touch()
    pqvault.gc(archive, older_than=0)
    assert not (archive / ".pqvault.json.01234567.tmp").exists()


def test_gc_leaves_a_running_seal_alone(small: Path, tmp_path: Path) -> None:
    """What is younger than the grace stays, whatever it looks like."""
    archive = tmp_path / "x.pqv"
    pqvault.seal(small, archive, recipients=[KEY.recipient])
    running = archive / "parts" / ("ab" * 16) / "objects"
    running.mkdir(parents=True)
    pqvault.gc(archive)
    (running / "000000-00000000").write_bytes(b"half")
    (running.parent / "tables").mkdir()
    (running.parent / "catalog").write_bytes(b"half")
    (archive / "envelopes" / ("ab" * 16)).write_bytes(b"early")
    report = pqvault.gc(archive)
    assert report.removed == []
    assert (running / "000000-00000000").exists() and (running.parent / "tables").exists()
    assert (archive / "envelopes" / ("ab" * 16)).exists()
    report = pqvault.gc(archive, older_than=0, dry_run=True)
    assert report.removed and (running / "000000-00000000").exists()
    again = pqvault.gc(archive, older_than=0)
    assert (again.removed, again.size) == (report.removed, report.size)
    assert f"envelopes/{'ab' * 16}" in again.removed
    assert not running.parent.exists()


def test_gc_takes_a_part_whole_or_not_at_all(small: Path, tmp_path: Path) -> None:
    """A seal may take longer than the grace: what it wrote first is needed for its commit."""
    archive = tmp_path / "x.pqv"
    pqvault.seal(small, archive, recipients=[KEY.recipient])
    objects = archive / "parts" / ("ab" * 16) / "objects"
    objects.mkdir(parents=True)
    for name in ("000000-00000000", "000001-00000000"):
        (objects / name).write_bytes(b"x")
    os.utime(objects / "000000-00000000", (0, 0))
    assert pqvault.gc(archive).removed == []
    assert len(list(objects.iterdir())) == 2
    empty = archive / "parts" / ("cd" * 16)
    empty.mkdir()
    os.utime(empty, (0, 0))
    assert pqvault.gc(archive, dry_run=True).removed == [] and empty.exists()
    pqvault.gc(archive)
    assert not empty.exists() and len(list(objects.iterdir())) == 2


def test_gc_keeps_a_part_whose_commit_is_damaged(small: Path, tmp_path: Path) -> None:
    """It can be put back from a copy, and then all of the part has to be there."""
    archive = tmp_path / "x.pqv"
    pqvault.seal(small, archive, recipients=[KEY.recipient])
    (commit,) = (archive / "commits").iterdir()
    whole = commit.read_bytes()
    commit.write_bytes(whole[:-1])
    before = all_files(archive)
    report = pqvault.gc(archive, older_than=-10)
    assert (report.removed, all_files(archive)) == ([], before)
    commit.write_bytes(whole)
    check_whole(archive, small, tmp_path / "out")


def test_gc_takes_the_envelope_first_and_goes_on_past_what_cannot_go(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first call on, nothing that is left of a part that was pruned opens here."""
    archive = tmp_path / "x.pqv"
    for number in range(2):
        (small / "changing").write_bytes(bytes([number]))
        pqvault.seal(small, archive, recipients=[KEY.recipient], append=True)
    (gone,) = pqvault.prune(archive, identities=[KEY], keep_last=1).removed
    remove, said = LocalStorage.remove, list[str]()

    def fails(storage: LocalStorage, name: str) -> None:
        said.append(name)
        if name.endswith("catalog"):
            raise PQVaultError(f"cannot remove {name}")
        remove(storage, name)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "remove", fails)
        report = pqvault.gc(archive, older_than=-10)
    assert said[:2] == [f"envelopes/{gone}", f"commits/{gone}"] and len(said) > 3
    assert [p.message for p in report.problems] == [f"cannot remove parts/{gone}/catalog"]
    assert report.removed == [name for name in said if not name.endswith("catalog")]
    assert pqvault.gc(archive, older_than=-10).removed == [f"parts/{gone}/catalog"]
    assert pqvault.verify(archive, identities=[KEY]).problems == []


# ---- two at once -------------------------------------------------------------------------


def test_two_seals_at_once(quick: Path, tmp_path: Path, home: Path) -> None:
    """Into one archive, of the same source, one of them killed half-way."""
    archive = tmp_path / "x.pqv"
    args = (quick, archive, KEY.recipient.text)
    children = [h.start_child(SEAL, *args, home=home) for _ in range(3)]
    # Once they have begun. A kill at any moment is for the tests of random ones: after the rows of
    # the journal and before the commit, all would be sealed again.
    while not (archive / "pqvault.json").exists() and children[0].poll() is None:
        time.sleep(0.001)
    h.kill(children[0])
    for child in children:
        _, errors = child.communicate(timeout=60)
        assert child.returncode in ((0, -signal.SIGKILL) if child is children[0] else (0,)), errors
    assert seal(quick, archive, home)[0] == 0
    check_whole(archive, quick, tmp_path / "out")
