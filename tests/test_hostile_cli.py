"""What commands say of archives that are damaged or forged where a reader comes late to it: each
ends with the exit code of the damage, and names do not drive the terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import hostile as h
import pytest

import pqvault

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
