"""Where pqvault runs: a container's user without a home, a program that Python is only a part of,
file systems that are all read-only."""

from __future__ import annotations

import errno
import os
import pwd
import re
import subprocess
import sys
import tempfile
from multiprocessing import spawn
from pathlib import Path

import pytest
from conftest import Box, noise

import pqvault
from pqvault import doctor, home, leaks
from pqvault.archive.processes import LARGE, processes_for
from pqvault.crypto import oqs_library
from pqvault.errors import PQVaultError, UsageError
from pqvault.integrations import safetensors
from pqvault.keystore import Keystore
from pqvault.keystore.backup import private_copy
from pqvault.storage import LocalStorage


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who is a number: no HOME, and no line in the list of users."""

    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for variable in ("HOME", "PQVAULT_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)


def test_who_has_no_home_reads(
    box: Box, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What needs a folder of its own says which variable gives it one; reading needs none."""
    box.tree({"x": b"1"})
    box.seal()
    request.getfixturevalue("nobody")
    monkeypatch.chdir(box.root)
    assert not Keystore.exists()
    assert box.contents()["src/x"] == ("f", b"1")
    box.unseal()
    with pytest.raises(PQVaultError, match="no home folder") as told:
        box.seal()
    assert "PQVAULT_HOME" in told.value.hint
    assert not Path("~").exists(), "older platformdirs leave it as it is"


def test_an_old_platformdirs_leaves_the_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PQVAULT_HOME")
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_, **__: "~/.local/share/pqvault")
    with pytest.raises(PQVaultError, match="no home folder"):
        home.folder()
    assert not home.has_keystore()


@pytest.mark.usefixtures("nobody")
def test_doctor_examines_who_has_no_home() -> None:
    found = doctor.examine()
    assert found.checks.pop("journals can be kept").startswith("FAILED: this user has no home")
    assert set(found.checks.values()) == {"ok"} and found.places["PQVAULT_HOME"] == "none"
    assert leaks.find()
    assert not list(oqs_library._files()), "nor is a library of the working folder taken"


@pytest.mark.parametrize("what", ["frozen", "", None])
def test_no_python_to_start_workers_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str | None
) -> None:
    """Threads do the work: a program that was frozen would start itself."""
    if what == "frozen":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    else:
        monkeypatch.setattr(spawn, "_python_exe", what)
    with processes_for(LocalStorage(tmp_path), LARGE, 4) as processes:
        assert processes is None


@pytest.mark.parametrize("where", ["nowhere", "full"])
def test_a_drill_has_no_room_for_its_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """attack 47: and the backup is not blamed for it."""
    (tmp_path / "backup").write_bytes(noise(1000))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if where == "full":
        monkeypatch.setattr("shutil.copyfileobj", full)
    else:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with (
        pytest.raises(PQVaultError, match="cannot be copied") as told,
        private_copy(tmp_path / "backup"),
    ):
        pass
    assert told.value.exit_code == 1 and "TMPDIR" in told.value.hint


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named(
    box: Box, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """As Lustre is, where it is mounted without: what would need a lock is not done without one."""
    box.tree({"x": b"1"})
    box.seal()

    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refused)
    storage = LocalStorage(box.archive)
    for attempt in (
        lambda: pqvault.prune(box.archive, identities=[box.key], keep_last=1),
        lambda: pqvault.rotate(box.archive, identities=[box.key], add=[box.key.recipient]),
        lambda: storage.append("wal"),
        lambda: storage.replace("pqvault.json", b"", b""),
    ):
        with pytest.raises(PQVaultError, match="has no flock") as told:
            attempt()
        assert told.value.hint.startswith("mount it with locks")
    assert box.contents()["src/x"] == ("f", b"1")
    assert not list(home.folder("rotations").iterdir()), "nor is a list of work begun"


@pytest.mark.parametrize(
    ("framework", "missing"), [("np", "safetensors"), ("np", "numpy"), ("pt", "torch")]
)
def test_what_tensors_need_is_named(
    monkeypatch: pytest.MonkeyPatch, framework: str, missing: str
) -> None:
    """The extra `safetensors` has NumPy, and torch is the default: before anything is opened."""
    monkeypatch.setattr(safetensors, "find_spec", lambda name: None if name == missing else name)
    with pytest.raises(UsageError, match=f"need {missing}, which is not installed") as told:
        safetensors.safe_open("pqvault::file:///gone", framework)
    assert "pip install 'pqvault[safetensors" in told.value.hint


def test_the_limits_of_a_container_are_no_bugs() -> None:
    """attack 40: and what is one shows nothing of its message."""
    code = """
import sys
from pqvault_cli import main
for error in RuntimeError("can't start new thread"), MemoryError(), RuntimeError("secret"):
    def fail(*_, **__):
        raise error
    main.cli.main = fail
    try:
        main.main(["ls"])
    except SystemExit as stop:
        print(stop.code, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    told = re.sub("hint: .+", "hint: …", done.stderr).splitlines()
    assert told == [
        *("pqvault: no more threads can be started", "hint: …", "1"),
        *("pqvault: there is not enough memory", "hint: …", "1"),
        *("pqvault: internal error (RuntimeError): this is a bug in pqvault", "hint: …", "1"),
    ]


def test_the_text_of_python_that_no_thread_can_be_started() -> None:
    """By which `pqvault_cli.main` knows it."""
    code = (
        "import threading\n"
        "threading.stack_size(1 << 40)\n"  # more than there are addresses for
        "threading.Thread(target=print).start()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "RuntimeError: can't start new thread" in done.stderr
