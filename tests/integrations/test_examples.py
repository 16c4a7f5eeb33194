"""Each example of a host library runs as it stands, in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "hosts"
# example -> (the library that it needs, words that it prints)
HOSTS = {
    "with_pandas": ("pandas", "500 rows written into the archive and read back"),
    "with_pyarrow": ("pyarrow", "4 files, 4000 rows, 500 pass the filter"),
}


@pytest.mark.parametrize("name", HOSTS)
def test_example(name: str, tmp_path: Path) -> None:
    """It ends well, prints what it says, and leaves no file behind."""
    library, words = HOSTS[name]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    env = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:pqvault", EXAMPLES / f"{name}.py"],
        env=env,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert words in done.stdout, done.stdout
    left = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert left == [], "plaintext or keys may be in what an example leaves"


def test_every_example_is_tested() -> None:
    """The table above knows all of them."""
    there = {path.stem for path in EXAMPLES.glob("with_*.py")}
    assert there == set(HOSTS)
