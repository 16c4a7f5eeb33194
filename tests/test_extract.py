"""The extractor on real file systems: nothing outside the target, nothing half-written."""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import handles
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pqvault.archive import extract
from pqvault.archive.extract import Extractor, Report, TargetFull, folders
from pqvault.errors import PQVaultError, UsageError
from pqvault.format.catalog import Entry, Kind
from pqvault.names import printable

MTIME = 1_234_567_890_123_456_789  # odd to the last nanosecond


def file(path: bytes, size: int = 0, mode: int = 0o644, mtime_ns: int = MTIME) -> Entry:
    return Entry(path, Kind.FILE, size, mode, mtime_ns)


def folder(path: bytes, mode: int = 0o755, mtime_ns: int = MTIME) -> Entry:
    return Entry(path, Kind.FOLDER, 0, mode, mtime_ns)


def symlink(path: bytes, target: bytes) -> Entry:
    return Entry(path, Kind.SYMLINK, 0, 0o777, MTIME, link=target)


def hardlink(path: bytes, first: bytes) -> Entry:
    return Entry(path, Kind.HARDLINK, 0, 0o644, MTIME, link=first)


def leftovers(root: Path) -> list[str]:
    return [n for _, _, names in os.walk(root) for n in names if n.startswith(".pqvault-")]


@pytest.fixture(autouse=True)
def no_handle_leaks() -> Iterator[None]:
    """Whatever a test does, it ends with as many open handles as it began with."""
    gc.collect()  # of other tests
    before = handles()
    yield
    assert handles() == before


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the target that must never change."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "secret").write_bytes(b"untouched")
    return path


def assert_untouched(outside: Path) -> None:
    assert os.listdir(outside) == ["secret"]
    assert (outside / "secret").read_bytes() == b"untouched"


# ---- what comes back -------------------------------------------------------------------


def test_files_and_folders_come_back_with_modes_and_times(target: Path) -> None:
    """Bytes, permission bits and nanoseconds, through both ways to write a file."""
    with Extractor(target) as extractor:
        extractor.make_folder(folder(b"d", 0o750, MTIME + 1))
        extractor.files.write_small(file(b"d/small", 5, 0o640), memoryview(b"small"))
        extractor.files.write_small(file(b"d/empty", 0, 0o600), b"")
        with extractor.files.open_file(file(b"d/large", 6, 0o444)) as sink:
            sink.pwrite(b"rge", 3)
            sink.pwrite(bytearray(b"ala"), 0)
            assert not (target / "d/large").exists()
        report = extractor.finish()
    assert report == Report(3, 1, 0, 0, 11, (), ())
    assert (target / "d/small").read_bytes() == b"small"
    assert (target / "d/large").read_bytes() == b"alarge"
    expected = {"d": 0o750, "d/small": 0o640, "d/empty": 0o600, "d/large": 0o444}
    for name, mode in expected.items():
        found = os.stat(target / name)
        assert stat.S_IMODE(found.st_mode) == mode
        assert found.st_mtime_ns == (MTIME + 1 if name == "d" else MTIME)
    assert leftovers(target) == []


@pytest.mark.parametrize("mtime_ns", [0, -1, -(10**18), 2**31 * 10**9 + 7])
def test_times_before_1970_and_after_2038(target: Path, mtime_ns: int) -> None:
    """A time is a signed number of nanoseconds."""
    with Extractor(target) as extractor:
        extractor.files.write_small(file(b"f", mtime_ns=mtime_ns), b"")
        extractor.finish()
    assert (target / "f").stat().st_mtime_ns == mtime_ns


