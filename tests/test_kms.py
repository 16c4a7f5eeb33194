"""Parquet's own encryption with a keyset: every landmine that Parquet's tools leave open."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest
from test_cli import shell  # noqa: F401  (a fixture)

from pqvault import Identity
from pqvault.errors import FormatError, IntegrityError, KeyStateForbids, NotFound, UsageError
from pqvault.keyset import Keyset
from pqvault.tables.kms import Kms, KmsClient, check_encrypted, column_paths, material_path

ROOT = Path(__file__).resolve().parent.parent
KEY = Identity.generate()
CANARY = "canary-of-the-plaintext"
TABLE = pa.table(
    {
        "id": list(range(1000)),
        "email": [f"{CANARY}-{i}" for i in range(1000)],
        "chat": [[{"role": "user", "text": CANARY}]] * 1000,
        "tags": pa.array([[("k", CANARY)]] * 1000, pa.map_(pa.string(), pa.string())),
        "when": pa.array([dt.datetime(2026, 1, 1)] * 1000, pa.timestamp("us", "UTC")),
        "a.b": pa.array(["x", CANARY] * 500).dictionary_encode(),
    }
)


@pytest.fixture
def kms(tmp_path: Path) -> Kms:
    Keyset.create(tmp_path / "keys.pqv", [KEY.recipient], ["lake", "pii"])
    return Kms(Keyset.open(tmp_path / "keys.pqv", [KEY]))


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("column_keys", [None, {"pii": ["email", "chat"]}])
def test_round_trip(tmp_path: Path, kms: Kms, external: bool, column_keys: Any) -> None:
    """Uniform and by column, keys in the file and beside it: equal, and nothing in the clear."""
    path = tmp_path / "t.parquet"
    kms.write_table(
        TABLE,
        path,
        footer_key="lake",
        column_keys=column_keys,
        external=external,
        row_group_size=300,
        compression="none",
    )
    assert kms.read_table(path) == TABLE
    assert kms.read_table(path, ["id", "email"]) == TABLE.select(["id", "email"])
    assert kms.open(path).metadata.num_row_groups == 4
    data = path.read_bytes()
    assert CANARY.encode() not in data and b"email" not in data
    assert os.path.exists(material_path(path)) == external
    again = Kms(Keyset.open(kms.keyset.path, [KEY]))
    assert again.read_table(path) == TABLE


def test_every_column_is_encrypted(tmp_path: Path, kms: Kms) -> None:
    """Landmine 2: columns that no key names are in the clear, unless the helper is used."""
    path = tmp_path / "t.parquet"
    bare = pe.EncryptionConfiguration(
        "lake", column_keys={"pii": ["email"]}, double_wrapping=False, data_key_length_bits=256
    )
    properties = kms.factory.file_encryption_properties(kms.connection, bare)
    with pq.ParquetWriter(
        path, TABLE.schema, encryption_properties=properties, compression="none"
    ) as writer:
        writer.write_table(TABLE)
    assert CANARY.encode() in path.read_bytes()
    kms.write_table(
        TABLE, path, footer_key="lake", column_keys={"pii": ["email"]}, compression="none"
    )
    assert CANARY.encode() not in path.read_bytes()
    config = kms.encryption(TABLE.schema, footer_key="lake", column_keys={"pii": ["chat"]})
    covered = sorted(leaf for leaves in config.column_keys.values() for leaf in leaves)
    assert covered == sorted(column_paths(TABLE.schema))
    assert config.column_keys["pii"] == ["chat.list.element.role", "chat.list.element.text"]


def test_settings_are_those_that_hold(kms: Kms) -> None:
    """Landmines 1 and 7: single wrapping, 256 bits, GCM for pages too, the footer encrypted."""
    config = kms.encryption(TABLE.schema, footer_key="lake")
    assert config.double_wrapping is False and config.data_key_length_bits == 256
    assert config.encryption_algorithm == "AES_GCM_V1" and config.plaintext_footer is False


@pytest.mark.parametrize(
    "settings", [{}, {"double_wrapping": False}, {"data_key_length_bits": 256}]
)
def test_keys_of_128_bits_are_refused(kms: Kms, settings: dict[str, Any]) -> None:
    """Landmine 1: Parquet's defaults, single or double, ask the keyset to wrap 128-bit keys."""
    config = pe.EncryptionConfiguration("lake", uniform_encryption=True, **settings)
    with pytest.raises(UsageError, match="128 bits"):
        kms.factory.file_encryption_properties(kms.connection, config)


