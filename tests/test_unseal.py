"""Seal and unseal: every byte, name, mode and time comes back, or an error names it."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
from pathlib import Path

import pytest
from conftest import MTIME, Box, handles, is_sparse, make_tree, noise, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

import pqvault
from pqvault.archive import deal, processes
from pqvault.errors import IntegrityError, NotFound, UsageError
from pqvault.progress import Report

FRAME = 65536

names = st.binary(min_size=1, max_size=255).filter(
    lambda n: b"/" not in n and b"\0" not in n and n not in (b".", b"..")
)
# Short names of few bytes around "/" in the order of bytes: where walks and views sort wrong.
near = st.text("a-./0".replace("/", ""), min_size=1, max_size=3).map(str.encode)
near = near.filter(lambda n: n not in (b".", b".."))
trees = st.recursive(
    st.one_of(st.binary(max_size=40), st.none()),
    lambda below: st.dictionaries(st.one_of(near, names), below, max_size=5),
    max_leaves=12,
)


def write_raw(folder: bytes, tree: dict[bytes, object]) -> None:
    os.makedirs(folder, exist_ok=True)
    for name, value in tree.items():
        path = os.path.join(folder, name)
        if isinstance(value, dict):
            write_raw(path, value)
        elif value is None:
            os.symlink(b"nowhere", path)
        else:
            with open(path, "wb") as file:
                file.write(value)  # type: ignore[arg-type]


def test_corpus_comes_back(box: Box, corpus: Path) -> None:
    """A varied tree is equal after unseal: content, modes, times, links, inode groups, holes."""
    before = snapshot(corpus)
    report = box.seal(corpus)
    assert (report.failed, report.skipped, report.warnings) == ([], [], [])
    assert snapshot(box.unseal() / "corpus") == before
    box.check()


def test_unseal_leaves_no_handle_open(box: Box, corpus: Path) -> None:
    """Seal, unseal and close give every file handle back."""
    box.seal(corpus)  # warm: thread pools and SQLite open files of their own
    box.unseal()
    before = handles()
    (corpus / "new").write_bytes(b"x")
    box.seal(corpus)
    box.unseal()
    assert handles() == before


@settings(max_examples=40, deadline=None)
@given(tree=st.dictionaries(st.one_of(near, names), trees, max_size=5))
def test_any_names(tree: dict[bytes, object], identity: pqvault.Identity) -> None:
    """attack 26: any bytes but / and NUL are a name, and none of them leads astray."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        box = Box(Path(folder), identity)
        write_raw(os.fsencode(box.source), tree)
        before = snapshot(box.source)
        box.seal()
        assert snapshot(box.unseal() / "src") == before
        listed = {os.fsencode(path) for path in box.contents()}
        assert listed == {b"src/" + path if path else b"src" for path in before}


