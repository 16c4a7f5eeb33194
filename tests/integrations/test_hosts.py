"""litData, grain, safetensors and Polars: what their modules promise beyond the examples."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hosts_kit import SealedCorpus

import pqvault
from pqvault import Identity
from pqvault.errors import FormatError, IntegrityError, NoKeyFits, NotFound, UsageError
from pqvault.streams import decrypt, encrypt


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # litData's own files
def test_litdata(sealed: SealedCorpus, tmp_path: Path) -> None:
    """A dataset of litData written with the public key only, and read with the identity."""
    litdata = pytest.importorskip("litdata")
    from litdata.streaming.writer import BinaryWriter

    from pqvault.integrations.litdata import SealedEncryption

    recipient = sealed.identity.recipient.text
    for level in ("chunk", "sample"):
        folder = tmp_path / level
        writing = SealedEncryption(recipients=recipient, level=level)
        writer = BinaryWriter(str(folder), chunk_bytes=20_000, encryption=writing)
        for number in range(40):
            # No dictionary: with those litData 0.2.76 cannot read back what it encrypts itself.
            writer[number] = (number, f"a plain word {number} ".encode() * 50)
        writer.done()
        writer.merge()
        for path in folder.rglob("*"):
            assert b"plain word" not in path.read_bytes()
        assert json.loads((folder / "index.json").read_text())["config"]["encryption"] == {
            "algorithm": "pqvault",
            "level": level,
        }
        writing.save(str(tmp_path / "settings"))
        reading = SealedEncryption.load(str(tmp_path / "settings"), f"file:{sealed.key}")
        data = litdata.StreamingDataset(str(folder), encryption=reading)
        assert [data[n][0] for n in (3, 39, 0)] == [3, 39, 0]
        assert sealed.identity.seed not in pickle.dumps(reading)


def test_litdata_messages_are_sealed_streams(sealed: SealedCorpus, tmp_path: Path) -> None:
    """What it makes, `pqvault decrypt` opens, and the other way round; damage is refused."""
    pytest.importorskip("litdata")
    from pqvault.integrations.litdata import SealedEncryption

    one = SealedEncryption(sealed.identity.recipient.text, f"file:{sealed.key}")
    out = io.BytesIO()
    decrypt(io.BytesIO(one.encrypt(b"hello")), out, [sealed.identity])
    assert out.getvalue() == b"hello"
    stream = io.BytesIO()
    encrypt(io.BytesIO(b"again"), stream, [sealed.identity.recipient])
    assert one.decrypt(stream.getvalue()) == b"again" and one.decrypt(one.encrypt(b"")) == b""
    bad = bytearray(one.encrypt(os.urandom(1000)))
    bad[-50] ^= 1
    with pytest.raises(IntegrityError):
        one.decrypt(bytes(bad))
    with pytest.raises(UsageError, match="level"):
        SealedEncryption(level="file")
    other = tmp_path / "other"
    Identity.generate().save_file(other)
    with pytest.raises(NoKeyFits):
        SealedEncryption(identities=str(other)).decrypt(one.encrypt(b"x"))


def test_hugging_faces_cache_leaks_and_is_found(sealed: SealedCorpus, tmp_path: Path) -> None:
    """The documented leak: without streaming all rows lie in the cache, and doctor says so."""
    pytest.importorskip("datasets")
    code = (
        "from datasets import load_dataset\n"
        f"url = 'pqvault://data/train.jsonl::{sealed.archive}'\n"
        "print(len(load_dataset('json', data_files=url, split='train', streaming=STREAMING)"
        ".take(5) if STREAMING else load_dataset('json', data_files=url, split='train')))"
    )
    cache = tmp_path / "hf"
    env = os.environ | {"HF_HOME": str(cache), "PQVAULT_IDENTITY": str(sealed.key)}

    def left(streaming: bool) -> bool:
        run = code.replace("STREAMING", str(streaming)).replace("print(len", "print((list, len)[0]")
        subprocess.run([sys.executable, "-c", run], env=env, check=True, capture_output=True)
        files = [p for p in cache.rglob("*") if p.is_file()]
        return any(b"word word" in path.read_bytes() for path in files)

    assert not left(streaming=True)
    assert left(streaming=False)
    done = subprocess.run(
        [sys.executable, "-m", "pqvault_cli", "doctor", "--leaks", "--json"],
        env=env | {"PQVAULT_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    (found,) = (
        leak
        for leak in json.loads(done.stdout)["leaks"]
        if leak["place"] == "Hugging Face datasets"
    )
    assert found["path"] == str(cache / "datasets")
    if found["on"] == "disk":
        assert found["files"] >= 1 and done.returncode == 1 and "streaming=True" in found["set"]


def test_grain(sealed: SealedCorpus) -> None:
    """A source for grain: shuffled, batched, equal to the files."""
    grain = pytest.importorskip("grain")
    from pqvault.integrations.jax import SealedSource

    source = SealedSource(sealed.archive, globs="data/rows/*", **sealed.options)
    samples = list(grain.MapDataset.source(source).shuffle(seed=1))
    assert sorted(s.path for s in samples) == [f"data/rows/part-{n}.parquet" for n in range(3)]
    for sample in samples:
        assert sample.data == (sealed.plain.parent / sample.path).read_bytes()
    again = pickle.loads(pickle.dumps(source))  # noqa: S301
    assert again[1] == source[1] and again._getitems([2, 0]) == [source[2], source[0]]


def sealed_tensors(sealed: SealedCorpus, content: bytes) -> str:
    path = sealed.plain / "x.safetensors"
    path.write_bytes(content)
    return f"pqvault::file://{sealed.seal_file(path)}"


def test_safetensors_reads_what_is_asked(sealed: SealedCorpus) -> None:
    """Tensors, slices and metadata equal the library's; only their ranges are decrypted."""
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("safetensors.torch")
    from pqvault.integrations.safetensors import safe_open

    weights = {
        "a": torch.randn(300, 1000),
        "b": torch.arange(12, dtype=torch.int64).reshape(3, 4),
        "c": torch.tensor(5.0, dtype=torch.bfloat16),
        "d": torch.zeros(0, 7),
    }
    url = sealed_tensors(sealed, library.save(weights, {"who": "me"}))
    with safe_open(url, **sealed.options) as file:
        assert sorted(file.keys()) == list("abcd") and file.metadata() == {"who": "me"}
        for name, tensor in weights.items():
            assert torch.equal(file.get_tensor(name), tensor)
        part = file.get_slice("a")
        assert part.get_shape() == [300, 1000] and part.get_dtype() == "F32"
        for where in (
            slice(5, 9),
            (slice(5, 9), 3),
            slice(-2, None),
            (slice(None), slice(2, 4)),
            7,
        ):
            assert torch.equal(part[where], weights["a"][where])
        assert torch.equal(part[::3], weights["a"][::3])
        with pytest.raises(NotFound, match="no tensor 'z'"):
            file.get_tensor("z")


