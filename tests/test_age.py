"""With age itself (1.3 or newer, which has post-quantum keys), where it is on PATH."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pqvault import Identity

Shell = Callable[[str], str]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Runs a script; skips where there is no age that makes such keys."""
    keygen = shutil.which("age-keygen")
    if keygen is None or subprocess.run([keygen, "-pq"], capture_output=True).returncode:
        pytest.skip("no age-keygen that makes post-quantum keys on PATH")

    def run(script: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    return run


def test_a_key_that_age_made(shell: Shell, tmp_path: Path) -> None:
    """Its file is an identity file, and its recipient is ours to the letter."""
    recipient = shell("umask 077; age-keygen -pq -o key.txt 2> /dev/null; age-keygen -y key.txt")
    (identity,) = Identity.load_file(tmp_path / "key.txt")
    assert identity.recipient.text == recipient


def test_a_key_that_we_made(shell: Shell, tmp_path: Path) -> None:
    """age encrypts to it and decrypts with it."""
    identity = Identity.generate()
    identity.save_file(tmp_path / "key.txt")
    assert shell("age-keygen -y key.txt") == identity.recipient.text
    assert shell(f"echo hello | age -r {identity.recipient.text} | age -d -i key.txt") == "hello"
