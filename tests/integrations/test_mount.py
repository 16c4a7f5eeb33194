"""`pqvault mount`, for real: FUSE shows an archive as a folder."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import heed_signals

import pqvault
from pqvault.errors import UsageError
from pqvault.integrations import mount
from pqvault.integrations.mount import ArchiveFiles

TOOL = Path(sys.executable).with_name("pqvault")


def tree(folder: Path) -> None:
    """Files of all kinds that an archive keeps, with odd names."""
    (folder / "inner/deep").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "a.txt").write_text("hello")
    (folder / "inner/large").write_bytes(os.urandom(3_000_000) + bytes(5_000_000))
    (folder / "inner/deep/link").symlink_to("../../a.txt")
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff\n name"))).write_text("odd")
    (folder / "script").write_text("#!/bin/sh")
    (folder / "script").chmod(0o4755)
    os.utime(folder / "a.txt", ns=(1, 1_234_567_890_123_456_789))


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    """A folder with ``data``, ``data.pqv`` and ``key.txt``."""
    tree(tmp_path / "data")
    key = pqvault.Identity.generate()
    key.save_file(tmp_path / "key.txt")
    pqvault.seal(tmp_path / "data", recipients=[key.recipient])
    (tmp_path / "view").mkdir()
    return tmp_path


@contextmanager
def mounted(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The archive in ``view``; skips where FUSE is not there."""
    try:
        import mfusepy  # noqa: F401
    except (ImportError, OSError) as error:  # the package, or the system's library
        pytest.skip(f"no FUSE on this machine: {error}")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK) or not shutil.which("fusermount3"):
        pytest.skip("no FUSE on this machine")
    run = subprocess.Popen(
        [TOOL, "mount", "data.pqv", "view", "-i", "key.txt"],
        cwd=folder,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,
    )
    for _ in range(300):
        if os.path.ismount(folder / "view") or run.poll() is not None:
            break
        time.sleep(0.05)
    if run.poll() is not None and "mount" in (said := run.communicate()[1]):
        pytest.skip(f"this machine does not let us mount: {said}")
    try:
        yield run
    finally:
        subprocess.run(["umount", folder / "view"], capture_output=True)
        if run.poll() is None:
            try:
                run.wait(20)
            except subprocess.TimeoutExpired:
                run.kill()
        run.communicate()


def test_programs_see_the_same_files(sealed: Path) -> None:
    """diff, find, cp -p; and nothing can be written."""
    with mounted(sealed) as run:
        view = sealed / "view/data"
        done = subprocess.run(["diff", "-r", sealed / "data", view], capture_output=True)
        assert done.returncode == 0, done.stdout
        assert os.stat(view / "a.txt").st_mtime_ns == 1_234_567_890_123_456_789
        assert os.readlink(view / "inner/deep/link") == "../../a.txt"
        assert os.stat(view / "script").st_mode & 0o7777 == 0o555
        assert sorted(os.listdir(os.fsencode(view))) == sorted(
            os.listdir(os.fsencode(sealed / "data"))
        )
        with open(view / "inner/large", "rb") as file:
            file.seek(2_999_990)
            assert file.read(20)[10:] == bytes(10)
        for attempt in (lambda: (view / "new").write_text("x"), lambda: (view / "a.txt").unlink()):
            with pytest.raises(OSError) as caught:
                attempt()
            assert caught.value.errno == errno.EROFS
        assert not (view / "none").exists()
        subprocess.run(["umount", sealed / "view"], check=True)
        assert run.wait(20) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_unmounts(sealed: Path, number: signal.Signals) -> None:
    """As one ends any program; `kill` and a terminal that closes do it, too."""
    with mounted(sealed) as run:
        run.send_signal(number)
        assert run.wait(20) == 0
        assert not os.path.ismount(sealed / "view")


def test_damage_is_an_error_of_the_read_and_is_told(sealed: Path) -> None:
    """The program gets EIO, never other bytes; whoever mounted it sees which file."""
    found = sorted((sealed / "data.pqv").glob("parts/*/objects/*"))
    data = bytearray(found[0].read_bytes())
    data[len(data) // 2] ^= 1
    found[0].write_bytes(data)
    told: list[str] = []
    with pqvault.open(sealed / "data.pqv", identities=[sealed / "key.txt"]) as archive:
        files = ArchiveFiles(archive, told.append)
        number = files.open("/data/inner/large", os.O_RDONLY)
        with pytest.raises(OSError) as caught:
            files.read("/data/inner/large", 8_000_000, 0, number)
        assert caught.value.errno == errno.EIO
        assert told and told[0].startswith("/data/inner/large: ")
        with pytest.raises(OSError) as caught:
            files.open("/data/a.txt", os.O_RDWR)
        assert caught.value.errno == errno.EROFS
        with pytest.raises(OSError) as caught:
            files.getattr("/data/../data")
        assert caught.value.errno == errno.ENOENT


def test_what_a_killed_mount_left_is_named(sealed: Path) -> None:
    with mounted(sealed) as run:
        run.kill()
        run.wait(20)
        with pytest.raises(UsageError, match="whose process was killed") as caught:
            mount.check(sealed / "view")
        assert caught.value.hint == f"unmount it first: umount {sealed / 'view'}"


@pytest.mark.parametrize("what", ["none", "data"])
def test_a_folder_that_cannot_be_used(sealed: Path, what: Any) -> None:
    """Not there, or not empty: exit code 2, a sentence, nothing mounted."""
    done = subprocess.run(
        [TOOL, "mount", "data.pqv", what, "-i", "key.txt"],
        cwd=sealed,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and f"{what} is no empty folder" in done.stderr
