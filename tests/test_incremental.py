"""Repeated seals: only what changed, --delete only what is gone, readers of an older state."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import Box, make_tree, noise, snapshot

import pqvault
from pqvault import api
from pqvault.archive import adopting, objects, plan, sourcefile
from pqvault.archive import seal as seal_module
from pqvault.archive.committing import make_commit
from pqvault.archive.walk import Found
from pqvault.errors import (
    FormatError,
    Incomplete,
    IntegrityError,
    NoKeyFits,
    NotFound,
    PolicyRefused,
    PQVaultError,
    RolledBack,
    UsageError,
)
from pqvault.format.commit import Commit
from pqvault_cli.main import cli
from pqvault_cli.output import when


def forget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Be another host: no journal."""
    home = tmp_path / f"home{time.monotonic_ns()}"
    home.mkdir()
    monkeypatch.setenv("PQVAULT_HOME", str(home))


def journal_of(box: Box) -> sqlite3.Connection:
    (path,) = (Path(os.environ["PQVAULT_HOME"]) / "journals").glob("*.sqlite")
    return sqlite3.connect(path, isolation_level=None)


def reads(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The files whose content is compared."""
    seen: list[bytes] = []
    real = plan._digest

    def digest(found: Found, prior: plan.Prior, of: plan.Plan) -> bytes | None:
        seen.append(found.source)
        return real(found, prior, of)

    monkeypatch.setattr(plan, "_digest", digest)
    return seen


# ---- nothing, or something, has changed ----------------------------------------------------


@pytest.mark.parametrize("know", [False, True])
def test_nothing_changed(box: Box, corpus: Path, know: bool) -> None:
    """A second run over the same tree commits no part and reads no content."""
    first = box.seal(corpus, know=know)
    again = box.seal(corpus, know=know)
    assert len(first.parts) == 1 and again.parts == [] and again.files == 0
    assert again.unchanged == first.files + first.folders + first.links
    assert len(box.parts()) == 1


def add(root: Path) -> None:
    (root / "a/new").write_bytes(b"new")


def edit(root: Path) -> None:
    (root / "a/x").write_bytes(b"edited")


def same_size(root: Path) -> None:
    (root / "a/x").write_bytes(b"2")


def touch(root: Path) -> None:
    os.utime(root / "a/x", ns=(1, 1))


def chmod(root: Path) -> None:
    (root / "a/x").chmod(0o611)


def chmod_folder(root: Path) -> None:
    (root / "a").chmod(0o711)


def rename_over(root: Path) -> None:
    (root / "a/y").rename(root / "a/x")


def relink(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").symlink_to("a/y")


def file_to_folder(root: Path) -> None:
    (root / "a/x").unlink()
    make_tree(root / "a/x", {"inside": b"3", "more": {"deep": b"4"}})


def folder_to_file(root: Path) -> None:
    shutil.rmtree(root / "a")
    (root / "a").write_bytes(b"a file now")


def folder_to_link(root: Path) -> None:
    (root / "a").rename(root / "b")
    (root / "a").symlink_to("b")


def file_to_link(root: Path) -> None:
    (root / "a/x").unlink()
    (root / "a/x").symlink_to("y")


def link_to_file(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").write_bytes(b"5")


def hard_link(root: Path) -> None:
    os.link(root / "a/x", root / "a/z")


def hidden_change(root: Path) -> None:
    """Content changed, size and mtime set back: ctime still tells."""
    info = (root / "a/x").stat()
    (root / "a/x").write_bytes(b"9")
    os.utime(root / "a/x", ns=(info.st_atime_ns, info.st_mtime_ns))


CHANGES = [
    add, edit, same_size, touch, chmod, chmod_folder, rename_over, relink, file_to_folder,
    folder_to_file, folder_to_link, file_to_link, link_to_file, hard_link, hidden_change,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("mode", ["journal", "identity", "other host"])
def test_changes(
    box: Box, change: Callable[[Path], None], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever changes is sealed in one new part, and the tree comes back as it is now."""
    box.tree({"a": {"x": b"1", "y": b"two"}, "link": "a/x", "z": noise(50_000)})
    box.seal()
    change(box.source)
    if mode == "other host":
        forget(monkeypatch, box.root)
    report = box.seal(know=mode != "journal", delete=mode != "journal", yes=mode != "journal")
    assert len(report.parts) == 1 and report.size < 50_000
    box.check()
    out = snapshot(box.unseal() / "src")
    if mode == "journal":  # without --delete what is gone stays
        out = {p: n for p, n in out.items() if os.path.lexists(os.fsencode(box.source) + b"/" + p)}
    now = snapshot(box.source)
    if change is hard_link and mode == "other host":  # by content nothing tells a second name
        out, now = ({p: n._replace(group=b"") for p, n in t.items()} for t in (out, now))
    assert out == now
    assert box.seal(know=mode != "journal").parts == []


def test_checksum_finds_what_times_hide(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """--checksum reads everything: it finds a change that size and all times deny."""
    box.tree({"x": b"1", "y": b"2"})
    box.seal()
    hidden = box.source / "x"
    info = hidden.stat()
    hidden.write_bytes(b"9")
    os.utime(hidden, ns=(info.st_atime_ns, info.st_mtime_ns))
    db = journal_of(box)
    db.execute(
        "UPDATE files SET ctime_ns = ? WHERE path = ?", (hidden.stat().st_ctime_ns, b"src/x")
    )
    db.close()
    assert box.seal(know=True).parts == []
    seen = reads(monkeypatch)
    report = box.seal(know=True, checksum=True)
    assert sorted(seen) == [os.fsencode(box.source / n) for n in "xy"]
    assert report.files == 1 and box.contents()["src/x"] == ("f", b"9")


def test_checksum_needs_an_identity(box: Box) -> None:
    """--checksum without an identity is a usage error that says what to pass."""
    box.tree({"x": b"1"})
    with pytest.raises(UsageError, match="--checksum") as caught:
        box.seal(checksum=True)
    assert caught.value.exit_code == 2 and "-i" in caught.value.hint


def test_a_copy_of_the_source_is_known_by_its_content(box: Box) -> None:
    """With an identity, files of which only inode and ctime changed (a copy, another owner) are
    compared and not sealed again; the next run knows without reading."""
    box.tree({"a": {"x": b"1", "y": noise(100_000)}, "b": b""})
    (box.source / "link").symlink_to("a/x")
    box.seal()
    kept = box.root / "kept"
    box.source.rename(kept)
    subprocess.run(["cp", "-a", kept, box.source], check=True)
    report = box.seal(know=True)
    assert (report.parts, report.unchanged) == ([], 6)
    assert box.seal().parts == []


def test_adopted_rows_do_not_gather(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known by its content goes to the journal while the walk goes on, and stays there
    though the run fails; a part that was replaced meanwhile is no error."""
    monkeypatch.setattr(adopting, "_AT_ONCE", 10)
    box.tree({f"{n:03}": b"%d" % n for n in range(100)})
    box.seal()
    forget(monkeypatch, box.root)
    real = plan.Plan.check
    calls = iter(range(10**9))

    def check(of: plan.Plan) -> None:
        if next(calls) > 150:  # two for each file
            raise PQVaultError("interrupted")
        real(of)

    with monkeypatch.context() as patch:
        patch.setattr(plan.Plan, "check", check)
        with pytest.raises(PQVaultError, match="interrupted"):
            box.seal(know=True)
    ((count,),) = journal_of(box).execute("SELECT count(*) FROM files")
    assert 50 <= count < 100 and count % 10 == 0
    assert box.seal(know=True).parts == []


def test_reading_begins_when_the_clock_has_moved(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is read only when who writes it again will give it another time: else a file that is
    written twice in one tick of the file system's clock would look unchanged for ever."""
    box.tree({"x": b"1" * 100})
    ages = []
    read, opened = os.preadv, objects.open_regular

    def preadv(fd: int, buffers: Any, offset: int) -> int:
        if os.readlink(f"/proc/self/fd/{fd}").endswith("/src/x"):
            ages.append(time.time_ns() - os.fstat(fd).st_ctime_ns)
        return read(fd, buffers, offset)

    def write_and_open(source: bytes) -> Any:
        Path(os.fsdecode(source)).write_bytes(b"2" * 100)
        return opened(source)

    monkeypatch.setattr(objects.os, "preadv", preadv)
    monkeypatch.setattr(objects, "open_regular", write_and_open)
    box.seal(allow_changed=True)
    assert len(ages) == 1 and ages[0] >= 20_000_000
    assert box.contents()["src/x"][1] == b"2" * 100


def test_times_of_whole_seconds_and_of_other_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that stamps whole seconds has ticks of one; a time to come is no reason to
    wait, and neither is one long ago."""
    slept: list[float] = []
    monkeypatch.setattr(sourcefile.time, "sleep", slept.append)
    now = 1_800_000_000_000_000_000
    monkeypatch.setattr(sourcefile.time, "time_ns", lambda: now + 400_000_000)
    sourcefile.wait_for_tick(now)
    assert slept == [pytest.approx(0.6)]
    sourcefile.wait_for_tick(now + 395_000_000)
    assert slept[1:] == [pytest.approx(0.015)]
    for other in (1, now - 1, now + 379_000_000, now + 500_000_000):
        sourcefile.wait_for_tick(other)
    assert len(slept) == 2


# ---- without a journal ---------------------------------------------------------------------


def test_journal_lost_with_an_identity(
    box: Box, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a journal content is compared, nothing sealed again; the next run reads nothing."""
    box.seal(corpus)
    forget(monkeypatch, box.root)
    seen = reads(monkeypatch)
    report = box.seal(corpus, know=True)
    assert report.parts == [] and seen
    seen.clear()
    assert box.seal(corpus, know=True).parts == [] and seen == []
    assert box.seal(corpus).parts == [], "and no identity is needed any more"


def test_journal_lost_without_an_identity(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a journal and an identity: a usage error that says what to do, nothing written."""
    box.tree({"x": b"1"})
    box.seal()
    before = snapshot(box.archive)
    forget(monkeypatch, box.root)
    with pytest.raises(UsageError, match="has not sealed") as caught:
        box.seal()
    assert caught.value.exit_code == 2
    assert "-i" in caught.value.hint and "--append" in caught.value.hint
    assert snapshot(box.archive) == before


def test_append_adds_all(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """--append seals everything as a part of kind `append`, on any host, with any key at hand."""
    box.tree({"x": b"1", "y": {"z": b"2"}})
    box.seal()
    forget(monkeypatch, box.root)
    for know in (False, True):
        report = box.seal(append=True, know=know)
        assert (report.files, report.unchanged) == (2, 0)
        with box.open() as archive:
            assert archive.parts[-1].commit.kind == "append"
    assert len(box.parts()) == 3
    assert snapshot(box.unseal() / "src") == snapshot(box.source)


def test_a_part_that_is_sealed_to_others_is_not_called_damaged(box: Box) -> None:
    other = pqvault.Identity.generate()
    box.tree({"a": b"1"})
    box.seal()
    pqvault.seal(box.source, box.archive, recipients=[other.recipient], append=True)
    facts, problems = api.parts(box.archive, identities=[box.key])
    assert [part.level for part in facts] == ["sealed", "unverified"]
    assert [type(problem) for problem in problems] == [NoKeyFits]
    next((box.archive / "parts" / facts[0].part).glob("catalog")).write_bytes(b"damage")
    facts, _ = api.parts(box.archive, identities=[box.key, other])
    assert [part.level for part in facts] == ["damaged", "sealed"]


@pytest.mark.parametrize("command", ["verify", "unseal -o out", "ls", "parts"])
def test_damage_does_not_hide_behind_a_key_that_is_not_here(
    box: Box, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Exit code 13, also where the first part is sealed to others, which alone is 12."""
    box.tree({"a": b"1"})
    pqvault.seal(
        box.source, box.archive, recipients=[pqvault.Identity.generate().recipient], append=True
    )
    box.seal(append=True)
    monkeypatch.chdir(box.root)
    box.key.save_file("key.txt")
    words = [*command.split(), "v.pqv", "-i", "key.txt"]
    assert CliRunner().invoke(cli, words).exit_code == 12
    part = box.archive / "parts" / api.parts(box.archive)[0][1].part
    (part / "catalog").write_bytes(b"damage")
    shutil.rmtree("out", ignore_errors=True)
    assert CliRunner().invoke(cli, words).exit_code == 13


def test_kinds_of_parts(box: Box) -> None:
    """A part is of kind `seal` when its writer could read the archive, else `append`."""
    for know in (False, True):
        box.tree({f"x{know}": b"1"})
        box.seal()
        box.tree({f"y{know}": b"1"})
        box.seal(know=True)
    with box.open() as archive:
        assert [p.commit.kind for p in archive.parts][1:] == ["seal", "append", "seal"]


def test_archive_put_back_to_an_older_state(box: Box) -> None:
    """attack 14: what the journal knows but the archive lost is sealed again, never assumed."""
    box.tree({"x": b"1", "y": b"2"})
    box.seal()
    saved = box.root / "saved"
    shutil.copytree(box.archive, saved)
    box.tree({"x": b"changed", "new": b"3"})
    box.seal()
    shutil.rmtree(box.archive)
    saved.rename(box.archive)
    assert box.contents()["src/x"] == ("f", b"1")
    report = box.seal()
    assert report.files == 2 and len(report.parts) == 1
    assert snapshot(box.unseal() / "src") == snapshot(box.source)


def test_journal_of_an_uncommitted_part(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that dies between journal and commit is sealed again by the next."""
    box.tree({"x": b"1"})
    box.seal()
    box.tree({"y": b"2"})

    def die(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(seal_module, "put_part", die)
        with pytest.raises(KeyboardInterrupt):
            box.seal()
    report = box.seal()
    assert report.files == 1
    assert snapshot(box.unseal() / "src") == snapshot(box.source)


def test_another_host_replaced_our_file(
    box: Box, monkeypatch: pytest.MonkeyPatch, private_home: Path
) -> None:
    """What another host replaced since is known with an identity, and not taken as unchanged."""
    box.tree({"x": b"ours"})
    box.seal()
    forget(monkeypatch, box.root)
    theirs = make_tree(box.root / "2/src", {"x": b"theirs"})
    box.seal(theirs, append=True)
    assert box.contents()["src/x"] == ("f", b"theirs")
    monkeypatch.setenv("PQVAULT_HOME", str(private_home))
    assert box.seal(know=True).files == 1
    assert box.contents()["src/x"] == ("f", b"ours")


def test_another_host_removed_our_file_and_we_have_no_key(
    box: Box, monkeypatch: pytest.MonkeyPatch, private_home: Path
) -> None:
    """A host without a key never takes a file for sealed that another host has removed since."""
    box.tree({"x": b"1", "y": b"2", "z": b"3"})
    box.seal()
    forget(monkeypatch, box.root)
    theirs = make_tree(box.root / "2/src", {"y": b"2", "z": b"3"})
    box.seal(theirs, know=True, delete=True)
    assert "src/x" not in box.contents()
    monkeypatch.setenv("PQVAULT_HOME", str(private_home))
    report = box.seal()
    assert "src/x" in box.contents() or report.warnings, "sealed again, or at least said"


# ---- as of ---------------------------------------------------------------------------------


def test_as_of(box: Box) -> None:
    """An older state is seen by part id, by a prefix of it, and by time."""
    moments = []
    for number in range(3):
        box.tree({"x": b"%d" % number, f"f{number}": b""})
        box.seal()
        time.sleep(0.01)
        moments.append(datetime.now(UTC))
        time.sleep(0.01)
    parts = box.parts()
    for number, part in enumerate(parts):
        expected = {"src", "src/x", *(f"src/f{n}" for n in range(number + 1))}
        spellings = [part, part.upper(), part[:8], moments[number], moments[number].isoformat()]
        for as_of in spellings:
            found = box.contents(as_of=as_of)
            assert found["src/x"] == ("f", b"%d" % number) and set(found) == expected


def test_as_of_a_time_as_it_is_shown(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time to the second, as `pqvault parts` prints it, is that of the part, not before it; in
    whatever zone, and without the Z too."""
    box.tree({"x": b"1"})
    while time.time() % 1 < 0.2:  # so that the part is not of the very beginning of a second
        time.sleep(0.05)
    box.seal()
    with box.open() as opened:
        created = opened.parts[0].commit.created
    assert created % 1000
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        for end in ("Z", ""):
            assert "src/x" in box.contents(as_of=when(created).removesuffix("Z") + end)
            with pytest.raises(NotFound):
                box.open(as_of=when(created - 1000).removesuffix("Z") + end)
    time.tzset()


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/Los_Angeles"])
@pytest.mark.parametrize("as_of", ["0001-01-01", "2026-02-30"])
def test_as_of_a_time_that_does_not_exist(
    box: Box, monkeypatch: pytest.MonkeyPatch, as_of: str, zone: str
) -> None:
    """In whatever zone, one that no calendar or clock has is exit 10 and no error of Python's."""
    box.tree({"x": b"1"})
    box.seal()
    with monkeypatch.context() as patched:
        patched.setenv("TZ", zone)
        time.tzset()
        for moment in (as_of, datetime.min):
            with pytest.raises(NotFound):
                box.open(as_of=moment)
    time.tzset()


@pytest.mark.parametrize("as_of", ["0000", "yesterday", "2001-01-01", "abc"])
def test_as_of_what_is_not_there(box: Box, as_of: str) -> None:
    """A part or time that the archive does not have is exit 10 and says how to find one."""
    box.tree({"x": b"1"})
    box.seal()
    if box.parts()[0].startswith("0000"):
        pytest.skip("one in 65,536")
    with pytest.raises(NotFound) as caught:
        box.open(as_of=as_of)
    assert caught.value.exit_code == 10 and caught.value.hint


def test_as_of_nothing(box: Box) -> None:
    """An unset variable of the shell is no beginning of every part's id."""
    box.tree({"x": b"1"})
    box.seal()
    with pytest.raises(UsageError, match="empty") as caught:
        box.open(as_of="")
    assert caught.value.hint and "unset" in caught.value.hint


# ---- --delete ------------------------------------------------------------------------------


def test_delete_removes_just_what_is_gone(box: Box) -> None:
    """--delete hides what is gone, keeps the rest and the history, and counts."""
    box.tree({"a": {"1": b"1", "2": b"2", "3": b"3"}, "b": b"4", "l": "b", "gone": {"x": b"5"}})
    box.seal()
    before = box.parts()[0]
    (box.source / "a/1").unlink()
    (box.source / "l").unlink()
    shutil.rmtree(box.source / "gone")
    report = box.seal(know=True, delete=True)
    assert report.deleted == 4
    assert set(box.contents()) == {"src", "src/a", "src/a/2", "src/a/3", "src/b"}
    assert "src/gone/x" in box.contents(as_of=before)
    box.check()
    assert box.seal(know=True, delete=True).parts == []
    assert snapshot(box.unseal() / "src") == snapshot(box.source)


def test_without_delete_what_is_gone_stays(box: Box) -> None:
    """A run without --delete only adds and replaces."""
    box.tree({"a": b"1", "b": b"2"})
    box.seal()
    (box.source / "a").unlink()
    report = box.seal(know=True)
    assert report.deleted == 0
    assert box.contents()["src/a"] == ("f", b"1")


def test_delete_stays_within_its_sources(box: Box) -> None:
    """--delete touches nothing outside the prefixes of this run, however alike the names."""
    box.tree({"x": b"1", "y": b"1", "z": b"1"})
    other = make_tree(box.root / "src-old", {"x": b"2"})
    another = make_tree(box.root / "sr", {"x": b"3"})
    box.seal(box.source, other, another)
    shutil.rmtree(other)
    shutil.rmtree(another)
    (box.source / "x").unlink()
    assert box.seal(know=True, delete=True).deleted == 1
    assert {"src-old/x", "sr/x", "src/y"} <= set(box.contents())


def test_delete_stays_within_its_prefix(box: Box) -> None:
    """--delete with --prefix touches only what is below the prefix and the source's name."""
    box.tree({"x": b"1", "y": b"2", "z": b"3"})
    box.seal(prefix="one")
    box.seal(prefix="two", append=True)
    (box.source / "x").unlink()
    assert box.seal(know=True, delete=True, prefix="two").deleted == 1
    found = set(box.contents())
    assert "one/src/x" in found and "two/src/x" not in found and "two" in found


def test_delete_spares_what_is_excluded(box: Box) -> None:
    """What is excluded was not looked for, so it is not gone: neither it nor what is in it."""
    box.tree({"keep": {"x": b"1", "deep": {"y": b"1"}}, "a": b"2", "b.tmp": b"3", "c": b"4"})
    box.seal()
    shutil.rmtree(box.source / "keep")
    (box.source / "b.tmp").unlink()
    (box.source / "a").unlink()
    report = box.seal(know=True, delete=True, exclude=["src/keep", "**/*.tmp"])
    assert report.deleted == 1
    assert {"src/keep/x", "src/keep/deep/y", "src/b.tmp"} <= set(box.contents())


@pytest.mark.parametrize("what", ["listed", "looked at"])
def test_delete_spares_what_cannot_be_read(
    box: Box, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder or file that cannot be read is not gone: nothing in it is removed, exit 3."""
    box.tree({"no": {"x": b"1", "y": {"z": b"1"}}, "a": b"2", "b": b"3"})
    box.seal()
    (box.source / "a").unlink()
    name = "scandir" if what == "listed" else "lstat"
    real = getattr(os, name)

    def refuse(path: Any, **options: Any) -> Any:
        if not isinstance(path, int) and os.fsencode(path).endswith(b"src/no"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, name, refuse)
        with pytest.raises(Incomplete, match="src/no cannot be read"):
            box.seal(know=True, delete=True)
    assert {"src/no", "src/no/x", "src/no/y/z"} <= set(box.contents())
    assert "src/a" not in box.contents()


def test_delete_when_the_source_cannot_be_read_at_all(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that cannot be listed loses nothing, not even with --yes."""
    box.tree({"a": b"1", "b": b"2"})
    box.seal()

    real = os.scandir

    def refuse(path: Any) -> Any:
        if isinstance(path, int):  # storage goes by handles, the walk by paths
            return real(path)
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        with pytest.raises(Incomplete):
            box.seal(know=True, delete=True, yes=True)
    assert {"src/a", "src/b"} <= set(box.contents())


def test_delete_guard(box: Box) -> None:
    """More than half is refused, exit 14, with nothing written; half, or --yes, is done."""
    box.tree({f"{n}": b"x" for n in range(5)})  # six entries with the folder
    box.seal()
    for number in range(4):
        (box.source / f"{number}").unlink()
    before = snapshot(box.archive)
    with pytest.raises(PolicyRefused, match="4 of 6") as caught:
        box.seal(know=True, delete=True)
    assert caught.value.exit_code == 14 and "--yes" in caught.value.hint
    assert snapshot(box.archive) == before
    (box.source / "0").write_bytes(b"x")
    assert box.seal(know=True, delete=True).deleted == 3
    assert set(box.contents()) == {"src", "src/0", "src/4"}


def test_emptied_source(box: Box) -> None:
    """A source that is empty now is refused with --delete, unless --yes."""
    box.tree({"a": b"1", "b": {"c": b"2"}})
    box.seal()
    shutil.rmtree(box.source)
    box.source.mkdir()
    with pytest.raises(PolicyRefused):
        box.seal(know=True, delete=True)
    assert len(box.contents()) == 4
    assert box.seal(know=True, delete=True, yes=True).deleted == 3
    assert set(box.contents()) == {"src"}


def test_emptied_source_dot(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for `.`, whose prefix is the whole archive."""
    box.tree({"a": b"1"})
    monkeypatch.chdir(box.source)
    box.seal(".")
    (box.source / "a").unlink()
    with pytest.raises(PolicyRefused):
        box.seal(".", know=True, delete=True)
    box.seal(".", know=True, delete=True, yes=True)
    assert box.contents() == {}
    assert os.listdir(box.unseal()) == []


def test_vanished_source(box: Box) -> None:
    """A source that is not there is a usage error, not an empty source."""
    box.tree({"a": b"1"})
    box.seal()
    shutil.rmtree(box.source)
    with pytest.raises(UsageError, match="does not exist"):
        box.seal(know=True, delete=True, yes=True)
    assert "src/a" in box.contents()


def test_delete_without_an_identity(box: Box) -> None:
    """--delete without an identity is a usage error, exit 2."""
    box.tree({"a": b"1"})
    box.seal()
    with pytest.raises(UsageError, match="--delete") as caught:
        box.seal(delete=True)
    assert caught.value.exit_code == 2


def test_delete_with_the_wrong_identity(box: Box) -> None:
    """--delete with a key that does not fit is exit 12 and changes nothing."""
    box.tree({"a": b"1", "b": b"1", "c": b"1"})
    box.seal()
    (box.source / "a").unlink()
    before = snapshot(box.archive)
    with pytest.raises(pqvault.errors.NoKeyFits) as caught:
        pqvault.seal(
            box.source,
            box.archive,
            recipients=[box.key.recipient],
            identities=[pqvault.Identity.generate()],
            delete=True,
        )
    assert caught.value.exit_code == 12 and snapshot(box.archive) == before


def test_delete_dry_run(box: Box) -> None:
    """A dry run counts what --delete would remove and removes nothing."""
    box.tree({"a": b"1", "b": b"2", "c": b"3"})
    box.seal()
    (box.source / "a").unlink()
    assert box.seal(know=True, delete=True, dry_run=True).deleted == 1
    assert "src/a" in box.contents()


def test_deleted_and_back_again(box: Box) -> None:
    """A file that was removed and comes back is sealed again, also without a key."""
    box.tree({"a": b"1", "b": b"2", "c": b"3"})
    box.seal()
    aside = box.root / "aside"
    (box.source / "a").rename(aside)
    box.seal(know=True, delete=True)
    assert "src/a" not in box.contents()
    aside.rename(box.source / "a")
    box.seal()
    assert snapshot(box.unseal() / "src") == snapshot(box.source)


def test_deleted_folder_moved_back(box: Box) -> None:
    """A folder moved away, deleted and moved back is whole: its files' times are as before."""
    box.tree({"a": {"x": b"1", "b": {"y": b"2"}}, "1": b"", "2": b"", "3": b"", "4": b"", "5": b""})
    box.seal()
    aside = box.root / "aside"
    (box.source / "a").rename(aside)
    box.seal(know=True, delete=True)
    aside.rename(box.source / "a")
    box.seal()
    assert snapshot(box.unseal() / "src") == snapshot(box.source)


def test_folder_gone_while_a_file_stood_there_and_back(box: Box) -> None:
    """What a file hid for a while is there when the folder is moved back, also without a key."""
    box.tree({"a": {"x": b"1", "b": {"y": b"2"}}, "z": b""})
    box.seal()
    aside = box.root / "aside"
    (box.source / "a").rename(aside)
    (box.source / "a").write_bytes(b"a file")
    box.seal()
    (box.source / "a").unlink()
    aside.rename(box.source / "a")
    box.seal()
    assert snapshot(box.unseal() / "src") == snapshot(box.source)


def test_delete_after_a_file_hid_a_folder(box: Box) -> None:
    """After --delete the archive holds what the source holds, not what a file had hidden."""
    box.tree({"a": {"old": b"1"}, "z": b""})
    box.seal()
    shutil.rmtree(box.source / "a")
    (box.source / "a").write_bytes(b"a file")
    box.seal()
    (box.source / "a").unlink()
    box.tree({"a": {"new": b"2"}})
    box.seal(know=True, delete=True)
    assert snapshot(box.unseal() / "src") == snapshot(box.source)


def test_tombstones_in_an_append_part(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tombstone in a part of kind `append` is refused by every reader, and hides nothing."""
    box.tree({"a": b"1", "b": b"2", "c": b"3"})
    box.seal()
    (box.source / "a").unlink()

    def as_append(*of: Any, **fields: Any) -> Commit:
        return make_commit(*of, **{**fields, "kind": "append"})

    with monkeypatch.context() as patch:
        patch.setattr(seal_module, "make_commit", as_append)
        box.seal(know=True, delete=True)
    with box.open() as archive:
        with pytest.raises(FormatError, match="removes entries"):
            list(archive.entries())
        with pytest.raises(FormatError, match="removes entries"):
            archive.find("src/a")
        with pytest.raises(IntegrityError):
            archive.unseal(box.root / "out")
    assert not os.path.exists(box.root / "out/src/b")
    problems = pqvault.verify(box.archive, identities=[box.key]).problems
    assert any("removes entries" in str(problem) for problem in problems)


# ---- readers while others write ------------------------------------------------------------


def test_refresh_of_another_archive(box: Box) -> None:
    """One that took the place of what was opened is not taken for it; what was opened stays."""
    box.tree({"f": b"1"})
    box.seal()
    with box.open() as archive:
        content = archive.open_file("src/f")
        box.archive.rename(box.root / "aside")
        box.seal(box.tree({"g": b"2"}))
        with pytest.raises(RolledBack, match="another archive"):
            archive.refresh()
        assert [entry.path for entry in archive.entries()] == [b"src", b"src/f"]
        assert content.size == 1


def test_refresh(box: Box) -> None:
    """An open archive sees new parts after refresh() and not before."""
    box.tree({"a": b"1"})
    box.seal()
    with box.open() as archive:
        first = archive.parts[0]
        box.tree({"b": b"2"})
        box.seal()
        with pytest.raises(NotFound, match="src/b"):
            archive.find("src/b")
        archive.refresh()
        assert archive.open_file("src/b").read() == b"2"
        assert archive.parts[0] is first


def test_a_removed_part_is_not_seen(box: Box) -> None:
    """A part with a `removed` record is skipped, and is not taken for a rollback."""
    box.tree({"a": b"1"})
    box.seal()
    box.tree({"a": b"22"})
    box.seal()
    first, _ = box.parts()
    (box.archive / "removed").mkdir()
    (box.archive / "removed" / first).write_bytes(b"")
    assert box.contents() == {"src": ("d", b""), "src/a": ("f", b"22")}
    (box.archive / "commits" / first).unlink()
    assert box.contents()["src/a"] == ("f", b"22")