def test_folders_without_an_entry_follow_the_umask(target: Path) -> None:
    """Parents that no entry names are 0o700 while the run lasts, then 0o777 less the umask."""
    before = os.umask(0o027)
    try:
        with Extractor(target) as extractor:
            extractor.files.write_small(file(b"a/b/f"), b"")
            assert stat.S_IMODE((target / "a").stat().st_mode) == 0o700
            assert stat.S_IMODE(target.stat().st_mode) == 0o700
            extractor.finish()
    finally:
        os.umask(before)
    for path in (target, target / "a", target / "a/b"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o750
    assert stat.S_IMODE((target / "a/b/f").stat().st_mode) == 0o644


def test_closed_folders_still_get_their_content(target: Path) -> None:
    """Modes 000 and 500 are set when all is written, and the times are not disturbed by it."""
    modes = {b"none": 0o000, b"none/in": 0o111, b"read": 0o500, b"read/in": 0o444}
    with Extractor(target) as extractor:
        for path, mode in modes.items():
            extractor.make_folder(folder(path, mode))
            extractor.files.write_small(file(path + b"/f", 1), b"x")
        extractor.make_symlink(symlink(b"none/in/link", b"f"))
        assert extractor.finish().failures == ()
    for path, mode in sorted(modes.items()):
        found = os.stat(os.fsencode(target) + b"/" + path)
        assert stat.S_IMODE(found.st_mode) == mode
        assert found.st_mtime_ns == MTIME
        os.chmod(os.fsencode(target) + b"/" + path, 0o700)
    assert (target / "none/in/f").read_bytes() == b"x"
    assert os.readlink(target / "none/in/link") == "f"


def test_any_order_gives_the_same_tree(target: Path) -> None:
    """A folder's entry after its content, siblings that sort between: the stamp still holds."""
    with Extractor(target) as extractor:
        extractor.files.write_small(file(b"d/e/f"), b"")
        extractor.make_folder(folder(b"d-x", 0o500))
        extractor.make_folder(folder(b"d/e", 0o500))
        extractor.make_folder(folder(b"d", 0o500))
        assert extractor.finish().failures == ()
    for name in ("d", "d/e", "d-x"):
        assert (target / name).stat().st_mtime_ns == MTIME
        assert stat.S_IMODE((target / name).stat().st_mode) == 0o500


def test_children_get_their_stamps_before_their_parents(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may enter a folder of mode 000 and so would not notice the wrong order: watch it."""
    stamped = []
    real = os.fchmod

    def watch(fd: int, mode: int) -> None:
        stamped.append(os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), target))
        real(fd, mode)

    with Extractor(target) as extractor:
        for name in (b"a", b"a/b", b"a/b/c", b"a-", b"a-/b"):
            extractor.make_folder(folder(name, 0o000))
        monkeypatch.setattr(os, "fchmod", watch)
        extractor.finish()
    assert sorted(stamped) == sorted([".", "a", "a/b", "a/b/c", "a-", "a-/b"])
    for number, name in enumerate(stamped):
        assert os.path.dirname(name) not in stamped[:number]


@pytest.mark.parametrize("preserve", [False, True])
def test_special_bits_only_on_request(target: Path, preserve: bool) -> None:
    """setuid, setgid and sticky are cleared, on files and folders, unless asked for."""
    with Extractor(target, preserve_special=preserve) as extractor:
        extractor.files.write_small(file(b"f", 1, mode=0o6755), b"x")
        with extractor.files.open_file(file(b"large", 1, mode=0o6755)) as sink:
            sink.pwrite(b"x", 0)
        extractor.make_folder(folder(b"d", mode=0o3755))
        extractor.finish()
    kept = 0o7777 if preserve else 0o777
    for name in ("f", "large"):
        assert stat.S_IMODE((target / name).stat().st_mode) == 0o6755 & kept
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o3755 & kept


def test_nobody_else_reads_what_is_not_finished(target: Path) -> None:
    """Whatever the umask and the archive say: until then folders are 0o700 and files 0o600."""
    mask = os.umask(0)
    try:
        with Extractor(target) as extractor:
            extractor.make_folder(folder(b"d", mode=0o777))
            sink = extractor.files.open_file(file(b"d/implied/f", 1, mode=0o666))
            sink.pwrite(b"x", 0)
            found = {p: stat.S_IMODE(p.stat().st_mode) for p in (target, *target.rglob("*"))}
            assert set(found.values()) == {0o700, 0o600} and len(found) == 4
            sink.commit()
            extractor.finish()
    finally:
        os.umask(mask)
    assert stat.S_IMODE((target / "d/implied/f").stat().st_mode) == 0o666


def test_holes_stay_holes(target: Path) -> None:
    """1 GiB with one written byte takes no gigabyte of disk, and ends where it should."""
    size = 1 << 30
    with Extractor(target) as extractor:
        with extractor.files.open_file(file(b"sparse", size)) as sink:
            sink.pwrite(b"x", size // 2)
        extractor.finish()
    found = (target / "sparse").stat()
    assert found.st_size == size
    assert found.st_blocks * 512 < 1 << 20


@pytest.fixture
def deep_target(target: Path) -> Iterator[Path]:
    """Removed by `rm`, as neither shutil nor a path reaches that deep."""
    yield target
    subprocess.run(["rm", "-rf", target], check=True)


def test_a_tree_2000_deep(deep_target: Path) -> None:
    """Deeper than PATH_MAX, with few handles: each step is one component."""
    path = b"/".join([b"deep-name"] * 2000)
    held = handles()
    with Extractor(deep_target) as extractor:
        extractor.make_folder(folder(path, 0o700))
        extractor.files.write_small(file(path + b"/f", 4), b"deep")
        assert handles() - held <= folders.OPEN_FOLDERS + 4
        extractor.make_symlink(symlink(path + b"/l", b"../" * 1000 + b"x"))
        report = extractor.finish()
    assert (report.failures, report.skipped) == ((), ())
    at = os.open(deep_target, os.O_RDONLY)
    try:
        for _ in range(2000):
            below = os.open("deep-name", os.O_RDONLY, dir_fd=at)
            os.close(at)
            at = below
        assert os.stat("f", dir_fd=at).st_size == 4
        assert os.fstat(at).st_mtime_ns == MTIME
    finally:
        os.close(at)


def test_more_folders_than_handles_from_four_threads(target: Path) -> None:
    """The cache evicts under load, and no thread loses a handle that it is using."""

    def work(number: int) -> None:
        name = b"%d/%d" % (number % 700, number % 11)
        content = b"%d" % number
        extractor.make_folder(folder(name, 0o700))
        if number % 2:
            entry = file(name + b"/f%d" % number, len(content))
            extractor.files.write_small(entry, content)
            return
        with extractor.files.open_file(file(name + b"/f%d" % number, len(content))) as sink:
            sink.pwrite(content, 0)

    held = handles()
    with Extractor(target) as extractor:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(5000)))
        assert handles() - held <= folders.OPEN_FOLDERS + 8
        report = extractor.finish()
    assert (report.files, report.failures) == (5000, ())
    for number in range(5000):
        path = target / f"{number % 700}/{number % 11}/f{number}"
        assert path.read_bytes() == b"%d" % number


def test_short_writes_are_continued(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux may take less than it is given (row 47)."""
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, view, at: real(fd, bytes(view)[:3], at))
    content = bytes(range(100))
    with Extractor(target) as extractor:
        extractor.files.write_small(file(b"f", 100), content)
        with extractor.files.open_file(file(b"g", 100)) as sink:
            sink.pwrite(memoryview(content).cast("H"), 0)
        extractor.finish()
    assert (target / "f").read_bytes() == (target / "g").read_bytes() == content


# ---- hard links ------------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
def test_hard_links_share_an_inode(target: Path, force: bool) -> None:
    """Also onto an old name, and onto a name that is that very file already."""
    with Extractor(target, force=force) as extractor:
        extractor.files.write_small(file(b"a/one", 1), b"x")
        if force:
            (target / "a/old").write_bytes(b"old")
            os.link(target / "a/one", target / "same")
            assert extractor.make_hardlink(hardlink(b"a/old", b"a/one"))
            assert extractor.make_hardlink(hardlink(b"same", b"a/one"))
        assert extractor.make_hardlink(hardlink(b"b/two", b"a/one"))
        assert extractor.make_hardlink(hardlink(b"three", b"b/two"))
        report = extractor.finish()
    assert report.hardlinks == (4 if force else 2)
    names = ["a/one", "b/two", "three"] + (["a/old", "same"] if force else [])
    assert len({(target / name).stat().st_ino for name in names}) == 1
    assert leftovers(target) == []


def test_hard_links_only_to_files_of_this_run(target: Path, outside: Path) -> None:
    """An old file, a failed one, a path outside: the caller is told to write the content."""
    target.mkdir()
    (target / "old").write_bytes(b"old")
    with Extractor(target, force=True, link_sources=[b"kept"]) as extractor:
        extractor.files.write_small(file(b"kept", 1), b"x")
        extractor.files.write_small(file(b"not announced", 1), b"x")
        extractor.files.open_file(file(b"failed", 1)).abort()
        for source in (b"old", b"not announced", b"failed", b"../outside/secret", b""):
            assert not extractor.make_hardlink(hardlink(b"new", source))
        assert extractor.make_hardlink(hardlink(b"new", b"kept"))
        extractor.finish()
    assert_untouched(outside)


def test_a_hard_link_does_not_replace_without_force(target: Path) -> None:
    """The name taken is named, and keeps its content."""
    with Extractor(target) as extractor:
        extractor.files.write_small(file(b"one", 1), b"1")
        extractor.files.write_small(file(b"two", 1), b"2")
        with pytest.raises(PQVaultError, match="two: it exists already"):
            extractor.make_hardlink(hardlink(b"two", b"one"))
        extractor.finish()
    assert (target / "two").read_bytes() == b"2"


# ---- names -----------------------------------------------------------------------------

HOSTILE = [
    b"",
    b"/",
    b"/abs",
    b"//abs",
    b".",
    b"..",
    b"../up",
    b"a/../../up",
    b"a/..",
    b"a/./b",
    b"./a",
    b"a//b",
    b"a/",
    b"a\0b",
    b"a\0/b",
    b"d/../../outside/secret",
]


@pytest.mark.parametrize("path", HOSTILE)
@pytest.mark.parametrize("force", [False, True])
def test_paths_no_archive_may_hold(target: Path, outside: Path, path: bytes, force: bool) -> None:
    """Refused even when handed in directly, by every kind of entry (row 26)."""
    with Extractor(target, force=force) as extractor:
        extractor.files.write_small(file(b"one"), b"")
        for make in (
            lambda: extractor.make_folder(folder(path)),
            lambda: extractor.files.write_small(file(path, 1), b"x"),
            lambda: extractor.files.open_file(file(path, 1)),
            lambda: extractor.make_hardlink(hardlink(path, b"one")),
        ):
            with pytest.raises(PQVaultError) as caught:
                make()
            assert printable(path) in str(caught.value)
        try:
            extractor.make_symlink(symlink(path, b"one"))
        except PQVaultError:
            assert extractor.finish().failures == ()
        else:  # a parent that is no name shows only when it is opened
            assert len(extractor.finish().failures) == 1
    assert_untouched(outside)
    assert "up" not in os.listdir(target.parent)
    assert {os.fsencode(n) for n in os.listdir(target)} <= {b"one", b"a", b"d"}


NAME = st.binary(min_size=1, max_size=255).filter(
    lambda n: b"/" not in n and b"\0" not in n and n not in (b".", b"..")
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(NAME, min_size=1, max_size=3), max_size=6), st.binary(max_size=20))
@example([[b"\xff" * 255, b"\n"], [b"\\"], [b"..."], [b"-rf"], [b"c:"]], b"x")
def test_any_name_that_linux_can_hold(paths: list[list[bytes]], content: bytes) -> None:
    """Each entry comes back under exactly its bytes, or its error names it."""
    with tempfile.TemporaryDirectory() as root:
        target = Path(root, "t")
        done = []
        with Extractor(target) as extractor:
            for parts in paths:
                path = b"/".join(parts)
                try:
                    extractor.files.write_small(file(path, len(content)), content)
                except PQVaultError as error:
                    assert printable(path) in str(error)
                else:
                    done.append(path)
            assert extractor.finish().failures == ()
        found = {
            os.path.relpath(os.path.join(at, name), os.fsencode(target))
            for at, _, names in os.walk(os.fsencode(target))
            for name in names
        }
        assert found == set(done)
        for path in done:
            assert Path(target, os.fsdecode(path)).read_bytes() == content


