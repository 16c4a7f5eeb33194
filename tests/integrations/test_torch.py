"""Datasets of torch: what they give, in which order, in how many processes, and after a stop."""

from __future__ import annotations

import collections
import copy
import gc
import io
import itertools
import json
import os
import pickle
import signal
import tarfile
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hosts_kit import SealedCorpus, rows

import pqvault
import pqvault.tables
from pqvault.errors import IntegrityError, NotFound, RolledBack, UsageError

torch = pytest.importorskip("torch")
torchdata = pytest.importorskip("torchdata")

from torch.utils.data import DataLoader  # noqa: E402
from torchdata.stateful_dataloader import StatefulDataLoader  # noqa: E402

from pqvault.integrations.jax import SealedSource  # noqa: E402
from pqvault.integrations.torch import EpochSampler, SealedFiles, SealedRecords  # noqa: E402
from pqvault.integrations.torch.sampler import states_in  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*set_vital.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]

Make = Callable[..., SealedCorpus]


def same(batch: list[Any]) -> list[Any]:
    """A collate function that does nothing; spawned workers import it."""
    return batch


def texts(count: int = 200, size: int = 3000) -> dict[str, bytes]:
    """Compressible files of different sizes."""
    return {f"{n % 7}/{n:04}.txt": f"file {n} ".encode() * (size // 8 + n) for n in range(count)}


def lines(count: int, at: int = 0) -> bytes:
    return b"".join(
        json.dumps({"n": at + n, "text": f"line {n} " * (n % 30)}).encode() + b"\n"
        for n in range(count)
    )


@pytest.fixture
def files(seal_files: Make) -> SealedCorpus:
    return seal_files(texts(), frame_size=64 * 1024)


def tar(count: int, at: int = 0) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as shard:
        for n in range(at, at + count):
            for ending, data in (("jpg", os.urandom(2000 + n)), ("cls", str(n % 10).encode())):
                member = tarfile.TarInfo(f"set/{n:05}.{ending}")
                member.size = len(data)
                shard.addfile(member, io.BytesIO(data))
    return out.getvalue()


def parquet(count: int) -> bytes:
    out = io.BytesIO()
    pq.write_table(rows(count), out, row_group_size=300)
    return out.getvalue()


@pytest.fixture
def mixed(seal_files: Make) -> SealedCorpus:
    """JSONL over many frames, small ones within one, Parquet, tar shards; small frames."""
    content = {
        "big.jsonl": lines(30_000),
        "p/a.parquet": parquet(2000),
        "p/b.parquet": parquet(500),
    }
    content |= {f"small/{n}.jsonl": lines(20, 10**6 * (n + 1)) for n in range(30)}
    content |= {f"t/{n}.tar": tar(40, n * 100) for n in range(3)}
    return seal_files(content, frame_size=64 * 1024)


def jsonl_of(corpus: SealedCorpus, pattern: str = "*.jsonl") -> list[int]:
    found = []
    for path in sorted(corpus.plain.rglob(pattern)):
        found += [json.loads(line)["n"] for line in path.read_text().splitlines()]
    return found


def loaded(loader: Any) -> list[Any]:
    return [item for batch in loader for item in batch]


# -- files -----------------------------------------------------------------------------------


def test_files_are_the_files(files: SealedCorpus) -> None:
    """Each item is a file, byte for byte; any order, several at a time, negative numbers too."""
    data = SealedFiles(files.archive, **files.options)
    plain = sorted(p for p in files.plain.rglob("*") if p.is_file())
    assert len(data) == len(plain) == 200
    for number in (0, 7, 199, -1):
        assert data[number].data == plain[number].read_bytes()
        assert data[number].path == str(plain[number].relative_to(files.plain.parent))
    got = data.__getitems__([5, 3, 3, 100])
    assert [sample.path for sample in got] == [data.path(n) for n in (5, 3, 3, 100)]
    assert data.__getitems__([-1, 7, -200]) == [data[199], data[7], data[0]]
    assert data.read([-1, 7]) == [data[199], data[7]]
    with pytest.raises(IndexError):
        data[200]
    with pytest.raises(IndexError):
        data.__getitems__([0, -201])
    only = SealedFiles(files.archive, globs="data/3/*", transform=size_of, **files.options)
    assert only[0] == plain[[p.parent.name for p in plain].index("3")].stat().st_size
    with pytest.raises(NotFound, match=r"has no file like data/9/\*"):
        SealedFiles(files.archive, globs="data/9/*", **files.options)
    assert len(SealedFiles(files.archive, globs=None, **files.options)) == 200
    assert data[-2:] == [data[198], data[199]] and data[5:5] == []
    nested = {"client_kwargs": {"region_name": "eu-west-1"}}  # nothing to a folder
    assert SealedFiles(files.archive, storage_options=nested, **files.options)[0] == data[0]
    for make in (SealedFiles, SealedRecords):
        with pytest.raises(NotFound, match=r"has no file like data/typo/\*\*$"):
            make(files.archive, globs=["data/3/*.txt", "data/typo/**"], **files.options)


def test_batches_count_from_the_end_too(seal_files: Make) -> None:
    """As single items do; an empty file has no place in an object."""
    corpus = seal_files({"a": b"1", "b": b"2", "z": b""})
    data = SealedFiles(corpus.archive, **corpus.options)
    assert data.__getitems__([-1, 1, -3]) == data.read([-1, 1, -3]) == [data[2], data[1], data[0]]
    with pytest.raises(IndexError):
        data.__getitems__([0, -4])


def test_paths_count_from_the_end_too(seal_files: Make) -> None:
    """As items do, also when the paths are read in several batches."""
    corpus = seal_files({"a": b"1", "b": b"2"})
    for name in ("a", "b"):
        (corpus.plain / name).rename(corpus.plain / f"z{name}")
    pqvault.seal(corpus.plain, corpus.archive, recipients=[corpus.identity.recipient])
    data = SealedFiles(corpus.archive, **corpus.options)
    for number in (-1, -2, -3, -4):
        assert data.path(number) == data[number].path
    for number in (4, -5):
        with pytest.raises(IndexError):
            data.path(number)


@pytest.mark.parametrize("make", [SealedFiles, SealedRecords])
def test_a_dataset_that_is_gone_keeps_nothing_open(files: SealedCorpus, make: Any) -> None:
    """One that is made again and again, as parts are added, does not pile up files and frames."""
    data = make(files.archive, identities=files.identity, globs="**/*.txt")
    next(iter(data))
    same = copy.deepcopy(data)
    archive = weakref.ref(data._opening.archive())
    assert same._opening.archive() is archive()
    del data
    gc.collect()
    assert archive() is None
    assert next(iter(same))


def test_pickles_hold_references_only(files: SealedCorpus) -> None:
    """attack 40: neither key nor path nor content goes to a worker in a pickle."""
    for data in (
        SealedFiles(files.archive, **files.options),
        SealedRecords(files.archive, kind="lines", **files.options),
    ):
        next(iter(data)) if isinstance(data, SealedRecords) else data[0]
        pickled = pickle.dumps(data)
        assert files.identity.seed not in pickled and b"SECRET-KEY" not in pickled.upper()
        assert b"0001.txt" not in pickled and len(pickled) < 30_000


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_loaders_give_every_file_once(files: SealedCorpus, workers: int, how: str) -> None:
    """Shuffled by torch itself, with and without workers, forked and spawned."""
    if how == "spawn" and not workers:
        pytest.skip("no workers to spawn")
    data = SealedFiles(files.archive, **files.options)
    loader = DataLoader(
        data,
        16,
        shuffle=True,
        num_workers=workers,
        collate_fn=same,
        multiprocessing_context=how if workers else None,
    )
    got = {sample.path: sample.data for sample in loaded(loader)}
    assert len(got) == 200
    for path, content in got.items():
        assert content == (files.plain.parent / path).read_bytes()


def test_a_batch_decodes_no_frame_twice(files: SealedCorpus) -> None:
    """Files of a batch are read in the order in which they lie: all at once, each frame once."""
    data = SealedFiles(files.archive, **files.options)
    cache = data._opening.archive().cache
    cache._limit = 64 * 1024  # one frame is kept, no more
    before = cache.decoded
    order = EpochSampler(data, seed=3).order(0).tolist()
    got = data.__getitems__(order)
    assert [sample.path for sample in got] == [data.path(number) for number in order]
    assert cache.decoded - before == sum(len(sample.data) for sample in got) > 5 * 64 * 1024
    source = SealedSource(files.archive, **files.options)
    cache = source._opening.archive().cache
    cache._limit, before = 64 * 1024, cache.decoded
    assert source._getitems(order) == got
    assert cache.decoded - before == sum(len(sample.data) for sample in got)


def test_the_sampler_is_exact(files: SealedCorpus) -> None:
    """Each number once an epoch; the same for a seed, another for the next epoch; ranks share."""
    data = SealedFiles(files.archive, **files.options)
    sampler = data.sampler(seed=5)
    first = list(sampler)
    assert sorted(first) == list(range(200)) != first and list(sampler) == first
    sampler.set_epoch(1)
    assert sorted(sampler) == list(range(200)) and list(sampler) != first
    ranks = [EpochSampler(data, seed=5, rank=r, world=3, drop_last=True) for r in range(3)]
    shares = [list(one) for one in ranks]
    assert [len(share) for share in shares] == [66] * 3 == [len(one) for one in ranks]
    assert [n for step in zip(*shares, strict=True) for n in step] == first[:198]
    padded = [list(EpochSampler(data, seed=5, rank=r, world=3)) for r in range(3)]
    assert {len(share) for share in padded} == {67} and set().union(*padded) == set(range(200))
    assert list(EpochSampler(data, shuffle=False)) == list(range(200))
    with pytest.raises(UsageError, match="rank 3 of 3"):
        EpochSampler(data, rank=3, world=3)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (4, 3), (3, 4), (2, 2)])
