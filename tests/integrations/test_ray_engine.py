"""`--engine ray`: objects sealed by workers of Ray, on this machine's own cluster."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pqvault
from pqvault.errors import Incomplete, IntegrityError, NoKeyFits, PQVaultError
from pqvault.handover import HandedKey
from pqvault.ids import new_id
from pqvault.rootkey import RootKey

pytest.importorskip("ray")
pytestmark = [
    # Ray's own: sockets and files that it leaves to the collector, warnings about what is to come.
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(300),
]

TOOL = Path(sys.executable).with_name("pqvault")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of this machine's processors."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Files for several objects: one large one, many small ones, a sparse one."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number:03}.txt").write_bytes(b"%d\n" % number * 2000)
    for number in range(4):
        (folder / f"large{number}").write_bytes(os.urandom(20_000_000))
    with open(folder / "sparse", "wb") as file:
        file.truncate(5_000_000)
    return folder


def check(archive: Path, key: pqvault.Identity, corpus: Path, tmp_path: Path) -> None:
    """All of it is there, and nothing else lies about."""
    assert pqvault.verify(archive, identities=[key]).problems == []
    with pqvault.open(archive, identities=[key]) as opened:
        opened.unseal(tmp_path / "out")
        listed = {f"parts/{p.id}/{f.name}" for p in opened.parts for f in p.commit.files}
    found = {str(f.relative_to(archive)) for f in archive.glob("parts/**/*") if f.is_file()}
    assert found == listed
    done = subprocess.run(["diff", "-r", corpus, tmp_path / "out/data"], capture_output=True)
    assert done.returncode == 0, done.stdout


def test_a_seal_on_ray_is_a_seal(cluster: Any, corpus: Path, tmp_path: Path) -> None:
    """What workers sealed reads like what threads sealed; the next run finds nothing to do."""
    from pqvault.integrations.ray import RayEngine

    key = pqvault.Identity.generate()
    archive = tmp_path / "a.pqv"
    with RayEngine() as engine:
        assert engine.jobs == 2
        report = pqvault.seal(
            corpus, archive, recipients=[key.recipient], engine=engine, jobs=engine.jobs
        )
        assert report.files == 305
        again = pqvault.seal(
            corpus, archive, recipients=[key.recipient], engine=engine, jobs=engine.jobs
        )
    assert (again.parts, again.unchanged) == ([], 306)
    check(archive, key, corpus, tmp_path)


@contextmanager
def killed(cluster: Any, times: int) -> Iterator[list[int]]:
    """So many workers are killed while they are at something; their process ids."""
    from pqvault.integrations.ray.engine import RayEngine

    kills = threading.Semaphore(times)
    wait, recipient = RayEngine._wait, RayEngine._recipient
    found: list[int] = []
    pids: dict[Any, int] = {}

    def remembering(self: RayEngine, hand: Any, profile: str) -> Any:
        if hand.actor not in pids:
            pids[hand.actor] = cluster.get(hand.actor.process.remote())
        return recipient(self, hand, profile)

    def killing(self: RayEngine, hand: Any, reference: Any, check: Any) -> Any:
        if pids.get(hand.actor, 0) not in (0, *found) and kills.acquire(blocking=False):
            found.append(pids[hand.actor])
            os.kill(pids[hand.actor], signal.SIGKILL)
        return wait(self, hand, reference, check)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RayEngine, "_recipient", remembering)
        patch.setattr(RayEngine, "_wait", killing)
        yield found
    assert len(found) == times


def test_workers_that_are_killed_change_nothing(cluster: Any, corpus: Path, tmp_path: Path) -> None:
    """Killed in the middle of an object: another worker seals it, under another name."""
    from pqvault.integrations.ray import RayEngine

    key = pqvault.Identity.generate()
    with RayEngine() as engine, killed(cluster, 3):
        pqvault.seal(corpus, tmp_path / "a.pqv", recipients=[key.recipient], engine=engine, jobs=2)
    check(tmp_path / "a.pqv", key, corpus, tmp_path)


def test_workers_that_always_end_are_an_error(
    cluster: Any, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three of them: a sentence, and nothing is left of the part."""
    from pqvault.integrations.ray import RayEngine
    from pqvault.integrations.ray import engine as engine_module

    def lost(self: RayEngine, hand: Any, reference: Any, check: Any) -> Any:
        raise engine_module._WorkerLostError

    monkeypatch.setattr(engine_module.RayEngine, "_wait", lost)
    key = pqvault.Identity.generate()
    with RayEngine() as engine, pytest.raises(PQVaultError, match="3 workers of Ray ended"):
        pqvault.seal(corpus, tmp_path / "a.pqv", recipients=[key.recipient], engine=engine)
    assert not list((tmp_path / "a.pqv/commits").iterdir())