def test_longest_names_and_deep_trees(box: Box) -> None:
    """255-byte names, and a path of thousands of bytes that no single call could open."""
    box.tree({"n" * 255: b"1", "é" * 127: b"2"})
    fd = os.open(box.source, os.O_RDONLY)
    for _ in range(40):
        os.mkdir("d" * 200, dir_fd=fd)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
        if _ == 18:  # 19 * 201 bytes: the walk itself goes by path and stops at PATH_MAX
            break
    os.close(os.open("end", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    report = box.seal()
    assert report.failed == []
    out = box.unseal()
    assert snapshot(out / "src") == snapshot(box.source)


def test_path_beyond_the_systems_limit_is_reported(box: Box) -> None:
    """A tree deeper than PATH_MAX is named as failed, not lost in silence."""
    box.tree({"ok": b"1"})
    fd = os.open(box.source, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=fd)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open("end", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    with pytest.raises(pqvault.errors.Incomplete, match="too long") as caught:
        box.seal()
    assert caught.value.exit_code == 3
    assert box.contents()["src/ok"] == ("f", b"1")
    shutil.rmtree(box.source)


SIZES = sorted({0, 1, *(b + d for b in (16384, FRAME, 3 * FRAME, 131072) for d in (-1, 0, 1))})


@pytest.mark.parametrize("level", [0, 3])
def test_sizes_at_every_border(box: Box, level: int) -> None:
    """attack 10: files as long as chunks, frames and blocks, one byte more and less."""
    for size in SIZES:
        box.tree({f"text{size}": b"0123456789abcdef" * (size // 16) + b"x" * (size % 16)})
        box.tree({f"noise{size}": noise(size)})
    box.seal(level=level, frame_size=FRAME)
    assert snapshot(box.unseal() / "src") == snapshot(box.source)
    box.check()


def test_file_over_several_objects(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file larger than an object is spread over several, and read across their borders."""
    monkeypatch.setattr(deal, "LEAST_OBJECT", 100_000)
    monkeypatch.setattr(deal, "OBJECT_SIZE", 100_000)
    content = noise(450_001)
    box.tree({"a": b"before", "big": content, "c": b"after", "exact": noise(200_000, 3)})
    box.seal(frame_size=FRAME)
    with box.open() as archive:
        entry = archive.find("src/big")[1]
        assert len({extent.object for extent in entry.extents}) == 5
        file = archive.open_file("src/big")
        for offset in (0, 99_999, 100_000, 199_990, 449_990):
            assert file.pread(offset, 20) == content[offset : offset + 20]
    assert snapshot(box.unseal() / "src") == snapshot(box.source)
    box.check()


def test_sparse_file_over_several_objects(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Holes and object borders in one file do not shift its bytes."""
    monkeypatch.setattr(deal, "LEAST_OBJECT", 100_000)
    monkeypatch.setattr(deal, "OBJECT_SIZE", 100_000)
    box.tree({})
    with open(box.source / "f", "wb") as file:
        file.truncate(2_000_000)
        for start, size in ((262_144, 150_000), (1_048_576, 70_000), (1_500_000, 90_000)):
            file.seek(start)
            file.write(noise(size, start))
    box.seal(frame_size=FRAME)
    out = box.unseal() / "src"
    assert snapshot(out) == snapshot(box.source)
    assert is_sparse(out / "f")
    box.check()


@pytest.mark.parametrize(
    "data", [[], [(0, 5)], [(1_000_000, 5)], [(500_000, 5)], [(0, 4096), (999_999, 6)]]
)
@pytest.mark.parametrize("size", [1_000_005, 6_000_000])
def test_sparse_files_stay_sparse(box: Box, data: list[tuple[int, int]], size: int) -> None:
    """A hole at the begin, in the middle, at the end or everywhere is a hole again."""
    box.tree({})
    with open(box.source / "f", "wb") as file:
        file.truncate(size)
        for start, length in data:
            file.seek(start)
            file.write(b"x" * length)
    assert is_sparse(box.source / "f")
    report = box.seal()
    assert report.sealed_size < 20_000
    out = box.unseal() / "src"
    assert snapshot(out) == snapshot(box.source)
    assert is_sparse(out / "f")
    box.check()


def test_small_files_share_frames(box: Box) -> None:
    """Many small files beside each other come back each with its own bytes."""
    box.tree({f"d{d}": {f"f{n}": b"%d/%d" % (d, n) * n for n in range(60)} for d in range(8)})
    box.seal(jobs=3)
    assert snapshot(box.unseal(jobs=3) / "src") == snapshot(box.source)


# ---- links ---------------------------------------------------------------------------------


def test_hard_links_share_an_inode(box: Box) -> None:
    """Names of one file are names of one file again, its content sealed once."""
    box.tree({"a": {"first": noise(50_000)}, "b": {}})
    os.link(box.source / "a/first", box.source / "b/second")
    os.link(box.source / "a/first", box.source / "third")
    report = box.seal()
    assert report.size == 50_000
    out = box.unseal() / "src"
    assert snapshot(out) == snapshot(box.source)
    assert (out / "third").stat().st_nlink == 3


@pytest.mark.parametrize("glob", ["src/b/second", "src/b", "**/second"])
def test_only_the_second_name_of_a_hard_link(box: Box, glob: str) -> None:
    """A hard link whose first name is not asked for comes back as a file with its content."""
    content = noise(50_000)
    box.tree({"a": {"first": content}, "b": {}})
    os.link(box.source / "a/first", box.source / "b/second")
    box.seal()
    out = box.unseal([glob])
    assert (out / "src/b/second").read_bytes() == content
    assert not (out / "src/a").exists()


def test_hard_link_whose_first_name_was_replaced_later(box: Box) -> None:
    """A hard link keeps the content of its own part when a later part replaces its first name."""
    box.tree({"first": b"old content"})
    os.link(box.source / "first", box.source / "second")
    box.seal()
    (box.source / "first").unlink()
    (box.source / "first").write_bytes(b"new content")
    box.seal(files_from=[os.fsencode(box.source / "first")])
    assert box.contents()["src/second"] == ("f", b"old content")
    out = box.unseal() / "src"
    assert (out / "first").read_bytes() == b"new content"
    assert (out / "second").read_bytes() == b"old content"


def test_symbolic_links(box: Box) -> None:
    """Links come back as links: relative, dangling, to a folder, in a chain."""
    box.tree(
        {
            "file": b"x",
            "to-file": "file",
            "dangling": "no/such/thing",
            "folder": {"up": "../file", "self": "."},
            "to-folder": "folder",
            "chain": "to-file",
        }
    )
    os.utime(box.source / "dangling", ns=(MTIME, MTIME), follow_symlinks=False)
    box.seal()
    assert snapshot(box.unseal() / "src") == snapshot(box.source)


def test_links_that_leave_the_target(box: Box) -> None:
    """attack 27: links out of the target are skipped and named, unless asked for as they are."""
    box.tree({"abs": "/etc/passwd", "up": "../../etc", "ok": "abs", "f": b"1"})
    box.seal()
    target = box.root / "inside"
    with box.open() as archive:
        report = archive.unseal(target)
    assert sorted(line.split(":")[0] for line in report.skipped) == ["src/abs", "src/up"]
    assert sorted(os.listdir(target / "src")) == ["f", "ok"]
    assert snapshot(box.unseal(links="as-is") / "src") == snapshot(box.source)


def test_special_files_are_skipped_and_named(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets and FIFOs are reported and left out; the rest is sealed and the run is a success."""
    box.tree({"f": b"1"})
    os.mkfifo(box.source / "fifo")
    monkeypatch.chdir(box.source)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("sock")
    report = box.seal()
    assert sorted(report.skipped) == [
        "src/fifo is a FIFO: skipped",
        "src/sock is a socket: skipped",
    ]
    assert set(box.contents()) == {"src", "src/f"}


# ---- modes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o000, 0o400, 0o644, 0o777, 0o4755, 0o2755, 0o1777])
def test_modes(box: Box, mode: int) -> None:
    """Permission bits come back; setuid, setgid and sticky only when asked for."""
    box.tree({"f": b"#!/bin/sh\n", "d": {"x": b""}})
    for name in "fd":
        (box.source / name).chmod(mode)
    if os.geteuid() != 0 and mode & 0o500 != 0o500:
        pytest.skip("only root can read what nobody may")
    box.seal()
    plain, special = box.unseal() / "src", box.unseal(preserve_special=True) / "src"
    for name in "fd":
        assert stat.S_IMODE((plain / name).stat().st_mode) == mode & 0o777
        assert stat.S_IMODE((special / name).stat().st_mode) == mode


def test_umask_plays_no_part(box: Box) -> None:
    """Modes are set, not left to the umask."""
    box.tree({"f": b"1", "d": {}})
    (box.source / "f").chmod(0o666)
    (box.source / "d").chmod(0o777)
    box.seal()
    before = os.umask(0o077)
    try:
        out = box.unseal() / "src"
    finally:
        os.umask(before)
    assert snapshot(out) == snapshot(box.source)


# ---- where it goes -------------------------------------------------------------------------


def test_without_a_target(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a target `src.pqv` goes to ./src, the one folder's content right in it."""
    box.archive = box.root / "src.pqv"
    box.tree({"a": {"b": b"1"}, "c": b"2"})
    os.link(box.source / "c", box.source / "a/link")
    box.source.chmod(0o750)
    box.seal()
    before = snapshot(box.source)
    elsewhere = box.root / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    with box.open() as archive:
        assert archive.unseal().failed == []
        assert snapshot(elsewhere / "src") == before
        with pytest.raises(UsageError, match="exists") as caught:
            archive.unseal()
        assert caught.value.exit_code == 2


def test_without_a_target_and_another_name(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a target an archive of another name keeps the folder below its own."""
    box.tree({"a": b"1"})
    box.seal()
    elsewhere = box.root / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    with box.open() as archive:
        archive.unseal()
    assert (elsewhere / "v/src/a").read_bytes() == b"1"


def test_a_target_that_is_not_empty(box: Box) -> None:
    """A target with anything in it is refused; with force, files of the same name are replaced."""
    box.tree({"a": b"new"})
    box.seal()
    target = make_tree(box.root / "there", {"src": {"a": b"old", "other": b"kept"}})
    with box.open() as archive:
        with pytest.raises(UsageError, match="not empty") as caught:
            archive.unseal(target)
        assert "--force" in caught.value.hint
        assert (target / "src/a").read_bytes() == b"old"
        assert archive.unseal(target, force=True).failed == []
    assert (target / "src/a").read_bytes() == b"new"
    assert (target / "src/other").read_bytes() == b"kept"


@pytest.mark.parametrize("inner", ["", "parts", "new/deep"])
def test_the_archive_is_no_target(box: Box, inner: str) -> None:
    """Nothing is written into it, by whatever name it is called."""
    box.tree({"a": b"1"})
    box.seal()
    before = snapshot(box.archive)
    link = box.root / "link"
    link.symlink_to(box.archive)
    for root in (box.archive, link, box.root / "src/../v.pqv"):
        with (
            box.open() as archive,
            pytest.raises(UsageError, match="is in the archive that would be extracted there"),
        ):
            archive.unseal(root / inner, force=True)
    assert snapshot(box.archive) == before


@pytest.mark.parametrize("kind", ["file", "fifo", "dangling", "loop", "below"])
def test_a_target_that_is_no_folder_is_named_with_the_next_step(box: Box, kind: str) -> None:
    """Whatever it is: never an error of Python's."""
    box.tree({"a": b"1"})
    box.seal()
    target = box.root / "target"
    if kind in ("file", "below"):
        target.write_bytes(b"mine")
    elif kind == "fifo":
        os.mkfifo(target)
    else:
        target.symlink_to(target if kind == "loop" else "nowhere")
    for force in (False, True):
        with box.open() as archive, pytest.raises(UsageError, match="target") as caught:
            archive.unseal(target / "x" if kind == "below" else target, force=force)
        assert "with -o" in caught.value.hint
    assert os.path.lexists(target) and not (box.root / "nowhere").exists()


def test_a_target_of_which_nothing_came_is_not_left(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would stand in the way of the next try, which says that it exists."""
    box.tree({"a": b"1"})
    box.seal()
    for catalog in box.archive.glob("parts/*/catalog"):
        catalog.rename(catalog.with_name("aside"))
    monkeypatch.chdir(box.root)
    for _ in range(2):
        with box.open(strict=False) as archive:
            report = archive.unseal()
            assert archive.problems and not report.files
        assert not (box.root / "v").exists()


def test_a_folder_alone_is_found_by_its_glob(
    box: Box, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """That it becomes the target itself does not make it nothing."""
    (tmp_path / "v").mkdir()
    box.seal(tmp_path / "v")
    monkeypatch.chdir(make_tree(tmp_path / "here", {}))
    with box.open() as archive:
        archive.unseal(None, ["v"])
    assert os.listdir("v") == []


def test_links_that_are_not_known_are_refused(box: Box) -> None:
    """A word that is misspelt would be without effect."""
    box.tree({"a": b"1"})
    box.seal()
    with box.open() as archive, pytest.raises(UsageError, match="as_is") as caught:
        archive.unseal(box.root / "out", links="as_is")  # type: ignore[arg-type]
    assert "'as-is'" in caught.value.hint and not (box.root / "out").exists()


def test_globs(box: Box) -> None:
    """Only what the globs match, with the folders that it is in."""
    box.tree({"a": {"x.txt": b"1", "y.bin": b"2"}, "b": {"x.txt": b"3", "deep": {"x.txt": b"4"}}})
    box.seal()
    out = box.unseal(["**/x.txt"])
    assert sorted(p for p in snapshot(out) if p.endswith(b"t")) == [
        b"src/a/x.txt",
        b"src/b/deep/x.txt",
        b"src/b/x.txt",
    ]
    assert not (out / "src/a/y.bin").exists()
    assert snapshot(box.unseal(["src/b"]) / "src/b") == snapshot(box.source / "b")


def test_globs_that_match_nothing(box: Box) -> None:
    """A glob that matches nothing is an error that says what globs match."""
    box.tree({"a": b"1"})
    box.seal()
    with box.open() as archive, pytest.raises(NotFound, match="a/nothing") as caught:
        archive.unseal(box.root / "out", ["a/nothing"])
    assert caught.value.exit_code == 10


def test_one_glob_of_several_matches_nothing(box: Box) -> None:
    """What the others match is there, and the one that nothing is like is named: exit 10."""
    box.tree({"a": b"1", "b": b"2"})
    box.seal()
    with box.open() as archive:
        report = archive.unseal(box.root / "out", ["src/a", "src/typo", "**/nope"])
    assert [error.exit_code for error in report.failed] == [10, 10]
    assert "src/typo" in report.failed[0].message and "**/nope" in report.failed[1].message
    assert report.files == 1 and (box.root / "out/src/a").read_bytes() == b"1"


def test_globs_that_match_nothing_leave_nothing(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """./NAME must not exist, so that an empty one would refuse the next try; a folder of the
    user's own stays."""
    box.tree({"a": b"1"})
    box.seal()
    monkeypatch.chdir(box.root)
    own = box.root / "own"
    own.mkdir()
    for target in (None, "out", "own"):
        with box.open() as archive, pytest.raises(NotFound):
            archive.unseal(target, ["nothing"])
    with box.open() as archive:
        archive.unseal(None, ["**/a"])
    assert own.is_dir() and not (box.root / "out").exists()


# ---- damage --------------------------------------------------------------------------------


def test_a_damaged_object_fails_its_files_only(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """attack 11: a flipped byte makes its files fail by name; others come back, nothing partial."""
    monkeypatch.setattr(deal, "LEAST_OBJECT", 200_000)
    monkeypatch.setattr(deal, "OBJECT_SIZE", 200_000)
    box.tree({f"f{n}": noise(190_000, n) for n in range(4)})
    box.seal()
    part = box.parts()[0]
    objects = sorted((box.archive / "parts" / part / "objects").iterdir())
    assert len(objects) == 4
    data = bytearray(objects[2].read_bytes())
    data[100_000] ^= 1
    objects[2].write_bytes(data)
    out = box.root / "out"
    with box.open() as archive:
        report = archive.unseal(out)
    assert len(report.failed) == 1
    assert isinstance(report.failed[0], IntegrityError) and objects[2].name in str(report.failed[0])
    assert report.failed[0].exit_code == 13
    assert sorted(os.listdir(out / "src")) == ["f0", "f1", "f3"]
    problems = pqvault.verify(box.archive, identities=[box.key]).problems
    assert any(objects[2].name in str(problem) for problem in problems)


def test_swapped_objects_are_refused(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """attack 13: two objects that change places both fail; no file gets the other's bytes."""
    monkeypatch.setattr(deal, "LEAST_OBJECT", 200_000)
    monkeypatch.setattr(deal, "OBJECT_SIZE", 200_000)
    box.tree({f"f{n}": noise(190_000, n) for n in range(2)})
    box.seal()
    one, two = sorted((box.archive / "parts" / box.parts()[0] / "objects").iterdir())
    spare = one.with_name("spare")
    one.rename(spare)
    two.rename(one)
    spare.rename(two)
    with box.open() as archive:
        report = archive.unseal(box.root / "out")
    assert len(report.failed) == 2
    assert os.listdir(box.root / "out/src") == []


def test_missing_object(box: Box) -> None:
    """A missing object is an integrity failure that names it, not a crash."""
    box.tree({"f": b"content"})
    box.seal()
    (gone,) = (box.archive / "parts" / box.parts()[0] / "objects").iterdir()
    gone.unlink()
    with box.open() as archive:
        report = archive.unseal(box.root / "out")
    assert [error.exit_code for error in report.failed] == [13]
    assert gone.name in str(report.failed[0])
    assert not (box.root / "out/src/f").exists()


@pytest.mark.parametrize("workers", [False, True])
def test_each_file_that_is_not_there_is_named(
    box: Box, monkeypatch: pytest.MonkeyPatch, workers: bool
) -> None:
    """Promise 1: whatever its size and wherever it is read, its error begins with its own path,
    and `verify` names the same. `o` is in the name of every object, and is named none the less."""
    monkeypatch.setattr(processes, "LARGE", 0 if workers else 2**60)
    (box.root / "o").write_bytes(b"short")
    box.tree({"small": b"1", "middle": noise(3 << 20, 1), "large": noise(9 << 20, 2)})
    os.link(box.source / "small", box.source / "hard")
    box.seal(box.source, box.root / "o")
    for gone in (box.archive / "parts" / box.parts()[0] / "objects").iterdir():
        gone.unlink()
    with box.open() as archive:
        failed = [error.message for error in archive.unseal(box.root / "out").failed]
    assert [message.split(": ")[0] for message in sorted(failed)] == [
        "o",
        *(f"src/{name}" for name in ("hard", "large", "middle", "small")),
    ]
    problems = [p.message for p in pqvault.verify(box.archive, identities=[box.key]).problems]
    assert {message for message in failed if "small" not in message} <= set(problems)  # a link


def test_progress_reaches_the_size(box: Box, corpus: Path) -> None:
    """Progress counts every byte of content once, and knows from the start how many there are, of
    all and of what globs choose."""
    box.seal(corpus)
    sizes = set()
    for number, globs in enumerate(([], ["**/*.bin"], ["**/empty*"])):
        seen: list[Report] = []
        with box.open() as archive:
            report = archive.unseal(box.root / f"out{number}", globs, progress=seen.append)
        assert max((r.done for r in seen), default=0) == report.size
        assert all((r.stage, r.total) == ("unseal", report.size) for r in seen)
        sizes.add(report.size)
    assert len(sizes) == 3