def test_a_state_of_another_number_of_ranks(before: int, after: int, drop_last: bool) -> None:
    """What is left of an epoch is shared evenly, whenever the state was taken: a rank that had one
    sample more would wait for the others for ever."""

    def ranks(world: int) -> list[EpochSampler]:
        data, options = range(10), {"world": world, "seed": 5, "drop_last": drop_last}
        return [EpochSampler(data, rank=rank, **options) for rank in range(world)]

    whole = list(EpochSampler(range(10), seed=5))
    for steps in range(len(ranks(before)[0]) + 1):
        stopped = iter(ranks(before)[0])
        for _ in range(steps):
            next(stopped)
        samplers = ranks(after)
        for sampler in samplers:
            sampler.resume(stopped.state_dict())
        lengths = [len(sampler) for sampler in samplers]
        shares = [list(sampler) for sampler in samplers]
        assert [len(share) for share in shares] == lengths == lengths[:1] * after
        got = [n for step in zip(*shares, strict=True) for n in step]
        left = whole[steps * before :]
        kept = len(left) - len(left) % after if drop_last else len(left)
        assert got[: len(left)] == left[:kept] and len(got) - kept < after


@pytest.mark.parametrize("workers", [0, 2])
def test_files_resume(files: SealedCorpus, workers: int) -> None:
    """attack: a stop in mid-epoch; the batches after it are those that would have come, with the
    same number of workers by the loader's state, with another by the sampler's."""
    data = SealedFiles(files.archive, transform=path_of, **files.options)

    def loader(count: int) -> tuple[Any, EpochSampler]:
        sampler = data.sampler(seed=1)
        sampler.set_epoch(4)
        made = StatefulDataLoader(
            data, 16, sampler=sampler, num_workers=count, collate_fn=same, prefetch_factor=
            4 if count else None,
        )  # fmt: skip
        return made, sampler

    whole = list(loader(workers)[0])
    assert len(whole) == 13 and len({p for batch in whole for p in batch}) == 200
    stopped, _ = loader(workers)
    batches = iter(stopped)
    begun = [next(batches) for _ in range(5)]
    state = json.loads(json.dumps(stopped.state_dict(), default=repr))
    assert begun == whole[:5]
    again, sampler = loader(workers)
    again.load_state_dict(stopped.state_dict())
    assert list(again) == whole[5:]
    for count in (0, 1, 3):
        other, sampler = loader(count)
        sampler.set_epoch(0)
        sampler.resume(state)
        assert sampler.epoch == 4 and list(other) == whole[5:]
        assert len(list(other)) == 13  # and the next epoch is whole
    with pytest.raises(UsageError, match="seed"):
        data.sampler(seed=2).resume(state)
    with pytest.raises(UsageError, match="no state of an EpochSampler"):
        sampler.resume({})


