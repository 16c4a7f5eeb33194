"""What tests share: a home of their own, keys, trees to seal, and a way to compare trees."""

from __future__ import annotations

import os
import random
import signal
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import pqvault
from pqvault.archive.entryfile import EntryFile
from pqvault.archive.sealreport import SealReport
from pqvault.crypto import kem
from pqvault.format.catalog import HOLE, Kind

pytest_plugins = ["hosts_kit"]  # sealed corpora for the tests of host libraries

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # its import fetches a page
MTIME = 1_234_567_890_123_456_789  # odd to the last nanosecond
REGULAR = os.O_RDONLY | os.O_NOFOLLOW


class Node(NamedTuple):
    """One thing of a tree, as far as an archive keeps it."""

    kind: str
    mode: int
    mtime_ns: int
    data: bytes  # content, or the target of a link
    group: bytes  # the first of its names, when it has several


def snapshot(root: Path | str, *, folder_times: bool = True) -> dict[bytes, Node]:
    """A tree by relative path; b"" is the root itself."""
    top = os.fsencode(root)
    groups: dict[tuple[int, int], bytes] = {}
    nodes: dict[bytes, Node] = {}
    stack = [b""]
    while stack:
        path = stack.pop()
        disk = os.path.join(top, path) if path else top
        info = os.lstat(disk)
        mode, mtime, group, data = stat.S_IMODE(info.st_mode), info.st_mtime_ns, b"", b""
        if stat.S_ISDIR(info.st_mode):
            kind = "d"
            mtime = mtime if folder_times else 0
            names = os.listdir(disk)
            stack += sorted((path + b"/" + n if path else n for n in names), reverse=True)
        elif stat.S_ISLNK(info.st_mode):
            kind, mode, data = "l", 0, os.readlink(disk)
        elif stat.S_ISREG(info.st_mode):
            kind = "f"
            with open(disk, "rb") as file:
                data = file.read()
            if info.st_nlink > 1:
                group = groups.setdefault((info.st_dev, info.st_ino), path)
        else:
            kind, mtime, mode = "s", 0, 0
        nodes[path] = Node(kind, mode, mtime, data, group)
    return nodes


def make_tree(root: Path, tree: dict[str, Any]) -> Path:
    """``{"name": b"content" | {...} | "link target"}`` on disk."""
    root.mkdir(parents=True, exist_ok=True)
    for name, value in tree.items():
        path = root / name
        if isinstance(value, dict):
            make_tree(path, value)
        elif isinstance(value, str):
            path.symlink_to(value)
        else:
            path.write_bytes(value)
    return root


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes that do not compress, the same each time."""
    return random.Random(seed).randbytes(size)


def is_sparse(path: Path) -> bool:
    info = path.stat()
    return info.st_blocks * 512 < info.st_size


def heed_signals() -> None:
    """For ``preexec_fn``: signals as a person's shell leaves them. What runs in the background
    ignores Ctrl-C, and below `nohup` the end of the terminal."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def handles() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


def files_below(root: Path) -> list[str]:
    """Every file below a folder, as relative paths."""
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if not p.is_dir())


@dataclass
class Box:
    """A source, an archive and a key, with the calls that tests make over and over."""

    root: Path
    key: pqvault.Identity
    archive: Path = field(init=False)
    source: Path = field(init=False)
    _numbers: Any = field(default_factory=count, init=False)

    def __post_init__(self) -> None:
        self.archive = self.root / "v.pqv"
        self.source = self.root / "src"

    def tree(self, tree: dict[str, Any]) -> Path:
        """Make (or add to) the source."""
        return make_tree(self.source, tree)

    def seal(self, *sources: Any, know: bool = False, **options: Any) -> SealReport:
        """Seal the source. ``know``: with the identity, so that the archive can be read."""
        return pqvault.seal(
            list(sources) or self.source,
            self.archive,
            recipients=[self.key.recipient],
            identities=[self.key] if know else [],
            **options,
        )

    def open(self, **options: Any) -> pqvault.Archive:
        return pqvault.open(self.archive, identities=[self.key], **options)

    def unseal(self, globs: Sequence[str] = (), **options: Any) -> Path:
        """Into a new folder; nothing may fail."""
        target = self.root / f"out{next(self._numbers)}"
        with self.open() as archive:
            report = archive.unseal(target, globs, **options)
        assert not report.failed
        return target

    def contents(self, **options: Any) -> dict[str, tuple[str, bytes]]:
        """What the archive holds: path -> (kind, content or target). Hard links are files."""
        found = {}
        with self.open(**options) as archive:
            for part, entry in archive.located():
                name = os.fsdecode(entry.path)
                assert archive.find(entry.path)[1] == entry  # find() and entries() agree
                if entry.kind in (Kind.FILE, Kind.HARDLINK):
                    found[name] = ("f", EntryFile(part, entry).read())
                else:
                    found[name] = (entry.kind.letter, entry.link or b"")
        return found

    def parts(self) -> list[str]:
        """Ids of the committed parts, oldest first."""
        with self.open() as archive:
            return [part.id for part in archive.parts]

    def check(self) -> None:
        """Every part keeps the rules of docs/format.md, and verify finds nothing."""
        with self.open() as archive:
            for part in archive.parts:
                check_catalog(part)
        report = pqvault.verify(self.archive, identities=[self.key])
        assert report.problems == []
        assert pqvault.verify(self.archive).problems == []


