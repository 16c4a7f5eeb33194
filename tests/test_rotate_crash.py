"""attack 33, attack 34: rotations that end when nobody expects it, at any system call and moment.

After each: every envelope is the old one or the new one, everything opens with one of the two keys,
and `--resume` ends what was begun, with nothing left on the old key.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import hostile as h
import pytest
import steps_kit
from conftest import make_tree

import pqvault
from pqvault.crypto.passphrase import Cost
from pqvault.errors import NoKeyFits
from pqvault.format.envelope import Envelope
from pqvault.keystore import Keystore
from pqvault.rotation.runs import Run, look, unfinished

OLD, NEW = pqvault.Identity.generate(), pqvault.Identity.generate()
CONTENT = b"of the stream" * 1000


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two keys, an archive of two parts and a sealed stream."""
    monkeypatch.setenv("PQVAULT_HOME", str(tmp_path / "home"))
    OLD.save_file(tmp_path / "old.key")
    NEW.save_file(tmp_path / "new.key")
    (tmp_path / "new.pub").write_text(NEW.recipient.text)
    for name in (b"one", b"two"):
        source = make_tree(tmp_path / "src", {name.decode(): name})
        pqvault.seal(source, tmp_path / "all" / "a.pqv", recipients=[OLD.recipient])
    with (tmp_path / "all" / "s.pqv").open("wb") as out:
        pqvault.encrypt(io.BytesIO(CONTENT), out, [OLD.recipient])
    return tmp_path


def opens(folder: Path, *keys: pqvault.Identity) -> bool:
    """Whether these keys open everything; what opens has to be right and whole."""
    for archive in sorted(folder.glob("*.pqv")):
        try:
            if not archive.is_dir():
                with pqvault.open_stream(archive, keys) as stream:
                    assert stream.read() == CONTENT
                continue
            with pqvault.open(archive, identities=keys) as opened:
                for path in ("src/one", "src/two"):
                    assert opened.open_file(path).read() == path[4:].encode()
        except NoKeyFits:
            return False
    return True


def generations(folder: Path) -> set[int]:
    return {Envelope.parse(p.read_bytes()).generation for p in folder.glob("*/envelopes/[!.]*")}


def leftovers(folder: Path) -> list[Path]:
    return [p for p in folder.rglob(".*") if not p.is_dir()]


def check(base: Path, *, resume: bool = True) -> None:
    """The promise, and that it can be carried on."""
    assert opens(base / "all", OLD, NEW)
    assert generations(base / "all") <= {1, 2}
    paths = unfinished()
    for path in paths if resume else ():
        with Run.open(path) as run:
            from pqvault.rotating import rotating

            with rotating(run, [OLD, NEW]) as work:
                work.run()
    again = pqvault.rotate(
        base / "all",
        identities=[OLD, NEW],
        to=NEW.recipient,
        remove=[OLD.key_id],
        recursive=True,
    )
    # A killed process may have been before its plan was there; else there was nothing left to do.
    assert again.rewrapped == 0 or not paths
    assert opens(base / "all", NEW) and generations(base / "all") == {2}
    assert (base / "all" / "a.pqv" / "retired" / OLD.key_id).exists()
    assert unfinished() == []
    for path in leftovers(base / "all"):
        assert path.parent.name in ("envelopes", "retired"), path  # `gc` takes those
    report = pqvault.gc(base / "all" / "a.pqv", older_than=0)
    assert report.problems == [] and leftovers(base / "all") == []


# -- at every call that changes something --------------------------------------------------

STEPS = """
import json, sys
from pathlib import Path
import pqvault, pqvault.rotating
from pqvault.rotation import runs, streams
import steps_kit, test_rotate_crash as t

base, mode, stride = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
t.OLD = pqvault.Identity.load_file(base / "old.key")[0]
t.NEW = pqvault.Identity.load_file(base / "new.key")[0]

def work():
    pqvault.rotate(base / "all", identities=[t.OLD], to=t.NEW.recipient,
                   remove=[t.OLD.key_id], recursive=True, jobs=1)

modules = [*steps_kit.storage_modules(), streams, runs]
print(json.dumps(steps_kit.every_step(base, mode, modules, work, lambda: t.check(base), stride)))
"""


@pytest.mark.parametrize("mode", ["kill", "error"])
def test_the_end_at_every_call_that_changes_something(work: Path, mode: str) -> None:
    """attack 33, attack 47: two envelopes, a retired record, a stream and the plan of it all."""
    steps_kit.in_child(STEPS, work, mode, stride=1, least=30)


SYSCALLS = (
    "write", "pwrite64", "rename", "renameat", "renameat2", "fsync", "fdatasync", "link", "linkat",
    "unlink", "unlinkat", "ftruncate", "copy_file_range", "mkdirat",
)  # fmt: skip
CHEAP = Cost(8, 1, 1)