def test_bad_settings(kms: Kms) -> None:
    """Landmine 10, and keys or columns that are not there."""
    with pytest.raises(NotFound, match="no master key 'nope'"):
        kms.encryption(TABLE.schema, footer_key="nope")
    with pytest.raises(NotFound, match="no master key 'nope'"):
        kms.encryption(TABLE.schema, footer_key="lake", column_keys={"nope": ["id"]})
    with pytest.raises(UsageError, match="no column 'emial'"):
        kms.encryption(TABLE.schema, footer_key="lake", column_keys={"pii": ["emial"]})
    with pytest.raises(UsageError, match="given two keys"):
        both = {"pii": ["chat"], "lake": ["chat.list.element.role"]}
        kms.encryption(TABLE.schema, footer_key="lake", column_keys=both)
    for name in ("a,b", "a:b", "a;b", " a"):
        schema = pa.schema([(name, pa.int8()), ("x", pa.int8())])
        with pytest.raises(UsageError, match="cannot be given a key"):
            kms.encryption(schema, footer_key="lake", column_keys={"pii": ["x"]})
        assert kms.encryption(schema, footer_key="lake").uniform_encryption


def test_odd_names_under_one_key(tmp_path: Path, kms: Kms) -> None:
    """Uniform encryption takes any name."""
    table = pa.table({"a,b": [1], " c:d;": ["x"]})
    kms.write_table(table, tmp_path / "t.parquet", footer_key="pii")
    assert kms.read_table(tmp_path / "t.parquet") == table


def test_a_plaintext_file_is_not_read(tmp_path: Path, kms: Kms) -> None:
    """Landmine 3: Parquet reads one with the keys at hand and says nothing; we refuse."""
    path = tmp_path / "t.parquet"
    pq.write_table(TABLE, path)
    properties = kms.factory.file_decryption_properties(kms.connection)
    assert pq.ParquetFile(path, decryption_properties=properties).read() == TABLE
    reads = (kms.read_table, kms.open, check_encrypted, lambda p: kms.dataset([p]))
    for read in reads:
        with pytest.raises(IntegrityError, match="not encrypted Parquet"):
            read(path)
    config = pe.EncryptionConfiguration(
        "lake",
        column_keys={"pii": ["email"]},
        plaintext_footer=True,
        double_wrapping=False,
        data_key_length_bits=256,
    )
    footer = kms.factory.file_encryption_properties(kms.connection, config)
    with pq.ParquetWriter(path, TABLE.schema, encryption_properties=footer) as writer:
        writer.write_table(TABLE)
    for read in reads:
        with pytest.raises(IntegrityError, match="not encrypted Parquet"):
            read(path)
    for data in (b"", b"PARE", b"PAREPARE", b"PARE" + b"x" * 20):
        path.write_bytes(data)
        with pytest.raises(IntegrityError):
            kms.read_table(path)


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 7])
def test_every_byte_of_a_file_counts(tmp_path: Path, kms: Kms, step: int) -> None:
    """attack 10: a byte of the file is flipped, or it is cut: an error, or the same rows."""
    path = tmp_path / "t.parquet"
    table = pa.table({"a": list(range(20)), "t": ["x", "y"] * 10})
    kms.write_table(table, path, footer_key="lake", column_keys={"pii": ["t"]})
    good = path.read_bytes()
    silent = []
    for at in range(0, len(good), step):
        bad = bytearray(good)
        bad[at] ^= 1
        path.write_bytes(bad)
        try:
            assert kms.read_table(path) == table
            silent.append(at)
        except IntegrityError:
            pass
        except (NotFound, FormatError):
            assert b"pqk1" in good  # the reference itself was hit
    # Column and offset indexes, which no plain read touches: encrypted, and at the end.
    assert len(silent) < len(good) / step / 4
    for cut in range(0, len(good), 7 * step):
        path.write_bytes(good[:cut])
        with pytest.raises(IntegrityError):
            kms.read_table(path)