def test_a_workers_error_is_the_runs(cluster: Any, corpus: Path, tmp_path: Path) -> None:
    """A file that cannot be read is named; an object that cannot be written ends the run."""
    from pqvault.integrations.ray import RayEngine

    key = pqvault.Identity.generate()
    (corpus / "000.txt").unlink()
    (corpus / "000.txt").symlink_to("nowhere")
    archive = tmp_path / "a.pqv"
    with RayEngine() as engine:
        pqvault.seal(corpus, archive, recipients=[key.recipient], engine=engine)
        (corpus / "new").write_bytes(b"more")
        (archive / "parts").chmod(0o555)
        if os.geteuid():
            with pytest.raises(PQVaultError, match="permission denied"):
                pqvault.seal(corpus, archive, recipients=[key.recipient], engine=engine)
    (archive / "parts").chmod(0o755)


def told(report: pqvault.VerifyReport) -> tuple[Any, ...]:
    """All that a report says, the problems in an order of their own."""
    problems = sorted((type(e).__name__, e.message, str(e.hint)) for e in report.problems)
    facts = (report.level, report.parts, report.objects, report.entries, report.tables, report.size)
    return (*facts, problems)


def damage(archive: Path) -> None:
    """Flip a bit of one object, cut another, remove a third."""
    flipped, cut, gone = sorted(archive.glob("parts/*/objects/*"))[:3]
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    cut.write_bytes(cut.read_bytes()[:-1])
    gone.unlink()


def test_verify_says_what_threads_say(cluster: Any, corpus: Path, tmp_path: Path) -> None:
    """The same report of a whole archive and of a damaged one, with a key and without; a worker
    that is killed changes nothing."""
    from pqvault.integrations.ray import RayEngine

    key = pqvault.Identity.generate()
    archive = tmp_path / "a.pqv"
    pqvault.seal(corpus, archive, recipients=[key.recipient])
    rows = corpus / "rows.csv"
    rows.write_text("a,b\n1,2\n")
    pqvault.seal(rows, archive, recipients=[key.recipient], tables=True)
    with RayEngine() as engine:
        for identities in ([key], []):
            whole = pqvault.verify(archive, identities=identities, engine=engine, jobs=2)
            assert whole.problems == []
            assert told(whole) == told(pqvault.verify(archive, identities=identities))
        damage(archive)
        hand = engine._idle.get()  # killed while it has nothing to do: met by who takes it next
        if hand is not None:
            os.kill(cluster.get(hand.actor.process.remote()), signal.SIGKILL)
        engine._idle.put(hand)
        for identities in ([key], []):
            found = pqvault.verify(archive, identities=identities, engine=engine, jobs=2)
            assert len(found.problems) >= 3
            assert told(found) == told(pqvault.verify(archive, identities=identities))


