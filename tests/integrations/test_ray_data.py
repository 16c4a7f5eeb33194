"""Ray Data: sealed data as datasets, datasets as sealed parts, on this machine's own cluster."""

from __future__ import annotations

import json
import os
import pickle
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pqvault
from pqvault.archive.append import AppendPart
from pqvault.archive.handed import HandedObject
from pqvault.errors import IntegrityError, NotFound, PQVaultError, UsageError
from pqvault.format.catalog import Kind
from pqvault.storage import LocalStorage

pytest.importorskip("ray")
pytestmark = [
    # Ray's own: sockets and files that it leaves to the collector, warnings about what is to come.
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(300),
]

LINES = 60_000
ROWS = 5_000


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of this machine's processors."""
    import ray

    ray.init(
        num_cpus=2,
        object_store_memory=100 * 1024 * 1024,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a.pqv, sealed from files, JSON lines, Parquet and a table; its key beside."""
    folder = tmp_path_factory.mktemp("ray")
    key = pqvault.Identity.generate()
    key.save_file(folder / "key.txt")
    data = folder / "data"
    (data / "files").mkdir(parents=True)
    for number in range(50):
        (data / "files" / f"{number:02}.bin").write_bytes(os.urandom(100_000 + number))
    with open(data / "train.jsonl", "w") as file:
        for number in range(LINES):
            more = {"rare": number} if number == LINES - 1 else {}
            file.write(json.dumps({"id": number, "text": f"line {number} " * 9} | more) + "\n")
    ids = list(range(ROWS))
    rows = pa.table({"id": ids, "name": [f"row {i}" for i in ids]})
    pq.write_table(rows, data / "rows.parquet", row_group_size=700)
    pqvault.seal(data, folder / "a.pqv", recipients=[key.recipient])
    pqvault.seal(data / "rows.parquet", folder / "t.pqv", recipients=[key.recipient], tables=True)
    return folder


def source(corpus: Path, archive: str = "a.pqv", **options: Any) -> Any:
    """A datasource of an archive of the corpus."""
    from pqvault.integrations.ray.datasource import SealedDatasource

    return SealedDatasource(corpus / archive, f"file:{corpus}/key.txt", **options)


def test_every_kind_is_read(cluster: Any, corpus: Path) -> None:
    """Files, JSON lines, Parquet and tables: every row once, whatever the parallelism."""
    ray = cluster
    files = ray.data.read_datasource(source(corpus, globs="data/files/*", kind="files"))
    found = {row["path"]: row["bytes"] for row in files.take_all()}
    assert len(found) == 50
    for path, content in found.items():
        assert (corpus / path).read_bytes() == content
    reading = source(corpus, globs="**/*.jsonl")
    assert len(reading.get_read_tasks(64)) > 1
    rows = ray.data.read_datasource(reading, override_num_blocks=7)
    assert rows.sum("id") == LINES * (LINES - 1) // 2
    for reading in (
        source(corpus, globs="**/*.parquet"),
        source(corpus, "t.pqv", table="rows.parquet"),
    ):
        table = ray.data.read_datasource(reading, override_num_blocks=3)
        assert sorted(row["id"] for row in table.take_all()) == list(range(ROWS))
    (first, *_) = ray.data.read_datasource(
        source(corpus, "t.pqv", table="rows.parquet", columns=["name"])
    ).take(1)
    assert list(first) == ["name"]


def test_a_task_carries_no_key_and_no_path(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """attack 40: what Ray logs and replays are numbers, and the name of a file of keys."""
    from ray import cloudpickle

    from pqvault.integrations.ray.datasource import SealedDatasource

    (key,) = pqvault.Identity.load_file(corpus / "key.txt")
    for task in source(corpus, globs="**/*.bin", kind="files").get_read_tasks(4):
        data = cloudpickle.dumps(task)
        assert key.seed not in data and b"SECRET" not in data and b"00.bin" not in data
    with pytest.raises(UsageError, match="a key was given"):
        SealedDatasource(corpus / "a.pqv", key)
    monkeypatch.chdir(corpus)  # a worker is in another folder
    task, *_ = SealedDatasource("a.pqv", "key.txt", kind="files").get_read_tasks(1)
    assert f"file:{corpus}/key.txt".encode() in cloudpickle.dumps(task)


def test_what_cannot_be_read_is_named(cluster: Any, corpus: Path, tmp_path: Path) -> None:
    """A reference to nothing, records of no kind, an object that is damaged after planning."""
    import shutil

    from pqvault.integrations.ray.datasource import SealedDatasource

    with pytest.raises(NotFound, match="resolves to nothing"):
        SealedDatasource(corpus / "a.pqv", "env:NO_SUCH_KEY")
    with pytest.raises(UsageError, match="no known kind"):
        source(corpus)
    with pytest.raises(NotFound, match="has no file like"):
        source(corpus, globs="nothing/*")
    shutil.copytree(corpus / "a.pqv", tmp_path / "a.pqv")
    shutil.copy(corpus / "key.txt", tmp_path)
    rows = cluster.data.read_datasource(source(tmp_path, globs="**/*.bin", kind="files"))
    for path in tmp_path.glob("a.pqv/parts/*/objects/*"):
        data = bytearray(path.read_bytes())
        data[1000] ^= 1
        path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"data/files/\d\d.bin"):
        rows.materialize()


def test_records_without_members_are_not_lost(tmp_path: Path) -> None:
    """Ray has no rows without columns: an error that names the file, and no fewer records."""
    from pqvault.integrations.ray.datasource import SealedDatasource

    key = pqvault.Identity.generate()
    key.save_file(tmp_path / "key.txt")
    (tmp_path / "a.jsonl").write_text("{}\n{}\n")
    pqvault.seal(tmp_path / "a.jsonl", tmp_path / "b.pqv", recipients=[key.recipient])
    (task,) = SealedDatasource(tmp_path / "b.pqv", str(tmp_path / "key.txt")).get_read_tasks(1)
    with pytest.raises(UsageError, match=r"a\.jsonl has records that are not rows .* members"):
        list(task())


def test_a_worker_without_the_key_says_so(
    cluster: Any, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that is set where the driver runs, and not where the workers do."""
    from pqvault.integrations.ray.datasource import SealedDatasource

    monkeypatch.setenv("KEY_OF_THE_DRIVER", str(corpus / "key.txt"))  # after the cluster began
    rows = SealedDatasource(corpus / "a.pqv", "env:KEY_OF_THE_DRIVER", globs="**/*.jsonl")
    with pytest.raises(NotFound, match="KEY_OF_THE_DRIVER is not set here"):
        cluster.data.read_datasource(rows).materialize()


def written(archive: Path, corpus: Path) -> dict[str, bytes]:
    """All files of an archive by path, after a check that it is whole and nothing lies about."""
    keys = pqvault.Identity.load_file(corpus / "key.txt")
    assert pqvault.verify(archive, identities=keys).problems == []
    with pqvault.open(archive, identities=keys) as opened:
        listed = {f"parts/{p.id}/{f.name}" for p in opened.parts for f in p.commit.files}
        found = {
            os.fsdecode(e.path): opened.open_file(e.path).read()
            for e in opened.entries()
            if e.kind == Kind.FILE
        }
    there = {str(f.relative_to(archive)) for f in archive.glob("parts/**/*") if f.is_file()}
    assert there == listed
    return found


def test_a_dataset_becomes_a_part(cluster: Any, corpus: Path, tmp_path: Path) -> None:
    """Rows as Parquet, JSON lines and files, with a public key only; read back by the source."""
    from pqvault.integrations.ray.datasink import SealedDatasink
    from pqvault.integrations.ray.datasource import SealedDatasource

    (key,) = pqvault.Identity.load_file(corpus / "key.txt")
    public, archive = key.recipient.text, tmp_path / "b.pqv"
    rows = cluster.data.range(ROWS, override_num_blocks=4)
    for format in ("parquet", "jsonl"):
        sink = SealedDatasink(archive, public, format=format, prefix=f"rows/{format}")
        rows.write_datasink(sink)
        assert sink.part is not None
        again = cluster.data.read_datasource(
            SealedDatasource(archive, f"file:{corpus}/key.txt", globs=f"**/*.{format}")
        )
        assert sorted(row["id"] for row in again.take_all()) == list(range(ROWS))
    files = cluster.data.from_items([{"path": f"f/{i}", "bytes": b"%d" % i} for i in range(9)])
    files.write_datasink(SealedDatasink(archive, public, format="files"))
    found = written(archive, corpus)
    assert {p: c for p, c in found.items() if p[0] == "f"} == {
        f"f/{i}": b"%d" % i for i in range(9)
    }
    nothing = SealedDatasink(archive, public)
    rows.filter(lambda row: row["id"] < 0).write_datasink(nothing)
    assert nothing.part is None
    same = cluster.data.from_items([{"path": "f", "bytes": b""}] * 2, override_num_blocks=2)
    with pytest.raises(Exception, match="written twice"):
        same.write_datasink(SealedDatasink(archive, public, format="files"))
    assert written(archive, corpus) == found


def test_a_sink_is_for_one_write(cluster: Any, corpus: Path, tmp_path: Path) -> None:
    """Files of a second one would have the names of the first one's, and hide them."""
    from pqvault.integrations.ray.datasink import SealedDatasink

    (key,) = pqvault.Identity.load_file(corpus / "key.txt")
    sink = SealedDatasink(tmp_path / "b.pqv", key.recipient.text, format="jsonl")
    cluster.data.range(10).write_datasink(sink)
    found = written(tmp_path / "b.pqv", corpus)
    with pytest.raises(UsageError, match="this sink is being written, or was, already"):
        cluster.data.range(7).write_datasink(sink)
    assert written(tmp_path / "b.pqv", corpus) == found


def test_tasks_that_are_killed_change_nothing(cluster: Any, corpus: Path, tmp_path: Path) -> None:
    """Killed in the middle of reading, and of writing an object: every row is there once."""
    from ray.data.datasource import ReadTask

    from pqvault.integrations.ray.datasink import SealedDatasink
    from pqvault.integrations.ray.datasource import SealedDatasource

    def dying(blocks: Iterator[Any], marker: Path) -> Iterator[Any]:
        for block in blocks:
            yield block  # the one that takes it has begun
            try:
                marker.touch(exist_ok=False)
            except FileExistsError:
                continue
            os.kill(os.getpid(), signal.SIGKILL)

    class DyingSource(SealedDatasource):
        def get_read_tasks(self, *args: Any, **kwargs: Any) -> list[Any]:
            tasks = super().get_read_tasks(*args, **kwargs)
            return [ReadTask(self.read(task.read_fn), task.metadata) for task in tasks]

        def read(self, function: Any) -> Any:
            return lambda: dying(function(), tmp_path / "killed-reading")

    class DyingSink(SealedDatasink):
        def write(self, blocks: Any, ctx: Any) -> Any:
            return super().write(dying(iter(blocks), tmp_path / "killed-writing"), ctx)

    (key,) = pqvault.Identity.load_file(corpus / "key.txt")
    archive = tmp_path / "b.pqv"
    lines = cluster.data.read_datasource(
        DyingSource(corpus / "a.pqv", f"file:{corpus}/key.txt", globs="**/*.jsonl"),
        override_num_blocks=2,
    )
    lines.write_datasink(DyingSink(archive, key.recipient.text, format="jsonl"))
    assert (tmp_path / "killed-reading").exists() and (tmp_path / "killed-writing").exists()
    content = b"".join(written(archive, corpus).values())
    assert sorted(json.loads(line)["id"] for line in content.splitlines()) == list(range(LINES))
    numbers = [int(f.name.partition("-")[0]) for f in archive.glob("parts/*/objects/*")]
    assert len(numbers) == 2 and max(numbers) == 2, "none was given up"


def test_a_part_takes_only_what_it_handed_out(corpus: Path, tmp_path: Path) -> None:
    """attack 40: a sink pickles without its root key; what others wrote is not listed."""
    from pqvault.integrations.ray.datasink import SealedDatasink

    (key,) = pqvault.Identity.load_file(corpus / "key.txt")
    storage, worker = LocalStorage(tmp_path / "b.pqv"), pqvault.Identity.generate()
    sink = SealedDatasink(tmp_path / "b.pqv", key.recipient.text)
    sink._append = part = AppendPart(storage, [key.recipient])
    assert part._key.secret not in pickle.dumps(sink)
    objects = []
    for path in (b"a", b"b", b"c"):
        written = HandedObject(storage, part.hand_over(worker.recipient), worker, part.options)
        with pytest.raises(UsageError, match="not a path"):
            written.create(b"../up")
        file = written.create(path)
        file.write(path * 1000)
        file.finish()
        objects.append(written.finish())
    part.take(objects[0])
    with pytest.raises(IntegrityError, match="not handed out"):
        part.take(objects[0])
    part.take(objects[1])
    assert part.commit()
    assert written_paths(tmp_path / "b.pqv", corpus) == ["a", "b"]


def written_paths(archive: Path, corpus: Path) -> list[str]:
    """The paths of all files."""
    return sorted(written(archive, corpus))


def test_without_a_driver_there_are_no_keys(cluster: Any) -> None:
    """A task that outlives its driver's write gets a sentence."""
    from pqvault.integrations.ray.keydesk import KeyDesk, ask

    with pytest.raises(PQVaultError, match="gives no keys"):
        ask(KeyDesk.new_name(), "standard")
