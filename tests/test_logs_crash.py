"""Logs that end when nobody expects it: kill -9 at any time and any call, and the power going.

What was acknowledged under the policy `flush` is there afterwards, in order, once.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import steps_kit
from disks import Disk, State, restore

import pqvault
from pqvault.errors import NotFound
from pqvault.logs import InferenceLog, LogView, recover
from pqvault.storage import appending

KEY = pqvault.Identity.generate()
OTHER = pqvault.Identity.generate()


def found(archive: Path, key: pqvault.Identity = KEY) -> list[int]:
    """The numbers of all committed rows."""
    with LogView(archive, [key]) as view:
        rows = [int(i) for t in view.rows() for i in t["request_id"].to_pylist()]
        assert view.problems == []
    return rows


def recovered(archive: Path, key: pqvault.Identity = KEY) -> list[int]:
    """The same, after a recovery without problems; which leaves nothing to recover."""
    try:
        report = recover(archive, [key])
    except NotFound:
        return []  # not even the archive's header was there
    assert report.problems == [] and report.live == []
    again = recover(archive, [key])
    assert not again.recovered and not again.finished
    assert pqvault.verify(archive, identities=[key]).problems == []
    assert pqvault.gc(archive, older_than=-10).problems == []
    rows = found(archive, key)
    assert recover(archive, [key]).rows == 0 and found(archive, key) == rows
    return rows


SERVE = """
import sys
from pqvault.logs import InferenceLog
log = InferenceLog(
    sys.argv[1], recipients=[sys.argv[2]], groups={"content": [sys.argv[3]]}, fsync="flush",
    part_size=300_000,
)
number = 0
while True:
    for _ in range(50):
        log.log({"request_id": str(number), "prompt": "x" * 500})
        number += 1
    log.flush()
    print(number, flush=True)
"""


@pytest.mark.parametrize("seed", range(5))
def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path, seed: int) -> None:
    """attack 33, attack 13: a real process, killed at a random moment, parts closing meanwhile."""
    archive = tmp_path / "a.pqv"
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, archive, KEY.recipient.text, OTHER.recipient.text],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    for _ in range(1 + seed * 3):
        process.stdout.readline()
    time.sleep(random.Random(seed).random() * 0.2)
    process.kill()
    said = process.communicate()[0].split()
    acknowledged = int(said[-1]) if said else 50 * (1 + seed * 3)
    rows = recovered(archive, OTHER)
    assert rows == list(range(len(rows))) and len(rows) >= acknowledged


CALLS = ("open", "write", "pwrite", "fsync", "fdatasync", "link", "rename", "unlink", "mkdir",
         "rmdir", "ftruncate")  # fmt: skip


class Killer:
    """`os`, whose process is killed at its k-th call that changes something."""

    def __init__(self, k: int) -> None:
        self.k, self.calls = k, 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CALLS:
            return real

        def call(*args: Any, **options: Any) -> Any:
            if name == "open" and not args[1] & os.O_CREAT:
                return real(*args, **options)
            self.calls += 1
            if self.calls == self.k:
                if name in ("write", "pwrite"):  # a part of it arrives
                    data = memoryview(args[1])
                    real(args[0], data[: len(data) // 2], *args[2:])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)

        return call


def serve(archive: Path, said: Path) -> None:
    """Two parts, each with two flushes; what is acknowledged is written down."""
    log = InferenceLog(
        archive,
        recipients=[KEY.recipient],
        groups={"content": [OTHER.recipient]},
        fsync="flush",
        linger=0.001,
        part_size=12_000,
    )
    for number in range(24):
        log.log({"request_id": str(number), "prompt": "x" * 200})
        if number % 6 == 5:
            log.flush()
            say(said, str(number + 1))
    log.close()
    say(said, "24 closed")


def say(path: Path, text: str) -> None:
    """Whole or not at all: another thread may be the one that is killed."""
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


STEPS = """
import json, os, shutil, sys, traceback
from pathlib import Path
import pqvault
import pqvault.logs.closing, pqvault.tables
import steps_kit
import test_logs_crash as t

base = Path(sys.argv[1])
t.KEY = pqvault.Identity.load_file(base / "key")[0]
t.OTHER = pqvault.Identity.load_file(base / "other")[0]
first, step = int(sys.argv[2]), int(sys.argv[3])
k = first
while True:
    work = base / f"step{k}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    pid = os.fork()
    if pid == 0:
        try:
            killer = t.Killer(k)
            for module in steps_kit.storage_modules():
                module.os = killer
            t.serve(work / "a.pqv", work / "said")
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    code = os.waitpid(pid, 0)[1]
    if code not in (0, 9):
        sys.exit(f"call {k}: the process ended with {code}")
    said = (work / "said").read_text() if (work / "said").exists() else "0"
    rows = t.recovered(work / "a.pqv", t.OTHER) if (work / "a.pqv").exists() else []
    if rows != list(range(len(rows))) or len(rows) < int(said.split()[0]):
        sys.exit(f"call {k}: {said} acknowledged, {rows} there")
    if code == 0:
        if "closed" not in said:
            sys.exit("the last run did not end")
        break
    k += step