def test_unseal_writes_what_threads_write(cluster: Any, corpus: Path, tmp_path: Path) -> None:
    """Files come from workers, folders and links from here; who is killed changes nothing."""
    from pqvault.integrations.ray import RayEngine

    key = pqvault.Identity.generate()
    os.link(corpus / "001.txt", corpus / "again")
    (corpus / "link").symlink_to("002.txt")
    archive = tmp_path / "a.pqv"
    pqvault.seal(corpus, archive, recipients=[key.recipient])
    with RayEngine() as engine, pqvault.open(archive, identities=[key]) as opened:
        with killed(cluster, 2):
            report = opened.unseal(tmp_path / "out", engine=engine, jobs=engine.jobs)
        assert (report.files, report.links, report.failed) == (306, 1, [])
        done = subprocess.run(["diff", "-r", corpus, tmp_path / "out/data"], capture_output=True)
        assert done.returncode == 0, done.stdout
        names = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
        assert names == {path.name for path in corpus.iterdir()}
        assert (tmp_path / "out/data/again").samefile(tmp_path / "out/data/001.txt")
    damage(archive)
    with RayEngine() as engine, pqvault.open(archive, identities=[key], strict=False) as opened:
        found = opened.unseal(tmp_path / "half", engine=engine, jobs=engine.jobs)
    with pqvault.open(archive, identities=[key], strict=False) as opened:
        here = opened.unseal(tmp_path / "here", jobs=1)
    assert (found.files, len(found.failed)) == (here.files, len(here.failed)) and here.failed


@pytest.mark.parametrize("address", ["nonsense", "host:port"])
def test_an_address_that_is_none_is_named(address: str, tmp_path: Path) -> None:
    """With what Ray says of it, and no traceback."""
    command = [TOOL, "verify", "a.pqv", "--engine", "ray", "--ray-address", address]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"pqvault: the cluster at {address} cannot be used: ")
    assert "hint: an address is HOST:PORT" in done.stderr


