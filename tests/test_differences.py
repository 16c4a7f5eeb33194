"""`diff` and `ls --versions`: what changed between states, and the history of a path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import make_tree

import pqvault
from pqvault.archive.differences import differences, versions
from pqvault_cli.main import cli

KEY = pqvault.Identity.generate()


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three states: made; one changed, touched, added, turned into a link; a folder taken away."""
    monkeypatch.setenv("PQVAULT_HOME", str(tmp_path / "home"))
    tree = {"same": b"same", "text": b"one", "touched": b"t", "kind": b"k"}
    source, path = make_tree(tmp_path / "src", tree), tmp_path / "a.pqv"
    (source / "d").mkdir()
    (source / "d" / "in").write_bytes(b"in")
    pqvault.seal(source, path, recipients=[KEY.recipient])
    (source / "text").write_bytes(b"two!")
    (source / "added").write_bytes(b"new")
    (source / "kind").unlink()
    (source / "kind").symlink_to("same")
    os.utime(source / "touched", ns=(1, 1))
    pqvault.seal(source, path, recipients=[KEY.recipient])
    (source / "d" / "in").unlink()
    (source / "d").rmdir()
    (source / "d").write_bytes(b"a file")
    (source / "text").unlink()
    pqvault.seal(source, path, recipients=[KEY.recipient], identities=[KEY], delete=True)
    return path


def states(archive: Path) -> list[str]:
    with pqvault.open(archive, identities=[KEY]) as opened:
        return [part.id for part in opened.parts]


def changes(archive: Path, old: str, new: str | None) -> dict[str, str]:
    with (
        pqvault.open(archive, identities=[KEY], as_of=old) as before,
        pqvault.open(archive, identities=[KEY], as_of=new) as after,
    ):
        found = list(differences(before, after))
    assert [d.path for d in found] == sorted(d.path for d in found)
    names = {os.fsdecode(d.path): d.change for d in found}
    return {name: change for name, change in names.items() if name != "src"}


def test_what_changed_from_state_to_state(archive: Path) -> None:
    first, second, third = states(archive)
    one = {"src/added": "added", "src/kind": "type", "src/text": "modified"}
    assert changes(archive, first, second) == {**one, "src/touched": "metadata"}
    two = {"src/d": "type", "src/d/in": "removed", "src/text": "removed"}
    assert changes(archive, second, third) == two
    assert changes(archive, first, None) == {**one, "src/touched": "metadata", **two}
    assert changes(archive, third, None) == {}
    assert changes(archive, third, second)["src/text"] == "added"


def test_every_version_of_a_path(archive: Path) -> None:
    first, second, third = states(archive)
    with pqvault.open(archive, identities=[KEY]) as opened:
        text = list(versions(opened, b"src/text"))
        inner = list(versions(opened, b"src/d/in"))
        assert list(versions(opened, b"src/nothing")) == []
    assert [(v.part, v.entry and v.entry.size) for v in text] == [
        (first, 3), (second, 4), (third, None),
    ]  # fmt: skip
    assert [(v.part, v.entry is not None) for v in inner] == [(first, True), (third, False)]


def test_the_commands(archive: Path, tmp_path: Path) -> None:
    KEY.save_file(tmp_path / "key.txt")
    key = ["-i", str(tmp_path / "key.txt")]
    first = states(archive)[0]
    runner = CliRunner()
    shown = runner.invoke(cli, ["diff", str(archive), first, *key])
    assert shown.exit_code == 0, shown.output
    assert "M  src/text" not in shown.output and "-  src/text\n" in shown.output
    assert "+  src/added\n" in shown.output and "1 added" in shown.output
    shown = runner.invoke(cli, ["diff", str(archive), first, *key, "--json"])
    assert '"path": "src/kind", "change": "type"' in shown.output
    shown = runner.invoke(cli, ["ls", "--versions", str(archive), "src/text", *key])
    assert shown.exit_code == 0 and shown.output.count("\n") == 3 and "removed" in shown.output
    shown = runner.invoke(cli, ["ls", "--versions", str(archive), *key])
    assert shown.exit_code and shown.exception is not None
