"""InferenceLog: what is logged is there, whatever fails, or is counted."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import pqvault
from pqvault import api, tables
from pqvault.errors import (
    Incomplete,
    IntegrityError,
    NoKeyFits,
    NotFound,
    PolicyRefused,
    PQVaultError,
    UsageError,
)
from pqvault.logs import InferenceLog, LogView, expire, recover
from pqvault.logs import settings as log_settings
from pqvault.logs.openparts import FoundPart, find_parts
from pqvault.logs.part import LogPart
from pqvault.signing import SigningKey
from pqvault.storage.appending import AppendFile

OPS, PRIVACY = pqvault.Identity.generate(), pqvault.Identity.generate()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "serving.pqv"


def make(archive: Path, **options: Any) -> InferenceLog:
    options = {"fsync": "flush", "linger": 0.01, **options}
    return InferenceLog(archive, recipients=[OPS.recipient], **options)


def numbered(log: InferenceLog, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        log.log({"request_id": str(number), "prompt": f"prompt {number}"})


def ids(archive: Path, key: pqvault.Identity = OPS) -> list[str]:
    """The request ids of all committed parts, without the rows that count lost records."""
    table = tables.read_table(archive, "inference", identities=[key])
    return [i for i in table["request_id"].to_pylist() if i is not None]


def rows(archive: Path, key: pqvault.Identity) -> pa.Table:
    """All committed rows, with the columns that a key opens."""
    with LogView(archive, [key]) as view:
        found = pa.concat_tables(view.rows())
        assert view.problems == []
        return found


def lost(archive: Path) -> int:
    """What the log itself says was lost."""
    table = tables.read_table(archive, "inference", identities=[OPS])
    return sum(n or 0 for n in table["dropped"].to_pylist())


def strings(count: int, first: int = 0) -> list[str]:
    return [str(number) for number in range(first, first + count)]


def wals(archive: Path) -> list[Path]:
    return sorted(archive.glob("parts/*/wal*"))


# -- the whole way -------------------------------------------------------------------------


def test_logged_closed_and_read(archive: Path) -> None:
    with make(archive) as log:
        numbered(log, 1000)
        log.flush()
        assert log.acknowledged == 1000
        assert len(wals(archive)) == 1
    assert ids(archive) == strings(1000)
    assert wals(archive) == []
    assert log.stats.logged == log.stats.acknowledged == 1000 and log.stats.parts
    report = pqvault.verify(archive, identities=[OPS])
    assert report.problems == []


def test_the_host_cannot_read_what_it_wrote(archive: Path) -> None:
    """Nothing of what was logged is on the disk in clear, not while the part is open either."""
    with make(archive) as log:
        log.log({"prompt": "a secret that nobody guesses"})
        log.flush()
        for path in archive.rglob("*"):
            assert path.is_dir() or b"secret that nobody" not in path.read_bytes()
    for path in archive.rglob("*"):
        assert path.is_dir() or b"secret that nobody" not in path.read_bytes()


def test_a_group_for_other_people(archive: Path) -> None:
    """Prompts and what may hold some are closed to those who read the metrics."""
    with make(archive, groups={"content": [PRIVACY.recipient]}) as log:
        log.log({"request_id": "r", "prompt": "hi", "odd": 1, "input_tokens": 3})
    metrics = rows(archive, OPS)
    assert metrics["input_tokens"].to_pylist() == [3]
    assert not {"input_messages", "extra", "error_message"} & set(metrics.schema.names)
    with pytest.raises(NoKeyFits, match="'content'"):
        tables.read_table(archive, "inference", identities=[OPS], columns=["extra"])
    whole = rows(archive, PRIVACY)
    assert whole["input_messages"].to_pylist() == ['"hi"']
    assert json.loads(whole["extra"][0].as_py()) == {"odd": 1}


def test_many_threads_and_a_burst_lose_nothing(archive: Path) -> None:
    """50,000 records at once, from 8 threads, with a queue that holds a few thousand."""
    with make(archive, flush_size=1_000_000, fsync="interval") as log:

        def burst(first: int) -> None:
            for number in range(first, first + 6250):
                assert log.log({"request_id": str(number), "prompt": "x" * 300})

        threads = [threading.Thread(target=burst, args=(6250 * n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(map(int, ids(archive))) == list(range(50_000))
    assert sum(log.stats.dropped.values()) == 0


def test_a_part_ends_by_size(archive: Path) -> None:
    with make(archive, part_size=200_000) as log:
        for number in range(600):
            log.log({"request_id": str(number), "prompt": "x" * 1000})
            if number % 100 == 99:
                log.flush()
    assert len(log.stats.parts) >= 3
    assert ids(archive) == strings(600)


def test_a_part_ends_by_time(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_settings.LogSettings, "seconds_left", lambda self: 0.3)
    with make(archive) as log:
        numbered(log, 10)
        log.flush()
        deadline = time.monotonic() + 10
        while not log.stats.parts and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(log.stats.parts) == 1
        numbered(log, 10, 10)
    assert ids(archive) == strings(20) and len(log.stats.parts) == 2


def test_a_part_ends_with_the_hour_or_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_795_654_923.0)  # 01:02:03 UTC
    assert log_settings.LogSettings().seconds_left() == 3600 - 123
    assert log_settings.LogSettings(period="day").seconds_left() == 86400 - 3723


@pytest.mark.parametrize("jump", [-10 * 365 * 86400, 10 * 365 * 86400])
def test_a_clock_that_jumps(archive: Path, monkeypatch: pytest.MonkeyPatch, jump: int) -> None:
    """Parts end by the monotonic clock: a wall clock that jumps neither ends one nor keeps it
    open, and records have the time that the clock said."""
    with make(archive) as log:
        numbered(log, 5)
        log.flush()
        real, real_ns = time.time, time.time_ns
        monkeypatch.setattr(time, "time", lambda: real() + jump)
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() + jump * 10**9)
        numbered(log, 5, 5)
        log.flush()
        time.sleep(0.1)
        assert len(wals(archive)) == 1 and log.stats.parts == []
    assert ids(archive) == strings(10)
    times = tables.read_table(archive, "inference", identities=[OPS])["time"].to_pylist()
    assert abs((times[9] - times[0]).total_seconds() - jump) < 60


def test_nothing_logged_leaves_nothing(archive: Path) -> None:
    with make(archive) as log:
        log.flush()
    assert list((archive / "parts").iterdir()) == list((archive / "envelopes").iterdir()) == []


def test_recipients_from_a_file_are_read_anew(archive: Path, tmp_path: Path) -> None:
    """So that a key of the month can be put in place while a server runs."""
    file = tmp_path / "logs.pub"
    file.write_text(OPS.recipient.text + "\n")
    with InferenceLog(archive, recipients=[f"@{file}"], part_size=1, linger=0.01) as log:
        numbered(log, 1)
        log.flush()
        file.write_text(PRIVACY.recipient.text + "\n")
        numbered(log, 1, 1)
    parts, _ = api.parts(archive)
    sealed_to = [part.envelope.recipients[0][1] for part in parts if part.envelope]
    assert sealed_to == [OPS.key_id, PRIVACY.key_id]


def test_two_logs_in_one_archive(archive: Path) -> None:
    """Two workers of one server: each has parts of its own."""
    with make(archive) as one, make(archive) as two:
        numbered(one, 10)
        numbered(two, 10, 10)
    assert sorted(map(int, ids(archive))) == list(range(20))


def test_a_function_that_has_no_recipients_now_is_asked_again(archive: Path) -> None:
    """Each part asks it: an hour in which the network is away must not end the log."""
    calls = 0

    def recipients() -> list[Any]:
        nonlocal calls
        calls += 1
        if calls in (3, 4):
            raise ConnectionError("no route to the keys")
        return [OPS.recipient]

    with InferenceLog(archive, recipients=recipients, part_size=1) as log:
        numbered(log, 1)
        log.flush()
        numbered(log, 2, 1)
        log.flush()
    assert calls > 4 and ids(archive) == ["0", "1", "2"] and not log.stats.dropped
    assert any("raised ConnectionError: no route" in said for said in log.stats.problems)


def test_a_fork_while_another_thread_begins_the_log(archive: Path) -> None:
    """What that thread holds, the child does not wait for."""
    code = """
    import os, signal, sys
    from pqvault.logs import InferenceLog
    log = InferenceLog(sys.argv[1], recipients=[sys.argv[2]], fsync="flush")
    with log._start_lock:
        pid = os.fork()
        if pid == 0:
            signal.alarm(10)
            log.log({"request_id": "0"})
            log.close()
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    """
    run(code, archive)
    assert ids(archive) == ["0"]


@pytest.mark.parametrize("lock", ["_queue._lock", "_start_lock", "stats._lock"])
def test_the_handler_of_a_signal_may_log(archive: Path, lock: str) -> None:
    """Also while the thread that it interrupts is about to, as a server's that is told to end."""
    code = f"""
    import os, signal, sys
    from pqvault.logs import InferenceLog
    log = InferenceLog(sys.argv[1], recipients=[sys.argv[2]], fsync="flush")
    def handler(number, frame):
        assert not log.log({{"request_id": object.__new__(Rude)}})
        log.log({{"request_id": "0"}})
    class Rude:
        def __str__(self): raise ValueError
    signal.signal(signal.SIGUSR1, handler)
    signal.alarm(30)
    with log.{lock}:
        os.kill(os.getpid(), signal.SIGUSR1)
        for _ in range(1000): pass
    log.log({{"request_id": "1"}})
    log.close()
    """
    run(code, archive)
    assert ids(archive) == ["0", "1"]


