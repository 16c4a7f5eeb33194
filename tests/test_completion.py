"""What a shell completes: commands, options, files where files are meant, names of keys."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from test_keystore import CHEAPEST, WORDS

from pqvault import home
from pqvault.keystore import Keystore, lifecycle
from pqvault_cli.main import cli


def parameters(
    command: click.Command, path: str = "pqvault"
) -> Iterator[tuple[str, click.Parameter]]:
    for parameter in command.params:
        yield path, parameter
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from parameters(below, f"{path} {name}")


def completed(command: str, name: str, incomplete: str) -> list[tuple[str, str]]:
    (found,) = (p for path, p in parameters(cli) if path == f"pqvault {command}" and p.name == name)
    items = found.shell_complete(click.Context(cli), incomplete)
    return [(item.value, item.type) for item in items]


def test_whatever_takes_a_file_completes_files() -> None:
    """Or a folder: all that is called so, of all commands."""
    named = [
        (path, parameter)
        for path, parameter in parameters(cli)
        if re.search(r"\b(FILE|ARCHIVE|FOLDER|DIR|SRC|IN|OUT)\b", parameter.metavar or "")
        and "=" not in str(parameter.metavar)  # content=FILE
    ]
    assert len(named) > 80
    for path, parameter in named:
        kinds = {item.type for item in parameter.shell_complete(click.Context(cli), "x")}
        assert kinds & {"file", "dir"}, f"{path} {parameter.metavar}"


def test_keys_of_the_keystore_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a key is meant, or the file of one; without a keystore nothing goes wrong."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pub").write_text("")
    (tmp_path / ".hidden").write_text("")
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "ops.pub").write_text("")
    assert completed("seal", "recipient", "p") == []
    assert completed("seal", "sign", "p") == [("p", "file")]
    store = Keystore.create(WORDS, cost=CHEAPEST)
    for key in ("prod", "ops"):
        lifecycle.new_key(store, key)
    store.close()
    for command, name in (("seal", "recipient"), ("rotate", "to"), ("key rotate", "name")):
        assert completed(command, name, "p") == [("prod", "plain")], command
    assert completed("key show", "name", "") == [("ops", "plain"), ("prod", "plain")]
    assert completed("seal", "sign", "p") == [("prod", "plain"), ("pub", "plain")]
    assert completed("seal", "recipient", "@") == [("@keys/", "plain"), ("@pub", "plain")]
    assert completed("seal", "recipient", "@keys/o") == [("@keys/ops.pub", "plain")]
    assert completed("seal", "recipient", "@gone/o") == []
    home.keystore().write_bytes(b"damaged" * 1000)
    assert completed("key show", "name", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_program_answers_the_script(shell: str) -> None:
    """As the scripts of `pqvault completion` ask it."""
    asked = {
        "COMP_WORDS": "pqvault\nkey\nro" if shell == "bash" else "pqvault key ro",
        "COMP_CWORD": "ro" if shell == "fish" else "2",
        "_PQVAULT_COMPLETE": f"{shell}_complete",
    }
    code = (
        "import sys; sys.argv[0] = 'pqvault'; from pqvault_cli.__main__ import program; program()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True
    )
    assert "rotate" in done.stdout and done.stdout.startswith("plain") and done.stderr == ""
