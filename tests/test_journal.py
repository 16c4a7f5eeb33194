"""The journal: it is believed only as far as the archive bears it out."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import Box, files_below, noise

import pqvault
from pqvault.archive.journal import Journal, Known
from pqvault.errors import PQVaultError

ARCHIVE = "ab" * 16
PART, OTHER = "01" * 16, "02" * 16


def row(path: bytes, part: str = PART, size: int = 1) -> Known:
    return Known(path, ord("f"), size, 2, 3, 2**63 - 1, part)


def test_rows_count_while_their_commit_is_there() -> None:
    """A row is known only when its part is on storage with the very commit that was recorded."""
    with Journal(ARCHIVE) as journal:
        journal.record(PART, "d1", [row(b"b"), row(b"a"), row(b"\xff\n")])
        assert list(journal.known({PART: "d1"})) == [row(b"a"), row(b"b"), row(b"\xff\n")]
        assert journal.valid_parts({PART: "d1", OTHER: "d1"}) == {PART}
        for committed in ({}, {PART: "other"}, {OTHER: "d1"}):
            assert list(journal.known(committed)) == []
            assert journal.valid_parts(committed) == set()


def test_the_newest_part_of_a_path_counts() -> None:
    """A path sealed again belongs to its new part, and is unknown when that one is lost."""
    with Journal(ARCHIVE) as journal:
        journal.record(PART, "d1", [row(b"a"), row(b"b")])
        journal.record(OTHER, "d2", [row(b"a", OTHER, 7)])
        both = {PART: "d1", OTHER: "d2"}
        assert list(journal.known(both)) == [row(b"a", OTHER, 7), row(b"b")]
        assert list(journal.known({PART: "d1"})) == [row(b"b")]


def test_inodes_have_no_sign() -> None:
    """Inodes of 2^63 and more, which network file systems have, and SQLite's integers do not."""
    with Journal(ARCHIVE) as journal:
        rows = [
            row(b"%d" % n)._replace(inode=i) for n, i in enumerate((0, 2**63 - 1, 2**63, 2**64 - 1))
        ]
        journal.record(PART, "d1", rows)
        assert list(journal.known({PART: "d1"})) == rows


def test_rows_are_read_while_others_are_written() -> None:
    """Recording a part does not disturb a reading that has begun."""
    with Journal(ARCHIVE) as journal:
        journal.record(PART, "d1", [row(b"%05d" % n) for n in range(2000)])
        rows = journal.known({PART: "d1", OTHER: "d2"})
        first = next(rows)
        journal.record(OTHER, "d2", [row(b"%05d" % n, OTHER) for n in range(2000)])
        assert [first, *rows] == [row(b"%05d" % n) for n in range(2000)]


def test_a_failed_record_leaves_nothing() -> None:
    """A part is recorded whole or not at all."""
    with Journal(ARCHIVE) as journal:
        bad = row(b"b")._replace(size=None)  # type: ignore[arg-type]
        with pytest.raises(PQVaultError, match="journal"):
            journal.record(PART, "d1", [row(b"a"), bad])
        assert journal.valid_parts({PART: "d1"}) == set()
        journal.record(PART, "d1", [row(b"a")])
        assert list(journal.known({PART: "d1"})) == [row(b"a")]


def test_several_at_once() -> None:
    """Many writers of one journal wait for each other and lose nothing."""

    def write(number: int) -> None:
        part = f"{number:032x}"
        with Journal(ARCHIVE) as journal:
            journal.record(part, "d", [row(b"%d-%d" % (number, n), part) for n in range(50)])

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Journal(ARCHIVE) as journal:
        assert len(list(journal.known({f"{n:032x}": "d" for n in range(8)}))) == 400