def test_a_name_too_long_is_named(target: Path) -> None:
    """256 bytes fit no Linux file system; the others go on."""
    with Extractor(target) as extractor:
        with pytest.raises(PQVaultError, match="nnn: File name too long"):
            extractor.files.write_small(file(b"n" * 256), b"")
        extractor.files.write_small(file(b"n" * 255), b"")
        assert extractor.finish().files == 1
    assert os.listdir(target) == ["n" * 255]


def test_a_time_out_of_range_is_an_error_of_the_entry(target: Path) -> None:
    """No integer gets to the system call unchecked (row 44)."""
    with Extractor(target) as extractor:
        with pytest.raises(PQVaultError, match="extract f"):
            extractor.files.write_small(file(b"f", mtime_ns=10**40), b"")
        extractor.make_folder(folder(b"d", mtime_ns=10**40))
        assert len(extractor.finish().failures) == 1
    assert os.listdir(target) == ["d"]


def test_content_never_exceeds_or_misses_the_size_of_the_entry(target: Path) -> None:
    """The authenticated size is the cap (row 30); too little in one piece is an error too."""
    with Extractor(target) as extractor:
        for content in (b"123", b"12345"):
            with pytest.raises(PQVaultError, match="its 4 bytes"):
                extractor.files.write_small(file(b"f", 4), content)
        sink = extractor.files.open_file(file(b"g", 4))
        for offset in (-1, 2, 1 << 70):
            with pytest.raises(PQVaultError, match="cannot extract g"):
                sink.pwrite(b"123", offset)
        sink.abort()
        sink.abort()
        with pytest.raises(PQVaultError, match="committed or aborted"):
            sink.commit()
        extractor.finish()
    assert os.listdir(target) == []


