"""The engine of worker processes: what threads do, in processes that get no more than they need."""

from __future__ import annotations

import dataclasses
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from conftest import make_tree, snapshot

import pqvault
from pqvault.archive import processes, survey, tasks, unseal
from pqvault.archive.extract import Extractor
from pqvault.archive.globs import Globs
from pqvault.archive.processes import LARGE, Processes, processes_for
from pqvault.archive.survey import Survey, survey_of
from pqvault.errors import IntegrityError, NotFound, PQVaultError
from pqvault.format.entries import Entry, Extent, Kind
from pqvault.storage import storage_at

pytestmark = pytest.mark.usefixtures("home")

KEY, NEW = pqvault.Identity.generate(), pqvault.Identity.generate()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Small files, a large one, and one of noise."""
    files = {f"{number:03}.txt": b"line %d\n" % number * number for number in range(200)}
    files |= {"large": b"0123456789abcdef" * 300_000, "noise": os.urandom(3_000_000)}
    return make_tree(tmp_path / "data", files)


@pytest.fixture
def archive(corpus: Path, tmp_path: Path) -> Path:
    path = tmp_path / "a.pqv"
    pqvault.seal(corpus, path, recipients=[KEY.recipient])
    return path


def all_children() -> set[int]:
    """Processes that this one started and that are not ended and waited for."""
    found: set[int] = set()
    for task in Path(f"/proc/{os.getpid()}/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has just ended
            found.update(map(int, (task / "children").read_text().split()))
    return found


_others: set[int] = set()


@pytest.fixture(autouse=True)
def others() -> None:
    """What other tests of this process have left running: multiprocessing's own, mostly."""
    _others.clear()
    _others.update(all_children())


def children() -> set[int]:
    """The processes that this test has begun and not ended."""
    return all_children() - _others


def content(archive: Path, key: pqvault.Identity) -> dict[str, bytes]:
    with pqvault.open(archive, identities=[key]) as opened:
        return {
            os.fsdecode(entry.path): opened.open_file(entry.path).read()
            for entry in opened.entries()
            if entry.kind.letter == "f"
        }


def told(report: pqvault.VerifyReport) -> tuple[Any, ...]:
    problems = sorted((type(e).__name__, e.message, e.hint) for e in report.problems)
    return (report.level, report.objects, report.entries, report.size, problems)


