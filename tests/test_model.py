"""Random histories: what an archive holds against a model of what it should hold."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from random import Random
from typing import Any

import pytest

import pqvault
from pqvault.errors import UsageError

KEY = pqvault.Identity.generate()
NAMES = [b"a", b"b", b"a-b", b"a.c", b"d\xff", b"e e", b"\n", b"z"]
MODES = ("plain", "plain", "identity", "delete", "checksum", "append")
Model = dict[bytes, tuple[Any, ...]]


class Source:
    """A tree that changes at random, in ways that an incremental seal has to see."""

    def __init__(self, root: Path, draw: Random) -> None:
        root.mkdir()
        self.root, self.draw = os.fsencode(root), draw
        self.changes = (self.write, self.write, self.folder, self.link, self.hard_link)
        self.changes += (self.remove, self.move, self.mode, self.rewrite)

    def paths(self) -> list[bytes]:
        walk = os.walk(self.root)
        return [os.path.join(folder, n) for folder, inner, names in walk for n in inner + names]

    def files(self) -> list[bytes]:
        return [p for p in self.paths() if os.path.isfile(p) and not os.path.islink(p)]

    def change(self) -> None:
        folders = [p for p in self.paths() if os.path.isdir(p) and not os.path.islink(p)]
        place = os.path.join(self.draw.choice([self.root, *folders]), self.draw.choice(NAMES))
        files, paths = self.files(), self.paths()
        change = self.draw.choice(self.changes)
        if change in (self.hard_link, self.mode, self.rewrite):
            if files:
                change(self.draw.choice(files), place)
        elif change in (self.remove, self.move):
            if paths:
                change(self.draw.choice(paths), place)
        else:
            change(place, place)

    def clear(self, path: bytes) -> None:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)

    def write(self, path: bytes, _: bytes) -> None:
        self.clear(path)
        size = self.draw.choice([0, 1, 10, 5_000, 70_000, 300_000])
        text = b"line %d\n" % self.draw.randrange(9) * (size // 7)
        Path(os.fsdecode(path)).write_bytes(self.draw.choice([text, self.draw.randbytes(size)]))

    def folder(self, path: bytes, _: bytes) -> None:
        self.clear(path)
        os.mkdir(path)

    def link(self, path: bytes, _: bytes) -> None:
        self.clear(path)
        os.symlink(self.draw.choice(NAMES), path)

    def hard_link(self, file: bytes, path: bytes) -> None:
        if not (file + b"/").startswith(path + b"/"):
            self.clear(path)
            os.link(file, path)

    def remove(self, path: bytes, _: bytes) -> None:
        self.clear(path)

    def move(self, old: bytes, new: bytes) -> None:
        one, other = old + b"/", new + b"/"
        if not (one.startswith(other) or other.startswith(one)):
            self.clear(new)
            os.rename(old, new)

    def mode(self, file: bytes, _: bytes) -> None:
        os.chmod(file, self.draw.choice([0o600, 0o644, 0o755]))

    def rewrite(self, file: bytes, _: bytes) -> None:
        """As many bytes, and perhaps the time set back."""
        before = os.stat(file)
        with open(file, "r+b") as opened:
            opened.write(bytes(before.st_size))
        if self.draw.random() < 0.5:
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    def model(self) -> Model:
        base = os.path.dirname(self.root)
        return {os.path.relpath(p, base): _on_disk(p) for p in [self.root, *self.paths()]}


def _on_disk(path: bytes) -> tuple[Any, ...]:
    info = os.lstat(path)
    if stat.S_ISLNK(info.st_mode):
        return ("l", os.readlink(path))
    content = None if stat.S_ISDIR(info.st_mode) else Path(os.fsdecode(path)).read_bytes()
    return (content, stat.S_IMODE(info.st_mode), info.st_mtime_ns)


def _held(archive: Path) -> Model:
    found: Model = {}
    with pqvault.open(archive, identities=[KEY]) as opened:
        for entry in opened.entries():
            if entry.kind.letter == "l":
                found[entry.path] = ("l", entry.link)
                continue
            folder = entry.kind.letter == "d"
            content = None if folder else opened.open_file(entry.path).read()
            found[entry.path] = (content, entry.mode, entry.mtime_ns)
    return found


def _after(held: Model, source: Model, *, delete: bool) -> Model:
    if delete:
        return dict(source)
    held = dict(held)
    for path, node in source.items():
        if node[0] is not None:  # no folder: what stood below it is hidden for good
            for below in [each for each in held if each.startswith(path + b"/")]:
                del held[below]
        held[path] = node
    return held


@pytest.mark.parametrize(
    "seed", [1, 2, 3, *(pytest.param(n, marks=pytest.mark.slow) for n in range(4, 40))]
)
def test_random_histories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Any changes, sealed from three hosts in every way, some of whose journals are lost: the
    archive holds what it should, and the same command again finds nothing to do."""
    draw = Random(seed)
    source, archive = Source(tmp_path / "src", draw), tmp_path / "a.pqv"
    model: Model = {}
    for _ in range(8):
        for _ in range(draw.randrange(12)):
            source.change()
        home = tmp_path / f"host{draw.choice([1, 1, 1, 2, 2, 3])}"
        if draw.random() < 0.05:
            shutil.rmtree(home, ignore_errors=True)
        monkeypatch.setenv("PQVAULT_HOME", str(home))
        mode = draw.choice(MODES)
        how: dict[str, Any] = {"recipients": [KEY.recipient], "jobs": draw.choice([1, 2])}
        if mode in ("identity", "delete", "checksum"):
            how["identities"] = [KEY]
        how |= {"delete": {"delete": True, "yes": True}, "checksum": {"checksum": True}}.get(
            mode, {}
        )
        how["append"] = mode == "append"
        told = _dry_run(source, archive, how)
        wanted = source.model()
        report = pqvault.seal(os.fsdecode(source.root), archive, **how)
        assert (told.files, told.folders, told.links, told.deleted, told.size) == (
            report.files,
            report.folders,
            report.links,
            report.deleted,
            report.size,
        )
        model = _after(model, wanted, delete=mode == "delete")
        assert _held(archive) == model
        if mode != "append":
            assert not pqvault.seal(os.fsdecode(source.root), archive, **how).parts
    assert not pqvault.verify(archive, identities=[KEY]).problems


def _dry_run(source: Source, archive: Path, how: dict[str, Any]) -> Any:
    """Tells what a seal will do; a host that did not seal what is there needs an identity."""
    try:
        return pqvault.seal(os.fsdecode(source.root), archive, dry_run=True, **how)
    except UsageError as error:
        assert "this host has not sealed" in error.message
        how["identities"] = [KEY]
        return pqvault.seal(os.fsdecode(source.root), archive, dry_run=True, **how)