def test_keys_are_not_asked_for_again(
    tmp_path: Path, kms: Kms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Landmine 8: Parquet asks for a key in each row group; the client opens each once, and the
    references add little to the footer."""
    wide = pa.table({f"c{i}": list(range(100)) for i in range(30)})
    keys = {"pii": [f"c{i}" for i in range(0, 30, 2)]}
    path, plain = tmp_path / "t.parquet", tmp_path / "p.parquet"
    kms.write_table(wide, path, footer_key="lake", column_keys=keys, row_group_size=10)
    pq.write_table(wide, plain, row_group_size=10)
    asked: list[str] = []
    unwrap = Keyset.unwrap
    monkeypatch.setattr(Keyset, "unwrap", lambda s, r, n: asked.append(r) or unwrap(s, r, n))
    again = Kms(Keyset.open(kms.keyset.path, [KEY]))
    assert again.read_table(path) == wide
    assert len(asked) == len(set(asked)) == 31
    assert path.stat().st_size - plain.stat().st_size < 300 * 700


def test_a_dataset_of_many_files(tmp_path: Path, kms: Kms) -> None:
    """Projection and filters, each file with keys of its own, external material too."""
    paths = []
    for day in range(4):
        path = tmp_path / f"d{day}.parquet"
        table = pa.table({"day": [day] * 50, "x": list(range(50))})
        kms.write_table(table, path, footer_key="lake", external=day == 2)
        paths.append(path)
    data = kms.dataset(paths)
    assert data.count_rows(filter=pc.field("day") >= 2) == 100
    found = data.to_table(columns=["x"], filter=(pc.field("day") == 2) & (pc.field("x") < 5))
    assert found.to_pydict() == {"x": [0, 1, 2, 3, 4]}
    with pytest.raises(UsageError, match="no file"):
        kms.dataset([])


def test_the_process_ends(tmp_path: Path, kms: Kms) -> None:
    """Landmine 6: pyarrow's own `head` hangs at exit with a `KmsClient`; this one does not, and
    gives the first rows, of columns and with a filter."""
    paths = []
    for number in range(3):
        path = tmp_path / f"d{number}.parquet"
        table = pa.table({"x": list(range(20_000)), "y": ["t"] * 20_000})
        kms.write_table(
            table, path, footer_key="lake", column_keys={"pii": ["y"]}, row_group_size=1000
        )
        paths.append(str(path))
    data = kms.dataset(paths)
    assert data.head(25_000, columns=["x"])["x"].to_pylist() == [*range(20_000), *range(5_000)]
    assert data.head(2, filter=pc.field("x") > 19_998).to_pydict() == {
        "x": [19_999] * 2,
        "y": ["t"] * 2,
    }
    assert data.head(0).num_rows == 0 and data.head(0).schema == data.schema
    code = (
        "import sys\n"
        "from pqvault import Identity\n"
        "from pqvault.keyset import Keyset\n"
        "from pqvault.tables.kms import Kms\n"
        "kms = Kms(Keyset.open(sys.argv[1], [Identity.parse(sys.stdin.read())]))\n"
        "data = kms.dataset(sys.argv[2:])\n"
        "print(data.to_table().num_rows, data.head(1).num_rows)\n"
    )
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code, kms.keyset.path, *paths],
            input=KEY.text,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stdout) == (0, "60000 1\n"), done.stderr


def test_another_keyset_does_not_open(tmp_path: Path, kms: Kms) -> None:
    """The sentence names both."""
    kms.write_table(TABLE, tmp_path / "t.parquet", footer_key="lake")
    Keyset.create(tmp_path / "other.pqv", [KEY.recipient], ["lake", "pii"])
    other = Kms(Keyset.open(tmp_path / "other.pqv", [KEY]))
    with pytest.raises(NotFound, match=f"wrapped with the keyset {kms.keyset.id}"):
        other.read_table(tmp_path / "t.parquet")


# -- rotation


def written(folder: Path, kms: Kms) -> Path:
    path = folder / "t.parquet"
    kms.write_table(TABLE, path, footer_key="lake", column_keys={"pii": ["email"]}, external=True)
    return path


def versions(path: Path) -> set[tuple[str, str]]:
    material = json.loads(Path(material_path(path)).read_bytes())
    found = [json.loads(text) for text in material.values()]
    return {(one["masterKeyID"], one["wrappedDEK"].split(":")[2]) for one in found}


def test_material_is_wrapped_anew(tmp_path: Path, kms: Kms) -> None:
    """Ours: only what is old is wrapped, the old version can go, the Parquet file is the same."""
    path = written(tmp_path, kms)
    before = path.read_bytes()
    assert kms.rotate_material(path) == 0
    kms.keyset.renew("pii")
    assert kms.rotate_material(path) == 1 and kms.rotate_material(path) == 0
    assert versions(path) == {("lake", "1"), ("pii", "2")}
    kms.keyset.destroy("pii", 1)
    again = Kms(Keyset.open(kms.keyset.path, [KEY]))
    assert again.read_table(path) == TABLE and path.read_bytes() == before
    kms.keyset.destroy("pii", 2)
    with pytest.raises(KeyStateForbids, match="pii@2"):
        Kms(Keyset.open(kms.keyset.path, [KEY])).read_table(path)


def test_arrows_own_rotation(tmp_path: Path, kms: Kms) -> None:
    """`CryptoFactory.rotate_master_keys` with a client of ours."""
    path = written(tmp_path, kms)
    kms.keyset.renew("pii")
    kms.keyset.renew("lake")
    factory = pe.CryptoFactory(lambda config: KmsClient(kms.keyset))
    factory.rotate_master_keys(pe.KmsConnectionConfig(), path, double_wrapping=False)
    assert versions(path) == {("lake", "2"), ("pii", "2")}
    assert Kms(Keyset.open(kms.keyset.path, [KEY])).read_table(path) == TABLE


def test_material_that_is_none(tmp_path: Path, kms: Kms) -> None:
    """Keys in the file, damaged material, double wrapping, material of another file."""
    kms.write_table(TABLE, tmp_path / "in.parquet", footer_key="lake")
    with pytest.raises(NotFound, match="no key material beside"):
        kms.rotate_material(tmp_path / "in.parquet")
    path = written(tmp_path, kms)
    beside = Path(material_path(path))
    good = beside.read_bytes()
    twice = good.replace(rb"\"doubleWrapping\":false", rb"\"doubleWrapping\":true")
    deep = b'{"a":' * 100_000
    for data in (b"", b"{", b"[]", b'{"a":1}', b'{"a":"{}"}', twice, good[:-9], deep):
        beside.write_bytes(data)
        with pytest.raises(FormatError):
            kms.rotate_material(path)
        assert beside.read_bytes() == data
    other = tmp_path / "other.parquet"
    kms.write_table(TABLE, other, footer_key="lake", column_keys={"pii": ["email"]}, external=True)
    beside.write_bytes(Path(material_path(other)).read_bytes())
    with pytest.raises(IntegrityError):
        kms.read_table(path)


def test_a_rotation_that_is_killed(tmp_path: Path, kms: Kms) -> None:
    """attack 33: kill -9 while material is wrapped anew without end: old or new, never neither."""
    path = written(tmp_path, kms)
    code = (
        "import sys\n"
        "from pqvault import Identity\n"
        "from pqvault.keyset import Keyset\n"
        "from pqvault.tables.kms import Kms\n"
        "keyset = Keyset.open(sys.argv[1], [Identity.parse(sys.stdin.read())])\n"
        "kms = Kms(keyset)\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    keyset.renew('pii')\n"
        "    kms.rotate_material(sys.argv[2])\n"
    )
    for round_ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", code, kms.keyset.path, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin and process.stdout
        process.stdin.write(KEY.text)
        process.stdin.close()
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.03 + 0.017 * round_)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert Kms(Keyset.open(kms.keyset.path, [KEY])).read_table(path) == TABLE
    assert versions(path) != {("lake", "1"), ("pii", "1")}


# -- the page and the example


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def test_the_page_runs_as_printed(folder: Path, shell: dict[str, str]) -> None:  # noqa: F811
    """Every block of docs/kms.md, in order, in one folder."""
    text = (ROOT / "docs" / "kms.md").read_text()
    blocks = re.findall(r"```(sh|python)\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 7
    for language, code in blocks:
        command = ["bash", "-ec"] if language == "sh" else [sys.executable, "-c"]
        done = subprocess.run(
            [*command, code], cwd=folder, env=shell, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


def test_the_example_runs(folder: Path) -> None:
    """examples/kms.py, in a folder of its own."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "kms.py"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "opens for bob" in done.stdout and "alice: no identity fits" in done.stdout