def test_what_lost_workers_had_half_written_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the files that are not there for it are named."""
    from pqvault.integrations.ray import engine as engine_module

    def half(_: Any, place: Any, __: str) -> None:
        Path(os.fsdecode(place.target), "data", f"{place.prefix}-0.tmp").write_bytes(b"half")

    @contextmanager
    def hand(_: Any) -> Iterator[Any]:
        yield SimpleNamespace(
            there=True, actor=SimpleNamespace(extract=SimpleNamespace(remote=half))
        )

    def lost(*_: Any) -> None:
        raise engine_module._WorkerLostError

    key = pqvault.Identity.generate()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.txt").write_bytes(b"whole")
    pqvault.seal(tmp_path / "data", tmp_path / "a.pqv", recipients=[key.recipient])
    engine = engine_module.RayEngine(1)
    monkeypatch.setattr(engine_module.RayEngine, "_hand", hand)
    monkeypatch.setattr(engine_module.RayEngine, "_recipient", lambda *_: key.recipient)
    monkeypatch.setattr(engine_module.RayEngine, "_wait", lost)
    with pqvault.open(tmp_path / "a.pqv", identities=[key]) as opened:
        report = opened.unseal(tmp_path / "out", engine=engine, jobs=1)
    (error,) = report.failed
    assert "3 workers of Ray ended while they were at data/a.txt of part" in error.message
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["data"]


def test_a_driver_that_waits_for_the_cluster_ends_when_it_is_told_to(
    cluster: Any, corpus: Path, tmp_path: Path
) -> None:
    """At once, and with the exit code of an interruption, whatever Ray would do: all processors
    are taken, so none of its workers begins."""
    from pqvault.integrations.ray.worker import Worker

    busy = [cluster.remote(num_cpus=1)(Worker).remote() for _ in range(2)]
    cluster.get([worker.process.remote() for worker in busy])
    key = pqvault.Identity.generate()
    key.save_file(tmp_path / "key.txt")
    pqvault.seal(corpus, tmp_path / "a.pqv", recipients=[key.recipient])
    command = [TOOL, "unseal", "a.pqv", "-i", "key.txt", "-o", "out", "--engine", "ray"]
    address = cluster.get_runtime_context().gcs_address
    with subprocess.Popen([*command, "--ray-address", address], cwd=tmp_path) as driver:
        while driver.poll() is None and not (tmp_path / "out/data").exists():
            time.sleep(0.01)
        time.sleep(1)  # it is waiting now
        driver.send_signal(signal.SIGTERM)
        assert driver.wait(60) == 130
    for worker in busy:
        cluster.kill(worker)


def test_reencryption_changes_keys_and_nothing_else(
    cluster: Any, corpus: Path, tmp_path: Path
) -> None:
    """A worker that is killed at it changes nothing either; the old key opens nothing."""
    from pqvault.integrations.ray import RayEngine

    old, new = pqvault.Identity.generate(), pqvault.Identity.generate()
    archive = tmp_path / "a.pqv"
    pqvault.seal(corpus, archive, recipients=[old.recipient])
    rows = tmp_path / "rows.csv"
    rows.write_text("a,b\n1,2\n")
    pqvault.seal(rows, archive, recipients=[old.recipient], tables=True)
    with RayEngine() as engine:
        with killed(cluster, 1):
            report = pqvault.reencrypt(
                archive, identities=[old], to=new.recipient, engine=engine, jobs=engine.jobs
            )
        assert report.parts == 2
        pqvault.gc(archive, older_than=0)
        with pytest.raises(NoKeyFits):
            pqvault.open(archive, identities=[old])
        check(archive, new, corpus, tmp_path)
        damage(archive)
        with pytest.raises(Incomplete):
            pqvault.reencrypt(archive, identities=[new], engine=engine, jobs=engine.jobs)


def test_what_is_handed_over_is_sealed() -> None:
    """attack 40: paths, digests and keys of what is to be checked are not in the arguments."""
    from pqvault.archive.checks import entries_in, entries_to_text
    from pqvault.format.catalog import Entry, Extent, Kind
    from pqvault.handover import HandedText

    worker, other = pqvault.Identity.generate(), pqvault.Identity.generate()
    entry = Entry(b"a\xff/b", Kind.FILE, 7, digest=b"d" * 32, extents=(Extent(0, 5, 7),))
    empty = Entry(b"c", Kind.FILE)
    text = entries_to_text([entry, empty])
    assert entries_in(text) == [entry, empty]
    handed = HandedText.to(worker.recipient, text)
    data = pickle.dumps(handed)
    assert entry.path.hex().encode() not in data and b"64" * 8 not in data
    assert handed.open(worker) == text
    assert HandedText.to(worker.recipient, b"").open(worker) == b""
    with pytest.raises(IntegrityError):
        handed.open(other)
    import dataclasses

    for sealed in (handed.sealed[:-1], handed.sealed[:-1] + b"\0"):
        with pytest.raises(IntegrityError):
            dataclasses.replace(handed, sealed=sealed).open(worker)


def test_keys_are_handed_over_sealed() -> None:
    """attack 40: what a task is called with holds no key, and opens for one worker only."""
    worker, other = pqvault.Identity.generate(), pqvault.Identity.generate()
    key = RootKey.generate(new_id(), new_id())
    name = "objects/000000-00000000"
    handed = HandedKey.to(worker.recipient, key, name)
    secret, context = key.object(name)
    assert handed.open(worker) == (secret, context)
    data = pickle.dumps(handed)
    assert secret not in data and key.secret not in data
    with pytest.raises(IntegrityError):
        handed.open(other)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(key)
    import dataclasses

    for change in ({"name": "objects/000001-00000000"}, {"part": new_id()}, {"archive": new_id()}):
        with pytest.raises(IntegrityError):
            dataclasses.replace(handed, **change).open(worker)


def test_the_command_line(cluster: Any, corpus: Path, tmp_path: Path) -> None:
    """`pqvault seal --engine ray`, which connects to a cluster by its address."""
    address = cluster.get_runtime_context().gcs_address
    script = f"""
    {TOOL} keygen -o key.txt > key.pub 2> /dev/null
    {TOOL} seal data -r @key.pub --engine ray --ray-address {address} --jobs 2
    {TOOL} reencrypt data.pqv -i key.txt --engine ray --ray-address {address} --jobs 2
    {TOOL} unseal data.pqv -i key.txt -o out --engine ray --ray-address {address} --jobs 2
    diff -r data out/data
    {TOOL} verify data.pqv -i key.txt --engine ray --ray-address {address} --jobs 2
    {TOOL} seal data -r @key.pub --ray-address {address} || echo $?
    """
    env = {**os.environ, "PQVAULT_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        ["bash", "-ec", script], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    assert lines[0].startswith("sealed 305 files"), done.stderr
    assert lines[-2].startswith("sealed: 1 part") and lines[-1] == "2"