def test_a_samplers_state_is_of_its_files(files: SealedCorpus) -> None:
    """One file gone and another come: as many as before, under other numbers."""
    order = iter(SealedFiles(files.archive, **files.options).sampler(seed=1))
    next(order)
    state = order.state_dict()
    (files.plain / "0" / "0000.txt").unlink()
    (files.plain / "new.txt").write_bytes(b"new")
    options = {"recipients": [files.identity.recipient], "identities": [files.identity]}
    pqvault.seal(files.plain, files.archive, delete=True, **options)
    data = SealedFiles(files.archive, **files.options)
    assert len(data) == 200
    with pytest.raises(UsageError, match="the state is of other files"):
        data.sampler(seed=1).resume(state)
    with pytest.raises(UsageError, match="the state is of other files"):
        iter(data.sampler(seed=1)).load_state_dict(state)


def size_of(sample: Any) -> int:
    return len(sample.data)


def path_of(sample: Any) -> str:
    return str(sample.path)


def test_decoding_much_for_little_is_said_once(
    seal_files: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One warning when random reads decode ten times what they ask for."""
    monkeypatch.setattr("pqvault.integrations.samples._RATIO_AFTER", 2**20)
    corpus = seal_files({f"{n:03}.txt": f"{n} ".encode() * 1000 for n in range(300)})
    data = SealedFiles(corpus.archive, **corpus.options)
    data._opening.archive().cache._limit = 1
    with pytest.warns(RuntimeWarning, match="--access random"):
        for number in (0, 100, 200, 299):
            data[number]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in (0, 100, 200, 299):
            data[number]


# -- records ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_records_are_the_records(mixed: SealedCorpus, workers: int, shuffle: bool) -> None:
    """Lines, rows and tar samples, each once, whoever reads them."""

    def all_of(globs: str, **more: Any) -> list[Any]:
        data = SealedRecords(
            mixed.archive, globs=globs, shuffle=shuffle, buffer=200_000, **mixed.options, **more
        )
        return loaded(DataLoader(data, 100, num_workers=workers, collate_fn=same))

    got = [record["n"] for record in all_of("**/*.jsonl")]
    want = jsonl_of(mixed)
    assert sorted(got) == sorted(want)
    if shuffle:
        assert got != sorted(got)
        moved = sum(abs(a - b) > 1 for a, b in itertools.pairwise(got))
        assert moved > len(got) * 0.9
    table = pa.concat_tables(pq.read_table(p) for p in sorted(mixed.plain.rglob("*.parquet")))
    key = sorted((r["id"], r["text"]) for r in table.to_pylist())
    assert sorted((r["id"], r["text"]) for r in all_of("**/*.parquet")) == key
    samples = all_of("**/*.tar")
    assert sorted(s["__key__"] for s in samples) == sorted(
        f"set/{n:05}" for t in range(3) for n in range(t * 100, t * 100 + 40)
    )
    assert all(int(s["cls"]) == int(s["__key__"][-1]) and len(s["jpg"]) >= 2000 for s in samples)
    assert len(all_of("data/big.jsonl", transform=len)) == 30_000


def test_all_kinds_at_once(mixed: SealedCorpus) -> None:
    """One dataset over files of several kinds mixes them."""
    data = SealedRecords(mixed.archive, buffer=10**6, **mixed.options)
    got = list(data)
    kinds = collections.Counter(next(iter(record)) for record in got)
    assert kinds == {"n": 30_600, "id": 2500, "__key__": 120}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_rows_of_a_sealed_table(files: SealedCorpus, workers: int, how: str) -> None:
    """All parts of a table, its columns, shuffled, resumed to the row; states as of files."""
    if how == "spawn" and not workers:
        pytest.skip("no workers to spawn")
    from pqvault import tables

    recipients = [files.identity.recipient]
    sizes = tables.RowGroups(rows=200)
    for at in (0, 3000):
        table = rows(6000).slice(at, 3000)
        tables.write_table(
            files.archive, "runs", table, recipients=recipients, row_groups=sizes, mode="append"
        )

    def loader() -> Any:
        data = SealedRecords(
            files.archive, table="runs", columns=["id", "label"], buffer=20_000, **files.options
        )
        context = how if workers else None
        return StatefulDataLoader(
            data, 100, num_workers=workers, collate_fn=same, multiprocessing_context=context
        )

    made = loader()
    whole = list(made)
    ids = [row["id"] for batch in whole for row in batch]
    assert sorted(ids) == list(range(6000)) != ids and set(whole[0][0]) == {"id", "label"}
    stopped = loader()
    batches = iter(stopped)
    assert [next(batches) for _ in range(20)] == whole[:20]
    again = loader()
    again.load_state_dict(stopped.state_dict())
    assert list(again) == whole[20:]
    for bad, error in (
        ({"table": "none"}, NotFound),
        ({"table": "runs", "columns": ["none"]}, NotFound),
        ({"table": "runs", "kind": "lines"}, UsageError),
    ):
        with pytest.raises(error):
            SealedRecords(files.archive, **files.options, **bad)


@pytest.mark.parametrize("frame_size", [64 * 1024, 256 * 1024])
def test_each_frame_is_decoded_once_an_epoch(seal_files: Make, frame_size: int) -> None:
    """Lines that go over the end of a frame cost no second decoding of it."""
    content = lines(60_000)
    corpus = seal_files(
        {"a.jsonl": content, "b.jsonl": lines(500), "c.jsonl": lines(900)}, frame_size=frame_size
    )
    data = SealedRecords(corpus.archive, buffer=10**6, **corpus.options)
    cache = data._opening.archive().cache
    before = cache.decoded
    assert sum(1 for _ in data) == 61_400
    size = sum(p.stat().st_size for p in corpus.plain.iterdir())
    # Of the last frame of an object, which may be as small as what is looked at for the end of a
    # line, there may be a second decoding.
    assert size <= cache.decoded - before <= size + 16 * 1024


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"one line without an end",
        b"x" * 300_000 + b"\n" + b"y" * 300_000,
        b"a\n" * 100_000,
        (b"z" * 65_535 + b"\n") * 6,
        (b"z" * 65_536 + b"\n") * 6,
        b"\n" * 200_000,
    ],
    ids=range(8),
)
def test_lines_at_the_edges(seal_files: Make, content: bytes) -> None:
    """Lines that begin, end or lie at a cut, or are longer than units, come once."""
    corpus = seal_files({"a.txt": content, "b.txt": b"last\n"}, frame_size=64 * 1024)
    data = SealedRecords(corpus.archive, shuffle=False, **corpus.options)
    want = [*content.split(b"\n"), b"last"]
    if not content or content.endswith(b"\n"):
        want.remove(b"")
    assert list(data) == want


def test_lines_of_json_are_as_json_has_them(seal_files: Make) -> None:
    """Spaces around a value, a mark of the order of bytes, half a surrogate, numbers by name."""
    values = [
        b'{"a": [1, -2.5e3, null, true]}',
        b'  {"a": 1} \t',
        b'{"a": 1, "a": 2}\r',
        b'\xef\xbb\xbf{"a": 1}',
        b'"\xed\xa0\x80 h\xc3\xa9 \\ud800"',
        b"NaN",
        b"-Infinity",
        b"12345678901234567890123",
        b'""',
    ]
    bad = [b'{"a": 1} 2', b"[1", b'"\xff"', b"1 2", b'"a\x00"', b"[" * 100_000]
    content = {"a.jsonl": b"\n".join([*values, b"", b" "])}
    content |= {f"{n}.jsonl": b'{"a": 1}\n' + line for n, line in enumerate(bad)}
    corpus = seal_files(content)
    data = SealedRecords(corpus.archive, shuffle=False, globs="data/a.jsonl", **corpus.options)
    assert list(map(repr, data)) == [repr(json.loads(value)) for value in values]
    for n in range(len(bad)):
        with pytest.raises(UsageError, match=f"line 2 after byte 0 of data/{n}.jsonl is not JSON"):
            list(SealedRecords(corpus.archive, globs=f"data/{n}.jsonl", **corpus.options))


def test_records_of_ranks_and_epochs(mixed: SealedCorpus) -> None:
    """Ranks share an epoch without meeting; an epoch is the same again, the next is another."""

    def read(epoch: int, **more: Any) -> list[int]:
        data = SealedRecords(
            mixed.archive, globs="**/*.jsonl", seed=9, buffer=300_000, **mixed.options, **more
        )
        data.set_epoch(epoch)
        return [record["n"] for record in data]

    whole = read(0)
    assert read(0) == whole != read(1)
    shares = [read(0, rank=r, world=3) for r in range(3)]
    assert sorted(n for share in shares for n in share) == sorted(whole)
    assert min(map(len, shares)) > 0


def test_a_process_group_may_begin_later(
    mixed: SealedCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranks that made their dataset before it share the epoch all the same, each sample once; also
    by workers, which are in no process group."""
    data = SealedRecords(mixed.archive, **mixed.options, globs="**/small/*.jsonl")
    sampler = EpochSampler(range(10))
    numbers: list[int] = []
    here: list[int] = []
    in_workers: list[int] = []
    for rank in range(2):
        with monkeypatch.context() as patch:
            group = {"is_initialized": True, "get_rank": rank, "get_world_size": 2}
            for name, value in group.items():
                patch.setattr(torch.distributed, name, lambda value=value: value)
            numbers += list(sampler)
            here += [record["n"] for record in data]
            pickled = pickle.dumps(data)
        in_workers += [record["n"] for record in pickle.loads(pickled)]  # noqa: S301
    assert sorted(numbers) == list(range(10))
    assert sorted(here) == sorted(in_workers) == sorted(jsonl_of(mixed, "small/*"))


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_persistent_workers_follow_the_epoch(mixed: SealedCorpus, how: str) -> None:
    """set_epoch reaches workers that are running already."""
    data = SealedRecords(mixed.archive, globs="**/*.jsonl", buffer=10**6, **mixed.options)
    loader = DataLoader(
        data, 500, num_workers=2, persistent_workers=True, collate_fn=same,
        multiprocessing_context=how,
    )  # fmt: skip
    epochs = []
    for epoch in (0, 1, 0):
        data.set_epoch(epoch)
        epochs.append([record["n"] for record in loaded(loader)])
    assert epochs[0] == epochs[2] != epochs[1] and sorted(epochs[0]) == sorted(epochs[1])


def record_loader(corpus: SealedCorpus, workers: int, **more: Any) -> tuple[Any, SealedRecords]:
    data = SealedRecords(
        corpus.archive, globs="**/*.jsonl", seed=2, buffer=200_000, **corpus.options, **more
    )
    data.set_epoch(3)
    return StatefulDataLoader(data, 100, num_workers=workers, collate_fn=same), data


def numbers(batches: Iterator[Any] | Any) -> list[list[int]]:
    return [[record["n"] for record in batch] for batch in batches]


@pytest.mark.parametrize("workers", [0, 2, 3])
@pytest.mark.parametrize("stop", [1, 40, 250])
def test_records_resume(mixed: SealedCorpus, workers: int, stop: int) -> None:
    """A stop in mid-epoch: with as many workers the same batches follow; with another number the
    records that were not given out, each once."""
    loader, _ = record_loader(mixed, workers)
    whole = numbers(loader)
    loader, _ = record_loader(mixed, workers)
    batches = iter(loader)
    begun = numbers(next(batches) for _ in range(stop))
    state = loader.state_dict()
    assert begun == whole[:stop]
    again, _ = record_loader(mixed, workers)
    again.load_state_dict(pickle.loads(pickle.dumps(state)))  # noqa: S301
    assert numbers(again) == whole[stop:]
    left = collections.Counter(n for batch in whole[stop:] for n in batch)
    for count in {0, 2, 4} - {workers}:
        other, data = record_loader(mixed, count)
        data.set_epoch(0)
        data.resume(state)
        got = collections.Counter(n for batch in numbers(other) for n in batch)
        assert got == left and data.epoch == 3
        # The state is used up: the next epoch of the same loader is whole.
        assert sum(map(len, numbers(other))) == sum(map(len, whole))


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_state_is_of_one_loader(mixed: SealedCorpus, after: int) -> None:
    """The next one is whole, with more workers too, of which some never began where it says."""
    loader, _ = record_loader(mixed, 2)
    batches = iter(loader)
    for _ in range(150):
        next(batches)
    _, data = record_loader(mixed, 0)
    data.resume(loader.state_dict())
    left = numbers(StatefulDataLoader(data, 100, num_workers=2, collate_fn=same))
    whole = numbers(StatefulDataLoader(data, 100, num_workers=after, collate_fn=same))
    assert 0 < sum(map(len, left)) < sum(map(len, whole))
    assert sorted(n for batch in whole for n in batch) == sorted(jsonl_of(mixed))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("what", ["files", "records"])
def test_a_state_of_the_end_of_an_epoch(mixed: SealedCorpus, what: str, workers: int) -> None:
    """Loaded for the next epoch, which is the one that set_epoch said, and not that of the state
    once more."""

    def loader() -> tuple[Any, Any]:
        options = mixed.options | {"globs": "data/small/*", "transform": repr}
        data = (SealedFiles if what == "files" else SealedRecords)(mixed.archive, **options)
        sampler = data.sampler() if isinstance(data, SealedFiles) else None
        made = StatefulDataLoader(
            data, 7, sampler=sampler, num_workers=workers, collate_fn=same, drop_last=True
        )
        return made, sampler or data

    first, epochs = loader()
    wanted, states = [], []
    for epoch in range(3):
        epochs.set_epoch(epoch)
        wanted.append(list(first))
        states.append(first.state_dict())
    assert wanted[0] != wanted[1] != wanted[2]
    again, epochs = loader()
    again.load_state_dict(states[0])
    for epoch in (1, 2):
        epochs.set_epoch(epoch)
        assert list(again) == wanted[epoch]


def test_a_state_that_was_loaded_is_the_state(mixed: SealedCorpus) -> None:
    """Also of a dataset that was read already: a checkpoint before its next record loses none."""
    _, data = record_loader(mixed, 0)
    records = iter(data)
    for _ in range(1000):
        next(records)
    state = data.state_dict()
    wanted = next(records)
    data.load_state_dict(state)
    assert data.state_dict() == state
    assert next(iter(data)) == wanted and data.state_dict() != state


def test_resumed_twice(mixed: SealedCorpus) -> None:
    """Stops, each with another number of workers: together the epoch, each record once."""
    seen: collections.Counter[int] = collections.Counter()
    state: dict[str, Any] | None = None
    for workers, steps in ((2, 30), (3, 41), (0, 55), (2, 10**6)):
        loader, data = record_loader(mixed, workers)
        if state is not None:
            data.resume(state)
        for step, batch in enumerate(loader):
            seen.update(record["n"] for record in batch)
            if step + 1 == steps:
                state = loader.state_dict()
                break
    assert seen == collections.Counter(jsonl_of(mixed))


def test_a_worker_that_dies(mixed: SealedCorpus) -> None:
    """A killed worker is an error, not a hang; the last state carries on without loss."""
    loader, _ = record_loader(mixed, 2)
    batches = iter(loader)
    seen = collections.Counter(
        n for batch in numbers(next(batches) for _ in range(20)) for n in batch
    )
    state = loader.state_dict()
    os.kill(batches._workers[0].pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"exited unexpectedly|killed by signal"):
        for _ in range(10_000):
            next(batches)
    del batches, loader
    again, _ = record_loader(mixed, 2)
    again.load_state_dict(state)
    seen.update(n for batch in numbers(again) for n in batch)
    assert seen == collections.Counter(jsonl_of(mixed))


def test_what_is_no_state_is_said(mixed: SealedCorpus) -> None:
    """When it is loaded, by a loader too, and not as an error of ours."""
    records = SealedRecords(mixed.archive, globs="**/*.jsonl", **mixed.options)
    for state in ({"a": 1}, {"kind": "pqvault records 1", "epoch": 3}):
        with pytest.raises(UsageError, match="the state is not of this dataset"):
            records.load_state_dict(state)
    assert records.epoch == 0 and next(iter(records))


def test_states_of_something_else(mixed: SealedCorpus) -> None:
    """A state of another order, other parts or half the workers is refused."""
    loader, data = record_loader(mixed, 2)
    next(iter(loader))
    state = loader.state_dict()
    same_as = {"globs": "**/*.jsonl", "seed": 2, "buffer": 200_000} | mixed.options
    changes: list[dict[str, Any]] = [
        {"seed": 3},
        {"buffer": 100_000},
        {"shuffle": False},
        {"rank": 0, "world": 2},
        {"globs": "data/big.jsonl"},
    ]
    for change in changes:
        with pytest.raises(UsageError, match="not of this dataset"):
            SealedRecords(mixed.archive, **same_as | change).resume(state)
    SealedRecords(mixed.archive, **same_as).resume(state)
    (mixed.plain / "small" / "more.jsonl").write_bytes(lines(20, 10**9))
    pqvault.seal(mixed.plain, mixed.archive, recipients=[mixed.identity.recipient])
    with pytest.raises(UsageError, match="not of this dataset"):
        SealedRecords(mixed.archive, **same_as).resume(state)
    then = data._opening.snapshot[0]
    SealedRecords(mixed.archive, **same_as, as_of=then).resume(state)
    two = next(one for one in states_in(state) if one["worker"] == 1)
    alone = SealedRecords(mixed.archive, **same_as, as_of=then)
    alone.load_state_dict(two)
    with pytest.raises(UsageError, match="of worker 1 of 2, and this is worker 0 of 1"):
        next(iter(alone))
    with pytest.raises(UsageError, match="every worker"):
        data.resume({})
    old = {"_steps_since_snapshot": 3}
    with pytest.raises(UsageError, match="older than"):
        data.resume(old)


# -- bad input -------------------------------------------------------------------------------


def test_a_worker_without_the_key(files: SealedCorpus) -> None:
    """A spawned worker cannot have what this process keeps in memory: it says so."""
    data = SealedFiles(files.archive, identities=files.identity)
    forked = DataLoader(data, 50, num_workers=2, collate_fn=same, multiprocessing_context="fork")
    assert len(loaded(forked)) == 200
    spawned = DataLoader(data, 50, num_workers=1, collate_fn=same, multiprocessing_context="spawn")
    with pytest.raises(NotFound, match=r"process:.* resolves to nothing.*spawned worker"):
        loaded(spawned)


def test_a_part_that_comes_in_mid_epoch(files: SealedCorpus) -> None:
    """The epoch reads what it opened, also in workers that start later."""
    data = SealedFiles(files.archive, transform=path_of, **files.options)
    records = SealedRecords(files.archive, kind="lines", transform=len, **files.options)
    before = loaded(DataLoader(records, 10, num_workers=2, collate_fn=same))
    (files.plain / "0" / "0000.txt").write_bytes(b"changed")
    (files.plain / "new.txt").write_bytes(b"new")
    pqvault.seal(files.plain, files.archive, recipients=[files.identity.recipient])
    got = loaded(DataLoader(data, 16, num_workers=2, collate_fn=same))
    assert len(got) == 200 and "data/new.txt" not in got
    whole = SealedFiles(files.archive, **files.options)
    assert len(whole) == 201 and whole[0].data == b"changed"
    assert SealedFiles(files.archive, **files.options, as_of=data._opening.snapshot[0])[0].data != (
        b"changed"
    )
    assert loaded(DataLoader(records, 10, num_workers=2, collate_fn=same)) == before


def test_a_part_that_goes(files: SealedCorpus) -> None:
    """A part that is gone when a worker opens the archive: exit 15's error, naming it."""
    data = SealedFiles(files.archive, **files.options)
    (commit,) = files.archive.glob("commits/*")
    commit.unlink()
    with pytest.raises(RolledBack, match=f"part {commit.name}"):
        loaded(DataLoader(data, 16, num_workers=1, collate_fn=same))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_object_deleted_under_a_reader(files: SealedCorpus, workers: int) -> None:
    """The error names the file of the archive that is missing, and the sample."""
    data = SealedFiles(files.archive, **files.options)
    records = SealedRecords(files.archive, kind="lines", **files.options)
    (path,) = files.archive.glob("parts/*/objects/*")
    path.unlink()
    for one, words in ((data, f"sample data/.*{path.name}"), (records, path.name)):
        with pytest.raises(IntegrityError, match=rf"{words} is missing"):
            loaded(DataLoader(one, 16, num_workers=workers, collate_fn=same))


def flip(corpus: SealedCorpus, at: int) -> None:
    (path,) = corpus.archive.glob("parts/*/objects/*")
    sealed = bytearray(path.read_bytes())
    sealed[at] ^= 1
    path.write_bytes(sealed)


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_files(seal_files: Make, workers: int) -> None:
    """A damaged file is an error that names it; left out and counted only when asked."""
    corpus = seal_files({f"{n:02}.bin": os.urandom(200_000) for n in range(10)})
    flip(corpus, 500_000)
    data = SealedFiles(corpus.archive, **corpus.options)
    with pytest.raises(IntegrityError, match=r"sample data/02.bin: chunk \d+ of \d+ of parts/"):
        loaded(DataLoader(data, 5, num_workers=workers, collate_fn=same))
    data = SealedFiles(corpus.archive, on_damage="skip", **corpus.options)
    got = loaded(DataLoader(data, 5, num_workers=workers, collate_fn=same))
    assert len(got) == 9 and data.skipped == 1
    assert all(s.data == (corpus.plain.parent / s.path).read_bytes() for s in got)
    with pytest.raises(IntegrityError, match=r"02\.bin"):
        data.__getitems__([2])
    with pytest.raises(UsageError, match="on_damage"):
        SealedFiles(corpus.archive, on_damage="ignore", **corpus.options)


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_records(seal_files: Make, workers: int) -> None:
    """A damaged frame of records is an error that names the file and the bytes; or counted."""
    content = {
        f"{n}.txt": b"".join(os.urandom(60).hex().encode() + b"\n" for _ in range(3000))
        for n in range(8)
    }
    corpus = seal_files(content, frame_size=256 * 1024)
    flip(corpus, 300_000)
    data = SealedRecords(corpus.archive, **corpus.options)
    with pytest.raises(IntegrityError, match=r"sample data/\d.txt \(bytes 0 to \d+\): chunk"):
        loaded(DataLoader(data, 5, num_workers=workers, collate_fn=same))
    data = SealedRecords(corpus.archive, on_damage="skip", **corpus.options)
    got = loaded(DataLoader(data, 5, num_workers=workers, collate_fn=same))
    want = {line for path in corpus.plain.iterdir() for line in path.read_bytes().splitlines()}
    assert data.skipped == 1 and set(got) < want and len(want) - 3000 <= len(set(got)) == len(got)


def test_columns_are_of_a_table(files: SealedCorpus) -> None:
    """One or several; of files they would be without effect, and none would give no rows."""
    table = pa.table({"text": ["a", "b"], "n": [1, 2]})
    pqvault.tables.write_table(files.archive, "t", table, recipients=files.identity.recipient)
    only = SealedRecords(files.archive, table="t", columns="text", shuffle=False, **files.options)
    assert list(only) == [{"text": "a"}, {"text": "b"}]
    for wrong in ({"columns": ["n"], "kind": "lines"}, {"columns": [], "table": "t"}):
        with pytest.raises(UsageError, match=r"columns are some of a table's|no column is named"):
            SealedRecords(files.archive, **wrong, **files.options)


def test_parquet_without_columns(seal_files: Make) -> None:
    """Has a row group that begins nowhere, and no rows."""
    out = io.BytesIO()
    pq.write_table(pa.table({}), out)
    corpus = seal_files({"a.parquet": out.getvalue(), "b.parquet": parquet(10)})
    assert len(list(SealedRecords(corpus.archive, **corpus.options))) == 10


def tar_of(*members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as shard:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))
    return out.getvalue()


