"""Retention, key destruction, and the commands `pqvault log …`, docs/logs.md's among them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import steps_kit
from test_cli import shell  # noqa: F401  (a fixture)

import pqvault
from pqvault.crypto.passphrase import Cost
from pqvault.errors import IntegrityError
from pqvault.keystore import Keystore, State
from pqvault.keystore.lifecycle import new_key, rotate
from pqvault.logs import InferenceLog, LogView, expire, recover

KEY = pqvault.Identity.generate()
DAY = 86400.0
PAGE = (Path(__file__).parent.parent / "docs" / "logs.md").read_text()


def part(archive: Path, first: int = 0, *, recipients: Any = None, **options: Any) -> str:
    """One committed part of five rows; its id."""
    with InferenceLog(archive, recipients=recipients or [KEY.recipient], **options) as log:
        for number in range(first, first + 5):
            log.log({"request_id": str(number)})
    return log.stats.parts[0]


def ids(archive: Path, *keys: pqvault.Identity) -> list[str]:
    with LogView(archive, keys or [KEY]) as view:
        found = [i for table in view.rows() for i in table["request_id"].to_pylist()]
        assert view.problems == []
    return found


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "l.pqv"


def at(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    """Go to a time so many days from now."""
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + days * DAY)


# -- expire --------------------------------------------------------------------------------


def test_what_is_older_goes_and_nothing_else(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = part(archive)
    with monkeypatch.context() as patch:
        at(patch, 60)
        young = part(archive, 5)
        at(patch, 40)  # 100 days after the first
        report = expire(archive, 90 * DAY, dry_run=True)
        assert report.expired == [old] and ids(archive) == [str(n) for n in range(10)]
        report = expire(archive, 90 * DAY)
        assert report.expired == [old] and report.problems == [] and report.size > 0
        assert expire(archive, 90 * DAY).expired == []
    assert ids(archive) == [str(n) for n in range(5, 10)]
    left = {str(p.relative_to(archive)) for p in archive.rglob("*") if old in str(p)}
    assert left == {f"removed/{old}"}  # the next part names it as its parent
    assert (archive / "commits" / young).exists()
    assert pqvault.verify(archive, identities=[KEY]).problems == []


def test_envelopes_go_first(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before any call that changes something: what was begun is unreadable from the first
    envelope on, and the next run ends it."""
    other = pqvault.Identity.generate()
    old = part(archive, groups={"content": [other.recipient]})
    saved = {p: p.read_bytes() for p in archive.rglob("*") if p.is_file()}

    class Stop(BaseException):
        pass

    class Os:
        def __init__(self, calls: int) -> None:
            self.left = calls
            self.said: list[str] = []

        def __getattr__(self, name: str) -> Any:
            real = getattr(os, name)
            if name not in ("unlink", "write", "rename", "link", "rmdir"):
                return real

            def call(*args: Any, **options: Any) -> Any:
                if not self.left:
                    raise Stop
                self.left -= 1
                self.said.append(f"{name} {args[0]}")
                return real(*args, **options)

            return call

    calls, modules = 0, steps_kit.storage_modules()
    while True:
        shutil.rmtree(archive)
        for path, data in saved.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        shim = Os(calls)
        with monkeypatch.context() as patch:
            for module in modules:
                patch.setattr(module, "os", shim)
            at(patch, 1)
            try:
                expire(archive, 0.0)
                break
            except Stop:
                pass
        names = [said.partition(" ")[2] for said in shim.said if said.startswith("unlink")]
        assert all(name.startswith(old) for name in names[:2])  # its envelopes
        if len(names) >= 2:
            with suppress(IntegrityError), pqvault.open(archive, identities=[KEY]) as opened:
                assert opened.parts == []
        with monkeypatch.context() as patch:
            at(patch, 1)
            assert expire(archive, 0.0).problems == []
        assert list(archive.glob("parts/*")) == list(archive.glob("envelopes/*")) == []
        calls += 1
    assert calls > 6


