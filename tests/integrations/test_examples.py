"""Each example of a host library runs as it stands, in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "hosts"
# example -> (the library that it needs, words that it prints)
HOSTS = {
    "with_pandas": ("pandas", "500 rows written into the archive and read back"),
    "with_pyarrow": ("pyarrow", "4 files, 4000 rows, 500 pass the filter"),
    "with_duckdb": ("duckdb", "3900 rows, the least id is 100"),
    "with_polars": ("polars", "the sum is 800800, 3 rows at the head"),
    "with_datasets": ("datasets", "a line has ['id', 'text']; 4000 rows of Parquet streamed"),
    "with_dask": ("dask", "4 partitions, the sum of even ids is 3998000"),
    "with_ray": ("ray", "4000 rows, 2000 of them odd"),
    "with_ray_data": ("ray", "1000 lines read, 100 of them written and read back"),
    "with_webdataset": ("webdataset", "150 samples from 3 shards, the first is 'sample 0'"),
    "with_safetensors": ("safetensors", "8 tensors; one is (64, 32), all 3"),
}


@pytest.mark.parametrize("name", HOSTS)
def test_example(name: str) -> None:
    """It ends well, prints what it says, and leaves no file behind."""
    library, words = HOSTS[name]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    # Short, for Ray's sockets are in it.
    folder = Path(tempfile.mkdtemp(prefix="pqv"))
    try:
        run_example(name, words, folder)
    finally:
        shutil.rmtree(folder)


def run_example(name: str, words: str, folder: Path) -> None:
    cache = folder / "cache"
    env = os.environ | {"TMPDIR": str(folder), "HF_HOME": str(cache), "RAY_TMPDIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:pqvault", EXAMPLES / f"{name}.py"],
        env=env,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert words in done.stdout, done.stdout
    for path in folder.rglob("*"):
        if path.is_file():  # Ray leaves logs, Hugging Face locks
            content = path.read_bytes()
            assert b"sample 1" not in content and b"line 1" not in content, path
            assert b"SECRET-KEY" not in content, path


def test_training_resumes_with_identical_batches() -> None:
    """examples/train.py: a model trained from an archive, stopped, and resumed."""
    if importlib.util.find_spec("torchdata") is None:
        pytest.skip("torchdata is not installed")
    folder = Path(tempfile.mkdtemp(prefix="pqv"))
    try:
        run_example("../train", "60 batches, losses and final weights are identical", folder)
    finally:
        shutil.rmtree(folder)


def test_every_example_is_tested() -> None:
    """The table above knows all of them."""
    there = {path.stem for path in EXAMPLES.glob("with_*.py")}
    assert there == set(HOSTS)