def test_members_that_are_no_part_of_a_sample(seal_files: Make) -> None:
    """As webdataset: what archivers add does not part a sample, and no member replaces another."""
    odd = ("._a.jpg", "__note__", "README", "s/._a.cls", "s/.x")
    members = ["s/a.jpg", *odd, "s/a.cls", "s/b.q/c.JPG", "s/b.q/c.seg.png"]
    corpus = seal_files(
        {
            "a.tar": tar_of(*((name, name.encode()) for name in members)),
            "b.tar": tar_of(("a.jpg", b"1"), ("a.JPG", b"2")),
        }
    )
    options = corpus.options | {"shuffle": False}
    assert list(SealedRecords(corpus.archive, globs="**/a.tar", **options)) == [
        {"__key__": "s/a", "jpg": b"s/a.jpg", "cls": b"s/a.cls"},
        {"__key__": "s/b.q/c", "jpg": b"s/b.q/c.JPG", "seg.png": b"s/b.q/c.seg.png"},
    ]
    with pytest.raises(UsageError, match=r"data/b.tar has a.JPG twice in one sample"):
        list(SealedRecords(corpus.archive, globs="**/b.tar", **options))


def test_tar_shards_that_are_cut(seal_files: Make) -> None:
    """tarfile ends in silence in the middle of a header; samples must not go missing so."""
    whole = tar_of(("a.jpg", b"1"), ("b.jpg", b"2"))
    ends = {"whole": whole, "bare": whole[:2048]}  # the blocks of zeros at the end may be missing
    bad = {"cut": whole[:1300], "damaged": whole[:1024] + b"?" * 300 + whole[1324:]}
    corpus = seal_files({f"{name}.tar": data for name, data in {**ends, **bad}.items()})
    for name in ends:
        found = SealedRecords(corpus.archive, globs=f"data/{name}.tar", **corpus.options)
        assert [sample["__key__"] for sample in found] == ["a", "b"]
    for name in bad:
        with pytest.raises(UsageError, match=rf"data/{name}.tar is cut .* begins at byte 1,024"):
            list(SealedRecords(corpus.archive, globs=f"data/{name}.tar", **corpus.options))


def test_bad_records(seal_files: Make, tmp_path: Path) -> None:
    """Not JSON, not Parquet, not tar, no known kind: each names the file."""
    corpus = seal_files(
        {"a.jsonl": b'{"n": 1}\n{"n": \n', "b.parquet": b"PAR1", "c.tar": b"x" * 2000, "d.xyz": b""}
    )
    for name, words in (
        ("a.jsonl", "line 2 after byte 0 of data/a.jsonl is not JSON"),
        ("b.parquet", "data/b.parquet cannot be read as Parquet"),
        ("c.tar", "data/c.tar cannot be read as a tar file"),
    ):
        with pytest.raises(UsageError, match=words):
            list(SealedRecords(corpus.archive, globs=f"data/{name}", **corpus.options))
    with pytest.raises(UsageError, match=r"data/d.xyz has records of no known kind"):
        SealedRecords(corpus.archive, **corpus.options)
    with pytest.raises(NotFound, match="is not an archive"):
        SealedRecords(tmp_path, **corpus.options)