print(k)
"""


@pytest.mark.parametrize("first", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_at_every_call(tmp_path: Path, first: int) -> None:
    """attack 33: opening, logging, flushing, closing: killed before each call that changes a file.

    Every 17th call here; every 5th in the slow run."""
    KEY.save_file(tmp_path / "key")
    OTHER.save_file(tmp_path / "other")
    step = 17 if first == 1 else 5
    done = subprocess.run(
        [sys.executable, "-c", STEPS, tmp_path, str(first), str(step)],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) > 60  # so many calls there were


def test_the_power_goes_after_any_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of fsyncs: after each call, with everything lost that may be lost, with nothing
    lost, and with half of each unfinished write: what was acknowledged by then is there."""
    archive = tmp_path / "a.pqv"
    archive.mkdir()
    acknowledged = 0
    states: dict[str, tuple[State, int]] = {}

    def remember() -> None:
        for state in (disk.least(), disk.most(), disk.torn()):
            text = repr(sorted(state.items()))
            if text not in states or states[text][1] < acknowledged:
                states[text] = (state, acknowledged)

    disk = Disk(archive, remember)
    for module in steps_kit.storage_modules():
        monkeypatch.setattr(module, "os", disk)
    log = InferenceLog(
        archive,
        recipients=[KEY.recipient],
        groups={"content": [OTHER.recipient]},
        fsync="flush",
        linger=0.001,
    )
    for number in range(4):
        log.log({"request_id": str(number), "prompt": "x"})
        if number % 2:
            log.flush()
            acknowledged = number + 1
            remember()
    log.close()
    remember()
    monkeypatch.undo()
    assert found(archive, OTHER) == list(range(4)) and len(states) > 40
    # The model is the disk, where nothing is lost.
    for path, data in disk.most().items():
        assert data is None or (archive / path).read_bytes() == data
    for number, (state, promised) in enumerate(states.values()):
        work = tmp_path / f"state{number}"
        restore(state, work)
        if (work / "pqvault.json").exists():
            report = recover(work, [OTHER])
            assert report.problems == [] and report.live == []
            rows = found(work, OTHER)
        else:
            rows = []
        assert rows == list(range(len(rows))), number
        assert len(rows) >= promised, (number, sorted(state))
        shutil.rmtree(work)


def test_the_policies_sync_as_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`none` never syncs records, `interval` not more often than that, `flush` before each."""
    for policy, least, most in (("none", 0, 0), ("interval", 1, 3), ("flush", 10, 20)):
        calls: list[int] = []
        with monkeypatch.context() as patch:
            patch.setattr(appending.os, "fdatasync", calls.append)
            log = InferenceLog(
                tmp_path / f"{policy}.pqv",
                recipients=[KEY.recipient],
                fsync=policy,
                fsync_interval=30.0,
                linger=0.001,
            )
            for number in range(10):
                log.log({"request_id": str(number)})
                deadline = time.monotonic() + 5
                if policy == "interval":
                    time.sleep(0.01)
                else:
                    while log.acknowledged <= number and time.monotonic() < deadline:
                        time.sleep(0.001)
            during = len(calls)
            log.flush()
            assert least <= len(calls) <= most, (policy, len(calls))
            assert policy != "interval" or during == 0
        log.close()
        assert found(tmp_path / f"{policy}.pqv") == list(range(10))


def test_two_recoveries_at_once(tmp_path: Path) -> None:
    """attack 37: each part is committed once, whoever is first."""
    archive = tmp_path / "a.pqv"
    for _ in range(3):
        code = SERVE.replace("while True:", "for _ in range(2):") + "\nimport os; os._exit(9)"
        subprocess.run(
            [sys.executable, "-c", code, archive, KEY.recipient.text, OTHER.recipient.text],
            check=False, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    OTHER.save_file(tmp_path / "key")
    code = textwrap.dedent("""
    import json, sys, pqvault
    from pqvault.logs import recover
    report = recover(sys.argv[1], pqvault.Identity.load_file(sys.argv[2]))
    print(json.dumps([report.rows, len(report.problems)]))
    """)
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, archive, tmp_path / "key"], stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    said = [json.loads(p.communicate()[0]) for p in both]
    assert recover(archive, [OTHER]).problems == []
    assert sorted(found(archive, OTHER)) == sorted(list(range(100)) * 3), said
