"""What commands say of archives that are damaged or forged where a reader comes late to it: each
ends with the exit code of the damage, and names do not drive the terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import hostile as h
import pyarrow as pa
import pytest

import pqvault
from pqvault import tables
from pqvault.logs.schema import JSON, TIME_TYPE

KEY = pqvault.Identity.generate()
C = b"hello world" * 10


def run(tmp_path: Path, *args: object) -> subprocess.CompletedProcess[str]:
    """One command, with the key."""
    key = tmp_path / "key.txt"
    key.write_text(KEY.text)
    key.chmod(0o600)
    return subprocess.run(
        [sys.executable, "-m", "pqvault_cli", *map(str, args), "-i", str(key)],
        env=h.child_env(tmp_path / "home"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def damaged_late(tmp_path: Path) -> Path:
    """An archive whose catalog is good up to its second row group, which no footer tells."""
    rows: list[dict[str, Any]] = [h.file_row(b"a", C), h.row(b"z", "q")]
    forger = h.Forger(tmp_path / "x.pqv", KEY.recipient)
    forger.part(h.parquet(rows, group=1), {0: h.plain_of(C)})
    return forger.archive


def test_damage_that_unseal_meets_on_the_way_is_told(tmp_path: Path, damaged_late: Path) -> None:
    out = tmp_path / "out"
    done = run(tmp_path, "unseal", damaged_late, "-o", out)
    assert done.returncode == 13
    assert "has an entry of an unknown kind" in done.stderr
    assert "is not all" in done.stderr
    assert h.tree(out) == {b"a": C}


@pytest.mark.parametrize("verb", ["ls", "cat", "tail"])
def test_damage_that_a_log_meets_on_the_way_is_told(
    tmp_path: Path, damaged_late: Path, verb: str
) -> None:
    done = run(tmp_path, "log", verb, damaged_late)
    assert done.returncode == 13
    assert "has an entry of an unknown kind" in done.stderr


def log_parts(tmp_path: Path, *rows: pa.Table) -> tuple[Path, list[str]]:
    """A log of a part for each table, and their ids."""
    archive = tmp_path / "log.pqv"
    keys = {"recipients": [KEY.recipient], "mode": "append"}
    return archive, [tables.write_table(archive, "inference", table, **keys) for table in rows]


@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_a_bad_part_of_a_log_does_not_keep_the_others_from_being_read(
    tmp_path: Path, fault: str
) -> None:
    archive, parts = log_parts(tmp_path, *(pa.table({"n": [i]}) for i in range(3)))
    (file,) = (archive / "parts" / parts[1] / "tables").iterdir()
    if fault == "missing":
        file.unlink()
    else:
        file.write_bytes(h.flip(file.read_bytes(), 100, 1))
    for verb in ("cat", "tail"):
        done = run(tmp_path, "log", verb, archive)
        assert done.stdout.splitlines() == ['{"n":0}', '{"n":2}']
        assert done.returncode == 13 and file.name in done.stderr


def test_a_part_with_columns_of_other_types_does_not_hide_a_log(tmp_path: Path) -> None:
    """Whoever knows the public key can add one."""
    archive, _ = log_parts(tmp_path, pa.table({"n": [1]}), pa.table({"n": ["forged"]}))
    done = run(tmp_path, "log", "cat", archive)
    assert done.stdout.splitlines() == ['{"n":1}', '{"n":"forged"}']
    assert done.returncode == 0


def test_a_bad_catalog_among_many_is_one_problem(tmp_path: Path) -> None:
    """Also where there are more parts than catalogs are read of at once."""
    forger = h.Forger(tmp_path / "many.pqv", KEY.recipient)
    for number in range(69):
        forger.part([h.row(b"d%02d" % number, "d")])
    broken = forger.part(b"PAR1xPAR1", seq=2)
    done = run(tmp_path, "parts", forger.archive)
    assert done.returncode == 13
    assert sum("1 entry" in line for line in done.stdout.splitlines()) == 69
    (line,) = (line for line in done.stdout.splitlines() if broken in line)
    assert "damaged" in line
    done = run(tmp_path, "log", "ls", forger.archive)
    assert done.returncode == 13 and done.stderr.count(broken) == 1


DEEP = "[" * 700 + "]" * 700
ODD = {
    "JSON too deep": (pa.array([DEEP]), f'{{"odd":"{DEEP}"}}'),
    "JSON that is no text": (pa.array([7]), '{"odd":7}'),
}
TIMES = {
    "years": (pa.array([2**62], pa.timestamp("us", "UTC")), f"<value out of range: {2**62}>"),
    "nanoseconds": (pa.array([2**62], pa.timestamp("ns", "UTC")), "2116-02-20T23:53:38.427387904Z"),
    "a zone of nobody": (
        pa.array([0], pa.timestamp("us", "No/\x1b")),
        "1970-01-01T00:00:00.000000Z",
    ),
    "days": (pa.array([2**31 - 1], pa.date32()), "<value out of range: 2147483647>"),
    "durations": (pa.array([2**62], pa.duration("ns")), str(2**62)),
}


@pytest.mark.parametrize("name", ODD)
def test_a_log_whose_json_python_cannot_parse_is_read(tmp_path: Path, name: str) -> None:
    column, line = ODD[name]
    schema = pa.schema([pa.field("odd", column.type, metadata=dict(JSON))])
    archive, _ = log_parts(tmp_path, pa.table([column], schema=schema))
    done = run(tmp_path, "log", "cat", archive)
    assert (done.returncode, done.stdout, done.stderr) == (0, line + "\n", "")


@pytest.mark.parametrize("name", TIMES)
def test_times_that_python_does_not_have_are_read(tmp_path: Path, name: str) -> None:
    column, shown = TIMES[name]
    archive, _ = log_parts(tmp_path, pa.table({"odd": column}))
    for verb in (("log", "cat", archive), ("log", "tail", archive)):
        done = run(tmp_path, *verb)
        assert done.returncode == 0 and shown in done.stdout, done.stderr
    done = run(tmp_path, "table", "export", archive, "inference", "--format", "jsonl")
    assert done.returncode == 0 and shown in done.stdout, done.stderr


@pytest.mark.parametrize("odd", [["x"], [{"a": 1}], [None]])
def test_since_leaves_out_what_has_no_times_and_says_so(tmp_path: Path, odd: list[Any]) -> None:
    good = pa.table({"time": pa.array([10**15], TIME_TYPE)})
    archive, _ = log_parts(tmp_path, pa.table({"time": odd}), pa.table({"n": [1]}), good)
    done = run(tmp_path, "log", "cat", archive, "--since", "2000-01-01")
    assert done.stdout == '{"time":"2001-09-09T01:46:40+00:00"}\n'
    assert done.returncode == 13 and "have no times" in done.stderr


@pytest.mark.parametrize("verb", [("reencrypt",), ("compact", "--keep-last", "1")])
def test_an_object_that_is_missing_is_damage_to_who_writes_it_anew(
    tmp_path: Path, verb: tuple[str, ...]
) -> None:
    forger = h.Forger(tmp_path / "x.pqv", KEY.recipient)
    for name in (b"a", b"b"):
        forger.part([h.file_row(name, C)], {0: h.plain_of(C)})
    for path in forger.archive.glob("parts/*/objects/*"):
        path.unlink()
    done = run(tmp_path, *verb, forger.archive)
    assert done.returncode == 13 and " is missing" in done.stderr
    assert len(list((forger.archive / "commits").iterdir())) == 2