def test_signals_while_records_are_logged_lose_none(archive: Path) -> None:
    code = """
    import os, signal, sys, threading, time
    from pqvault.logs import InferenceLog
    log = InferenceLog(sys.argv[1], recipients=[sys.argv[2]])
    count, told = 0, []
    def handler(number, frame):  # which another signal may interrupt: no sum of its own
        told.append(log.log({"request_id": "told"}))
    signal.signal(signal.SIGUSR1, handler)
    signal.alarm(60)
    def tell():
        for _ in range(100):
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.01)
    thread = threading.Thread(target=tell)
    thread.start()
    while thread.is_alive():
        count += log.log({"request_id": "said"})
    log.close()
    print(count, sum(told))
    """
    count, told = map(int, run(code, archive).split())
    found = ids(archive)
    assert (found.count("said"), found.count("told")) == (count, told) and told


def test_a_fork_has_a_part_of_its_own(archive: Path) -> None:
    """attack 16: the child does not go on with its parent's keys, file or queue."""
    code = """
    import os, sys
    from pqvault.logs import InferenceLog
    log = InferenceLog(sys.argv[1], recipients=[sys.argv[2]], fsync="flush")
    for n in range(10): log.log({"request_id": str(n)})
    log.flush()
    pid = os.fork()
    if pid == 0:
        for n in range(10, 20): log.log({"request_id": str(n)})
        log.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    for n in range(20, 30): log.log({"request_id": str(n)})
    """
    run(code, archive)
    assert sorted(map(int, ids(archive))) == list(range(30))
    assert len(api.parts(archive)[0]) == 2


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_the_end_of_a_child_of_multiprocessing_closes_it(
    archive: Path, tmp_path: Path, method: str
) -> None:
    """One that was forked ends without `atexit`; one that was spawned does not, and logs there."""
    code = """
    import atexit, multiprocessing, sys
    from pqvault.logs import InferenceLog

    def work(first):
        log = InferenceLog(sys.argv[1], recipients=[sys.argv[2]])
        if sys.argv[3] == "spawn":
            atexit.register(log.log, {"request_id": str(first)})
        for n in range(first + (sys.argv[3] == "spawn"), first + 5): log.log({"request_id": str(n)})

    if __name__ == "__main__":
        context = multiprocessing.get_context(sys.argv[3])
        children = [context.Process(target=work, args=(n,)) for n in (0, 5)]
        for child in children: child.start()
        for child in children: child.join()
        assert [child.exitcode for child in children] == [0, 0]
    """
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(code))
    args = [sys.executable, str(program), str(archive), OPS.recipient.text, method]
    subprocess.run(args, check=True, timeout=60)
    assert sorted(map(int, ids(archive))) == list(range(10))


