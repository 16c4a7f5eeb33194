"""attack 14, attack 33: `compact` and `prune` that end when nobody expects it.

After each end the archive opens and holds what it held, and the same command ends what was begun.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import steps_kit
from conftest import make_tree
from test_compact import plain, run
from test_prune import KEY, listing, seal, states

import pqvault
from pqvault.archive.prune import prune
from pqvault.storage import LocalStorage


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PQVAULT_HOME", str(tmp_path / "home"))
    KEY.save_file(tmp_path / "key")
    source = make_tree(tmp_path / "src", {"stays": b"s" * 20000})
    for number in range(4):
        (source / "changes").write_bytes(b"%d" % number)
        if number == 2:
            (source / "d").mkdir()
        if number == 3:
            (source / "d").rmdir()
        seal(source, tmp_path / "all" / "a.pqv")
    return tmp_path


def check(base: Path, what: str) -> None:
    archive = base / "all" / "a.pqv"
    wanted = plain(listing(base / "kept" / "a.pqv"))
    assert plain(listing(archive)) == wanted
    assert pqvault.gc(archive, older_than=0).problems == []
    assert plain(listing(archive)) == wanted
    if what == "compact":
        run(archive)
        assert len(states(archive)) == 1
    else:
        prune(LocalStorage(archive), [KEY], keep_last=1)
        assert len(states(archive)) == 2
    assert plain(listing(archive)) == wanted
    assert pqvault.verify(archive, identities=[KEY]).problems == []
    pqvault.gc(archive, older_than=0)
    names = {path.name for path in (archive / "parts").iterdir()}
    assert names == set(states(archive))
    assert names == {path.name for path in (archive / "envelopes").iterdir()}
    assert [path for path in (base / "all").rglob(".*") if not path.is_dir()] == []


STEPS = """
import json, sys
from pathlib import Path
import pqvault
from pqvault.archive.prune import prune
from pqvault.storage import LocalStorage
import steps_kit, test_compact, test_prune, test_compact_crash as t

base, what, mode, stride = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
t.KEY = test_compact.KEY = test_prune.KEY = pqvault.Identity.load_file(base / "key")[0]

def work():
    if what == "compact":
        t.run(base / "all" / "a.pqv", jobs=1)
    else:
        prune(LocalStorage(base / "all" / "a.pqv"), [t.KEY], keep_last=1)

check = lambda: t.check(base, what)
modules = steps_kit.storage_modules()
print(json.dumps(steps_kit.every_step(base, mode, modules, work, check, stride)))
"""


@pytest.mark.parametrize(("what", "mode"), [("compact", "kill"), ("prune", "error")])
def test_the_end_at_calls_that_change_something(work: Path, what: str, mode: str) -> None:
    steps_kit.in_child(STEPS, work, what, mode, stride=9, least=10)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", ["kill", "error"])
@pytest.mark.parametrize("what", ["compact", "prune"])
def test_the_end_at_every_call_that_changes_something(work: Path, what: str, mode: str) -> None:
    steps_kit.in_child(STEPS, work, what, mode, stride=1, least=10)