# ---- names that the file system takes for one --------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"A", b"a"),
        ("é".encode(), "e\u0301".encode()),
        (b"dir/x", b"DIR/y"),
        ("Straße".encode(), b"STRASSE"),
        (b"x", b"x."),
    ],
)
def test_folding_file_systems_get_one_spelling(
    target: Path, monkeypatch: pytest.MonkeyPatch, one: bytes, other: bytes
) -> None:
    """Where the probe finds folding, the second spelling is refused and both are named."""
    monkeypatch.setattr("pqvault.archive.extract.target.folds_names", lambda root, prefix: True)
    with Extractor(target, force=True) as extractor:
        extractor.files.write_small(file(one), b"")
        extractor.files.write_small(file(one), b"")
        with pytest.raises(PQVaultError) as caught:
            extractor.files.write_small(file(other), b"")
        for write, entry in (
            (extractor.files.open_file, file(other)),
            (extractor.make_hardlink, hardlink(other, one)),
        ):
            with pytest.raises(PQVaultError, match="to this file system"):
                write(entry)
        extractor.make_symlink(symlink(other, b"somewhere"))
        assert len(extractor.finish().failures) == 1
    for path in (one, other):
        assert printable(path).split("/")[0] in str(caught.value)


def test_linux_file_systems_keep_both_spellings(target: Path) -> None:
    """The real probe says that nothing is folded here."""
    with Extractor(target) as extractor:
        for path in (b"A", b"a", "é".encode(), "e\u0301".encode()):
            extractor.files.write_small(file(path), b"")
        assert extractor.finish().files == 4
    assert len(os.listdir(target)) == 4