def test_a_child_does_not_keep_its_parents_lock(archive: Path) -> None:
    """A worker that outlives the process that forked it: the parent's part can be recovered."""
    code = """
    import os, signal, sys, time
    from pqvault.logs import InferenceLog
    log = InferenceLog(sys.argv[1], recipients=[sys.argv[2]], fsync="flush")
    for n in range(10): log.log({"request_id": str(n)})
    log.flush()
    pid = os.fork()
    if pid == 0:
        os.closerange(0, 3)
        time.sleep(60)
    print(pid, flush=True)
    os._exit(0)
    """
    child = int(run(code, archive))
    try:
        assert recover(archive, [OPS]).rows == 10
    finally:
        os.kill(child, 9)


def test_gc_leaves_what_is_being_written(archive: Path) -> None:
    with make(archive, groups={"content": [PRIVACY.recipient]}) as log:
        numbered(log, 5)
        log.flush()
        assert pqvault.gc(archive, older_than=-10).removed == []
        numbered(log, 5, 5)
    assert pqvault.gc(archive, older_than=-10).removed == []
    assert ids(archive) == strings(10)


def test_what_is_planted_does_not_keep_others_from_recovery(archive: Path) -> None:
    """attack 45, attack 27: links, folders, garbage, parts without an envelope."""
    wal = orphan(archive)
    parts = archive / "parts"
    for number, name in enumerate("abcd"):
        (parts / (name * 32)).mkdir()
        planted = parts / (name * 32) / "wal"
        if number == 0:
            planted.symlink_to(wal)
        elif number == 1:
            planted.mkdir()
        elif number == 2:
            os.mkfifo(planted)
        else:
            planted.write_bytes(b"garbage")
            (archive / "envelopes" / (name * 32)).write_bytes(b"garbage")
    (parts / "strange name").mkdir()
    report = recover(archive, [OPS])
    assert report.rows == 100 and len(report.problems) == 4
    assert all(error.exit_code == 13 for error in report.problems)


def run(code: str, archive: Path, *args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(archive), OPS.recipient.text, *args],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_end_of_the_process_closes_it(archive: Path) -> None:
    run(
        """
        import random, sys
        from pqvault.logs import InferenceLog
        log = InferenceLog(sys.argv[1], recipients=[sys.argv[2]])
        text = [random.Random(n).randbytes(15_000).hex() for n in range(100)]
        for n in range(100): log.log({"request_id": str(n), "prompt": text[n]})
        """,
        archive,
    )
    assert ids(archive) == strings(100)  # megabytes: its table is written by several threads


def test_what_is_logged_while_the_process_ends(archive: Path) -> None:
    """Python 3.12 starts no threads by then; the row and the part are written without."""
    code = """
    import atexit, sys
    from pqvault.logs import InferenceLog
    log = InferenceLog(sys.argv[1], recipients=[sys.argv[2]])
    atexit.register(lambda: log.log({"request_id": "last"}))
    """
    run(code, archive)
    assert ids(archive) == ["last"]


def test_a_full_disk_while_the_process_ends(archive: Path, tmp_path: Path) -> None:
    """What cannot be written is given up in the end; the process does not hang."""
    code = """
    import atexit, sys, time
    from pqvault.errors import PQVaultError
    from pqvault.logs import InferenceLog, part, log as module
    def full(*_): raise PQVaultError("no space is left")
    part.LogPart.append = full
    log = InferenceLog(sys.argv[1], recipients=[sys.argv[2]])
    def end():
        log.log({"request_id": "last"})
        try:
            log.close(timeout=1.0)
        except PQVaultError as error:
            print(error)
    atexit.register(end)
    """
    assert "1 records were lost: no space is left" in run(code, archive)


# -- read while it is written --------------------------------------------------------------


def of(tables: Iterator[pa.Table] | list[pa.Table]) -> list[str]:
    return [i for table in tables for i in table["request_id"].to_pylist()]


def test_a_part_that_is_committed_while_others_are_read_is_not_left_out(archive: Path) -> None:
    """`log cat --open` may take an hour for the parts before it."""
    with make(archive) as log:
        numbered(log, 3)
    with make(archive) as log:
        numbered(log, 3, 3)
        log.flush()
        view = LogView(archive, [OPS])
        reading = view.rows(open_parts=True)
        assert of([next(reading)]) == strings(3)
    assert of(reading) == strings(3, 3) and view.problems == []
    with make(archive) as log:
        numbered(log, 3, 6)
        log.flush()
        early = LogView(archive, [OPS])
        again = [of(early.rows(open_parts=True)) for _ in range(2)]
        assert again == [strings(9), strings(9)]
    assert of(early.last(4)) == strings(4, 5)
    assert [part.state for part in early.parts()] == ["committed"] * 3
    assert of(view.rows(open_parts=True)) == strings(9)


def test_damage_in_an_open_part_is_said(archive: Path) -> None:
    """What opens is read, but silence would say that it is all."""
    code = """
    import os, sys
    from pqvault.logs import InferenceLog
    log = InferenceLog(sys.argv[1], recipients=[sys.argv[2]], fsync="flush")
    for n in range(3):
        log.log({"request_id": str(n)})
        log.flush()
    os._exit(0)
    """
    for _ in range(2):
        run(code, archive)
    wal = wals(archive)[0]
    content = bytearray(wal.read_bytes())
    content[len(content) // 2] ^= 1
    wal.write_bytes(content)
    for look in (
        lambda view: of(view.rows(open_parts=True)),
        lambda view: of(view.last(9)),
        lambda view: ["row"] * sum(part.rows for part in view.parts()),
    ):
        with LogView(archive, [OPS]) as view:
            assert len(look(view)) == 5
            (problem,) = view.problems
        assert isinstance(problem, IntegrityError) and "record 1 of the log" in problem.message
    (archive / "envelopes" / wal.parent.name).unlink()
    with LogView(archive, [OPS]) as view:
        assert sorted(part.rows or 0 for part in view.parts()) == [0, 3]
        assert "without which nobody can open that part" in view.problems[0].message


@pytest.mark.parametrize("committed", [True, False])
def test_times_that_no_key_opens(archive: Path, committed: bool) -> None:
    """`--since` goes by a column that may be in a group."""
    groups = {"groups": {"g": [PRIVACY.recipient]}, "group_columns": {"g": ["time"]}}
    early = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))  # in UTC there is no such year
    with make(archive, **groups) as log:
        numbered(log, 2)
        log.close() if committed else log.flush()
        with LogView(archive, [PRIVACY]) as view:
            assert of(view.rows(open_parts=True, since=early)) == strings(2)
            assert of(view.rows(open_parts=True, until=early)) == []
        with LogView(archive, [OPS]) as view, pytest.raises(NoKeyFits, match="time"):
            of(view.rows(open_parts=True, since=early))


