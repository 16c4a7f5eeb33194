"""`pqvault prune`: old states go, and what is kept stays what it is, at every moment."""

from __future__ import annotations

import fcntl
import random
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tables_kit
from click.testing import CliRunner
from conftest import make_tree

import pqvault
from pqvault.archive.prune import PruneReport, prune
from pqvault.errors import Locked, NotFound, RolledBack, UsageError
from pqvault.format.removed import Removed
from pqvault.keys import Identity
from pqvault.rootkey import RootKey
from pqvault.storage import LocalStorage
from pqvault_cli.main import cli

pytestmark = pytest.mark.usefixtures("home")

KEY = pqvault.Identity.generate()


def seal(source: Path, archive: Path) -> None:
    pqvault.seal(
        source, archive, recipients=[KEY.recipient], identities=[KEY], delete=True, yes=True
    )


def run(archive: Path, **options: Any) -> PruneReport:
    return prune(LocalStorage(archive), [KEY], **options)


def states(archive: Path) -> list[str]:
    with pqvault.open(archive, identities=[KEY]) as opened:
        return [part.id for part in opened.parts]


def listing(archive: Path, as_of: str | None = None) -> list[Any]:
    with pqvault.open(archive, identities=[KEY], as_of=as_of) as opened:
        return [
            (e, opened.open_file(e.path).read() if e.kind.letter in "fh" else b"")
            for e in opened.entries()
        ]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Five states: `a` changes in each, `b` is of the first, `c` comes and goes."""
    source, path = make_tree(tmp_path / "src", {"b": b"stays"}), tmp_path / "a.pqv"
    for number in range(5):
        (source / "a").write_bytes(b"%d" % number)
        if number == 1:
            (source / "c").write_bytes(b"comes")
        if number == 3:
            (source / "c").unlink()
        seal(source, path)
    return path


def test_what_no_kept_state_needs_goes(archive: Path) -> None:
    ids = states(archive)
    before = {part: listing(archive, part) for part in ids}
    told = run(archive, keep_last=2, dry_run=True)
    assert states(archive) == ids
    report = run(archive, keep_last=2)
    assert (told.removed, told.size) == (report.removed, report.size) and report.size > 0
    assert report.kept == ids[3:] and ids[0] in report.needed  # `b` is there
    assert set(report.removed) == {ids[1], ids[2]} and report.opened_by == [KEY.key_id]
    for part in ids[3:]:
        assert listing(archive, part) == before[part]
    assert listing(archive) == before[ids[4]]
    assert pqvault.verify(archive, identities=[KEY]).problems == []
    assert listing(archive, ids[0]) == before[ids[0]]  # no part of it went
    for part in (ids[1], ids[2]):
        with pytest.raises(NotFound):
            listing(archive, part)
    pqvault.gc(archive, older_than=0)
    assert len(list((archive / "parts").iterdir())) == 3
    assert listing(archive) == before[ids[4]]
    assert run(archive, keep_last=2).removed == []


def test_a_state_that_is_no_longer_whole_is_not_shown(archive: Path) -> None:
    """Its time still names it: a part of what it was would pass for all of it."""
    from datetime import UTC, datetime

    with pqvault.open(archive, identities=[KEY]) as opened:
        at = [datetime.fromtimestamp(p.commit.created / 1000, UTC) for p in opened.parts]
    run(archive, keep_last=1)
    with pytest.raises(NotFound, match="no longer whole"):
        listing(archive, at[2].isoformat())
    assert len(listing(archive, at[4].isoformat())) == 3


def test_what_hides_something_stays(tmp_path: Path) -> None:
    """A tombstone, and a file in the place of a folder: without them old entries would be back."""
    source, path = make_tree(tmp_path / "src", {"x": b"x", "keep": b"k"}), tmp_path / "a.pqv"
    (source / "d").mkdir()
    (source / "d" / "in").write_bytes(b"in")
    seal(source, path)
    (source / "x").unlink()
    (source / "d" / "in").unlink()
    (source / "d").rmdir()
    (source / "d").write_bytes(b"a file")
    seal(source, path)
    (source / "d").unlink()
    (source / "d").mkdir()
    for number in range(3):
        (source / "new").write_bytes(b"%d" % number)
        seal(source, path)
    before = listing(path)
    report = run(path, keep_last=1)
    assert len(report.removed) == 1 and len(report.needed) == 3
    assert listing(path) == before


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 20))]
)
def test_any_history(tmp_path: Path, seed: int) -> None:
    """Kept states are the same after it, and the newest is after each single removal on the way."""
    rng, source, path = random.Random(seed), tmp_path / "src", tmp_path / "a.pqv"
    source.mkdir()
    for number in range(6):
        for name in "pqr":
            target = source / name
            if target.is_dir():
                shutil.rmtree(target)
            target.unlink(missing_ok=True)
            kind = rng.choice(["none", "file", "file", "folder", "folder"])
            if kind == "file":
                target.write_bytes(rng.choice([b"one", b"%d" % number]))
            elif kind == "folder":
                make_tree(target, {f: b"%d" % rng.randrange(2) for f in rng.sample("xyz", 2)})
        seal(source, path)
    ids = states(path)
    keep = rng.randrange(1, 4)
    before = {part: listing(path, part) for part in ids[-keep:]}
    shutil.copytree(path, tmp_path / "copy.pqv")
    report = run(path, keep_last=keep)
    for part in ids[-keep:]:
        assert listing(path, part) == before[part]
    (tmp_path / "copy.pqv" / "removed").mkdir(exist_ok=True)
    for part in report.removed:
        shutil.copy(path / "removed" / part, tmp_path / "copy.pqv" / "removed")
        assert listing(tmp_path / "copy.pqv") == before[ids[-1]]


def test_the_part_that_others_gave_way_to_is_missed(archive: Path) -> None:
    """attack 14: the record names the oldest kept state."""
    ids = states(archive)
    report = run(archive, keep_last=1)
    assert report.kept == [ids[4]]
    (archive / "commits" / ids[4]).unlink()
    with pytest.raises(RolledBack):
        listing(archive)


def test_verify_checks_who_made_a_record(archive: Path) -> None:
    """Format 5.7: it hides the part all the same, and verify says that no key made it."""
    report = run(archive, keep_last=2)
    path = archive / "removed" / report.removed[0]
    record = Removed.parse(path.read_bytes())
    assert pqvault.verify(archive, identities=[KEY]).problems == []
    path.write_bytes(replace(record, created=record.created + 1).marshal())
    (problem,) = pqvault.verify(archive, identities=[KEY]).problems
    assert problem.exit_code == 13 and f"removed/{record.removed}" in problem.message
    assert states(archive)


@pytest.mark.parametrize("work", [pqvault.reencrypt, pqvault.compact, pqvault.prune])
def test_only_one_process_puts_parts_in_the_place_of_others(archive: Path, work: Any) -> None:
    """Format 5.6: it begins nothing where another one holds the lock of the header."""
    options: dict[str, Any] = {"keep_last": 1}
    if work is pqvault.reencrypt:
        options = {"to": Identity.generate().recipient}
    before = {path: path.read_bytes() for path in archive.rglob("*") if path.is_file()}
    with (archive / "pqvault.json").open("r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Locked, match="another process is at work"):
            work(archive, identities=[KEY], **options)
    assert {path: path.read_bytes() for path in archive.rglob("*") if path.is_file()} == before
    work(archive, identities=[KEY], **options)


def test_a_record_of_another_part_says_nothing(archive: Path) -> None:
    """Copied under another name it hides what has that name, and no part is missed for its sake."""
    ids = states(archive)
    other = RootKey.generate("00" * 16, "11" * 16)
    for removed in (ids[1], "22" * 16):
        record = Removed(
            "00" * 16, "11" * 16, removed, 1, 1, "33" * 32, "pruned", ("44" * 16,), created=1
        )
        (archive / "removed").mkdir(exist_ok=True)
        (archive / "removed" / ids[0]).write_bytes(other.remove(record).marshal())
        assert states(archive) == ids[1:]


def test_parts_that_hold_rows_of_a_table_stay(tmp_path: Path) -> None:
    """Its last entry alone stands, and the rows of those before belong to it (format 10.4)."""
    path, kit = tmp_path / "t.pqv", tables_kit
    for start in range(0, 30, 10):
        kit.write(path, kit.talk(10, start), mode="append")
    assert pqvault.prune(path, identities=[kit.KEY], keep_last=1).removed == []
    assert kit.read(path).equals(kit.talk(30))
    kit.write(path, kit.talk(5), mode="replace")
    assert len(pqvault.prune(path, identities=[kit.KEY], keep_last=1).removed) == 3
    assert kit.read(path).equals(kit.talk(5))


def test_ages_and_counts(archive: Path) -> None:
    assert run(archive, keep_within=3600.0, dry_run=True).removed == []
    assert len(run(archive, keep_within=0.0, dry_run=True).kept) == 1
    assert len(run(archive, keep_within=0.0, keep_last=3, dry_run=True).kept) == 3
    with pytest.raises(UsageError):
        run(archive)


def test_what_is_young_is_kept_whatever_clocks_say(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host whose clock is two days slow seals after the others."""
    ids, real = states(archive), time.time
    source = archive.parent / "src"
    (source / "a").write_bytes(b"by a slow clock")
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: real() - 2 * 86400)
        seal(source, archive)
    assert run(archive, keep_within=86400, dry_run=True).kept == states(archive)
    assert states(archive)[:-1] == ids


def test_two_at_once(archive: Path) -> None:
    with LocalStorage(archive).locked("pqvault.json"), pytest.raises(Locked):
        run(archive, keep_last=1)


def test_the_command_says_whether_backups_are_reached(archive: Path, tmp_path: Path) -> None:
    KEY.save_file(tmp_path / "key.txt")
    args = ["prune", str(archive), "-i", str(tmp_path / "key.txt"), "--keep-last", "1"]
    shown = CliRunner().invoke(cli, [*args, "--dry-run"])
    assert shown.exit_code == 0 and "would remove 3 parts" in shown.output, shown.output
    shown = CliRunner().invoke(cli, args)
    assert shown.exit_code == 0 and f"not reached: copies still open with {KEY.key_id}" in (
        shown.output
    )
