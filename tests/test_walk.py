"""The walk: everything once, in the order of catalogs; lists, excludes, file systems."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Box, make_tree, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from pqvault.archive import walk
from pqvault.archive.walk import Walker, name_sources
from pqvault.errors import Incomplete, UsageError
from pqvault.format.catalog import Kind

near = st.text("a-.0A", min_size=1, max_size=3).filter(lambda n: n not in (".", ".."))
trees = st.recursive(
    st.just(b""), lambda below: st.dictionaries(near, below, max_size=6), max_leaves=25
)


def listed(box: Box, *paths: str | Path, **options: Any) -> Any:
    return box.seal(files_from=[os.fsencode(p) for p in paths], **options)


@settings(max_examples=60, deadline=None)
@given(tree=st.dictionaries(near, trees, max_size=6))
def test_order_is_that_of_whole_paths(tree: dict[str, Any]) -> None:
    """Paths come strictly ascending, bytewise, though folders are read one by one."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        root = make_tree(Path(folder) / "src", tree)
        walker = Walker(name_sources([root]), lambda *note: pytest.fail(str(note)))
        paths = [found.path for found in walker.walk()]
        assert paths == sorted(set(paths))
        assert {p[4:] for p in paths} == set(snapshot(root))


def test_order_over_several_sources(box: Box) -> None:
    """Sources whose names are one another's beginnings do not disturb the order."""
    for name in ("a", "a-b", "a.b", "a0", "A"):
        make_tree(box.root / name, {"x": b"", "-": {"y": b""}})
    sources = name_sources([box.root / n for n in ("a0", "a-b", "A", "a", "a.b")], "p/q")
    paths = [f.path for f in Walker(sources, lambda *note: None).walk()]
    assert paths == sorted(set(paths)) and len(paths) == 2 + 5 * 4


def test_deeper_than_pythons_recursion(box: Box) -> None:
    """A tree of 1,500 levels is walked, sealed and unsealed."""
    box.root = Path(tempfile.mkdtemp(dir="/dev/shm"))  # pytest's own cleaning recurses
    box.__post_init__()
    try:
        box.source.mkdir()
        subprocess.run(
            [sys.executable, "-c", "import os\nfor _ in range(1500): os.mkdir('d'); os.chdir('d')"],
            cwd=box.source,
            check=True,
        )
        assert len(list(Walker(name_sources([box.source]), lambda *note: None).walk())) == 1501
        box.seal()
        out = box.unseal()
        assert os.path.isdir(os.fsencode(out) + b"/src" + b"/d" * 1500)
    finally:
        subprocess.run(["rm", "-rf", str(box.root)], check=True)


# ---- excludes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("globs", "left"),
    [
        (["src/a"], {"src", "src/b", "src/b/x.tmp", "src/b/y"}),
        (["**/*.tmp"], {"src", "src/a", "src/a/y", "src/b", "src/b/y"}),
        (["src/*/y", "**/x.tmp"], {"src", "src/a", "src/b"}),
        (["src/?"], {"src"}),
        (["src/[!a]"], {"src", "src/a", "src/a/x.tmp", "src/a/y"}),
    ],
)
def test_exclude(box: Box, globs: list[str], left: set[str]) -> None:
    """Excluded paths are left out, with all that is in them."""
    box.tree({"a": {"x.tmp": b"1", "y": b"2"}, "b": {"x.tmp": b"3", "y": b"4"}})
    box.seal(exclude=globs)
    assert set(box.contents()) == left
    box.check()


@pytest.mark.parametrize("glob", ["*.tmp", "/src/a", "a", "srd/*", "[a-r]rc/a", "./src/a"])
def test_an_exclude_that_matches_nothing_is_refused(box: Box, glob: str) -> None:
    """Globs match whole paths: what the user meant to leave out would be sealed."""
    box.tree({"a": b"1", "b.tmp": b"2"})
    with pytest.raises(
        UsageError, match="matches nothing here: all paths begin with src/"
    ) as caught:
        box.seal(exclude=[glob])
    assert "**/" in caught.value.hint
    assert not box.archive.exists()


@pytest.mark.parametrize("glob", ["./b.tmp", "/b.tmp", "{}/b.tmp", "", "x/..", "./*.tmp", "a//b"])
def test_an_exclude_of_names_that_no_path_has(
    box: Box, monkeypatch: pytest.MonkeyPatch, glob: str
) -> None:
    """Of the source `.` too, as `tar --exclude=./b.tmp .` takes it: what it was to leave out would
    be sealed."""
    monkeypatch.chdir(box.tree({"a": b"1", "b.tmp": b"2"}))
    glob = glob.format(box.source)
    with pytest.raises(UsageError, match=r"matches nothing here: .* a name") as caught:
        box.seal(".", exclude=[glob])
    if glob.endswith("b.tmp"):
        assert ("write b.tmp" in caught.value.hint) == (glob != "/b.tmp")
    assert not box.archive.exists()


