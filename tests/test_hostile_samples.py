"""What readers for training make of catalogs that claim more than there is, and of their names;
how many files are open."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import hostile as h
import pytest

import pqvault
from pqvault.archive import handedobjects, part
from pqvault.errors import PQVaultError
from pqvault.integrations.records import plan_units
from pqvault.integrations.samples import FileIndex

KEY = pqvault.Identity.generate()
C = b"hello world" * 10


def forged(tmp_path: Path, *rows: dict[str, Any]) -> pqvault.Archive:
    """An archive with these rows, and one object of ``C``."""
    forger = h.Forger(tmp_path / "f.pqv", KEY.recipient)
    forger.part(list(rows), {0: h.plain_of(C)})
    return pqvault.open(forger.archive, identities=[KEY])


@pytest.mark.parametrize(("number", "code"), [(0, 13), (-1, 1)], ids=["object", "hole"])
def test_more_than_there_is_memory_for_is_an_error(tmp_path: Path, number: int, code: int) -> None:
    """Not a MemoryError, nor the end of the process: an object is asked first."""
    with forged(tmp_path, h.row(b"a", size=2**50, extents=[(number, 0, 2**50)])) as archive:
        file = archive.open_file("a")
        h.fails(lambda: file.pread(0, file.size), code=code)
        h.fails(lambda: FileIndex(archive, ()).read(archive, 0), code=code)


def test_a_hole_is_not_cut_into_pieces_without_end(tmp_path: Path) -> None:
    with forged(tmp_path, h.row(b"a.parquet", size=2**45, extents=[(-1, 0, 2**45)])) as archive:
        units = plan_units(archive, FileIndex(archive, ()), None)
        pieces = [piece for unit in units for piece in unit.pieces]
        assert len(pieces) <= 65_536
        assert (pieces[0].begin, pieces[-1].end) == (0, 2**45)


def test_errors_about_samples_do_not_drive_the_terminal(tmp_path: Path) -> None:
    """attack 28"""
    bad = h.row(b"\x1b[2J", size=2**20, extents=[(0, 0, 2**20)])
    with forged(tmp_path, bad) as archive:
        index = FileIndex(archive, ())
        for do in (lambda: plan_units(archive, index, None), lambda: index.read(archive, 0)):
            with pytest.raises(PQVaultError) as caught:
                do()
            assert caught.value.message.isprintable() and "%1B[2J" in caught.value.message


def test_open_files_do_not_grow_with_the_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose catalogs are too long to be read whole: 1,100 such parts were more than a process
    may have files open."""
    monkeypatch.setattr(part, "_OPEN_OBJECTS", 4)
    monkeypatch.setattr(part, "SMALL", 0)
    monkeypatch.setattr(handedobjects, "SMALL", 0)
    forger = h.Forger(tmp_path / "f.pqv", KEY.recipient)
    for number in range(20):
        forger.part([h.row(b"%02d" % number, "d")])
    before = len(os.listdir("/proc/self/fd"))
    with pqvault.open(forger.archive, identities=[KEY]) as archive:
        for _ in range(2):
            assert len(list(archive.entries())) == 20
            assert all(archive.find(b"%02d" % number) for number in range(20))
            assert len(os.listdir("/proc/self/fd")) <= before + 4
    assert len(os.listdir("/proc/self/fd")) == before
