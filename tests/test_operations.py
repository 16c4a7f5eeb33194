"""The runbook: every block of docs/operations.md, in order, in a fresh home."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from test_cli import play, shell  # noqa: F401  (a fixture)

PAGE = Path(__file__).resolve().parent.parent / "docs" / "operations.md"
BEFORE = """
umask 077 && echo 'correct horse' > words.txt && echo 'another horse' > new.txt
mkdir datasets datasets2 logs elsewhere archives
echo '{"text": "hello"}' | tee datasets/1.jsonl datasets/2.jsonl > logs/a.jsonl
echo new > datasets2/3.jsonl && head -c 100000 /dev/urandom > model.bin
pqvault keygen -o bob.txt > bob.pub
"""


def test_the_runbook_runs_as_printed(tmp_path: Path, shell: dict[str, str]) -> None:  # noqa: F811
    """Each step is a command, with what it says and how it ends. attack 34, 35, 36, 46."""
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) >= 18
    folder = tmp_path / "work"
    folder.mkdir()
    env = {**shell, "PQVAULT_PASSPHRASE_FILE": str(folder / "words.txt")}
    subprocess.run(["sh", "-ec", BEFORE], cwd=folder, env=env, check=True)
    play("\n".join(blocks), folder, env)


def test_what_the_runbook_has_to_tell() -> None:
    """A section for each thing that happens to operators."""
    page = PAGE.read_text()
    for title in (
        "Rotate a key",
        "An operator leaves",
        "A key leaks",
        "A disk dies",
        "An auditor",
        "Move",
    ):
        assert re.search(rf"^## \d\. {title}", page, re.MULTILINE), title