@pytest.mark.parametrize("glob", ["src", "src/none", "s*/x", "**/*.tmp", "**", "[r-t]rc/a", "?rc/"])
def test_an_exclude_that_may_match_is_taken(box: Box, glob: str) -> None:
    """Whether there is something of that name today or not."""
    box.tree({"c": b"1"})
    box.seal(exclude=[glob])


def test_excludes_of_a_prefix_and_of_no_name(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --prefix paths begin with that; with the source `.` they begin with anything."""
    box.tree({"a": b"1", "b": b"2"})
    box.seal(prefix="p/q", exclude=["p/*/src/a"])
    assert "p/q/src/b" in box.contents() and "p/q/src/a" not in box.contents()
    with pytest.raises(UsageError, match="begin with p/"):
        box.seal(prefix="p/q", exclude=["src/a"])
    monkeypatch.chdir(box.source)
    box.seal(".", exclude=["a", "none"])
    assert "b" in box.contents() and "a" not in box.contents()


# ---- --files-from --------------------------------------------------------------------------


def test_listed_files_bring_their_folders(box: Box) -> None:
    """Only what is listed, with the folders around it; a listed folder is not entered."""
    box.tree({"a": {"b": {"1": b"1", "2": b"2"}}, "c": {"3": b"3"}, "d": {}})
    listed(box, box.source / "a/b/1", box.source / "c")
    assert set(box.contents()) == {"src", "src/a", "src/a/b", "src/a/b/1", "src/c"}
    box.check()


def test_listed_twice_and_relative(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path may be listed twice and in any spelling; links and odd names are listed too."""
    odd = os.fsdecode(b"\xff\n")
    box.tree({"a": b"1", "link": "a", odd: b"2"})
    monkeypatch.chdir(box.root)
    listed(box, "src/a", "./src/a", box.source / "a", "src/link", "src/" + odd, "src")
    assert set(box.contents()) == {"src", "src/a", "src/link", "src/" + odd}
    box.check()


def test_listed_as_programs_have_paths(box: Box) -> None:
    """Text, bytes or path objects; one alone may be meant as the file that lists them: refused."""
    source = box.tree({"a": b"1", "b": b"2", "c": b"3", "d": b"4"})
    box.seal(files_from=[str(source / "a"), os.fsencode(source / "b"), source / "c"])
    assert set(box.contents()) == {"src", "src/a", "src/b", "src/c"}
    for one in (str(source / "a"), os.fsencode(source / "a"), source / "a"):
        with pytest.raises(UsageError, match="files_from is one path"):
            box.seal(files_from=one)


def test_listed_outside_the_source(box: Box) -> None:
    """attack 26: a listed path outside the source is a usage error, also by `..`."""
    box.tree({"a": b"1"})
    (box.root / "src2").write_bytes(b"")
    for path in ("/etc/passwd", box.root / "src2", box.source / "../src2", box.source / ".."):
        with pytest.raises(UsageError, match="not inside a source") as caught:
            listed(box, path)
        assert caught.value.exit_code == 2


@pytest.mark.parametrize("source", ["src", "."])
def test_listed_private_key(source: str, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """attack 40: an identity file that is given as the list is not repeated in the error."""
    box.tree({"a": b"1"})
    monkeypatch.chdir(box.root)
    with pytest.raises(UsageError, match="private key") as caught:
        box.seal(source, files_from=[box.key.text.encode()])
    assert "SECRET" not in str(caught.value) and not box.archive.exists()


def test_listed_and_missing(box: Box) -> None:
    """A listed path that is not there is named, exit 3; the others are sealed."""
    box.tree({"a": b"1"})
    with pytest.raises(Incomplete, match="src/gone cannot be read"):
        listed(box, box.source / "gone", box.source / "a")
    assert set(box.contents()) == {"src", "src/a"}


def test_listed_with_dot_and_with_two_sources(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists go with `.`, with several sources and with a prefix."""
    one, two = make_tree(box.root / "1", {"a": b"1"}), make_tree(box.root / "2", {"b": b"2"})
    monkeypatch.chdir(one)
    box.seal(".", files_from=[b"a"])
    assert set(box.contents()) == {"a"}
    box.archive = box.root / "w.pqv"
    box.seal(one, two, files_from=[os.fsencode(one / "a"), os.fsencode(two / "b")])
    assert set(box.contents()) == {"1", "1/a", "2", "2/b"}
    box.archive = box.root / "x.pqv"
    box.seal(one, prefix="p/q", files_from=[os.fsencode(one / "a")])
    assert set(box.contents()) == {"p", "p/q", "p/q/1", "p/q/1/a"}
    box.check()


def test_listed_with_two_sources_and_a_prefix(box: Box) -> None:
    """The folders of a prefix come once, however many sources are below them."""
    one, two = make_tree(box.root / "1", {"a": b"1"}), make_tree(box.root / "2", {"b": b"2"})
    box.seal(one, two, prefix="p", files_from=[os.fsencode(one / "a"), os.fsencode(two / "b")])
    box.check()
    assert set(box.contents()) == {"p", "p/1", "p/1/a", "p/2", "p/2/b"}


def test_listed_in_a_source_that_is_a_link(box: Box) -> None:
    """A source that is a link to a folder is a folder in the archive, listed or walked."""
    make_tree(box.root / "real", {"a": b"1"})
    box.source.symlink_to("real")
    listed(box, box.source / "a")
    box.check()
    assert box.contents() == {"src": ("d", b""), "src/a": ("f", b"1")}


def test_listed_through_a_link_inside(box: Box) -> None:
    """attack 27: a listed path that goes through a link inside the source is not followed."""
    make_tree(box.root / "real", {"a": b"1"})
    box.tree({"link": "../real", "b": b"2"})
    try:
        listed(box, box.source / "link/a", box.source / "b")
    except (Incomplete, UsageError):
        pass
    box.check()
    assert "src/link/a" not in box.contents()


def test_listed_below_an_excluded_folder(box: Box) -> None:
    """A listed file whose folder is excluded is excluded with it."""
    box.tree({"a": {"x": b"1"}, "b": {"y": b"2"}})
    listed(box, box.source / "a/x", box.source / "b/y", exclude=["src/[a]"])
    box.check()
    assert set(box.contents()) == {"src", "src/b", "src/b/y"}


def test_a_listed_path_outside_makes_no_archive(box: Box) -> None:
    """A list with a path outside of the sources is refused before anything is written."""
    box.tree({"a": b"1"})
    with pytest.raises(UsageError, match="not inside a source"):
        listed(box, box.source / "a", box.root / "b")
    assert not box.archive.exists()


# ---- file systems --------------------------------------------------------------------------


def test_one_file_system(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one_file_system a mount point is an entry and is not entered; what is in it is not gone,
    so that --delete leaves it."""
    box.tree({"a": b"1", "mount": {"x": b"2"}})
    box.seal()
    real = os.lstat

    def lstat(path: Any, **options: Any) -> Any:
        info = real(path, **options)
        if b"/mount" not in os.fsencode(path):
            return info
        names = [name for name in dir(info) if name.startswith("st_")]
        return SimpleNamespace(**{n: getattr(info, n) for n in names} | {"st_dev": 12345})

    monkeypatch.setattr(walk.os, "lstat", lstat)
    sources = name_sources([box.source])
    found = list(Walker(sources, lambda *note: None, one_file_system=True).walk())
    assert [f.path for f in found] == [b"src", b"src/a", b"src/mount"]
    assert found[2].kind == Kind.FOLDER
    assert len(list(Walker(sources, lambda *note: None).walk())) == 4
    assert box.seal(know=True, delete=True, one_file_system=True).deleted == 0
    assert "src/mount/x" in box.contents()


def test_one_file_system_through_a_link(box: Box) -> None:
    """A source that is a link to another file system is that file system, with all its folders."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        if os.stat(other).st_dev == os.stat(box.root).st_dev:
            pytest.skip("there is one file system only")
        make_tree(Path(other), {"a": {"x": b"1"}, "y": b"2"})
        box.source.symlink_to(other)
        box.seal(one_file_system=True)
        assert set(box.contents()) == {"src", "src/a", "src/a/x", "src/y"}


def test_a_file_that_becomes_a_folder_while_walked(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What became a folder after its folder was listed is named, exit 3, and nothing in it is taken
    for gone; the next run seals it."""
    box.tree({"a": {"x": b"1"}, **{f"b{n}": b"2" for n in range(5)}})
    box.seal()
    real = walk._due
    monkeypatch.setattr(walk, "_due", lambda disk: [n for n in real(disk) if n != b"a/"])
    with pytest.raises(Incomplete, match="src/a became a folder just now"):
        box.seal(know=True, delete=True)
    monkeypatch.undo()
    assert "src/a/x" in box.contents()


def test_folder_that_vanishes_while_walked(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is gone when it is entered is named, exit 3; the rest is sealed."""
    box.tree({"a": {"x": b"1"}, "b": b"2"})
    real = os.scandir

    def scandir(path: Any) -> Any:
        if not isinstance(path, int) and os.fsencode(path).endswith(b"/a"):
            raise FileNotFoundError(2, "No such file or directory")
        return real(path)

    monkeypatch.setattr(walk.os, "scandir", scandir)
    with pytest.raises(Incomplete, match="src/a cannot be read"):
        box.seal()
    assert set(box.contents()) == {"src", "src/a", "src/b"}