def test_corpora_in_the_same_archive_stay(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("text")
    pqvault.seal(tmp_path / "file", archive, recipients=[KEY.recipient])
    old = part(archive)
    at(monkeypatch, 2)
    report = expire(archive, DAY)
    assert report.expired == [old] and len(report.kept) == 1
    with pqvault.open(archive, identities=[KEY]) as opened:
        assert opened.open_file("file").read() == b"text"


def test_what_was_removed_does_not_come_back(archive: Path, tmp_path: Path) -> None:
    """A part of removals and links alone has no file but its catalog; it is no log's."""
    src = tmp_path / "src"
    src.mkdir()
    for name in ("a", "b"):
        (src / name).write_text(name)
    keys = {"recipients": [KEY.recipient], "identities": [KEY]}
    pqvault.seal(src, archive, **keys)  # type: ignore[arg-type]
    (src / "b").unlink()
    (src / "link").symlink_to("a")
    pqvault.seal(src, archive, delete=True, yes=True, **keys)  # type: ignore[arg-type]
    report = expire(archive, -1.0)
    assert report.expired == [] and len(report.kept) == 2
    with pqvault.open(archive, identities=[KEY]) as opened:
        assert [entry.path for entry in opened.entries()] == [b"src", b"src/a", b"src/link"]


def test_parts_that_gave_way_to_others_are_for_gc(archive: Path) -> None:
    """Who reads them now has 7 days to end; and nothing is removed that no report names."""
    old = part(archive)
    pqvault.reencrypt(archive, identities=[KEY])
    (archive / "removed" / ("ab" * 16)).mkdir()  # counts too, whatever it is
    before = {p for p in archive.rglob("*") if old in str(p)}
    assert expire(archive, 90 * DAY).problems == []
    assert {p for p in archive.rglob("*") if old in str(p)} == before
    assert archive / "parts" / old / "catalog" in before


def test_open_parts_expire_too_but_not_live_ones(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
import os, sys
from pqvault.logs import InferenceLog
log = InferenceLog(sys.argv[1], recipients=[sys.argv[2]], fsync="flush")
log.log({"request_id": "orphan"}); log.flush(); os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code, archive, KEY.recipient.text], check=True)
    with InferenceLog(archive, recipients=[KEY.recipient]) as log:
        log.log({"request_id": "live"})
        log.flush()
        with monkeypatch.context() as patch:
            at(patch, 10)
            report = expire(archive, 5 * DAY)
        assert len(report.expired) == 1 and len(report.live) == 1
    assert ids(archive) == ["live"]