def check_catalog(part: Any) -> None:
    """Sections 6 and 5.2 of docs/format.md, written again from its text."""
    from pqvault.format.catalog import entries_of

    entries = [entry for batch in part.batches() for entry in entries_of(batch)]
    paths = [entry.path for entry in entries]
    assert paths == sorted(set(paths)), "rows ascend strictly"
    by_path = {entry.path: entry for entry in entries}
    for entry in entries:
        for name in entry.path.split(b"/"):
            assert name not in (b"", b".", b"..") and len(name) <= 255 and b"\0" not in name
        if entry.kind != Kind.TOMBSTONE:
            above = entry.path
            while above := above.rpartition(b"/")[0]:
                assert by_path[above].kind == Kind.FOLDER, "every ancestor is a folder"
        if entry.kind == Kind.HARDLINK:
            assert entry.link is not None
            first = by_path[entry.link]
            assert first.kind == Kind.FILE
            assert (first.size, first.extents) == (entry.size, entry.extents)
        assert sum(extent.length for extent in entry.extents) == entry.size
        for extent in entry.extents:
            if extent.object != HOLE:
                assert extent.offset + extent.length <= part.reader(extent.object).size


@pytest.fixture(autouse=True)
def private_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the user's keys or journals."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("PQVAULT_HOME", str(home))
    monkeypatch.delenv("PQVAULT_IDENTITY", raising=False)
    monkeypatch.delenv("PQVAULT_KEM_PROVIDER", raising=False)
    monkeypatch.setattr(kem, "_chosen", None)  # the KEM provider, which a test may have chosen
    return home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One in the test's own folder, for processes that it starts and for who looks into it."""
    monkeypatch.setenv("PQVAULT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def identity() -> pqvault.Identity:
    """A key; the same one for all tests."""
    return pqvault.Identity.generate()


@pytest.fixture
def box(tmp_path: Path, identity: pqvault.Identity) -> Box:
    """An empty place to seal in."""
    return Box(tmp_path, identity)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A small varied tree: every kind of thing that an archive keeps."""
    root = make_tree(
        tmp_path / "corpus",
        {
            "empty": b"",
            "train.jsonl": b'{"text": "hello"}\n' * 5000,
            "random.bin": noise(100_000),
            "chunk": bytes(16384),
            "nothing": {},
            "images": {"a.png": noise(3000, 2), "b": {"c": {"d": b"deep"}}},
            "images-old": {"x": b"sorts between images and images/"},
            "to-train": "train.jsonl",
            "up": {"again": "../images/b"},
            "line\nfeed \x1b[31m": b"odd name",
        },
    )
    (root / os.fsdecode(b"\xff\xfe not utf-8")).write_bytes(b"raw")
    os.link(root / "train.jsonl", root / "images" / "same.jsonl")
    with open(root / "sparse", "wb") as file:
        file.write(b"head")
        file.seek(1_000_000)
        file.write(b"tail")
    (root / "random.bin").chmod(0o600)
    (root / "empty").chmod(0o444)
    (root / "images").chmod(0o750)
    for number, (path, node) in enumerate(sorted(snapshot(root).items(), reverse=True)):
        when = (0, MTIME - number * 1_000_000_007)
        if node.kind != "s":
            os.utime(os.path.join(os.fsencode(root), path), ns=when, follow_symlinks=False)
    return root