# -- before it begins ----------------------------------------------------------------------


def test_what_is_refused_at_once(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs recipients"):
        InferenceLog(archive, recipients=[])
    with pytest.raises(UsageError, match="fsync='often'"):
        make(archive, fsync="often")
    with pytest.raises(UsageError, match="no such setting"):
        make(archive, colour="red")
    with pytest.raises(UsageError, match="spill"):
        make(archive, when_full="spill")
    with pytest.raises(UsageError, match="has no columns"):
        make(archive, groups={"pii": [OPS.recipient]})
    with pytest.raises(UsageError, match="which is no column"):
        make(archive, groups={"pii": [OPS.recipient]}, group_columns={"pii": ["nothing"]})
    with pytest.raises(UsageError, match="no folder"):
        InferenceLog("memory://bucket/x.pqv", recipients=[OPS.recipient])


@pytest.mark.parametrize(
    ("options", "step"),
    [
        ({"when_full": "spill"}, "--spill FOLDER"),
        ({"spill": "elsewhere"}, "--when-full spill"),
        ({"groups": {"pii": [OPS.recipient]}}, "`content` has those of prompts"),
        ({"colour": "red"}, "it has fsync, fsync_interval"),
        ({"part_size": "1GiB"}, "a whole number: bytes"),
        ({"max_record": True}, "a whole number: bytes"),
        ({"fsync_interval": "1"}, "write seconds"),
        ({"block_seconds": None}, "write seconds"),
        ({"linger": -1}, "write seconds"),
        ({"block_seconds": float("nan")}, "write seconds"),
        (
            {"groups": {"g": [OPS.recipient]}, "group_columns": {"g": ["nothing"]}},
            "the log has time, request_id",
        ),
        ({"name": "../x"}, "names with / between"),
    ],
)
def test_what_is_refused_comes_with_a_next_step(
    archive: Path, options: dict[str, Any], step: str
) -> None:
    with pytest.raises(UsageError) as caught:
        make(archive, **options)
    assert step in (caught.value.hint or "")


def test_one_key_is_as_good_as_a_list_of_one(archive: Path, tmp_path: Path) -> None:
    file, key = tmp_path / "ops.pub", tmp_path / "key.txt"
    file.write_text(OPS.recipient.text)
    OPS.save_file(key)
    given: list[Any] = [OPS.recipient, OPS.recipient.text, f"@{file}"]
    for number, one in enumerate([*given, *(lambda one=one: one for one in given)]):
        with InferenceLog(archive, recipients=one, groups={"content": one}) as log:
            numbered(log, 1, number)
    with InferenceLog(archive, recipients=OPS.recipient, fsync="flush") as log:
        numbered(log, 1, 6)
        log.flush()
        with LogView(archive, OPS) as view, LogView(archive, key) as other:
            assert of(view.rows(open_parts=True)) == of(other.rows(open_parts=True)) == strings(7)
        assert len(recover(archive, key).live) == 1


@pytest.mark.parametrize("wrong", [None, 5, [None], [5], OPS, [OPS], lambda: None, lambda: [OPS]])
def test_what_is_no_recipient_is_named_by_its_type(archive: Path, wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"a recipient was given as (NoneType|int|Identity)"):
        InferenceLog(archive, recipients=wrong)


def test_a_function_that_gives_no_recipient_now_does_not_end_the_log(archive: Path) -> None:
    given: list[Any] = [OPS.recipient]
    with InferenceLog(archive, recipients=lambda: given, part_size=1, fsync="flush") as log:
        numbered(log, 1)
        log.flush()
        given[:] = [None]
        numbered(log, 1, 1)
        with pytest.raises(Incomplete, match="a recipient was given as NoneType"):
            log.flush(1)
        given[:] = [OPS.recipient]
        log.flush()
    assert ids(archive) == ["0", "1"] and not log.stats.dropped


def test_a_column_that_a_log_has_not_is_answered_with_those_it_has(archive: Path) -> None:
    with make(archive) as log:
        numbered(log, 1)
    with LogView(archive, [OPS]) as view, pytest.raises(NotFound) as caught:
        list(view.rows(columns=["modle"]))
    assert "time, request_id" in (caught.value.hint or "")


def test_columns_that_are_declared_without_nulls(archive: Path) -> None:
    """What does not fit is null there all the same, or the part would never become a table."""
    inner = pa.struct([pa.field("q", pa.int64(), nullable=False)])
    schema = pa.schema([pa.field("n", pa.int64(), nullable=False), pa.field("s", inner)])
    with make(archive, schema=schema) as log:
        for record in ({"n": 1, "s": {"q": 1}}, {"n": "one"}, {"s": {"q": None}}):
            log.log(record)
    table = tables.read_table(archive, "inference", identities=[OPS])
    assert table["n"].to_pylist() == [1, None, None]
    assert table["s"].to_pylist() == [{"q": 1}, None, {"q": None}]


def test_a_retired_key_is_refused(archive: Path) -> None:
    make(archive).close()
    (archive / "retired").mkdir()
    (archive / "retired" / OPS.key_id).write_bytes(b"x")
    with pytest.raises(PolicyRefused, match="retired"):
        make(archive)


def test_signed_archives(archive: Path) -> None:
    """attack 14: an archive with signed parts gets no unsigned ones; a log can sign its own."""
    key = SigningKey.generate()
    with make(archive, sign=[key]) as log:
        numbered(log, 3)
    from pqvault.policy import Policy

    with pqvault.open(archive, identities=[OPS], policy=Policy.of([key.signer])) as opened:
        assert opened.parts[0].signed_by
    with pytest.raises(PolicyRefused, match="signed parts"):
        make(archive)


# -- when writing fails --------------------------------------------------------------------


class Failing:
    """Makes a method of AppendFile fail while it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, delay: float = 0.0) -> None:
        self.on = False
        self.calls = 0
        self.delay = delay
        real: Callable[..., Any] = getattr(AppendFile, name)

        def method(file: AppendFile, *args: Any) -> Any:
            if self.on:
                self.calls += 1
                time.sleep(self.delay)
                if not self.delay:
                    raise PQVaultError("cannot write it: no space left on the device")
            return real(file, *args)

        monkeypatch.setattr(AppendFile, name, method)


@pytest.mark.parametrize("name", ["append", "sync"])
def test_block_waits_until_there_is_room(
    archive: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """attack 47: the disk is full for a while; nothing is lost, and flush says so meanwhile."""
    failing = Failing(monkeypatch, name)
    with make(archive, flush_size=20_000) as log:
        numbered(log, 10)
        log.flush()
        failing.on = True
        numbered(log, 5, 10)
        with pytest.raises(Incomplete, match=r"could not be flushed.*no space left"):
            log.flush(0.3)
        assert log.acknowledged == 10
        threading.Timer(0.5, lambda: setattr(failing, "on", False)).start()
        numbered(log, 500, 15)  # far more than the queue holds: blocks until the disk is back
        log.flush()
    assert ids(archive) == strings(515)
    assert sum(log.stats.dropped.values()) == 0 and failing.calls


def test_block_has_a_bound(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Failing(monkeypatch, "append")
    with make(archive, flush_size=2000, block_seconds=0.05) as log:
        failing.on = True
        began = time.monotonic()
        taken = [log.log({"request_id": str(n), "prompt": "x" * 1000}) for n in range(10)]
        assert not all(taken) and time.monotonic() - began < 5
        failing.on = False
    assert ids(archive) == [str(n) for n, took in enumerate(taken) if took]
    assert lost(archive) == log.stats.dropped["queue full"] == taken.count(False)


def test_drop_counts_and_the_log_says_so(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow disk under `drop`: the caller never waits, and logged + lost is all that there was."""
    failing = Failing(monkeypatch, "append", delay=0.1)
    with make(archive, when_full="drop", flush_size=5000) as log:
        failing.on = True
        began = time.monotonic()
        for n in range(300):
            log.log({"request_id": str(n), "prompt": "x" * 300})
        assert time.monotonic() - began < 1.0
        failing.on = False
    assert log.stats.dropped["queue full"] > 0
    assert len(ids(archive)) + lost(archive) == 300


def test_max_record_is_of_the_text(archive: Path) -> None:
    """Not of what was said to be its size while the record is not text yet."""
    with make(archive, max_record=10_000) as log:
        assert not log.log({"request_id": "0", "prompt": "\x01" * 2000})  # six characters each
        assert log.log({"request_id": "1", "prompt": [0] * 4000})
        assert log.log({"request_id": "2", "prompt": "\x01" * 1500})
    assert dict(log.stats.dropped) == {"over max_record": 1} and ids(archive) == ["1", "2"]


def test_what_cannot_be_a_record_is_counted(archive: Path) -> None:
    class Rude:
        def __str__(self) -> str:
            raise RuntimeError("not now")

    with make(archive, max_record=10_000) as log:
        assert not log.log({"x": Rude()})
        assert not log.log({"prompt": "x" * 20_000})
        assert log.log({"request_id": "0"})
    assert not log.log({"request_id": "1"})
    assert dict(log.stats.dropped) == {"not encodable": 1, "over max_record": 1, "closed": 1}
    assert ids(archive) == ["0"] and lost(archive) == 2


def test_whatever_an_object_raises_is_counted(archive: Path) -> None:
    """Errors of libraries (Django's, SQLAlchemy's) come of no class that Python has."""

    class TheirOwnError(Exception):
        pass

    class Lazy:
        def __init__(self, error: type[Exception]) -> None:
            self.error = error

        def __str__(self) -> str:
            raise self.error("not from here")

        def __float__(self) -> float:
            raise self.error("not from here")

    with make(archive) as log:
        for error in (TheirOwnError, AssertionError, StopIteration, MemoryError):
            assert not log.log({"user": Lazy(error)})
            assert not log.log({"duration_s": Lazy(error)})
        log.log({"request_id": "1"})
    assert dict(log.stats.dropped) == {"not encodable": 8} and lost(archive) == 8


def test_spill_takes_what_the_disk_does_not(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive's disk is full: records go to the spill folder, sealed, and back from there."""
    real = AppendFile.append
    full = threading.Event()

    def append(file: AppendFile, buffer: Any) -> None:
        if full.is_set() and file.where.startswith(str(archive)):
            raise PQVaultError("cannot write it: no space left on the device")
        real(file, buffer)

    monkeypatch.setattr(AppendFile, "append", append)
    spill = tmp_path / "spill"
    with make(archive, when_full="spill", spill=spill, flush_size=4000) as log:
        numbered(log, 10)
        log.flush()
        full.set()
        for number in range(10, 200):
            assert log.log({"request_id": str(number), "prompt": "secret " + "x" * 300})
        log.flush()  # everything is safe, although the archive's disk is full
        assert log.acknowledged == 200
        assert list(spill.glob("parts/*/wal"))
        assert all(b"secret" not in p.read_bytes() for p in spill.rglob("wal"))
        full.clear()
    assert log.stats.spilled > 0 and sum(log.stats.dropped.values()) == 0
    assert sorted(map(int, ids(archive))) == list(range(200))
    assert list(spill.glob("parts/*")) == []


def test_spill_is_bounded(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the spill is full too, records are dropped and counted."""
    real = AppendFile.append
    full = threading.Event()

    def append(file: AppendFile, buffer: Any) -> None:
        if full.is_set() and file.where.startswith(str(archive)):
            raise PQVaultError("cannot write it: no space left on the device")
        real(file, buffer)

    monkeypatch.setattr(AppendFile, "append", append)
    spill = tmp_path / "spill"
    options = {"flush_size": 4000, "spill_size": 30_000, "block_seconds": 0.3}
    with make(archive, when_full="spill", spill=spill, **options) as log:
        full.set()
        for number in range(200):
            if not log.log({"request_id": str(number), "prompt": "x" * 1000}):
                break
        assert sum(p.stat().st_size for p in spill.rglob("wal")) < 60_000
        full.clear()
    assert log.stats.dropped["queue full"] == 1 and lost(archive) == 1
    assert len(ids(archive)) == log.stats.acknowledged > 0


def test_a_spill_folder_that_was_left_is_recovered_into_the_archive(
    archive: Path, tmp_path: Path
) -> None:
    spill = tmp_path / "spill"
    make(archive, when_full="spill", spill=spill).close()
    code = """
    import os, sys
    from pqvault.logs import InferenceLog
    log = InferenceLog(sys.argv[1], recipients=[sys.argv[2]], fsync="flush")
    for n in range(20): log.log({"request_id": str(n)})
    log.flush(); os._exit(9)
    """
    done = subprocess.run(
        [sys.executable, "-c", __import__("textwrap").dedent(code), str(spill), OPS.recipient.text],
        check=False,
    )
    assert done.returncode == 9
    report = recover(spill, [OPS], into=archive)
    assert report.rows == 20 and ids(archive) == strings(20)
    assert list(spill.glob("parts/*")) == []
    assert pqvault.verify(archive, identities=[OPS]).problems == []


def test_a_part_that_cannot_be_closed_stays_and_is_said(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pqvault.logs import closer

    def refuse(*args: Any, **kwargs: Any) -> bool:
        raise OSError(errno.ENOSPC, "no space left on the device")

    log = make(archive)
    numbered(log, 20)
    with monkeypatch.context() as patch:
        patch.setattr(closer, "close_part", refuse)
        with pytest.raises(Incomplete, match="1 parts stay write-ahead files"):
            log.close()
    report = recover(archive, [OPS])
    (part,) = report.recovered
    assert part.complete and part.rows == 20 and ids(archive) == strings(20)


@pytest.mark.parametrize("another", [False, True])
def test_an_archive_that_is_moved_away_is_missed(archive: Path, another: bool) -> None:
    """As some rotate logs. Nothing is written, and called safe, where nobody could read it."""
    aside = archive.with_name("aside.pqv")
    log = make(archive, fsync="flush", part_size=30_000)
    numbered(log, 3)
    log.flush()
    archive.rename(aside)
    if another:
        make(archive).close()
    log.log({"request_id": "3", "text": os.urandom(20_000).hex()})  # the part goes on where it is
    log.flush()
    log.log({"request_id": "4"})
    with pytest.raises(
        Incomplete, match="is another archive now" if another else "no pqvault.json"
    ):
        log.flush(2)
    if another:
        shutil.rmtree(archive)
    aside.rename(archive)
    log.flush(30)
    log.close()
    assert ids(archive) == ["0", "1", "2", "3", "4"] and not log.stats.dropped


@pytest.mark.parametrize("fsync", ["none", "interval", "flush"])
def test_what_is_logged_after_the_part_was_removed_is_not_called_safe(
    archive: Path, fsync: Any
) -> None:
    log = make(archive, fsync=fsync, fsync_interval=0.1)
    numbered(log, 3)
    log.flush()
    for wal in archive.glob("parts/*/wal"):
        wal.unlink()
    numbered(log, 2, 3)
    log.flush()
    with pytest.raises(Incomplete, match=r"3 records were lost.*was removed while a log"):
        log.close()
    assert lost(archive) == log.stats.dropped["part was removed"] == 3
    assert ids(archive) == ["3", "4"]


def test_rows_that_could_not_be_written_are_said_at_the_end(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Failing(monkeypatch, "append")
    log = make(archive)
    failing.on = True
    numbered(log, 7)
    with pytest.raises(Incomplete, match="7 records were lost"):
        log.close(timeout=0.3)
    assert log.stats.dropped["not written"] == 7


def test_what_a_writer_that_ended_had_taken_is_counted(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LogPart, "append", lambda part, rows: 1 / 0)
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    log = make(archive)
    numbered(log, 7)
    time.sleep(0.5)
    with pytest.raises(Incomplete, match=r"7 records were lost.*ZeroDivisionError"):
        log.close()


def test_block_may_be_for_ever(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Failing(monkeypatch, "append")
    with make(archive, flush_size=1000, block_seconds=float("inf")) as log:
        failing.on = True
        threading.Timer(0.5, lambda: setattr(failing, "on", False)).start()
        numbered(log, 50)
    assert len(ids(archive)) == 50 and not log.stats.dropped


def test_nobody_waits_for_what_was_given_up(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a process closes its logs first, and then flushes its handlers of `logging`."""
    failing = Failing(monkeypatch, "append")
    log = make(archive)
    failing.on = True
    numbered(log, 1000)
    with pytest.raises(Incomplete, match="1,000 records were lost"):
        log.close(timeout=0.3)
    log.flush(0.1)


# -- open parts ----------------------------------------------------------------------------


def test_open_parts_are_read_when_asked_for(archive: Path) -> None:
    with make(archive, groups={"content": [PRIVACY.recipient]}) as log:
        numbered(log, 10)
        log.flush()
        with LogView(archive, [PRIVACY]) as view:
            assert list(view.rows()) == []
            (facts,) = view.parts()
            assert (facts.state, facts.rows, facts.torn) == ("live", 10, 0)
            (table,) = view.last(3)
            assert table["input_messages"].to_pylist() == [f'"prompt {n}"' for n in (7, 8, 9)]
        with LogView(archive, [OPS]) as view:
            (table,) = view.rows(open_parts=True)
            assert table["request_id"].to_pylist() == strings(10)
            assert "input_messages" not in table.schema.names
    with LogView(archive, [OPS]) as view:
        assert [part.state for part in view.parts()] == ["committed"]


def test_following_a_log_gives_each_row_once(archive: Path) -> None:
    """Across the end of a part: rows that were shown from the open one are not shown again."""
    seen: list[str] = []
    done = threading.Event()

    def follow() -> None:
        with LogView(archive, [OPS]) as view:
            for table in view.last(5):
                seen.extend(table["request_id"].to_pylist())
            for table in view.follow(done.is_set):
                seen.extend(table["request_id"].to_pylist())

    with make(archive) as log:
        numbered(log, 10)
        log.flush()
        thread = threading.Thread(target=follow)
        thread.start()
        time.sleep(0.3)
        numbered(log, 10, 10)
        log.flush()
        time.sleep(0.7)
    with make(archive) as log:
        numbered(log, 10, 20)
    deadline = time.monotonic() + 10
    while len(seen) < 25 and time.monotonic() < deadline:
        time.sleep(0.05)
    done.set()
    thread.join()
    assert seen == strings(25, 5)


def test_following_a_log_gives_rows_in_the_order_of_the_parts(archive: Path) -> None:
    """The last rows of a part that was committed come before those of the next."""
    first, second = make(archive), make(archive)
    turns = 0

    def goes_on() -> bool:
        nonlocal turns
        turns += 1
        if turns == 2:
            numbered(first, 5, 5)
            first.close()
            numbered(second, 5, 10)
            second.flush()
        return False

    numbered(first, 5)
    first.flush()
    seen: list[str] = []
    with LogView(archive, [OPS]) as view:
        for table in view.follow(goes_on):
            seen += table["request_id"].to_pylist()
            if len(seen) >= 15:
                break
    second.close()
    assert seen == strings(15)


# -- recovery ------------------------------------------------------------------------------


def orphan(archive: Path, count: int = 100, **options: Any) -> Path:
    """What a killed process leaves."""
    code = """
    import json, os, sys
    from pqvault.logs import InferenceLog
    options = json.loads(sys.argv[3])
    log = InferenceLog(sys.argv[1], recipients=[sys.argv[2]], fsync="flush", **options)
    for n in range(int(sys.argv[4])):
        log.log({"request_id": str(n), "prompt": "x" * 100})
        if n % 10 == 9: log.flush()
    print("done", flush=True); os._exit(9)
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(archive), OPS.recipient.text,
         json.dumps(options), str(count)],
        check=False,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return next(p for p in wals(archive) if p.name == "wal")


def test_recover_commits_what_is_whole_and_counts_the_tail(archive: Path) -> None:
    wal = orphan(archive)
    data = wal.read_bytes()
    wal.write_bytes(data[:-50])
    report = recover(archive, [OPS])
    (part,) = report.recovered
    assert part.rows == 90 and 0 < part.torn < len(data) and not part.complete
    assert ids(archive) == strings(90)
    assert wals(archive) == [] and recover(archive, [OPS]).recovered == []
    assert pqvault.verify(archive, identities=[OPS]).problems == []


def test_logs_of_several_names_stay_apart(archive: Path) -> None:
    """Two logs with tables of their own in one archive, both left by killed processes: each reader
    sees its own rows, and what is recovered goes where it belongs."""
    orphan(archive, 20, name="logs/a")
    orphan(archive, 30, name="logs/b", groups={"content": [OPS.recipient.text]})
    for name, count in (("logs/a", 20), ("logs/b", 30)):
        with LogView(archive, [OPS], name=name) as view:
            assert [part.rows for part in view.parts()] == [count]
            assert sum(len(t) for t in view.rows(open_parts=True)) == count
            assert sum(map(len, view.last(100))) == count
    with LogView(archive, [OPS]) as view:
        assert view.parts() == [] and list(view.rows(open_parts=True)) == []
    assert recover(archive, [OPS]).rows == 50
    for name, count in (("logs/a", 20), ("logs/b", 30)):
        table = tables.read_table(archive, name, identities=[OPS])
        assert len(table) == count and b"pqvault.table" not in (table.schema.metadata or {})
    orphan(archive, 10, name="logs/c")
    assert recover(archive, [OPS], table="elsewhere").rows == 10
    with LogView(archive, [OPS], name="elsewhere") as view:
        assert sum(map(len, view.rows())) == 10


def test_a_copy_without_empty_folders_is_recovered(archive: Path) -> None:
    """Format 5: an archive without a folder `commits` has no parts yet; many tools that copy
    leave empty folders out."""
    orphan(archive, 10)
    (archive / "commits").rmdir()
    report = recover(archive, [OPS])
    assert (report.rows, report.problems) == (10, []) and ids(archive) == strings(10)


def test_a_log_that_says_no_table_is_of_the_usual_one(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Write-ahead files of earlier versions do not say what table they become."""
    real = LogPart.__init__

    def without(self: LogPart, *arguments: Any) -> None:
        real(self, *arguments[:5], "")

    pid = os.fork()
    if not pid:
        monkeypatch.setattr(LogPart, "__init__", without)
        log = make(archive, fsync="flush")
        numbered(log, 10)
        log.flush()
        os._exit(0)
    os.waitpid(pid, 0)
    with LogView(archive, [OPS]) as view:
        assert sum(map(len, view.rows(open_parts=True))) == 10
    assert recover(archive, [OPS]).rows == 10
    assert ids(archive) == strings(10)


def test_recover_leaves_a_live_log_alone(archive: Path) -> None:
    with make(archive) as log:
        numbered(log, 10)
        log.flush()
        report = recover(archive, [OPS])
        assert report.live and not report.recovered
        numbered(log, 10, 10)
    assert ids(archive) == strings(20)


@pytest.mark.parametrize("does", ["recover", "expire"])
def test_a_part_that_its_writer_closes_meanwhile_is_no_problem(
    archive: Path, monkeypatch: pytest.MonkeyPatch, does: str
) -> None:
    """And does not keep the others from what is done to them."""
    log = make(archive)
    numbered(log, 5)
    log.flush()
    orphan(archive)

    def found_then_closed(storage: Any) -> Any:
        found = find_parts(storage)
        log.close()
        return found

    monkeypatch.setattr(import_module(f"pqvault.logs.{does}"), "find_parts", found_then_closed)
    if does == "recover":
        report: Any = recover(archive, [OPS])
        assert report.rows == 100
    else:
        report = expire(archive, -48 * 3600)
        assert len(report.expired) == 1
    assert report.problems == [] and ids(archive)[:5] == strings(5)


def test_a_part_that_its_writer_closes_meanwhile_is_listed_as_committed(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = make(archive)
    numbered(log, 5)
    log.flush()

    state = FoundPart.state

    def closed(part: FoundPart) -> Any:
        log.close()
        return state(part)

    monkeypatch.setattr(FoundPart, "state", closed)
    with LogView(archive, [OPS]) as view:
        assert [(part.state, part.rows) for part in view.parts()] == [("committed", 5)]
        assert view.problems == []


def test_recover_needs_every_group(archive: Path) -> None:
    wal = orphan(archive, groups={"content": [PRIVACY.recipient.text]})
    report = recover(archive, [OPS])
    assert isinstance(report.problems[0], NoKeyFits) and wal.exists()
    assert recover(archive, [PRIVACY]).rows == 100
    whole = rows(archive, PRIVACY)
    assert whole["input_messages"].null_count == 0


def test_a_group_that_was_cut_is_counted(archive: Path) -> None:
    """Rows that only some of the files have are left out, and said."""
    wal = orphan(archive, groups={"content": [PRIVACY.recipient.text]})
    group = wal.with_name("wal.content")
    group.write_bytes(group.read_bytes()[:-5000])
    (part,) = recover(archive, [PRIVACY]).recovered
    assert part.rows + part.unmatched == 100 and part.unmatched > 0 and part.torn > 0
    assert ids(archive) == strings(part.rows)


def test_damage_in_the_middle_stops_it_unless_accepted(archive: Path) -> None:
    """attack 12: nothing is thrown away without a word that could still be restored."""
    wal = orphan(archive)
    data = bytearray(wal.read_bytes())
    data[len(data) // 2] ^= 1
    wal.write_bytes(data)
    report = recover(archive, [OPS])
    assert isinstance(report.problems[0], IntegrityError) and wal.read_bytes() == data
    assert "--damaged" in report.problems[0].hint
    (part,) = recover(archive, [OPS], accept_damage=True).recovered
    assert part.damaged >= 1 and 80 <= part.rows < 100
    assert set(ids(archive)) < set(strings(100))


def test_an_interrupted_recovery_is_finished(archive: Path) -> None:
    """The commit is there and the write-ahead file too: it is removed, and nothing is twice."""
    wal = orphan(archive)
    data = wal.read_bytes()
    recover(archive, [OPS])
    wal.write_bytes(data)
    report = recover(archive, [OPS])
    assert report.finished and not report.recovered and not wal.exists()
    assert ids(archive) == strings(100)


def test_a_wal_put_into_another_part_does_not_open(archive: Path, tmp_path: Path) -> None:
    """attack 14"""
    one = orphan(archive)
    other = orphan(tmp_path / "other.pqv")
    one.write_bytes(other.read_bytes())
    report = recover(archive, [OPS])
    assert isinstance(report.problems[0], IntegrityError)
    assert "no record opens" in report.problems[0].message


def log_threads() -> set[threading.Thread]:
    """Those that are pqvault's, but for the pools that a process has for good."""
    pools = ("pqvault-read", "pqvault-ahead", "pqvault-upload")
    threads = (t for t in threading.enumerate() if t.name.startswith("pqvault-"))
    return {t for t in threads if not t.name.startswith(pools)}


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    """Every log that a test opens ends its threads."""
    before = log_threads()
    yield
    deadline = time.monotonic() + 5
    while (left := log_threads() - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def test_memory_does_not_grow_with_the_part(archive: Path) -> None:
    """100 MB are logged with a flush size of 1 MB: the process grows by far less."""
    code = """
    import resource, sys
    from pqvault.logs import InferenceLog
    log = InferenceLog(sys.argv[1], recipients=[sys.argv[2]], flush_size=1_000_000)
    text = "x" * 10_000
    for n in range(1000): log.log({"prompt": text})
    log.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for n in range(10_000): log.log({"prompt": text})
    log.flush()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, flush=True)
    import os; os._exit(0)
    """
    assert int(run(code, archive)) < 20_000  # kB


@pytest.mark.slow
def test_a_string_of_100_mb_goes_all_the_way(archive: Path) -> None:
    with make(archive) as log:
        log.log({"prompt": "x" * 100_000_000, "request_id": "big"})
        log.log({"request_id": "small"})
    table = tables.read_table(archive, "inference", identities=[OPS])
    assert len(table["input_messages"][0].as_py()) == 100_000_002
    assert ids(archive) == ["big", "small"]


def test_a_schema_of_ones_own(archive: Path) -> None:
    schema = pa.schema([("score", pa.float64()), ("note", pa.string())])
    with make(archive, schema=schema, name="scores") as log:
        log.log({"score": 1, "note": "a", "more": 2})
    table = tables.read_table(archive, "scores", identities=[OPS])
    assert table.select(["score", "note", "extra"]).to_pylist() == [
        {"score": 1.0, "note": "a", "extra": '{"more":2}'}
    ]


def test_environment_variables_make_a_log(
    archive: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from pqvault.logs import environment

    monkeypatch.setattr(environment, "_log", None)
    with pytest.raises(UsageError, match="PQVAULT_LOG_ARCHIVE"):
        environment.log_from_environment()
    (tmp_path / "ops.pub").write_text(OPS.recipient.text)
    monkeypatch.setenv("PQVAULT_LOG_ARCHIVE", str(archive))
    monkeypatch.setenv("PQVAULT_LOG_RECIPIENTS", f"@{tmp_path / 'ops.pub'}")
    monkeypatch.setenv("PQVAULT_LOG_CONTENT_RECIPIENTS", PRIVACY.recipient.text)
    monkeypatch.setenv("PQVAULT_LOG_FSYNC", "flush")
    log = environment.log_from_environment()
    assert log is environment.log_from_environment() and log.settings.fsync == "flush"
    log.log({"request_id": "0"})
    log.close()
    assert ids(archive) == ["0"]
    assert os.environ["PQVAULT_LOG_FSYNC"] == "flush"
