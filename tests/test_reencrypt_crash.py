"""attack 14, attack 35: re-encryptions that end when nobody expects it, at any call and moment.

After each: everything opens with one of the two keys and is what it was, and the same command ends
what was begun, with nothing left that the old key opens.
"""

from __future__ import annotations

import io
import random
import shutil
import time
from pathlib import Path

import hostile as h
import pytest
import steps_kit
from conftest import make_tree

import pqvault
from pqvault.errors import NoKeyFits
from pqvault.rotation.runs import unfinished

OLD, NEW = pqvault.Identity.generate(), pqvault.Identity.generate()
CONTENT = b"of the stream" * 1000


def make(base: Path, parts: int) -> None:
    """Two keys, an archive of some parts and a sealed stream."""
    OLD.save_file(base / "old.key")
    NEW.save_file(base / "new.key")
    for number in range(parts):
        source = make_tree(base / "src", {"same": b"%d" % number, f"f{number}": b"x" * 50000})
        pqvault.seal(source, base / "all" / "a.pqv", recipients=[OLD.recipient])
    with (base / "all" / "s.pqv").open("wb") as out:
        pqvault.encrypt(io.BytesIO(CONTENT), out, [OLD.recipient])


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PQVAULT_HOME", str(tmp_path / "home"))
    make(tmp_path, 2)
    return tmp_path


def content(folder: Path, *keys: pqvault.Identity) -> dict[str, bytes] | None:
    """All that these keys open; None when there is something that they do not."""
    found: dict[str, bytes] = {}
    try:
        with pqvault.open_stream(folder / "s.pqv", keys) as stream:
            assert stream.read() == CONTENT
        with pqvault.open(folder / "a.pqv", identities=keys) as archive:
            for entry in archive.entries():
                if entry.kind.letter == "f":
                    found[str(entry.path)] = archive.open_file(entry.path).read()
    except NoKeyFits:
        return None
    return found


def check(base: Path) -> None:
    """The promise, and that it can be carried on."""
    archive = base / "all" / "a.pqv"
    wanted = content(base / "kept", OLD)
    assert content(base / "all", OLD, NEW) == wanted
    # Even at once: nothing that is needed goes.
    before = pqvault.gc(archive, older_than=0)
    assert before.problems == [] and content(base / "all", OLD, NEW) == wanted
    began = bool(unfinished("reencryptions"))
    report = pqvault.reencrypt(
        [archive, base / "all" / "s.pqv"], identities=[OLD, NEW], to=NEW.recipient
    )
    assert report.finished == 2 and (report.parts <= 3 or not began)
    assert content(base / "all", NEW) == wanted
    assert unfinished("reencryptions") == []
    assert pqvault.verify(archive, identities=[NEW]).problems == []
    # What was sealed before is known to the host that has public keys only.
    again = pqvault.seal(base / "src", archive, recipients=[NEW.recipient])
    assert again.parts == [] and again.unchanged == 4
    pqvault.gc(archive, older_than=0)
    names = {path.name for path in (archive / "envelopes").iterdir()}
    assert names == {path.name for path in (archive / "commits").iterdir()}
    assert names == {path.name for path in (archive / "parts").iterdir()} and len(names) == 2
    left = [path for path in (base / "all").rglob(".*") if not path.is_dir()]
    assert left == []


STEPS = """
import json, sys
from pathlib import Path
import pqvault, pqvault.reencrypting
from pqvault.rotation import runs, streams
import steps_kit, test_reencrypt_crash as t

base, mode, stride = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
t.OLD = pqvault.Identity.load_file(base / "old.key")[0]
t.NEW = pqvault.Identity.load_file(base / "new.key")[0]

def work():
    targets = [base / "all" / "a.pqv", base / "all" / "s.pqv"]
    pqvault.reencrypt(targets, identities=[t.OLD, t.NEW], to=t.NEW.recipient, jobs=1)

modules = [*steps_kit.storage_modules(), runs, streams]
result = steps_kit.every_step(base, mode, modules, work, lambda: t.check(base), stride)
print(json.dumps(result))
"""


@pytest.mark.parametrize("mode", ["kill", "error"])
def test_the_end_at_calls_that_change_something(work: Path, mode: str) -> None:
    """attack 33, attack 47: two parts, a stream, and the plan of it all; each eleventh call."""
    steps_kit.in_child(STEPS, work, mode, stride=11, least=60)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", ["kill", "error"])
def test_the_end_at_every_call_that_changes_something(work: Path, mode: str) -> None:
    """attack 33, attack 47: at each call."""
    steps_kit.in_child(STEPS, work, mode, stride=1, least=60)


BULK = """
import sys, time
import pqvault, pqvault.archive.part, pqvault.reencrypting
from pqvault.format.catalog import load_catalog
load_catalog()
archive, old, new = sys.argv[1:]
identity = pqvault.Identity.load_file(old)[0]
print("ready", flush=True)
began = time.monotonic()
pqvault.reencrypt(archive, identities=[identity], to=new)
print(time.monotonic() - began)
"""


def kill_at_random(base: Path, count: int) -> None:
    make(base, 8)
    (base / "all").rename(base / "kept")
    wanted = content(base / "kept", OLD)
    args = (base / "all" / "a.pqv", base / "old.key", NEW.recipient.text)
    shutil.copytree(base / "kept", base / "all")
    length = float(h.run_child(BULK, *args, home=base / "home").stdout.split()[-1])
    rng, some = random.Random(7), 0
    for number in range(10 * count):
        if number >= count and some:
            break
        shutil.rmtree(base / "all")
        shutil.rmtree(base / "home", ignore_errors=True)
        shutil.copytree(base / "kept", base / "all")
        child = h.start_child(BULK, *args, home=base / "home")
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        time.sleep(rng.random() * length)
        h.kill(child)
        child.communicate(timeout=30)
        assert content(base / "all", OLD, NEW) == wanted
        removed = base / "all" / "a.pqv" / "removed"
        done = len(list(removed.glob("[!.]*")))
        some += 0 < done < 8
        if done < 8 or unfinished("reencryptions"):
            report = pqvault.reencrypt(base / "all" / "a.pqv", identities=[OLD], to=NEW.recipient)
            assert (report.parts, report.finished) == (8 - done, 1)
        pqvault.reencrypt(base / "all" / "s.pqv", identities=[OLD], to=NEW.recipient)
        assert content(base / "all", NEW) == wanted
    assert some, "no kill met the re-encryption at work"


def test_a_reencryption_killed_at_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PQVAULT_HOME", str(tmp_path / "home"))
    kill_at_random(tmp_path, 4)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_reencryption_killed_at_100_random_moments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PQVAULT_HOME", str(tmp_path / "home"))
    kill_at_random(tmp_path, 100)
