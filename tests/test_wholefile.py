"""Files that appear whole or not at all, on any file system and under any name."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pqvault.errors import UsageError
from pqvault.wholefile import whole_file


@pytest.fixture
def no_hard_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on exFAT, which many a portable disk has."""

    def link(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)


def test_without_hard_links(tmp_path: Path, no_hard_links: None) -> None:
    """The file is there, nothing beside it, and nothing is written over."""
    with whole_file(tmp_path / "out") as file:
        file.write(b"new")
    with pytest.raises(UsageError, match="exists"), whole_file(tmp_path / "late") as file:
        (tmp_path / "late").write_bytes(b"old")
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert left == {"out": b"new", "late": b"old"}


def test_what_is_no_regular_file_is_left_alone(tmp_path: Path) -> None:
    """--force replaces files: not a FIFO, a device such as /dev/null, a folder, a link to one."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "null").symlink_to("/dev/null")
    for name in ("fifo", "null", "folder", ".", "..", "/", "/dev/null", "fifo/x", "none/x"):
        refused = pytest.raises(UsageError, match=r"is a folder|no regular file|not a folder")
        with refused, whole_file(tmp_path / name, force=True):
            pass
    assert sorted(os.listdir(tmp_path)) == ["fifo", "folder", "null"]
    assert (tmp_path / "fifo").is_fifo() and (tmp_path / "null").is_symlink()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o755])
def test_a_file_that_is_replaced_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    """From the first byte on: who could not read the old file must not read the new one."""
    out = tmp_path / "out"
    out.touch()
    out.chmod(mode)
    with whole_file(out, force=True) as file:
        file.write(b"secret")
        (beside,) = set(tmp_path.iterdir()) - {out}
        assert beside.stat().st_mode & 0o777 == mode
    assert out.stat().st_mode & 0o777 == mode and out.read_bytes() == b"secret"


def test_where_there_are_no_modes_none_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on some network mounts, where every file has the same."""

    def fchmod(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    (tmp_path / "out").touch()
    monkeypatch.setattr(os, "fchmod", fchmod)
    with whole_file(tmp_path / "out", force=True) as file:
        file.write(b"new")
    assert (tmp_path / "out").read_bytes() == b"new"


def test_the_longest_names(tmp_path: Path) -> None:
    """255 bytes, which may be 85 characters."""
    for name in ("漢" * 85, "x" * 255, os.fsdecode(b"\xff" * 255)):
        with whole_file(tmp_path / name) as file:
            file.write(b"new")
        with whole_file(tmp_path / name, force=True) as file:
            file.write(b"newer")
        assert (tmp_path / name).read_bytes() == b"newer" and len(os.listdir(tmp_path)) == 1
        (tmp_path / name).unlink()