@pytest.fixture
def strace(tmp_path: Path) -> list[str]:
    """The program, where it is installed and ptrace is allowed; with what every call takes."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    done = subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], capture_output=True)
    if done.returncode:
        pytest.skip("ptrace is not allowed here")
    return ["strace", "-f", "-qq", "-o", str(tmp_path / "trace")]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("how", ["signal=SIGKILL", "error=EIO", "error=ENOSPC"])
def test_the_command_at_every_write_rename_and_fsync(
    work: Path, strace: list[str], how: str
) -> None:
    """attack 33, attack 47: the whole process under `strace -e inject`: its threads, the plan of
    the rotation, and a keystore that follows it."""
    command = [sys.executable, "-m", "pqvault_cli", "rotate", "all", "--recursive", "--jobs", "1"]
    command += ["-i", "old.key", "--to", "@new.pub", "--remove", OLD.key_id]
    Keystore.create(b"words", cost=CHEAP, path=work / "home" / "keystore.sqlite").close()
    for name in ("all", "home"):
        shutil.copytree(work / name, work / f"kept-{name}")

    def run(syscall: str, *inject: str) -> int:
        for name in ("all", "home"):
            shutil.rmtree(work / name)
            shutil.copytree(work / f"kept-{name}", work / name)
        done = subprocess.run(
            [*strace, "-e", f"trace={syscall}", *inject, *command],
            cwd=work,
            env=h.child_env(work / "home"),
            capture_output=True,
            text=True,
        )
        assert done.returncode in (0, 1, 3, 11, -9, 137), done.stderr
        assert "Traceback" not in done.stderr and "internal error" not in done.stderr
        return done.returncode

    calls, failed = {}, 0
    for syscall in SYSCALLS:
        assert run(syscall) == 0
        lines = (work / "trace").read_text().splitlines()
        calls[syscall] = sum(f" {syscall}(" in line for line in lines)
        for number in range(1, calls[syscall] + 1):
            failed += run(syscall, "-e", f"inject={syscall}:{how}:when={number}") != 0
            with Keystore(work / "home" / "keystore.sqlite") as store:
                store.unlock(lambda: b"words").verify()
            check(work)
    print(how, {name: count for name, count in calls.items() if count}, f"{failed} failed")
    assert calls["fsync"] > 5 and calls["write"] > 5 and calls["pwrite64"] > 5
    # Some errors concern nothing but our tidiness: an unlink, an advice, a truncated log.
    assert failed > sum(calls.values()) // 2


# -- at random moments of a bulk rotation --------------------------------------------------

BULK = """
import sys, time
import pqvault, pqvault.rotating
folder, old, new = sys.argv[1:]
identity = pqvault.Identity.load_file(old)[0]
print("ready", flush=True)
began = time.monotonic()
pqvault.rotate(folder, identities=[identity], to=new, recursive=True)
print(time.monotonic() - began)
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty archives of one part."""
    base = tmp_path_factory.mktemp("many")
    source = make_tree(base / "src", {"one": b"one", "two": b"two"})
    for number in range(60):
        pqvault.seal(source, base / "all" / f"{number}.pqv", recipients=[OLD.recipient], jobs=1)
    return base / "all"


def kill_bulk(many: Path, base: Path, count: int) -> None:
    OLD.save_file(base / "old.key")
    args = (base / "all", base / "old.key", NEW.recipient.text)
    shutil.copytree(many, base / "all")
    length = float(h.run_child(BULK, *args, home=base / "home").stdout.split()[-1])
    rng, states = random.Random(5), set()
    for number in range(10 * count):
        if number >= count and 1 in states:
            break
        shutil.rmtree(base / "all")
        shutil.rmtree(base / "home", ignore_errors=True)
        shutil.copytree(many, base / "all")
        child = h.start_child(BULK, *args, home=base / "home")
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        time.sleep(rng.random() * length)
        h.kill(child)
        child.communicate(timeout=30)
        assert opens(base / "all", OLD, NEW)
        archives = list((base / "all").glob("*.pqv"))
        done = sum(generations_of(archive) == 2 for archive in archives)
        states.add(0 if done == 0 else 2 if done == len(archives) else 1)
        for path in unfinished():
            status = look(path)
            assert not status.running and status.total == 60
            # What is marked done is done; one may be done and not marked.
            assert status.done <= done <= status.done + 8 + 1
            with Run.open(path) as run:
                from pqvault.rotating import rotating

                with rotating(run, [OLD, NEW]) as work:
                    report = work.run()
            assert report.finished == 60 and report.rewrapped == 60 - done
            assert opens(base / "all", NEW)
        assert unfinished() == []
    assert 1 in states, "no kill met the rotation at work"


def generations_of(archive: Path) -> int:
    (path,) = (p for p in (archive / "envelopes").iterdir() if not p.name.startswith("."))
    return Envelope.parse(path.read_bytes()).generation


def test_a_bulk_rotation_killed_at_random(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PQVAULT_HOME", str(tmp_path / "home"))
    kill_bulk(many, tmp_path, 4)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_bulk_rotation_killed_at_100_random_moments(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PQVAULT_HOME", str(tmp_path / "home"))
    kill_bulk(many, tmp_path, 100)


# -- several processes ---------------------------------------------------------------------

TURNS = """
import sys
import pqvault
archive, key, other, turns = sys.argv[1:]
identity = pqvault.Identity.load_file(key)[0]
other = pqvault.Recipient.parse(other)
for turn in range(int(turns)):
    pqvault.rotate(archive, identities=[identity], add=[other])
    pqvault.rotate(archive, identities=[identity], remove=[other.key_id], allow_retired=True)
    pqvault.rotate(archive, identities=[identity], add=[other], allow_retired=True)
"""


def test_processes_that_rotate_one_archive_at_once_lose_nothing(work: Path) -> None:
    """attack 37: each adds and takes off a key of its own; in the end all of them are there."""
    others = [pqvault.Identity.generate().recipient for _ in range(3)]
    archive = work / "all" / "a.pqv"
    children = [
        h.start_child(TURNS, archive, work / "old.key", other.text, 12, home=work / "home")
        for other in others
    ]
    for child in children:
        _, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors
    for path in (archive / "envelopes").iterdir():
        envelope = Envelope.parse(path.read_bytes())
        assert {w.key_id for w in envelope.recipients} == {
            OLD.key_id,
            *(other.key_id for other in others),
        }
        assert envelope.generation == 1 + 3 * (1 + 2 * 12)
    assert opens(work / "all", OLD)