def test_a_date_in_the_future_is_said(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that jumped: such a part does not expire early, nor without a word late."""
    with monkeypatch.context() as patch:
        at(patch, 1000)
        strange = part(archive)
    at(monkeypatch, 5)
    report = expire(archive, DAY)
    assert report.ahead == [strange] and report.expired == []


def test_keys_of_a_month_go_with_it(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """attack 36: a copy of the archive, envelopes and all, is closed for ever; other months are
    not."""
    path = tmp_path / "keystore.sqlite"
    copy = tmp_path / "copy.pqv"
    with Keystore.create(b"words", path=path, cost=Cost(64, 1, 1)) as store:
        new_key(store, "logs", state=State.ACTIVE)
        old = rotate(store, "logs", period="2026-01")
        part(archive, recipients=[store.store.recipient("logs@2026-01")])
        new = rotate(store, "logs", period="2026-03")
        part(archive, 5, recipients=[store.store.recipient("logs@2026-03")])
        subprocess.run(["cp", "-r", archive, copy], check=True)
        (first, _) = [p.id for p in _ordered(archive)]
        _date(monkeypatch, archive, first)
        report = expire(archive, 90 * DAY, keystore=store)
        assert report.expired == [first] and report.destroyed == [old.address]
        assert report.problems == []
        states = {f.address: f.state for f in store.store.list()}
        assert states[old.address] == State.DESTROYED != states[new.address]
        from pqvault.keystore.identities import identities_of

        keys = identities_of(store, print)
        assert ids(archive, *keys) == [str(n) for n in range(5, 10)]
        with pqvault.open(copy, identities=keys, strict=False) as opened:
            assert len(opened.parts) == 1 and "destroyed" in str(opened.problems[0])


def test_keys_of_a_month_stay_while_they_open_anything(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """attack 36: a younger part is sealed to the same one; those of other logs are not ours."""
    with Keystore.create(b"words", path=tmp_path / "k.sqlite", cost=Cost(64, 1, 1)) as store:
        for name in ("logs", "others"):
            new_key(store, name, state=State.ACTIVE)
            rotate(store, name, period="2026-01")
            rotate(store, name)
        to = [store.store.public_key(store.store.key_ids("logs@2026-01")[0])]
        first = part(archive, recipients=to)
        part(archive, 5, recipients=to)
        with monkeypatch.context() as patch:
            _date(patch, archive, first)
            report = expire(archive, 90 * DAY, keystore=store)
        assert (report.expired, report.destroyed, report.problems) == ([first], [], [])

        def states() -> dict[str, str]:
            return {f.address: f.state for f in store.store.list()}

        before = states()
        assert set(before.values()) == {State.ACTIVE, State.DEACTIVATED}
        at(monkeypatch, 100)
        planned = expire(archive, 90 * DAY, keystore=store, dry_run=True)
        assert planned.destroyed == ["logs@2"] and states() == before
        assert len(_ordered(archive)) == 1
        report = expire(archive, 90 * DAY, keystore=store)
        assert (report.destroyed, report.problems) == (["logs@2"], [])
        assert states() == {**before, "logs@2": State.DESTROYED}


def _ordered(archive: Path) -> list[Any]:
    from pqvault.archive.publicstate import PublicState
    from pqvault.storage import LocalStorage

    return PublicState(LocalStorage(archive)).ordered()


def _date(monkeypatch: pytest.MonkeyPatch, archive: Path, part_id: str) -> None:
    """Make `expire` believe that one part is from January 2026, and today is as it is."""
    from pqvault.logs import expire as module

    real = sys.modules["pqvault.logs.expire"]._Run.committed

    def committed(run: Any, public: Any) -> None:
        run.before = time.time() + 1 if public == part_id else time.time() - 90 * DAY
        real(run, public)
        run.before = time.time() - 90 * DAY

    assert module is expire
    monkeypatch.setattr(sys.modules["pqvault.logs.expire"]._Run, "committed", committed)


# -- the commands --------------------------------------------------------------------------


def run(env: dict[str, str], folder: Path, command: str, code: int = 0, text: str = "") -> Any:
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=env, input=text, capture_output=True, text=True
    )
    assert done.returncode == code, (command, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    KEY.save_file(folder / "ops.txt")
    (folder / "ops.pub").write_text(KEY.recipient.text + "\n")
    return folder


def test_every_command_of_the_page_runs(tmp_path: Path, shell: dict[str, str]) -> None:  # noqa: F811
    """docs/logs.md, from top to bottom, in one folder; and its Python."""
    folder = tmp_path / "page"
    folder.mkdir()
    words = folder / "words"
    words.write_text("correct horse")
    env = {**shell, "PQVAULT_PASSPHRASE_FILE": str(words)}
    run(env, folder, "pqvault init -q")
    blocks = re.findall(r"```(sh|python)\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) >= 5
    for kind, block in blocks:
        if kind == "python":
            subprocess.run([sys.executable, "-c", block], cwd=folder, env=env, check=True)
        else:
            run(env, folder, f"set -e\n{block}")
    assert ids(folder / "serving.pqv", *pqvault.Identity.load_file(folder / "ops.txt"))


def test_pipe_keeps_bad_lines_and_counts_them(work: Path, shell: dict[str, str]) -> None:  # noqa: F811
    lines = '{"request_id": "0"}\nnot json\n\n[1]\n{"request_id": "1"}\n{"cut'
    done = run(shell, work, "pqvault log pipe l.pqv -r @ops.pub --tee --json", 3, lines)
    *tee, report = done.stdout.splitlines()
    assert tee == lines.splitlines()
    assert json.loads(report)["logged"] == 5 and json.loads(report)["bad_lines"] == 3
    with LogView(work / "l.pqv", [KEY]) as view:
        found = [row for table in view.rows() for row in table.to_pylist()]
    kept = [json.loads(row["extra"])["line"] for row in found if row["event"]]
    assert kept == ["not json", "[1]", '{"cut'] and len(found) == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_pipe_ends_whole_when_it_is_told_to(
    work: Path,
    shell: dict[str, str],  # noqa: F811
    number: signal.Signals,
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "pqvault_cli", "log", "pipe", "l.pqv", "-r", "@ops.pub", "--json"],
        cwd=work,
        env=shell,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    for count in range(100):
        process.stdin.write(b'{"request_id": "%d"}\n' % count)
    process.stdin.flush()
    deadline = time.monotonic() + 20
    while not list(work.glob("l.pqv/parts/*/wal")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    assert process.stdout is not None
    for _ in range(2):  # as `timeout` does
        process.send_signal(number)
        time.sleep(0.01)
    report = json.loads(process.stdout.readline())
    process.communicate()
    assert process.wait(timeout=20) == 0 and report["logged"] == 100
    assert ids(work / "l.pqv") == [str(n) for n in range(100)]


@pytest.mark.parametrize("out", ["| head -n 1", "> /dev/full"])
def test_a_pipe_goes_on_when_nobody_reads_what_it_shows(
    work: Path,
    shell: dict[str, str],  # noqa: F811
    out: str,
) -> None:
    lines = "".join(f'{{"request_id": "{n}"}}\n' for n in range(20_000))
    said = run(shell, work, f"pqvault log pipe l.pqv -r @ops.pub --tee {out}", 0, lines)
    assert "standard output took no more lines" in said.stderr
    assert ids(work / "l.pqv") == [str(n) for n in range(20_000)]


def test_recover_says_what_it_found(work: Path, shell: dict[str, str]) -> None:  # noqa: F811
    code = (
        "import os, sys\nfrom pqvault.logs import InferenceLog\n"
        "log = InferenceLog('l.pqv', recipients=['@ops.pub'], fsync='flush')\n"
        "for n in range(9):\n    log.log({'request_id': str(n)}); log.flush()\n"
        "os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=work, env=shell, check=False)
    (wal,) = work.glob("l.pqv/parts/*/wal")
    with wal.open("ab") as file:
        file.write(bytes(7))
    listed = run(shell, work, "pqvault log ls l.pqv -i ops.txt").stdout
    assert "open or cut" in listed and "torn tail of 7 bytes" in listed
    tail = run(shell, work, "pqvault log tail -n 2 l.pqv -i ops.txt").stdout
    assert [json.loads(line)["request_id"] for line in tail.splitlines()] == ["7", "8"]
    assert run(shell, work, "pqvault log cat l.pqv -i ops.txt").stdout == ""
    pqvault.Identity.generate().save_file(work / "other.txt")
    run(shell, work, "pqvault log recover l.pqv -i other.txt", 12)
    said = run(shell, work, "pqvault log recover l.pqv -i ops.txt").stdout
    assert "9 rows, open or cut, torn tail of 7 bytes" in said and "1 part recovered" in said
    rows = run(shell, work, "pqvault log cat l.pqv -i ops.txt --columns request_id").stdout
    assert [json.loads(line) for line in rows.splitlines()] == [
        {"request_id": str(n)} for n in range(9)
    ]
    run(shell, work, "pqvault log cat l.pqv -i ops.txt --columns nothing", 10)
    for command in ("ls", "cat", "tail"):
        done = run(shell, work, f"pqvault log {command} l.pqv -i ops.txt --name typo")
        assert done.stdout == "" and "l.pqv holds nothing of a log 'typo'" in done.stderr
        assert run(shell, work, f"pqvault log {command} l.pqv -i ops.txt").stderr == ""
    run(shell, work, "pqvault log cat nowhere.pqv -i ops.txt", 10)


@pytest.mark.slow
def test_the_serving_example(tmp_path: Path) -> None:
    """examples/serving.py: under load, killed, recovered, asked, expired."""
    example = Path(__file__).parent.parent / "examples" / "serving.py"
    done = subprocess.run(
        [sys.executable, example, "--seconds", "0.6", "--folder", tmp_path / "s"],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "then kill -9" in done.stdout and "1 part recovered" in done.stdout
    assert "expired 2 parts" in done.stdout


def test_recovery_twice_is_recovery_once(archive: Path) -> None:
    part(archive)
    assert recover(archive, [KEY]).rows == 0
