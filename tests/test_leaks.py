"""`pqvault doctor --leaks`: what it finds, what it does not call a leak, what it never reads."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pqvault import leaks
from pqvault_cli.main import cli


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All places below one folder, which is taken for a plain disk."""
    for variable, folder in (
        ("HOME", "home"),
        ("XDG_CACHE_HOME", "home/.cache"),
        ("TMPDIR", "tmp"),
        ("RAY_TMPDIR", "ray-tmp"),
    ):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        monkeypatch.setenv(variable, str(tmp_path / folder))
    for variable in ("HF_HOME", "HF_DATASETS_CACHE", "HF_HUB_CACHE", "DATA_OPTIMIZER_CACHE_FOLDER"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(leaks, "_medium", lambda path: leaks.DISK)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


LEFT = {
    "Hugging Face datasets": "home/.cache/huggingface/datasets/json/default-1/0/train.arrow",
    "Hugging Face hub": "home/.cache/huggingface/hub/datasets--x/blobs/0f3a",
    "litData chunks": "home/.lightning/chunks/ab/chunk-0-0.bin",
    "Ray spill folder": "ray-tmp/ray/session_1/ray_spilled_objects_5/9f-multi-1",
    "DuckDB temp": "work/.tmp/duckdb_temp_storage-0.tmp",
    "Dask spill folder": "tmp/dask-scratch-space/worker-1/storage/key",
    "TMPDIR": "tmp/tmpabc123/rows.parquet",
    "core dumps": "work/core.123",
}


@pytest.mark.parametrize("place", LEFT)
def test_finds_what_is_left(places: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each place: empty it is open, with a file it leaks, and there is something to set."""
    real = leaks._lines
    pattern = {"/proc/sys/kernel/core_pattern": ["core"]}
    monkeypatch.setattr(leaks, "_lines", lambda path: pattern.get(str(path)) or real(path))
    monkeypatch.setattr(leaks, "_core_limit", lambda: -1)
    before = [leak for leak in leaks.find() if leak.place == place]
    assert before and all(leak.open and not leak.leaking and leak.set for leak in before)
    path = places / LEFT[place]
    path.parent.mkdir(parents=True) if not path.parent.exists() else None
    path.write_bytes(b"x" * 1000)
    path.chmod(0)  # it is never opened
    (leak,) = [leak for leak in leaks.find() if leak.leaking]
    assert (leak.place, leak.files, leak.size) == (place, 1, 1000)


def test_memory_and_encrypted_disks_are_no_leaks(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache on /dev/shm or on LUKS is what it should be."""
    path = places / LEFT["Hugging Face datasets"]
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    for medium in (leaks.MEMORY, leaks.ENCRYPTED):
        monkeypatch.setattr(leaks, "_medium", lambda path, medium=medium: medium)
        found = [leak for leak in leaks.find() if leak.place == "Hugging Face datasets"]
        assert [leak.on for leak in found] == [medium] and not found[0].open


def test_media(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tmpfs is memory; dm-crypt is told by sysfs, also below LVM; a path need not be there."""
    if os.path.ismount("/dev/shm"):
        assert leaks._medium(Path("/dev/shm/not/there")) == leaks.MEMORY
    monkeypatch.setattr(leaks, "_type_of", lambda device: "ext4")
    assert leaks._medium(tmp_path / "not" / "there") in (leaks.DISK, leaks.ENCRYPTED)
    files: dict[str, list[str]] = {"/sys/dev/block/253:1/dm/uuid": ["CRYPT-LUKS2-0f3a-home"]}
    monkeypatch.setattr(leaks, "_lines", lambda path: files.get(str(path), []))
    assert leaks._is_encrypted(os.makedev(253, 1)) and not leaks._is_encrypted(os.makedev(253, 2))


@pytest.mark.parametrize(
    ("line", "on", "files"),
    [
        ("/dev/sda9 partition 1000 0 -2", "disk", 0),
        ("/dev/sda9 partition 1000 500 -2", "disk", 1),
        ("/dev/zram0 partition 1000 500 100", "memory", 1),
    ],
)
def test_swap(line: str, on: str, files: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Swap on a disk is open, and leaks once it is used; zram is memory."""
    monkeypatch.setattr(leaks, "_lines", lambda path: ["Filename Type", line])
    (leak,) = leaks._swap()
    assert (leak.on, leak.files) == (on, files) and leak.leaking == (on == "disk" and files == 1)


def test_command(places: Path) -> None:
    """Words and JSON say the same; exit code 1 when something lies there."""

    def run(*args: str) -> Any:
        return CliRunner().invoke(cli, ["doctor", "--leaks", *args], standalone_mode=False)

    path = places / LEFT["Hugging Face datasets"]
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * 2048)
    done = run()
    assert "LEAK Hugging Face datasets:" in done.output and "streaming=True" in done.output
    assert "(disk, 1 file, 2" in done.output
    assert done.return_value == 1
    found = json.loads(run("--json").output)["leaks"]
    assert found[0]["place"] == "Hugging Face datasets" and found[0]["files"] == 1
