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
