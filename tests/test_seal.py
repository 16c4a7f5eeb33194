"""What a seal takes, how it names it, how it deals it to parts, and what it does when files
change under its hands."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from click.testing import CliRunner
from conftest import Box, files_below, handles, make_tree, noise, snapshot

import pqvault
from pqvault import api
from pqvault.archive import deal, layout
from pqvault.archive import seal as seal_module
from pqvault.archive.committing import discard, put_part
from pqvault.archive.publicstate import PublicState
from pqvault.crypto.passphrase import Cost
from pqvault.errors import (
    Incomplete,
    IntegrityError,
    NotFound,
    PolicyRefused,
    PQVaultError,
    RolledBack,
    UsageError,
)
from pqvault.keystore.seen import Seen
from pqvault.keystore.store import Keystore
from pqvault.progress import Report
from pqvault.storage import LocalStorage
from pqvault_cli.main import cli

FRAME = 65536


# ---- names ---------------------------------------------------------------------------------


def test_names_begin_with_the_last_component(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries begin with the last component of their source, however it is spelled."""
    box.tree({"a": b"1"})
    monkeypatch.chdir(box.root)
    for number, spelling in enumerate(["src", "src/", "./src", "src/../src", str(box.source)]):
        box.archive = box.root / f"{number}.pqv"
        box.seal(spelling)
        assert set(box.contents()) == {"src", "src/a"}