def header(value: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(value).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        header({}, length=2**62),
        header([]),
        header({"a": 1}),
        header({"a": F32 | {"data_offsets": [0, -4]}}, b"1234"),
        header({"a": F32 | {"data_offsets": [0, 2**70]}}, b"1234"),
        header({"a": F32 | {"data_offsets": [4, 8]}}, b"12345678"),
        header({"a": F32, "b": F32}, b"1234"),
        header({"a": F32}, b"12345"),
        header({"a": F32 | {"shape": ["x"]}}, b"1234"),
    ],
    ids=range(11),
)
def test_bad_safetensors(sealed: SealedCorpus, content: bytes) -> None:
    """attack 30: a header that contradicts itself is refused before anything is allocated."""
    pytest.importorskip("safetensors")
    from pqvault.integrations.safetensors import safe_open

    with pytest.raises(FormatError):
        safe_open(sealed_tensors(sealed, content), "np", **sealed.options)


@pytest.mark.parametrize(
    "facts",
    [
        {"dtype": "F32", "shape": [3], "data_offsets": [0, 10]},
        {"dtype": "XYZ", "shape": [1], "data_offsets": [0, 10]},
        {"dtype": "F32", "shape": [3, 2**62], "data_offsets": [0, 10]},
    ],
    ids=["size", "type", "overflow"],
)
def test_tensors_that_are_not_as_their_header_says(
    sealed: SealedCorpus, facts: dict[str, Any]
) -> None:
    """Refused when they are asked for, by an error that names the file."""
    pytest.importorskip("safetensors")
    from pqvault.integrations.safetensors import safe_open

    url = sealed_tensors(sealed, header({"a": facts}, bytes(10)))
    with safe_open(url, "np", **sealed.options) as tensors:
        for read in (lambda: tensors.get_tensor("a"), lambda: tensors.get_slice("a")[0:1]):
            with pytest.raises(FormatError, match=r"pqvault.*contradicts its header"):
                read()