def test_a_second_journal_of_a_process_takes_no_locks_away() -> None:
    """Where one run has two (of what it seals, and of what it knew by its content), another process
    that ends must not take itself for the last one, and what both write is kept."""
    other = f"from pqvault.archive.journal import Journal\nJournal({ARCHIVE!r}).close()"
    with Journal(ARCHIVE) as journal:
        Journal(ARCHIVE).close()
        subprocess.run([sys.executable, "-c", other], check=True)
        journal.record(PART, "d1", [row(b"a")])
        with Journal(ARCHIVE) as again:
            again.record(OTHER, "d2", [row(b"b", OTHER)])
        assert journal.valid_parts({PART: "d1", OTHER: "d2"}) == {PART, OTHER}
    with Journal(ARCHIVE) as journal:
        assert journal.valid_parts({PART: "d1", OTHER: "d2"}) == {PART, OTHER}


def test_modes(private_home: Path) -> None:
    """attack 38: the journal and all that SQLite puts beside it are for their owner alone."""
    before = os.umask(0)
    try:
        with Journal(ARCHIVE) as journal:
            journal.record(PART, "d", [row(b"a")])
            found = [private_home / name for name in files_below(private_home)]
            assert len(found) >= 2
            assert {stat.S_IMODE(path.stat().st_mode) for path in found} == {0o600}
            assert stat.S_IMODE((private_home / "journals").stat().st_mode) == 0o700
    finally:
        os.umask(before)


def test_a_damaged_journal_is_an_error_with_a_way_out(box: Box, private_home: Path) -> None:
    """A journal that is no database is named, with what to do; after that the seal goes on."""
    box.tree({"a": b"1"})
    box.seal()
    (name,) = [n for n in files_below(private_home) if n.endswith(".sqlite")]
    for leftover in files_below(private_home):
        if leftover != name:
            (private_home / leftover).unlink()
    (private_home / name).write_bytes(noise(10_000))
    with pytest.raises(PQVaultError, match="journal") as caught:
        box.seal()
    assert "remove it" in caught.value.hint
    (private_home / name).unlink()
    assert box.seal(know=True).parts == []


def test_no_secret_in_the_journal(box: Box, private_home: Path) -> None:
    """attack 40: neither keys nor content nor digests of content are in the journal."""
    box.tree({"a": b"content of a"})
    box.seal(know=True)
    with box.open() as archive:
        digest = archive.find("src/a")[1].digest
        secret = archive.parts[0].key.secret
    assert digest is not None
    data = b"".join((private_home / name).read_bytes() for name in files_below(private_home))
    for canary in (digest, digest.hex().encode(), box.key.seed, secret, b"content of a"):
        assert canary not in data


def test_each_archive_has_its_own(box: Box, private_home: Path) -> None:
    """An archive made anew in the place of another knows nothing of the other's journal."""
    box.tree({"a": b"1"})
    box.seal()
    box.archive.rename(box.root / "old.pqv")
    assert box.seal().files == 1
    assert len([n for n in files_below(private_home) if n.endswith(".sqlite")]) == 2


def test_a_moved_archive_keeps_its_journal(box: Box) -> None:
    """The journal goes by the archive's id: an archive may be moved."""
    box.tree({"a": b"1"})
    box.seal()
    box.archive.rename(box.root / "moved.pqv")
    box.archive = box.root / "moved.pqv"
    assert box.seal().parts == []


def test_a_copied_archive_that_went_on(box: Box) -> None:
    """Two copies of one archive share a journal, and still neither misses a file."""
    import shutil

    box.tree({"a": b"1"})
    box.seal()
    copy = Box(box.root, box.key)
    copy.archive = box.root / "copy.pqv"
    shutil.copytree(box.archive, copy.archive)
    box.tree({"b": b"2"})
    box.seal()
    copy.seal()
    assert box.contents() == copy.contents()
    box.seal()
    assert set(box.contents()) == {"src", "src/a", "src/b"}


def test_a_journal_row_that_lies_about_kind(box: Box) -> None:
    """A path that is another kind of thing now is sealed, whatever its times."""
    box.tree({"a": b""})
    box.seal()
    (path,) = (Path(os.environ["PQVAULT_HOME"]) / "journals").glob("*.sqlite")
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("UPDATE files SET kind = ?", (ord("l"),))
    db.close()
    assert box.seal().files == 1
    assert isinstance(box.key, pqvault.Identity)