def test_dot_has_no_name(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source `.` gives its content no name above it."""
    box.tree({"a": {"b": b"1"}})
    monkeypatch.chdir(box.source)
    box.seal(".")
    assert set(box.contents()) == {"a", "a/b"}
    out = box.unseal()
    assert snapshot(out / "a") == snapshot(box.source / "a")


def test_a_source_that_is_the_archive(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """`seal src -o src` leaves out the archive, which is all there is: refused, and no success."""
    box.tree({"a": b"1"})
    monkeypatch.chdir(box.source)
    for archive, source in ((box.source, box.source), (Path("."), "../src"), (box.source, ".")):
        box.archive = archive
        with pytest.raises(UsageError, match="cannot be the archive") as caught:
            box.seal(source)
        assert "-o" in caught.value.hint
    assert os.listdir(box.source) == ["a"]
    box.archive = box.root / "v.pqv"
    box.seal()
    with pytest.raises(UsageError, match="or lie in it"):  # its files would come and go meanwhile
        box.seal(box.archive / "parts", append=True)


def test_a_folder_of_other_things_is_made_no_archive(box: Box) -> None:
    """`seal work -o work/backups` would leave out all that is in that folder, without a word."""
    box.tree({"a": b"1", "backups": {"old.tar": b"2"}})
    box.archive = box.source / "backups"
    for dry_run in (True, False):
        with pytest.raises(UsageError, match=r"holds other things, old.tar among them") as caught:
            box.seal(dry_run=dry_run)
        assert "-o" in caught.value.hint
    assert os.listdir(box.archive) == ["old.tar"]
    (box.archive / "old.tar").unlink()
    for name in ("commits", "lost+found"):  # a writer that was stopped, and a disk of its own
        (box.archive / name).mkdir()
    assert box.seal().files == 1
    (box.archive / "a note").write_bytes(b"")
    assert box.seal().parts == []


def test_a_source_that_is_a_pipe(box: Box) -> None:
    """`seal <(command)`: what is skipped within a folder is no success where it is all there is."""
    os.mkfifo(box.root / "pipe")
    with pytest.raises(UsageError, match="neither a file nor a folder") as caught:
        box.seal(box.root / "pipe")
    assert "pqvault encrypt" in caught.value.hint


def test_an_impossible_frame_makes_nothing(box: Box) -> None:
    """No archive without a part, which a second run with the right size would find."""
    box.tree({})
    for options in ({"frame_size": 1024}, {"frame_size": 1 << 30}, {"level": 23}):
        with pytest.raises(UsageError, match=r"not possible|no level"):
            box.seal(**options)
        assert not box.archive.exists()


def test_two_sources_of_one_name(box: Box) -> None:
    """Two sources of one name are a usage error, before anything is made."""
    one, two = make_tree(box.root / "1/data", {}), make_tree(box.root / "2/data", {})
    with pytest.raises(UsageError, match="both be called data") as caught:
        box.seal(one, two)
    assert caught.value.exit_code == 2 and "--prefix" in caught.value.hint
    assert not box.archive.exists()


def test_several_sources(box: Box) -> None:
    """Several sources stand beside each other, in any order given."""
    one, two = make_tree(box.root / "z", {"1": b"1"}), make_tree(box.root / "a", {"2": b"2"})
    box.seal(one, two)
    assert set(box.contents()) == {"z", "z/1", "a", "a/2"}
    box.check()


def test_a_source_within_another(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.` and a folder of it are two sources of one name: refused, or one entry for each path."""
    box.tree({"a": {"b": b"1"}})
    monkeypatch.chdir(box.source)
    try:
        box.seal(".", "a")
    except UsageError:
        assert not box.archive.exists()
    else:
        box.check()


def test_prefix(box: Box) -> None:
    """--prefix puts everything below folders that are entries of their own."""
    one, two = make_tree(box.root / "1/data", {"x": b"1"}), make_tree(box.root / "2/data", {})
    box.seal(one, prefix="p/q")
    box.seal(two, prefix="p/r", append=True)
    assert set(box.contents()) == {
        "p", "p/q", "p/q/data", "p/q/data/x", "p/r", "p/r/data",
    }  # fmt: skip
    box.check()


@pytest.mark.parametrize("prefix", ["..", "a/../b", "a//b", "./a"])
def test_bad_prefix(box: Box, prefix: str) -> None:
    """attack 26: a prefix that is no plain relative path is a usage error."""
    box.tree({})
    with pytest.raises(UsageError, match="prefix"):
        box.seal(prefix=prefix)


def test_prefix_beyond_the_limits_of_the_format(box: Box) -> None:
    """A prefix component of over 255 bytes is refused; no part is committed that none can read."""
    box.tree({"a": b"1"})
    with pytest.raises(UsageError):
        box.seal(prefix="x" * 256)
    assert not (box.archive / "commits").exists() or not os.listdir(box.archive / "commits")


def test_single_files(box: Box) -> None:
    """A file is a source like a folder, its name its last component."""
    box.tree({"one.bin": noise(1000), "two": b"2"})
    box.seal(box.source / "one.bin", box.source / "two")
    assert box.contents() == {"one.bin": ("f", noise(1000)), "two": ("f", b"2")}


def test_a_source_that_is_a_link(box: Box) -> None:
    """A link that the user names is followed, and its own name is used."""
    make_tree(box.root / "real", {"a": b"1", "link": "a"})
    (box.root / "file").write_bytes(b"2")
    (box.root / "to-folder").symlink_to("real")
    (box.root / "to-file").symlink_to("file")
    box.seal(box.root / "to-folder", box.root / "to-file")
    assert box.contents() == {
        "to-folder": ("d", b""),
        "to-folder/a": ("f", b"1"),
        "to-folder/link": ("l", b"a"),
        "to-file": ("f", b"2"),
    }


def test_links_that_lead_elsewhere_are_told(box: Box) -> None:
    """As in a cache of models, whose snapshots are links to blobs: sealed without them, there would
    be nothing to read, and no word of it. What leads to what is sealed is no matter."""
    make_tree(box.root / "models", {"blobs": {"b1": b"weights"}, "snapshot": {"x": "../blobs/b1"}})
    (box.root / "models/snapshot/y").symlink_to("/etc/hosts")
    report = box.seal(box.root / "models/snapshot")
    (warning,) = report.warnings
    assert "what is sealed: 2, snapshot/x the first" in warning
    assert box.seal(box.root / "models/snapshot").warnings == []
    report = box.seal(box.root / "models", dry_run=True)
    assert "what is sealed: 1, models/snapshot/y the first" in report.warnings[0]


@pytest.mark.parametrize("name", ["nowhere", "dangling"])
def test_a_source_that_is_not_there(box: Box, name: str) -> None:
    """A missing source is a usage error that names it, and no archive is made."""
    (box.root / "dangling").symlink_to("nothing")
    with pytest.raises(UsageError, match=f"{name} does not exist"):
        box.seal(box.root / name)
    assert not box.archive.exists()


def test_a_source_of_no_name(box: Box) -> None:
    """As a variable of the shell gives it that is unset."""
    with pytest.raises(UsageError, match="a source has an empty name"):
        box.seal("")


def test_no_source(box: Box) -> None:
    """No source at all is a usage error."""
    with pytest.raises(UsageError, match="no source"):
        pqvault.seal([], box.archive, recipients=[box.key.recipient])


def test_default_archive(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an archive named: SRC.pqv beside the source."""
    box.tree({"a": b"1"})
    monkeypatch.chdir(box.root)
    pqvault.seal("src/", recipients=[box.key.recipient.text])
    with pqvault.open("src.pqv", identities=[box.key]) as archive:
        assert archive.open_file("src/a").read() == b"1"


def test_the_archive_inside_its_source(box: Box) -> None:
    """An archive inside its own source is not sealed into itself."""
    box.tree({"a": b"1"})
    box.archive = box.source / "inside.pqv"
    box.seal()
    box.seal(know=True)
    assert set(box.contents()) == {"src", "src/a"}


def test_home_inside_its_source(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Journals and the keystore change with each seal and are not sealed, so that a home folder
    can be; of the keystore it is said. What else lies beside them is sealed."""
    box.tree({"a": b"1", "home": {"mine": b"2"}})
    home = box.source / "home"
    monkeypatch.setenv("PQVAULT_HOME", str(home))
    with Keystore.create(b"word", cost=Cost(8, 1, 1)), Seen() as memory:
        report = box.seal(memory=memory)
    assert report.failed == [] and report.warnings == []
    assert report.skipped == [
        "src/home/keystore.sqlite is the keystore, which `pqvault key backup` copies: skipped"
    ]
    assert set(box.contents()) == {"src", "src/a", "src/home", "src/home/mine"}
    box.seal()  # the folder has got another time
    assert box.seal().parts == []


def test_times_beyond_64_bits(box: Box) -> None:
    """File systems know times before 1678 and after 2262; the nearest that the format knows is
    kept, and they are no change when they are read again."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        source = make_tree(Path(folder) / "src", {"a": b"1", "b": b"2"})
        os.utime(source / "a", ns=(0, 10**19))
        os.utime(source / "b", ns=(0, -(10**19)))
        if os.stat(source / "a").st_mtime_ns < 2**63:
            pytest.skip("the file system knows no such times")
        report = box.seal(source)
        assert report.warnings == [] and report.files == 2
        assert box.seal(source).parts == [] and box.seal(source, know=True).parts == []
        with box.open() as archive:
            archive.unseal(Path(folder) / "out")
        assert (Path(folder) / "out/src/a").stat().st_mtime_ns == 2**63 - 1
        assert (Path(folder) / "out/src/b").stat().st_mtime_ns == -(2**63 - 1)


# ---- options -------------------------------------------------------------------------------


def test_recipients_are_checked(box: Box) -> None:
    """attack 5: a classical recipient is refused, and so are none and two of one key."""
    box.tree({"a": b"1"})
    x25519 = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
    for recipients, words in (
        ([x25519], "quantum"),
        ([], "0 recipients"),
        ([box.key.recipient, box.key.recipient.text], "given twice"),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            pqvault.seal(box.source, box.archive, recipients=recipients)
        assert caught.value.exit_code == 2
    assert files_below(box.archive) in ([], ["pqvault.json"])


def test_expected_key_ids(box: Box) -> None:
    """attack 50: sealing to a key that is not the expected one is refused, and nothing is made."""
    box.tree({"a": b"1"})
    with pytest.raises(PolicyRefused) as caught:
        box.seal(expect_key_ids=["00" * 16])
    assert caught.value.exit_code == 14 and not box.archive.exists()
    report = box.seal(expect_key_ids=[box.key.recipient.key_id.upper()])
    assert report.recipients == [box.key.recipient.key_id]


def test_several_recipients(box: Box) -> None:
    """Each recipient opens the archive alone; another key gets `no key fits`, exit 12."""
    box.tree({"a": b"1"})
    keys = [pqvault.Identity.generate() for _ in range(3)]
    pqvault.seal(box.source, box.archive, recipients=[k.recipient for k in keys[:2]])
    for key in keys[:2]:
        with pqvault.open(box.archive, identities=[keys[2], key]) as archive:
            assert archive.open_file("src/a").read() == b"1"
    with pytest.raises(pqvault.errors.NoKeyFits) as caught:
        pqvault.open(box.archive, identities=[keys[2]])
    assert caught.value.exit_code == 12


def test_other_recipients_than_before_are_told(box: Box) -> None:
    """A run whose recipients differ from those of the archive says which."""
    box.tree({"a": b"1"})
    box.seal()
    other = pqvault.Identity.generate().recipient
    report = pqvault.seal(box.source, box.archive, recipients=[other])
    assert any(other.key_id in w and box.key.recipient.key_id in w for w in report.warnings)


def test_dry_run_changes_nothing(box: Box) -> None:
    """A dry run tells what would be sealed and writes nothing, in a new archive and in an old."""
    box.tree({"a": b"12345", "b": {}})
    report = box.seal(dry_run=True)
    assert (report.files, report.folders, report.size) == (1, 2, 5)
    assert not box.archive.exists()
    box.seal()
    box.tree({"c": b"1"})
    before = snapshot(box.archive)
    report = box.seal(dry_run=True)
    assert (report.files, report.parts) == (1, [])
    assert snapshot(box.archive) == before


@pytest.mark.parametrize(
    "options", [{"frame_size": 1000}, {"frame_size": 1 << 24}, {"level": 23}, {"level": -1}]
)
def test_impossible_options(box: Box, options: dict[str, int]) -> None:
    """A frame size or level that does not exist is a usage error; no part is left."""
    box.tree({"a": b"1"})
    with pytest.raises(UsageError):
        box.seal(**options)
    assert [n for n in files_below(box.archive) if n.startswith("parts/")] == []


@pytest.mark.parametrize("options", [{"append": True}, {"files_from": []}])
def test_delete_does_not_go_with(box: Box, options: dict[str, Any]) -> None:
    """--delete with --append or --files-from is a usage error."""
    box.tree({"a": b"1"})
    with pytest.raises(UsageError, match="--delete"):
        box.seal(know=True, delete=True, **options)


def test_append_compares_nothing(box: Box) -> None:
    box.tree({"a": b"1"})
    with pytest.raises(UsageError, match="--checksum does not go with it"):
        box.seal(know=True, append=True, checksum=True)


def test_without_work_no_part(box: Box) -> None:
    """A source of which everything is excluded makes an archive without parts."""
    box.tree({"a": b"1"})
    assert box.seal(exclude=["src"]).parts == []
    assert box.contents() == {}


def test_no_plaintext_in_the_archive(box: Box) -> None:
    """attack 4: neither content, names nor digests of content stand in the archive's files."""
    content = b"a very secret sentence" * 100
    box.tree({"secret-name": content})
    box.seal(level=0)
    canaries = [b"secret sentence", b"secret-name", blake3(content).digest()]
    canaries += [hashlib.new(n, content).digest() for n in ("sha256", "md5", "sha384")]
    for name in files_below(box.archive):
        data = (box.archive / name).read_bytes()
        for canary in canaries:
            assert canary not in data and canary.hex().encode() not in data


# ---- parts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "value"), [("PART_SIZE", 20_000), ("MAX_ENTRIES", 7), ("OBJECT_FILES", 2)]
)
def test_many_parts_of_one_run(
    box: Box, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    """One run that makes many parts holds the same, each part whole by itself, in one chain."""
    monkeypatch.setattr(deal, limit, value)
    box.tree(
        {
            "a": {"b": {f"f{n}": noise(5000, n) for n in range(9)}, "c": b"1"},
            "a-b": {"x": noise(3000)},
            "a.b": {f"e{n}": {} for n in range(6)},
            "z": {"y": {"x": noise(30_000), "link": "../.."}},
        }
    )
    os.link(box.source / "a/c", box.source / "z/hard")
    before = snapshot(box.source)
    told = box.seal(dry_run=True)
    report = box.seal()
    assert (len(report.parts) > 2) == (limit != "OBJECT_FILES")
    assert (report.folders, report.files, report.links) == (13, 13, 1), "each is told once"
    assert (told.folders, told.files, told.links) == (13, 13, 1)
    box.check()
    out = snapshot(box.unseal() / "src")
    assert {p: n._replace(group=b"") for p, n in out.items()} == {
        p: n._replace(group=b"") for p, n in before.items()
    }
    with box.open() as archive:
        commits = [part.commit for part in archive.parts]
    assert [c.part for c in commits] == report.parts
    assert [c.seq for c in commits] == list(range(1, len(commits) + 1))
    assert [[p for p, _ in c.parents] for c in commits] == [[], *([p] for p in report.parts[:-1])]
    assert box.seal().parts == []


def test_parts_of_100_nested_folders(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that begins deep in a tree brings all folders above with it, and nothing twice."""
    monkeypatch.setattr(deal, "PART_SIZE", 1)
    path = box.tree({})
    for depth in range(30):
        path = path / "d"
        make_tree(path, {f"f{depth}": b"%d" % depth})
    box.seal()
    box.check()
    assert len(box.parts()) == 30
    assert snapshot(box.unseal() / "src") == snapshot(box.source)


# ---- what cannot be read -------------------------------------------------------------------


def deny(monkeypatch: pytest.MonkeyPatch, suffix: bytes) -> None:
    """Make ``os.open`` and ``os.scandir`` refuse what ends with ``suffix``; root may read all."""

    def wrapped(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **options: Any) -> Any:
            if not isinstance(path, int) and os.fsencode(path).endswith(suffix):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            return real(path, *args, **options)

        return call

    monkeypatch.setattr(os, "open", wrapped(os.open))
    monkeypatch.setattr(os, "scandir", wrapped(os.scandir))


def test_unreadable_file(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unreadable file is named, exit 3; all others are committed; a later run brings it."""
    box.tree({"a": b"1", "no": b"2", "z": b"3"})
    os.link(box.source / "no", box.source / "no-link")
    with monkeypatch.context() as patch:
        deny(patch, b"/no")
        deny(patch, b"/no-link")
        with pytest.raises(Incomplete, match="src/no cannot be read: Permission") as caught:
            box.seal()
        assert caught.value.exit_code == 3 and caught.value.hint
        for _ in range(2):  # again and again, as cron does it: no part of nothing but folders
            with pytest.raises(Incomplete, match="2 of 2"):
                box.seal()
        assert len(os.listdir(box.archive / "commits")) == 1
        assert len(os.listdir(box.archive / "parts")) == 1
    assert set(box.contents()) == {"src", "src/a", "src/z"}
    box.check()
    assert box.seal().files == 2
    assert snapshot(box.unseal() / "src") == snapshot(box.source)


def test_unreadable_folder(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be listed is named, exit 3; the rest is sealed."""
    box.tree({"a": b"1", "no": {"x": b"2"}})
    with monkeypatch.context() as patch:
        deny(patch, b"/no")
        with pytest.raises(Incomplete, match="src/no cannot be read"):
            box.seal()
    assert set(box.contents()) == {"src", "src/a", "src/no"}
    box.seal()
    assert snapshot(box.unseal() / "src") == snapshot(box.source)


def test_all_files_unreadable(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """When every file fails the run says so and the archive can still be read."""
    box.tree({"no1": b"1", "xno1": b"2"})
    with monkeypatch.context() as patch:
        deny(patch, b"no1")
        with pytest.raises(Incomplete, match="2 of 2"):
            box.seal()
    assert set(box.contents()) == {"src"}
    box.check()


# ---- what changes while it is read ---------------------------------------------------------


class Once:
    """A progress callback that acts at the first bytes that are read."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self._lock = threading.Lock()
        self.acted = False

    def __call__(self, report: Report) -> None:
        with self._lock:
            if report.stage == "seal" and report.done and not self.acted:
                self.acted = True
                self._act()


def overwrite(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(-10, os.SEEK_END)
        file.write(b"0123456789")


def shrink(path: Path) -> None:
    os.truncate(path, 100_000)


def grow(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def empty(path: Path) -> None:
    os.truncate(path, 0)


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(noise(path.stat().st_size, 9))
    other.rename(path)


CHANGES = [overwrite, shrink, grow, empty, replace]
BIG = 300_000


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("spread", [False, True], ids=["one object", "several objects"])
def test_file_changes_while_read(
    box: Box, change: Callable[[Path], None], spread: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that changes while it is read: exit 3, its part not committed, nothing left of it."""
    if spread:
        monkeypatch.setattr(deal, "LEAST_OBJECT", 100_000)
        monkeypatch.setattr(deal, "OBJECT_SIZE", 100_000)
    box.tree({"a": noise(BIG)})
    before = handles()
    once = Once(lambda: change(box.source / "a"))
    with pytest.raises(Incomplete, match="src/a changed while it was read") as caught:
        box.seal(frame_size=FRAME, jobs=1, progress=once)
    assert once.acted and caught.value.exit_code == 3
    assert "--allow-changed" in caught.value.hint
    assert files_below(box.archive) == ["pqvault.json"]
    assert handles() <= before + 1
    box.seal(frame_size=FRAME)
    assert snapshot(box.unseal() / "src/a") == snapshot(box.source / "a")


def test_all_files_that_changed_are_named(box: Box) -> None:
    """Not the first alone, or a run would be needed for each of them."""
    source = box.tree({"a": noise(BIG), "b": b"1", "c": b"2", "d": b"3"})

    def touch() -> None:
        for name in "bd":
            os.utime(source / name, ns=(1, 1))

    run = api.sealing(
        source, box.archive, recipients=[box.key.recipient],
        frame_size=FRAME, jobs=1, progress=Once(touch),
    )  # fmt: skip
    with pytest.raises(Incomplete, match="src/b changed while it was read, and so did 1 more, so"):
        run.run()
    assert run.report.warnings == [f"src/{name} changed while it was read" for name in "bd"]
    assert (run.report.parts, run.report.files, run.report.size) == ([], 0, 0)


def seal_while_changing(
    box: Box, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> dict[int, bytes]:
    """Seal with allow_changed; the bytes of src/a as they were last read, by their offset."""
    path = box.source / "a"
    read: dict[int, bytes] = {}
    real = os.preadv

    def preadv(fd: int, buffers: Any, offset: int) -> int:
        count = real(fd, buffers, offset)
        if count and os.readlink(f"/proc/self/fd/{fd}").startswith(str(path)):
            with memoryview(buffers[0]) as view:
                read[offset] = bytes(view[:count])
        return count

    once = Once(lambda: change(path))
    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", preadv)
        report = box.seal(frame_size=FRAME, jobs=1, progress=once, allow_changed=True)
    assert once.acted and any("src/a changed" in w for w in report.warnings)
    return read


@pytest.mark.parametrize("change", CHANGES)
def test_file_changes_and_that_is_allowed(
    box: Box, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With allow_changed just what was read is sealed, and it unseals without an error."""
    box.tree({"a": noise(BIG), "b": b"untouched"})
    read = seal_while_changing(box, change, monkeypatch)
    box.check()
    assert (box.unseal() / "src/a").read_bytes() == b"".join(read[at] for at in sorted(read))
    assert box.contents()["src/b"] == ("f", b"untouched")
    assert box.seal().files >= 1, "a file that changed is sealed again"
    assert snapshot(box.unseal() / "src/a") == snapshot(box.source / "a")


@pytest.mark.parametrize("change", CHANGES)
def test_spread_file_changes_and_that_is_allowed(
    box: Box, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for a file over several objects, whose digest is taken by a reading of its own."""
    monkeypatch.setattr(deal, "LEAST_OBJECT", 100_000)
    monkeypatch.setattr(deal, "OBJECT_SIZE", 100_000)
    box.tree({"a": noise(BIG), "b": b"untouched"})
    seal_while_changing(box, change, monkeypatch)
    box.check()
    old, got = noise(BIG), (box.unseal() / "src/a").read_bytes()
    assert got[:FRAME] == old[:FRAME]
    assert BIG in (len(got), len(old)) and len(got) <= BIG
    assert box.contents()["src/b"] == ("f", b"untouched")


def test_sparse_file_shrinks_and_that_is_allowed(box: Box) -> None:
    """A file of holes that gets shorter before it is read is sealed no longer than it was."""
    box.tree({"a": noise(200_000), "b": b"data"})
    os.truncate(box.source / "b", 10_000_000)
    once = Once(lambda: os.truncate(box.source / "b", 1_000_000))
    box.seal(frame_size=FRAME, jobs=1, progress=once, allow_changed=True)
    assert once.acted
    box.check()
    assert len(box.contents()["src/b"][1]) == 1_000_000


def test_file_vanishes_between_plan_and_read(box: Box) -> None:
    """A file that is gone when it is to be read is named; the others are committed."""
    box.tree({"a": noise(200_000), "b": noise(100)})
    once = Once((box.source / "b").unlink)
    with pytest.raises(Incomplete, match="src/b cannot be read: No such file"):
        box.seal(frame_size=FRAME, jobs=1, progress=once)
    assert set(box.contents()) == {"src", "src/a"}
    box.check()


@pytest.mark.parametrize("sparse", [False, True])
def test_file_replaced_by_a_fifo_does_not_hang(box: Box, sparse: bool) -> None:
    """A FIFO in a file's place is named and not waited for."""
    fifo = box.source / "b"
    box.tree({"a": noise(200_000), "b": noise(100)})
    if sparse:
        os.truncate(fifo, 1_000_000)
    waited: list[Path] = []

    def release() -> None:  # a writer comes at last, so that the test fails and does not hang
        waited.append(fifo)
        os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))

    timer = threading.Timer(5, release)

    def swap() -> None:
        fifo.unlink()
        os.mkfifo(fifo)
        timer.start()

    with pytest.raises(Incomplete, match="src/b cannot be read: it is no regular file"):
        box.seal(frame_size=FRAME, jobs=1, progress=Once(swap))
    timer.cancel()
    timer.join()
    assert not waited
    assert set(box.contents()) == {"src", "src/a"}


def test_file_replaced_by_a_link_is_not_followed(box: Box) -> None:
    """attack 27: a link put in a file's place while sealing does not bring another file in."""
    box.tree({"a": noise(200_000), "b": noise(100)})
    (box.root / "secret").write_bytes(b"elsewhere")

    def swap() -> None:
        (box.source / "b").unlink()
        (box.source / "b").symlink_to(box.root / "secret")

    with pytest.raises(Incomplete, match="src/b cannot be read"):
        box.seal(frame_size=FRAME, jobs=1, progress=Once(swap))
    assert set(box.contents()) == {"src", "src/a"}


# ---- what ends a run -----------------------------------------------------------------------


def test_an_exception_leaves_no_part(box: Box) -> None:
    """An error in the middle of a run leaves nothing under parts/, and no thread or handle."""
    box.tree({"a": noise(BIG), "b": noise(BIG, 2)})

    def fail(report: Report) -> None:
        if report.stage == "seal" and report.done:
            raise KeyboardInterrupt

    before, threads = handles(), threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        box.seal(frame_size=FRAME, progress=fail)
    assert files_below(box.archive) == ["pqvault.json"]
    assert os.listdir(box.archive / "parts") == []
    assert handles() <= before + 1 and threading.active_count() <= threads
    box.seal()
    assert snapshot(box.unseal() / "src") == snapshot(box.source)


def test_parts_before_a_failure_stay(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure in a later part keeps the parts before it; the next run seals only the rest."""
    monkeypatch.setattr(deal, "PART_SIZE", 100_000)
    box.tree({f"f{n}": noise(100_000, n) for n in range(4)})

    def fail(report: Report) -> None:
        if report.done > 250_000:
            raise KeyboardInterrupt

    run = api.sealing(
        box.source, box.archive, recipients=[box.key.recipient],
        frame_size=FRAME, jobs=1, progress=fail,
    )  # fmt: skip
    noted: list[str] = []
    run.before_commit = lambda: noted.append(run.report.archive_id)
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert len(box.parts()) == 2 and noted == [run.report.archive_id]
    report = run.report  # of what is committed, and of nothing else
    assert (report.parts, report.files, report.size) == (box.parts(), 2, 200_000)
    assert box.seal().files == 2
    assert snapshot(box.unseal() / "src") == snapshot(box.source)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), PQVaultError("no room")], ids=str)
def test_what_was_committed_before_an_error_is_told(
    box: Box, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """By the command, whose error speaks of the rest only: those parts are there, and stay."""
    monkeypatch.setattr(deal, "PART_SIZE", 100_000)
    box.tree({f"f{n}": noise(100_000, n) for n in range(3)})
    (box.root / "pub").write_text(box.key.recipient.text)
    catalog, calls = seal_module.write_catalog, count(1)

    def fail(*args: Any) -> Any:
        if next(calls) == 3:
            raise error
        return catalog(*args)

    monkeypatch.setattr(seal_module, "write_catalog", fail)
    words = ["seal", str(box.source), "-o", str(box.archive), "-R", str(box.root / "pub")]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code and done.output.startswith("sealed 2 files, 1 folder, 0 links: 200 kB")
    assert f"part {', '.join(box.parts())}\n" in done.output


def test_storage_fails_while_sealing(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """attack 47: a full disk ends the run with an error that says so, and leaves no part."""
    box.tree({f"f{n}": noise(100_000, n) for n in range(3)})

    def full(fd: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, "full")

    layout.create_archive(LocalStorage(box.archive))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(PQVaultError, match="no space left"):
            box.seal()
    assert files_below(box.archive) == ["pqvault.json"]


def test_what_failed_is_told_and_not_what_failed_after_it(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that goes away in the middle also refuses what clears up: the first error is told."""
    box.tree({"f": noise(100_000)})
    layout.create_archive(LocalStorage(box.archive))

    def broken(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EIO, "gone")

    monkeypatch.setattr(os, "write", broken)
    monkeypatch.setattr(os, "unlink", broken)
    monkeypatch.setattr(os, "rmdir", broken)
    with pytest.raises(PQVaultError, match=r"cannot write .*objects/000000"):
        box.seal()


def test_a_part_is_committed_once_and_as_it_reads_back(box: Box) -> None:
    """attack 33: of two that recover one log, the commit that is there stays; who comes second is
    told, and so is who would put a document that is not the one that was meant."""
    box.tree({"a": b"1"})
    box.seal()
    storage = LocalStorage(box.archive)
    (part,) = PublicState(storage).ordered()
    other = dataclasses.replace(part.commit, created=part.commit.created + 1)
    before = {name: (box.archive / name).read_bytes() for name in files_below(box.archive)}
    with pytest.raises(IntegrityError, match="is committed already"):
        put_part(storage, [], other)
    odd = dataclasses.replace(other, sealed_to=list(other.sealed_to))  # which reads back as a tuple
    with pytest.raises(IntegrityError, match="do not read back"):
        put_part(storage, [], odd)
    assert {name: (box.archive / name).read_bytes() for name in files_below(box.archive)} == before


def test_all_of_a_part_is_discarded_and_nothing_of_another(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "a.pqv")
    layout.create_archive(storage)
    part, other = "ab" * 16, "cd" * 16
    for one in (part, other):
        storage.make_folder(f"parts/{one}/objects")
        for name in (f"envelopes/{one}", f"envelopes/{one}.pii", f"parts/{one}/objects/x"):
            storage.put(name, b"")
    discard(storage, part)
    left = [f"envelopes/{other}", f"envelopes/{other}.pii", f"parts/{other}/objects/x"]
    assert sorted(files_below(storage.root)) == [*left, "pqvault.json"]
    assert not (storage.root / "parts" / part).exists()


def test_a_lost_header_is_no_new_archive(box: Box) -> None:
    """Parts without `pqvault.json`: under a new id nothing would open them, so nothing is sealed;
    readers and writers say what the file was, and with it all is there again."""
    box.tree({"f": b"1"})
    box.seal()
    line = (box.archive / "pqvault.json").read_text()
    (box.archive / "pqvault.json").unlink()
    for act in (box.seal, box.open, lambda: box.seal(append=True)):
        with pytest.raises(NotFound, match=r"has parts, but its pqvault\.json is lost") as caught:
            act()
        assert line.strip() in caught.value.hint
    assert not (box.archive / "pqvault.json").exists()
    (box.archive / "pqvault.json").write_text(line)
    assert box.seal().parts == []


def test_a_header_that_another_writer_makes_just_now_is_not_lost(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first part may be there already when we look why there was no header."""
    box.tree({"a": b"1"})
    box.seal()
    storage, exists, asked = LocalStorage(box.archive), LocalStorage.exists, list[str]()
    made = layout.read_header(storage)

    def late(storage: LocalStorage, name: str) -> bool:
        asked.append(name)
        return len(asked) > 1 and exists(storage, name)

    monkeypatch.setattr(LocalStorage, "exists", late)
    assert layout.create_archive(storage) == made and asked[0] == layout.HEADER


def test_a_missing_parent_stops_the_seal(box: Box) -> None:
    """attack 14: an archive that lost a part which another names as parent is exit 15."""
    box.tree({"a": b"1"})
    box.seal()
    box.tree({"b": b"2"})
    box.seal()
    first = box.parts()[0]
    (box.archive / "commits" / first).unlink()
    for action in (box.seal, box.open):
        with pytest.raises(RolledBack, match=first) as caught:
            action()
        assert caught.value.exit_code == 15


def test_an_exchanged_parent_stops_the_seal(box: Box) -> None:
    """attack 14: a parent whose commit is another than the child names is exit 15."""
    box.tree({"a": b"1"})
    box.seal()
    commit = box.archive / "commits" / box.parts()[0]
    original = commit.read_bytes()
    box.tree({"b": b"2"})
    box.seal()
    commit.write_bytes(original.replace(b'"kind":"append"', b'"kind":"seal"'))
    with pytest.raises(RolledBack):
        box.open()


def test_garbage_in_the_archive_is_told_not_fatal(box: Box) -> None:
    """attack 45: strange names and uncommitted parts neither stop a reader nor a writer."""
    box.tree({"a": b"1"})
    box.seal()
    (box.archive / "commits" / "README").write_bytes(b"hello")
    (box.archive / "commits" / ".x.00000000.tmp").write_bytes(b"hello")
    (box.archive / "parts" / ("0" * 32)).mkdir()
    (box.archive / "parts" / ("0" * 32) / "catalog").write_bytes(b"garbage")
    (box.archive / "notes").write_bytes(b"garbage")
    box.tree({"b": b"2"})
    report = box.seal()
    assert any("README" in warning for warning in report.warnings)
    assert set(box.contents()) == {"src", "src/a", "src/b"}


def test_object_names_are_new_for_each_try() -> None:
    """A second try of one object never writes where the first one wrote."""
    names = {layout.new_object_name(7) for _ in range(1000)}
    assert len(names) == 1000 and all(n.startswith("objects/000007-") for n in names)


@pytest.mark.parametrize("spread", [False, True])
def test_digests_are_those_of_the_content(
    box: Box, spread: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digest of an entry is that of its file's bytes, holes as zeros, however it was dealt."""
    if spread:
        monkeypatch.setattr(deal, "LEAST_OBJECT", 100_000)
        monkeypatch.setattr(deal, "OBJECT_SIZE", 100_000)
    box.tree({"empty": b"", "small": b"x", "big": noise(350_000)})
    for name, places in {"hole": [], "mixed": [300_000, 700_000]}.items():
        with open(box.source / name, "wb") as file:
            for place in places:
                file.seek(place)
                file.write(noise(130_000, place))
            file.truncate(2_000_000)
    os.link(box.source / "mixed", box.source / "z-link")
    box.seal(frame_size=FRAME)
    with box.open() as archive:
        found = {entry.path: entry.digest for entry in archive.entries() if entry.digest}
    assert found == {
        b"src/" + path: blake3(node.data).digest()
        for path, node in snapshot(box.source).items()
        if node.kind == "f"
    }