def test_threads_that_share_safetensors_get_the_tensors_that_they_ask_for(
    sealed: SealedCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with the library's own: else one would be given the bytes of another, unseen."""
    numpy = pytest.importorskip("numpy")
    library = pytest.importorskip("safetensors.numpy")
    from pqvault.integrations.safetensors import safe_open

    weights = {f"{n:02d}": numpy.full(8, n, dtype=numpy.int64) for n in range(40)}
    url = sealed_tensors(sealed, library.save(weights))
    with safe_open(url, "np", **sealed.options) as file, ThreadPoolExecutor(4) as pool:
        kind, seek = type(file._file), file._file.seek

        def slow(at: int, *whence: int) -> int:
            place: int = seek(at, *whence)
            time.sleep(0.0005)
            return place

        monkeypatch.setattr(kind, "seek", lambda _, at, *whence: slow(at, *whence))
        for name, found in zip(weights, pool.map(file.get_tensor, weights), strict=True):
            assert numpy.array_equal(found, weights[name])


def test_safetensors_come_as_they_are_asked_for(sealed: SealedCorpus) -> None:
    """The library's names of frameworks, and its device; never those of another framework."""
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("safetensors.torch")
    from pqvault.integrations.safetensors import safe_open

    content = library.save({"a": torch.ones(3), "b": torch.ones(3, dtype=torch.bfloat16)})
    url = sealed_tensors(sealed, content)
    for framework in ("np", "numpy"):
        with safe_open(url, framework, **sealed.options) as file:
            assert type(file.get_tensor("a")).__module__ == "numpy"
            with pytest.raises(UsageError, match="has a tensor of type BF16, which NumPy does"):
                file.get_tensor("b")
    with safe_open(url, "pt", "meta", **sealed.options) as file:
        assert file.get_tensor("a").device == file.get_slice("b")[1:].device == torch.device("meta")
    with pytest.raises(UsageError, match=r"x\.safetensors.pqv are not given as 'tf'"):
        safe_open(url, framework="tf", **sealed.options)


def test_polars_has_the_columns_of_folders(sealed: SealedCorpus) -> None:
    """As of plain files: those that are named in folders below the one that is read."""
    pl = pytest.importorskip("polars")
    from pqvault.integrations.polars import scan_parquet

    for part in range(2):
        folder = sealed.plain / "hive" / f"k=k{part}"
        folder.mkdir(parents=True)
        (sealed.plain / "rows" / f"part-{part}.parquet").rename(folder / "rows.parquet")
    pqvault.seal(sealed.plain, sealed.archive, recipients=sealed.identity.recipient)
    for name in ("hive", "hive/k=k1/rows.parquet"):
        ours = scan_parquet(sealed.url(f"data/{name}"), **sealed.options)
        plain = pl.scan_parquet(sealed.plain / name)
        query = pl.col("k") == "k1" if name == "hive" else pl.col("id") > 1500
        assert ours.filter(query).collect().equals(plain.filter(query).collect())


def test_save_to_disk_is_refused(sealed: SealedCorpus) -> None:
    """Hugging Face's datasets put names behind a URL: an archive within the archive's folder."""
    datasets = pytest.importorskip("datasets")
    options = sealed.options | {"recipients": sealed.identity.recipient.text}
    before = set(sealed.archive.rglob("*"))
    with pytest.raises(UsageError, match=r"data\.pqv/data-.* is in the folder of an archive"):
        datasets.Dataset.from_dict({"a": [1]}).save_to_disk(
            f"pqvault://saved::{sealed.archive}", storage_options=options
        )
    assert set(sealed.archive.rglob("*")) == before


def test_polars_pushes_down(sealed: SealedCorpus) -> None:
    """Columns, predicates and limits give what Polars gives over the plain files."""
    pl = pytest.importorskip("polars")
    from pqvault.integrations.polars import scan_parquet

    ours = scan_parquet(sealed.url("data/rows"), **sealed.options)
    plain = pl.scan_parquet(f"{sealed.plain}/rows/*.parquet")
    for query in (
        lambda rows: rows,
        lambda rows: rows.select("label"),
        lambda rows: rows.filter(pl.col("label") == 3).select("id"),
        lambda rows: rows.filter(pl.col("id") > 100).head(7),
        lambda rows: rows.head(1500).filter(pl.col("label") == 1),
        lambda rows: rows.group_by("label").len().sort("label"),
    ):
        assert query(ours).collect().equals(query(plain).collect())


def test_duckdb_writes(sealed: SealedCorpus, tmp_path: Path) -> None:
    """COPY into an archive that it makes, partitioned too; one that fails in a transaction leaves
    nothing."""
    duckdb = pytest.importorskip("duckdb")
    from pqvault.integrations.fsspec import PQVaultFileSystem

    fs = PQVaultFileSystem(
        str(tmp_path / "rows.pqv"),
        identities=f"file:{sealed.key}",
        recipients=sealed.identity.recipient.text,
    )
    rows = "(SELECT i, i % 3 AS k FROM range(90) t(i))"
    with duckdb.connect() as db:
        db.execute("SET temp_directory = ''")
        db.register_filesystem(fs)
        db.execute(f"COPY {rows} TO 'pqvault://one.parquet'")
        with fs.transaction:
            db.execute(f"COPY {rows} TO 'pqvault://by' (FORMAT parquet, PARTITION_BY (k))")
        assert len(fs.find("by")) == 3
        sql = "SELECT k, count(*) FROM read_parquet('pqvault://by/*/*.parquet') GROUP BY k"
        assert sorted(db.sql(sql).fetchall()) == [(0, 30), (1, 30), (2, 30)]
        assert db.sql("SELECT count(*) FROM 'pqvault://one.parquet'").fetchall() == [(90,)]
        with pytest.raises(duckdb.Error, match="broken"), fs.transaction:
            db.execute(
                "COPY (SELECT if(i = 80000, error('broken'), i) FROM range(90000) t(i))"
                " TO 'pqvault://bad.csv'"
            )
    assert not fs.exists("bad.csv")
