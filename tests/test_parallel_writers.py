"""Several writers of one archive at once, who do not talk to each other."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from conftest import Box, files_below, make_tree, noise, snapshot

import pqvault
from pqvault.archive import layout
from pqvault.archive import seal as seal_module
from pqvault.archive.journal import Journal
from pqvault.storage import LocalStorage

ROOT = Path(pqvault.__file__).parent.parent

# Waits for a line on stdin, so that all begin at the same moment.
SEAL = """
import sys, pqvault
source, archive, recipient, times, how = sys.argv[1:]
import pqvault.api
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(times)):
    if how != "as it is":
        with open(f"{source}/turn-{number}", "w") as file:
            file.write(source)
    pqvault.seal(source, archive, recipients=[recipient], append=how == "append")
"""


def run_at_once(*calls: tuple[list[str], dict[str, str]]) -> None:
    """Start processes, let them all begin together, and have all succeed."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SEAL, *arguments],
            cwd=ROOT,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for arguments, environment in calls
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors


@pytest.mark.parametrize("homes", ["one home", "two homes"])
def test_different_sources(box: Box, homes: str) -> None:
    """Two processes seal different folders into one new archive: every part and file is there."""
    calls = []
    for name in ("one", "two"):
        source = make_tree(box.root / name, {f"f{n}": noise(5000, n) for n in range(10)})
        home = {} if homes == "one home" else {"PQVAULT_HOME": str(box.root / f"home-{name}")}
        append = "no" if homes == "one home" else "append"
        arguments = [str(source), str(box.archive), box.key.recipient.text, "6", append]
        calls.append((arguments, home))
    run_at_once(*calls)
    out = box.unseal()
    for name in ("one", "two"):
        assert snapshot(out / name) == snapshot(box.root / name)
    assert len(box.parts()) == 12
    box.check()
    if homes == "one home":
        assert box.seal(box.root / "one", box.root / "two").parts == []


def test_the_same_source(box: Box) -> None:
    """Two processes seal one and the same folder at once: nothing is lost, readers are happy."""
    box.tree({f"f{n}": noise(5000, n) for n in range(30)})
    arguments = [str(box.source), str(box.archive), box.key.recipient.text, "3", "as it is"]
    run_at_once((arguments, {}), (arguments, {}))
    assert 1 <= len(box.parts()) <= 6  # sealed again where in doubt, never assumed
    box.check()
    assert snapshot(box.unseal() / "src") == snapshot(box.source)
    assert box.seal().parts == []


def test_parents_of_parts_made_at_once(box: Box) -> None:
    """Parts that did not see each other have common parents; the next one has both."""
    box.tree({"a": b"1"})
    base = box.seal().parts
    sources = [make_tree(box.root / name, {"x": b"1"}) for name in ("one", "two")]
    barrier = threading.Barrier(2)
    results: list[Any] = []
    put = seal_module.put_part

    def put_together(*args: Any) -> None:
        barrier.wait(20)
        put(*args)

    def run(source: Path) -> None:
        results.append(box.seal(source).parts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "turn", nullcontext)  # as two hosts, which do not wait
        patch.setattr(seal_module, "put_part", put_together)
        threads = [threading.Thread(target=run, args=(source,)) for source in sources]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    box.tree({"b": b"2"})
    last = box.seal().parts
    with box.open() as archive:
        commits = {part.id: part.commit for part in archive.parts}
        twins = sorted(part for parts in results for part in parts)
        assert len(twins) == 2
        for part in twins:
            assert [parent for parent, _ in commits[part].parents] == base
            assert commits[part].seq == 2
        assert [parent for parent, _ in commits[last[0]].parents] == twins
        assert commits[last[0]].seq == 3
    box.check()


def test_the_journal_believes_the_part_that_readers_see(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs at once on one host, of which the one that read a file before it changed commits
    last: the next run does not take the file for sealed, and seals it."""
    source = box.tree({"f": b"old"})
    box.seal()
    (source / "f").write_bytes(b"older")
    read, committing, recorded = (threading.Event() for _ in range(3))
    catalog, make, record = seal_module.write_catalog, seal_module.make_commit, Journal.record

    def is_late() -> bool:
        return threading.current_thread() is late

    def after_reading(*args: Any) -> Any:
        if is_late():
            read.set()
            assert committing.wait(20)
            time.sleep(0.002)  # times in commits are milliseconds
        return catalog(*args)

    def commit(*args: Any, **options: Any) -> Any:
        made = make(*args, **options)
        if not is_late():
            committing.set()
            recorded.wait(0.3)  # which it must not be before we have put ours
        return made

    def remember(*args: Any) -> None:
        record(*args)
        if is_late():
            recorded.set()

    late = threading.Thread(target=box.seal)
    with monkeypatch.context() as patch:
        patch.setattr(seal_module, "write_catalog", after_reading)
        patch.setattr(seal_module, "make_commit", commit)
        patch.setattr(Journal, "record", remember)
        late.start()
        assert read.wait(20)
        (source / "f").write_bytes(b"newest")
        box.seal()
        late.join()
    assert len(box.parts()) == 3
    box.seal()
    assert box.contents()["src/f"] == ("f", b"newest")


def test_race_for_the_header(tmp_path: Path) -> None:
    """Of many who create an archive at once, one wins and all use its id."""
    for number in range(10):
        storage = LocalStorage(tmp_path / f"{number}.pqv")
        barrier = threading.Barrier(8)
        ids: list[str] = []

        def create(storage: LocalStorage, barrier: threading.Barrier, ids: list[str]) -> None:
            barrier.wait(20)
            ids.append(layout.create_archive(storage))

        threads = [threading.Thread(target=create, args=(storage, barrier, ids)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ids) == 8 and len(set(ids)) == 1
        assert files_below(tmp_path / f"{number}.pqv") == ["pqvault.json"]


def test_the_loser_reads_the_winners_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that comes second between look and write takes the winner's id."""
    storage = LocalStorage(tmp_path / "v.pqv")
    winner = layout.create_archive(storage)
    monkeypatch.setattr(LocalStorage, "exists", lambda self, name: False)
    assert layout.create_archive(storage) == winner


def test_a_reader_while_writers_write(box: Box) -> None:
    """A reader that opens again and again sees whole parts only, never fewer than before."""
    box.tree({"a": b"1"})
    box.seal()
    source = make_tree(box.root / "other", {f"f{n}": noise(2000, n) for n in range(5)})
    arguments = [str(source), str(box.archive), box.key.recipient.text, "8", "append"]
    stop = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        seen = 0
        while not stop.is_set():
            try:
                with box.open() as archive:
                    entries = list(archive.entries())
                    if len(archive.parts) < seen or len(entries) < 2:
                        wrong.append(entries)
                    seen = len(archive.parts)
            except Exception as error:  # noqa: BLE001
                wrong.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        run_at_once((arguments, {}))
    finally:
        stop.set()
        thread.join()
    assert wrong == []