# ---- what stands there already -----------------------------------------------------------


def test_the_target_must_be_new_or_empty(target: Path) -> None:
    """Without force; the sentence names the folder and the way out."""
    target.mkdir(mode=0o711)
    with Extractor(target) as extractor:
        extractor.finish()
    assert stat.S_IMODE(target.stat().st_mode) == 0o711
    (target / "f").write_bytes(b"mine")
    with pytest.raises(UsageError, match="target exists and is not empty") as caught:
        Extractor(target)
    assert "--force" in caught.value.hint
    with pytest.raises(UsageError, match="Not a directory"):
        Extractor(target / "f", force=True)
    with pytest.raises(UsageError, match="No such file"):
        Extractor(target / "missing" / "deeper")
    assert (target / "f").read_bytes() == b"mine"


def test_the_target_itself_may_be_reached_through_a_link(tmp_path: Path, target: Path) -> None:
    """What the user typed is followed; only what is below is not."""
    target.mkdir()
    (tmp_path / "way").symlink_to(target)
    with Extractor(tmp_path / "way") as extractor:
        extractor.files.write_small(file(b"f"), b"")
        extractor.finish()
    assert os.listdir(target) == ["f"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_that_all_can_write_to_must_be_ours_or_sticky(target: Path) -> None:
    """Row 27: there, anyone could swap what is being extracted."""
    target.mkdir()
    os.chown(target, 65534, 65534)
    target.chmod(0o777)
    with pytest.raises(UsageError, match="another user"):
        Extractor(target, force=True)
    target.chmod(0o1777)
    Extractor(target).abort()


def test_without_force_nothing_is_replaced(target: Path) -> None:
    """Whatever came up in the target meanwhile, and whatever kind it is."""
    with Extractor(target) as extractor:
        (target / "file").write_bytes(b"mine")
        (target / "link").symlink_to("file")
        (target / "dir").mkdir()
        for name in (b"file", b"link", b"dir"):
            for make in (
                lambda n=name: extractor.files.write_small(file(n, 1), b"x"),
                lambda n=name: extractor.files.open_file(file(n, 1)),
                lambda n=name: extractor.make_folder(folder(n)),
                lambda n=name: extractor.files.write_small(file(n + b"/x", 1), b"x"),
            ):
                with pytest.raises(PQVaultError, match=f"extract {name.decode()}"):
                    make()
        extractor.make_symlink(symlink(b"file", b"x"))
        report = extractor.finish()
    assert [str(e) for e in report.failures] == ["cannot extract file: it exists already"]
    assert (target / "file").read_bytes() == b"mine"
    assert os.readlink(target / "link") == "file"
    assert sorted(os.listdir(target)) == ["dir", "file", "link"]
    assert os.listdir(target / "dir") == []


def test_a_name_taken_while_the_file_is_written(target: Path) -> None:
    """The rename decides: the newcomer is kept, the temporary file goes."""
    with Extractor(target) as extractor:
        sink = extractor.files.open_file(file(b"f", 1))
        sink.pwrite(b"x", 0)
        (target / "f").write_bytes(b"mine")
        with pytest.raises(PQVaultError, match="exists already"):
            sink.commit()
        extractor.finish()
    assert (target / "f").read_bytes() == b"mine"
    assert os.listdir(target) == ["f"]


def test_renaming_without_the_kernel_s_help(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems without RENAME_NOREPLACE: the same answers."""
    monkeypatch.setattr("pqvault.archive.extract.trouble._renameat2", None)
    test_a_name_taken_while_the_file_is_written(target)
    with Extractor(target, force=True) as extractor:
        extractor.files.write_small(file(b"f", 1), b"x")
    shutil.rmtree(target)
    test_without_force_nothing_is_replaced(target)


def test_force_replaces_files_and_links_but_no_folder(target: Path, outside: Path) -> None:
    """Planted links are replaced or refused, never followed (row 27)."""
    target.mkdir()
    (target / "file").write_bytes(b"old")
    (target / "file").chmod(0o400)
    (target / "link").symlink_to(outside / "secret")
    (target / "way").symlink_to(outside)
    (target / "dir").mkdir()
    (target / "dir/kept").write_bytes(b"kept")
    with Extractor(target, force=True) as extractor:
        extractor.files.write_small(file(b"file", 3), b"new")
        with extractor.files.open_file(file(b"link", 3)) as sink:
            sink.pwrite(b"new", 0)
        for path in (b"way/secret", b"way/deeper/x", b"file/x"):
            with pytest.raises(PQVaultError, match=path.decode()):
                extractor.files.write_small(file(path, 1), b"x")
        with pytest.raises(PQVaultError, match="way in the target is a symbolic link"):
            extractor.make_folder(folder(b"way"))
        with pytest.raises(PQVaultError, match="file in the target is not a folder"):
            extractor.make_folder(folder(b"file"))
        with pytest.raises(PQVaultError, match="dir: a folder stands in its place"):
            extractor.files.write_small(file(b"dir", 1), b"x")
        with pytest.raises(PQVaultError, match="dir: a folder stands in its place"):
            extractor.files.open_file(file(b"dir", 1))
        extractor.make_symlink(symlink(b"way/l", b"x"))
        extractor.make_symlink(symlink(b"dir", b"x"))
        extractor.make_symlink(symlink(b"file2", b"file"))
        report = extractor.finish()
    assert len(report.failures) == 2
    for name in ("file", "link"):
        assert (target / name).read_bytes() == b"new"
        assert not (target / name).is_symlink()
    assert (target / "dir/kept").read_bytes() == b"kept"
    assert (target / "way").is_symlink()
    assert leftovers(target) == []
    assert_untouched(outside)


@pytest.mark.parametrize("plant", [os.symlink, os.link])
def test_a_link_planted_under_the_temporary_name(
    target: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, plant: Callable[..., None]
) -> None:
    """The names are unpredictable, and a lucky guess is refused all the same: also a hard link,
    which is no link to follow."""
    monkeypatch.setattr("secrets.token_hex", lambda size: "guessed")
    target.mkdir()
    with Extractor(target, force=True) as extractor:
        for number in range(10):
            plant(outside / "secret", target / f".pqvault-guessed-{number}.tmp")
        for write in (
            extractor.files.write_small,
            lambda entry, _: extractor.files.open_file(entry),
        ):
            with pytest.raises(PQVaultError, match="extract f"):
                write(file(b"f", 1), b"x")
        extractor.finish()
    assert not (target / "f").exists()
    assert_untouched(outside)


def test_force_merges_into_folders_and_sets_their_modes(target: Path) -> None:
    """A read-only folder of an earlier run takes new files, and gets its mode again."""
    (target / "d").mkdir(parents=True)
    (target / "d/old").write_bytes(b"old")
    (target / "d").chmod(0o500)
    with Extractor(target, force=True) as extractor:
        extractor.make_folder(folder(b"d", 0o555))
        assert stat.S_IMODE((target / "d").stat().st_mode) == 0o700
        extractor.files.write_small(file(b"d/new", 1), b"x")
        extractor.finish()
    assert sorted(os.listdir(target / "d")) == ["new", "old"]
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o555


def test_a_file_and_a_folder_of_one_name(target: Path) -> None:
    """A hostile catalog: whichever comes second is refused."""
    with Extractor(target, force=True) as extractor:
        extractor.files.write_small(file(b"x", 1), b"x")
        with pytest.raises(PQVaultError, match="x in the target is not a folder"):
            extractor.files.write_small(file(b"x/y", 1), b"y")
        extractor.make_folder(folder(b"d"))
        with pytest.raises(PQVaultError, match="folder stands"):
            extractor.files.write_small(file(b"d", 1), b"y")
        extractor.finish()


def test_a_folder_swapped_for_a_link_while_extracting(
    target: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that wins races: files land in the target or fail by name, never outside."""
    monkeypatch.setattr(folders, "OPEN_FOLDERS", 1)  # so that every folder is opened anew
    stop = threading.Event()

    def swap() -> None:
        at = os.fsencode(target)
        for name in (b"a", b"a/b"):
            os.makedirs(at + b"/" + name, exist_ok=True)
        os.symlink(outside, at + b"/evil")
        while not stop.is_set():
            for name in (b"/a", b"/a/b"):
                try:
                    _exchange(at + name, at + b"/evil")
                    _exchange(at + name, at + b"/evil")
                except OSError:
                    pass

    target.mkdir()
    swapper = threading.Thread(target=swap)
    refused = 0
    with Extractor(target, force=True) as extractor:
        swapper.start()
        try:
            for number in range(1500):
                path = (b"a/f%d", b"a/b/f%d", b"c/f%d")[number % 3] % number
                try:
                    extractor.files.write_small(file(path, 1), b"x")
                except PQVaultError as error:
                    assert path.decode() in str(error)
                    refused += 1
        finally:
            stop.set()
            swapper.join()
        report = extractor.finish()
    assert report.files + refused == 1500
    assert refused, "the race was never won: this test shows nothing"
    assert_untouched(outside)


def _exchange(one: bytes, other: bytes) -> None:
    """renameat2 with RENAME_EXCHANGE: both names change places at once."""
    at_fdcwd = -100
    if ctypes.CDLL(None, use_errno=True).renameat2(at_fdcwd, one, at_fdcwd, other, 2):
        raise OSError(ctypes.get_errno(), "renameat2")


# ---- symbolic links ----------------------------------------------------------------------

INSIDE = [
    (b"l", b"x"),
    (b"l", b"."),
    (b"l", b"dangling/but/inside"),
    (b"a/l", b".."),
    (b"a/b/l", b"../../x"),
    (b"a/l", b"b/../../x"),
    (b"a/l", b"./.././/x/"),
]
LEAVING = [
    (b"l", b"/etc/passwd"),
    (b"l", b".."),
    (b"l", b"../x"),
    (b"l", b"x/../.."),
    (b"a/l", b"../../x"),
    (b"a/l", b"b/../../../a/b"),
    (b"l", b"../target/x"),
]


@pytest.mark.parametrize(("path", "to"), INSIDE)
def test_links_that_stay_inside_are_made(target: Path, path: bytes, to: bytes) -> None:
    """With their target as it was and their own time."""
    with Extractor(target) as extractor:
        extractor.make_symlink(symlink(path, to))
        report = extractor.finish()
    assert (report.symlinks, report.skipped, report.failures) == (1, (), ())
    made = os.fsencode(target) + b"/" + path
    assert os.readlink(made) == to
    assert os.lstat(made).st_mtime_ns == MTIME


@pytest.mark.parametrize(("path", "to"), LEAVING)
@pytest.mark.parametrize("links", ["inside", "as-is"])
def test_links_that_leave_are_skipped_or_kept(
    target: Path, path: bytes, to: bytes, links: extract.Links
) -> None:
    """Reported with the reason; `as-is` makes them."""
    with Extractor(target, links=links) as extractor:
        extractor.make_symlink(symlink(path, to))
        report = extractor.finish()
    made = os.fsencode(target) + b"/" + path
    if links == "as-is":
        assert os.readlink(made) == to
        assert (report.symlinks, report.skipped) == (1, ())
    else:
        assert not os.path.lexists(made)
        assert report.symlinks == 0
        assert [skipped.path for skipped in report.skipped] == [path]
        assert "leaves the target" in report.skipped[0].reason


def test_links_that_leave_through_each_other(target: Path, outside: Path) -> None:
    """Each looks harmless; followed one after the other they lead out."""
    with Extractor(target) as extractor:
        extractor.make_folder(folder(b"a/b"))
        extractor.make_symlink(symlink(b"a/b/up", b"../.."))
        extractor.make_symlink(symlink(b"a/b/out", b"up/../outside/secret"))
        extractor.make_symlink(symlink(b"a/b/fine", b"up/a/../x"))
        extractor.make_symlink(symlink(b"loop", b"loop/../loop"))
        report = extractor.finish()
    assert {skipped.path for skipped in report.skipped} == {b"a/b/out", b"loop"}
    for at, below, names in os.walk(target):
        for name in below + names:
            assert Path(at, name).resolve().is_relative_to(target)


def test_nothing_is_written_through_a_link_of_the_archive(target: Path, outside: Path) -> None:
    """A link and then a file below it, the oldest trick: the link is made after all files."""
    with Extractor(target, links="as-is") as extractor:
        extractor.make_symlink(symlink(b"way", b"../outside"))
        extractor.files.write_small(file(b"way/secret", 1), b"x")
        report = extractor.finish()
    assert len(report.failures) == 1
    assert (target / "way/secret").read_bytes() == b"x"
    assert_untouched(outside)


@pytest.mark.parametrize("to", [b"", b"a\0b", None])
def test_links_without_a_possible_target(target: Path, to: bytes | None) -> None:
    """Refused by name before anything is made."""
    with Extractor(target) as extractor, pytest.raises(PQVaultError, match="extract l: "):
        extractor.make_symlink(Entry(b"l", Kind.SYMLINK, link=to))


# ---- the end -----------------------------------------------------------------------------


def test_abort_leaves_whole_files_and_no_others(target: Path) -> None:
    """What was committed stays; an exception in a sink's block removes its temporary file."""
    with pytest.raises(KeyError), Extractor(target) as extractor:
        extractor.files.write_small(file(b"whole", 1), b"x")
        with extractor.files.open_file(file(b"half", 10)) as sink:
            sink.pwrite(b"x", 0)
            raise KeyError
    assert os.listdir(target) == ["whole"]
    with pytest.raises(PQVaultError, match="finished or aborted"):
        extractor.files.write_small(file(b"late"), b"")
    with pytest.raises(ValueError, match="finished or aborted"):
        extractor.finish()


def test_abort_takes_back_a_target_that_stayed_empty(target: Path) -> None:
    """So that the next try, with the right key, needs no --force."""
    Extractor(target).abort()
    assert not target.exists()


def test_a_sink_outlives_an_abort_without_harm(target: Path) -> None:
    """A handle that a thread still uses is closed by its owner, never under its feet."""
    extractor = Extractor(target)
    sink = extractor.files.open_file(file(b"d/f", 1))
    extractor.abort()
    sink.pwrite(b"x", 0)
    sink.abort()
    assert os.listdir(target / "d") == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 1 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "pqvault-test", path], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def test_a_full_disk_leaves_nothing_half_written(small_disk: Path) -> None:
    """Fatal, says so, and the name does not exist (row 47)."""
    half = 600 * 1024
    with Extractor(small_disk / "out") as extractor:
        extractor.files.write_small(file(b"first", half), bytes(half))
        with pytest.raises(TargetFull, match="second: no space is left") as caught:
            extractor.files.write_small(file(b"second", half), bytes(half))
        with pytest.raises(TargetFull), extractor.files.open_file(file(b"third", half)) as sink:
            sink.pwrite(bytes(half), 0)
    assert "--force" in caught.value.hint
    assert os.listdir(small_disk / "out") == ["first"]
    assert (small_disk / "out/first").stat().st_size == half


def test_a_disk_without_inodes_is_full_too(small_disk: Path) -> None:
    """Symbolic links and folders fail the same way, and finish() does not go on."""
    subprocess.run(["mount", "-o", "remount,nr_inodes=20", small_disk], check=True)
    with Extractor(small_disk / "out") as extractor:
        for number in range(40):
            extractor.make_symlink(symlink(b"%d" % number, b"x"))
        with pytest.raises(TargetFull):
            extractor.finish()
    shutil.rmtree(small_disk / "out")
    with Extractor(small_disk / "out") as extractor, pytest.raises(TargetFull):
        for number in range(40):
            extractor.make_folder(folder(b"%d" % number))


def test_a_file_size_limit_is_an_error_of_the_file(target: Path) -> None:
    """EFBIG names the file; smaller ones go on."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with Extractor(target) as extractor:
            with pytest.raises(PQVaultError, match="big: File too large"):
                extractor.files.write_small(file(b"big", 2000), bytes(2000))
            extractor.files.write_small(file(b"ok", 1000), bytes(1000))
            extractor.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(target) == ["ok"]