def test_what_they_seal_and_verify_is_what_threads_do(corpus: Path, tmp_path: Path) -> None:
    """Equal listings; the same report of a whole archive and of a damaged one."""
    path = tmp_path / "b.pqv"
    with Processes(2) as engine:
        report = pqvault.seal(corpus, path, recipients=[KEY.recipient], engine=engine)
        assert report.files == 202 and len(children()) in (1, 2)
        sealed = content(path, KEY)
        assert {name.removeprefix("data/"): data for name, data in sealed.items()} == {
            file.name: file.read_bytes() for file in corpus.iterdir()
        }
        assert pqvault.seal(corpus, path, recipients=[KEY.recipient], engine=engine).parts == []
        for harm in (lambda _: None, _flip, os.unlink):
            harm(next(iter(sorted(path.glob("parts/*/objects/*")))))
            for keys in ([KEY], []):
                found = pqvault.verify(path, identities=keys, engine=engine)
                assert told(found) == told(pqvault.verify(path, identities=keys))
        assert found.problems
    assert children() == set()


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_large_work_alone_starts_them(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They cost a tenth of a second: small work, one job and a store elsewhere go without."""
    storage = storage_at(str(archive))
    for size, jobs in ((LARGE - 1, 4), (LARGE, 1)):
        with processes_for(storage, size, jobs) as engine:
            assert engine is None
    with processes_for(storage_at("memory://a"), LARGE, 4) as engine:
        assert engine is None
    with processes_for(storage, LARGE, 4) as engine:
        assert isinstance(engine, Processes)
    monkeypatch.setattr(processes, "_Worker", None)  # nothing starts one
    pqvault.reencrypt(archive, identities=[KEY], to=NEW.recipient)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes for work of any size."""
    monkeypatch.setattr(processes, "LARGE", 0)


def test_reencryption_on_them(archive: Path, always: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same content under the new key; attack 40: what they are sent holds the keys of the
    objects at hand, and no root key or seed."""
    sent: list[bytes] = []
    send = Connection.send

    def listening(self: Connection, message: object) -> None:
        sent.append(pickle.dumps(message))
        send(self, message)

    monkeypatch.setattr(Connection, "send", listening)
    before = content(archive, KEY)
    secrets = _root_keys(archive, KEY)
    pqvault.reencrypt(archive, identities=[KEY], to=NEW.recipient)
    assert content(archive, NEW) == before
    assert len(sent) == 2  # an object and the catalog
    secrets += [*_root_keys(archive, NEW), KEY.seed, NEW.seed]
    assert not any(secret in message for message in sent for secret in secrets)
    assert children() == set()


def _root_keys(archive: Path, key: pqvault.Identity) -> list[bytes]:
    with pqvault.open(archive, identities=[key]) as opened:
        return [part.key.secret for part in opened.parts]


def test_damage_is_an_error_that_names_it(archive: Path, always: None) -> None:
    """What a worker finds is raised here, and nothing takes the part's place."""
    damaged = max(archive.glob("parts/*/objects/*"), key=lambda path: path.stat().st_size)
    _flip(damaged)
    with pytest.raises(IntegrityError, match=damaged.name):
        pqvault.reencrypt(archive, identities=[KEY], to=NEW.recipient)
    assert len(list((archive / "commits").iterdir())) == 1
    assert children() == set()


def test_a_worker_that_is_killed_is_an_error(
    archive: Path, always: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named; the archive is what it was, and the next run does it."""
    before = content(archive, KEY)
    send = Connection.send

    def killing(self: Connection, message: object) -> None:
        send(self, message)
        for pid in children():
            os.kill(pid, signal.SIGKILL)

    with monkeypatch.context() as patch, pytest.raises(PQVaultError, match="ended in the middle"):
        patch.setattr(Connection, "send", killing)
        pqvault.reencrypt(archive, identities=[KEY], to=NEW.recipient)
    assert children() == set()
    assert content(archive, KEY) == before and len(list((archive / "commits").iterdir())) == 1
    pqvault.reencrypt(archive, identities=[KEY], to=NEW.recipient)
    assert content(archive, NEW) == before


def test_what_ends_the_work_here_ends_it_there(corpus: Path, tmp_path: Path) -> None:
    """An error of the caller's: the worker removes what it began and is there for the next."""

    class Enough(Exception):
        pass

    def enough(report: object) -> None:
        raise Enough

    path = tmp_path / "b.pqv"
    with Processes(1) as engine:
        with pytest.raises(Enough):
            pqvault.seal(
                corpus, path, recipients=[KEY.recipient], engine=engine, progress=enough, jobs=1
            )
        assert [file for file in path.rglob("parts/*/objects/*") if file.is_file()] == []
        pqvault.seal(corpus, path, recipients=[KEY.recipient], engine=engine, jobs=1)
    assert len(content(path, KEY)) == 202


def test_the_working_folder_is_not_imported_from(
    archive: Path, tmp_path: Path, always: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """attack 45: a module that lies where the tool is called is data."""
    for name in ("zstandard", "blake3", "pickle"):
        (tmp_path / f"{name}.py").write_text("open('imported', 'w')\nraise SystemExit(7)\n")
    monkeypatch.chdir(tmp_path)
    pqvault.reencrypt(archive, identities=[KEY], to=NEW.recipient)
    assert not (tmp_path / "imported").exists()


_CALL = """
import pqvault, sys
from pqvault.archive import processes, survey, tasks, unseal
from pathlib import Path
processes.LARGE = 0
key = pqvault.Identity.load_file("key")
def slow(report):
    Path("begun").touch()
    {then}
pqvault.reencrypt("a.pqv", identities=key, progress=slow)
"""


@pytest.mark.parametrize(
    ("then", "number"),
    [("import time; time.sleep(60)", signal.SIGKILL), ("pass", signal.SIGKILL)],
    ids=["waiting", "working"],
)
def test_they_end_with_who_started_them(
    archive: Path, tmp_path: Path, then: str, number: signal.Signals
) -> None:
    """attack 14: no worker outlives a process that is killed; everything opens."""
    KEY.save_file(tmp_path / "key")
    before = content(archive, KEY)
    process = subprocess.Popen(
        [sys.executable, "-c", _CALL.format(then=then)], cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    _wait(lambda: (tmp_path / "begun").exists() or process.poll() is not None)
    started = _below(process.pid)
    process.send_signal(number)
    process.wait()
    _wait(lambda: not any(_runs(pid) for pid in started))
    assert content(archive, KEY) == before


def _runs(pid: int) -> bool:
    try:
        return "pqvault.archive.worker" in Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def _wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not until():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)


def test_unseal_on_them_is_what_threads_do(
    varied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content, modes, times, links, holes; on processes for all files, and beside threads for one
    that is larger than a share."""
    path = tmp_path / "v.pqv"
    pqvault.seal(varied, path, recipients=[KEY.recipient])
    monkeypatch.setattr(processes, "LARGE", 0)
    monkeypatch.setattr(tasks, "TASK_SIZE", 10_000)
    monkeypatch.setattr(unseal, "_FAR", 2)
    reports = []
    with pqvault.open(path, identities=[KEY]) as opened, Processes(2) as engine:
        reports.append(opened.unseal(tmp_path / "alone", engine=engine, jobs=2))
        started = len(children())
        reports.append(opened.unseal(tmp_path / "beside", jobs=2))
        reports.append(opened.unseal(tmp_path / "threads", jobs=1))
    assert started == 2 and children() == set()
    for report in reports:
        report.target = ""
    assert reports[0] == reports[1] == reports[2] and not reports[0].failed
    for name in ("alone", "beside", "threads"):
        assert snapshot(tmp_path / name / "corpus") == snapshot(varied)


def test_a_file_larger_than_a_share_stays_here(
    tmp_path: Path, always: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker would be at it alone, where threads here read it side by side."""
    tree = {"large": os.urandom(3_000_000), **{f"{n}": os.urandom(400_000) for n in range(6)}}
    source = make_tree(tmp_path / "data", tree)
    pqvault.seal(source, tmp_path / "a.pqv", recipients=[KEY.recipient])
    sent: list[bytes] = []
    extract = Processes.extract

    def listening(self: Processes, part: Any, entries: Sequence[Any], *more: Any) -> Any:
        sent.extend(entry.path for entry in entries)
        return extract(self, part, entries, *more)

    monkeypatch.setattr(Processes, "extract", listening)
    with pqvault.open(tmp_path / "a.pqv", identities=[KEY]) as archive:
        report = archive.unseal(tmp_path / "out", jobs=2)
    assert snapshot(tmp_path / "out" / "data") == snapshot(source) and not report.failed
    assert sorted(sent) == [b"data/%d" % n for n in range(6)]


def test_a_large_file_ends_what_a_worker_is_given_at_once() -> None:
    """Small files two tasks at a time; two large ones would keep one worker while another waits."""
    mib = 1024 * 1024
    sizes = [mib] * 40 + [60 * mib, 50 * mib] + [mib] * 3
    located: list[Any] = [(None, Entry(b"%d" % n, Kind.FILE, s)) for n, s in enumerate(sizes)]
    given = list(unseal._together(tasks.content_tasks(iter(located))))
    assert [one for some in given for one in some] == located
    counts = [[entry.size // mib for _, entry in some] for some in given]
    assert counts == [[1] * 16, [1] * 16, [1] * 8 + [60], [50], [1] * 3]


def test_no_process_starts_for_what_threads_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file that is read by threads here, and little else."""
    monkeypatch.setattr(processes, "LARGE", 1_000_000)
    started: list[int] = []
    monkeypatch.setattr(processes, "_Worker", lambda: started.append(1) or pytest.fail("started"))
    tree = {"large": os.urandom(3_000_000), "small": os.urandom(400_000)}
    source = make_tree(tmp_path / "data", tree)
    pqvault.seal(source, tmp_path / "a.pqv", recipients=[KEY.recipient])
    with pqvault.open(tmp_path / "a.pqv", identities=[KEY]) as archive:
        report = archive.unseal(tmp_path / "out", jobs=2)
    assert snapshot(tmp_path / "out" / "data") == snapshot(source) and not report.failed
    assert started == []


def test_they_begin_while_long_catalogs_are_read(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are there before the survey; one that fails leaves none behind."""
    monkeypatch.setattr(unseal, "_LONG", 1000)
    monkeypatch.setattr(processes, "LARGE", 1000)
    seen: list[int] = []

    def looking(*arguments: Any) -> Survey:
        seen.append(len(children()))
        return survey_of(*arguments)

    monkeypatch.setattr(unseal, "survey_of", looking)
    with pqvault.open(archive, identities=[KEY]) as opened:
        assert opened.unseal(tmp_path / "all", jobs=2).files == 202
        assert opened.unseal(tmp_path / "some", ["data/1*"], jobs=2).files == 100
        assert seen == [2, 0] and children() == set()
        monkeypatch.setattr(unseal, "survey_of", lambda *_: pytest.fail("survey"))
        with pytest.raises(pytest.fail.Exception, match="survey"):
            opened.unseal(tmp_path / "none", jobs=2)
    assert children() == set() and not (tmp_path / "none").exists()


@pytest.mark.parametrize("room", [0, 100_000])
def test_rows_are_kept_or_read_again(
    archive: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """As many as there is room for; what comes out is the same."""
    monkeypatch.setattr(survey, "_KEPT", room)
    with pqvault.open(archive, identities=[KEY]) as opened:
        found = survey_of(opened, Globs([]), b"", 2)
        assert isinstance(found.rows, list) == (room > 0)
        assert sum(len(batch) for batch, _ in found.rows) == 203
        opened.unseal(tmp_path / "out", jobs=2)
    assert snapshot(tmp_path / "out" / "data") == snapshot(corpus)
    assert (found.total, found.known, found.sources) == (
        sum(file.stat().st_size for file in corpus.iterdir()), True, set()
    )  # fmt: skip
    assert found.largest == [4_800_000, 3_000_000]


def test_entries_are_handed_over_whole() -> None:
    """Every field comes back from a pickle, as it was."""
    extents = (Extent(3, 4, 5), Extent(-1, 0, 6))
    entry = Entry(b"\xff/b", Kind.TABLE, 11, 0o4640, -7, b"link", b"digest", extents, b"doc")
    assert pickle.loads(pickle.dumps([entry, entry])) == [entry, entry]  # noqa: S301
    assert len({*dataclasses.astuple(entry)}) == len(dataclasses.fields(entry))  # no two alike


@pytest.fixture
def varied(tmp_path: Path) -> Path:
    """A tree of all kinds of things."""
    tree = {"d": {f"{n:03}": b"%d" % n * 997 for n in range(60)}, "empty": b"", "folder": {}}
    folder = make_tree(tmp_path / "corpus", {**tree, "link": "d/000", "noise": os.urandom(70_000)})
    os.link(folder / "d/007", folder / "again")
    os.link(folder / "noise", folder / "d/zz")
    with open(folder / "sparse", "wb") as file:
        file.truncate(2_000_000)
    (folder / "d/001").chmod(0o400)
    (folder / "d").chmod(0o500)
    os.utime(folder / "d/002", ns=(1, 1))
    return folder


@pytest.mark.parametrize("damaged", [False, True])
def test_what_fails_is_told_as_threads_tell_it(
    archive: Path, tmp_path: Path, damaged: bool
) -> None:
    """A folder in the place of a file, and damage: named, and the rest goes on."""
    if damaged:
        _flip(max(archive.glob("parts/*/objects/*"), key=lambda path: path.stat().st_size))
    told = []
    with Processes(2) as engine:
        for name, chosen in (("a", engine), ("b", None)):
            make_tree(tmp_path / name / "data", {"001.txt": {}, "002.txt": b"mine"})
            with pqvault.open(archive, identities=[KEY]) as opened:
                told.append(opened.unseal(tmp_path / name, force=True, engine=chosen, jobs=2))
    failed = [sorted((type(e).__name__, e.message) for e in report.failed) for report in told]
    assert failed[0] == failed[1] and len(failed[0]) == (2 if damaged else 1)
    assert told[0].files == told[1].files == (200 if damaged else 201)
    assert snapshot(tmp_path / "a", folder_times=False) == snapshot(
        tmp_path / "b", folder_times=False
    )


def test_a_worker_that_is_killed_at_extraction_is_named(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are not all there, and the report names each that is not."""
    send = Connection.send

    def killing(self: Connection, message: object) -> None:
        send(self, message)
        for pid in children():
            os.kill(pid, signal.SIGKILL)

    with pqvault.open(archive, identities=[KEY]) as opened, Processes(1) as engine:
        monkeypatch.setattr(Connection, "send", killing)
        report = opened.unseal(tmp_path / "out", engine=engine, jobs=1)
        wanted = {os.fsdecode(e.path) for e in opened.entries() if e.kind == Kind.FILE}
    assert report.failed and all("ended in the middle" in e.message for e in report.failed)
    there = {path for path in wanted if (tmp_path / "out" / path).exists()}
    assert wanted - there <= {error.message.split(": ")[0] for error in report.failed}


def test_a_place_is_the_target_and_no_other(tmp_path: Path) -> None:
    """attack 27: a worker writes below the very folder that was opened, through no link."""
    target, outside = tmp_path / "target", tmp_path / "outside"
    outside.mkdir()
    one = Entry(b"d/f", Kind.FILE, 1, mode=0o600)
    with Extractor(target) as extractor:
        assert extractor.prepare([one, Entry(b"../f", Kind.FILE)], [].append) == [one]
        place = extractor.place()
        with place.writer(lambda _: None) as writer:
            writer.write_small(one, b"1")
        (target / "d/f").unlink()
        (target / "d").rename(tmp_path / "away")
        (target / "d").symlink_to(outside)
        with (
            place.writer(lambda _: None) as writer,
            pytest.raises(PQVaultError, match="symbolic link"),
        ):
            writer.write_small(one, b"1")
        target.rename(tmp_path / "elsewhere")
        with pytest.raises(NotFound, match="a worker cannot extract"), place.writer(print):
            pass
        outside.rename(target)
        with pytest.raises(NotFound, match="another folder"), place.writer(print):
            pass
        assert list(target.iterdir()) == []


def test_who_takes_over_removes_what_the_first_one_left(tmp_path: Path) -> None:
    """A temporary file of a worker that was killed; those of others stay."""
    target = tmp_path / "target"
    one = Entry(b"d/f", Kind.FILE, 1, mode=0o600)
    with Extractor(target) as extractor:
        extractor.prepare([one], [].append)
        place = extractor.place()
        with place.writer(lambda _: None) as writer:
            writer.write_small(one, b"0")
            left, other = writer.temp_name(), extractor.files.temp_name()
        for folder in (target, target / "d"):
            (folder / left).touch()
            (folder / other).touch()
        with place.again().writer(lambda _: None) as writer:
            writer.write_small(one, b"1")
        assert (target / "d/f").read_bytes() == b"1"
        assert {p.name for p in target.iterdir()} == {"d", other}
        assert {p.name for p in (target / "d").iterdir()} == {"f", other}


_TOOL = """
import sys
from pqvault.archive import processes, tasks
processes.LARGE = 0
tasks.TASK_SIZE = 1_000_000
from pqvault_cli.main import main
main(sys.argv[1:])
"""


def test_who_comes_too_late_is_told(archive: Path) -> None:
    """attack 14: a thread that Ctrl-C kept its pool from knowing does not wait for ever."""
    engine = Processes(1)
    with pqvault.open(archive, identities=[KEY]) as opened:
        part, entry = next(item for item in opened.located() if item[1].kind == Kind.FILE)
        with ThreadPoolExecutor(1) as pool, engine._worker():
            waiting = pool.submit(engine.check_contents, part, [entry], set(), lambda _: None)
            engine.close()
        assert isinstance(waiting.exception(timeout=10), PQVaultError)
        with pytest.raises(PQVaultError, match="stopped"):
            engine.check_contents(part, [entry], set(), lambda _: None)
    engine.close()
    assert children() == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_unseal_on_them_that_ends_early(
    tmp_path: Path, number: signal.Signals, home: Path
) -> None:
    """attack 14: Ctrl-C and a kill: files are whole or not there, no worker stays or says anything,
    and --force ends it."""
    KEY.save_file(tmp_path / "key")
    source = make_tree(tmp_path / "data", {f"{n:02}": os.urandom(3_000_000) for n in range(12)})
    pqvault.seal(source, tmp_path / "a.pqv", recipients=[KEY.recipient])
    command = [sys.executable, "-c", _TOOL, "unseal", "a.pqv", "-i", "key", "-o", "out", "--jobs=2"]
    codes = set()
    for turn in range(6):
        process = subprocess.Popen(
            [*command, "--force"], cwd=tmp_path, stderr=subprocess.PIPE, start_new_session=True
        )
        _wait(lambda process=process: _below(process.pid) or process.poll() is not None)
        workers = _below(process.pid)
        time.sleep(0.04 * turn)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.kill()
        _, words = process.communicate(timeout=30)
        codes.add(process.returncode)
        _wait(lambda workers=workers: not any(_runs(pid) for pid in workers))
        for file in (tmp_path / "out").rglob("*"):
            if file.is_file() and not file.name.endswith(".tmp"):
                assert file.read_bytes() == (source / file.name).read_bytes()
        if process.returncode == 130:
            assert not list((tmp_path / "out").rglob("*.tmp")), words
            assert b"Traceback" not in words
    # -2: it had said all and was on its way out.
    assert (130 if number == signal.SIGINT else -9) in codes and codes <= {0, 130, -9, -2}
    subprocess.run([*command, "--force"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    assert snapshot(tmp_path / "out/data") == snapshot(source)


def _below(pid: int) -> set[int]:
    """The workers of a process."""
    found = set[int]()
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found.update(map(int, (task / "children").read_text().split()))
    except (FileNotFoundError, ProcessLookupError):
        return found
    return {each for each in found if _runs(each)}
