"""Identities and recipients as objects and as files: private stays private."""

from __future__ import annotations

import copy
import os
import pickle
import stat
import traceback
from pathlib import Path
from typing import Any

import pytest

import pqvault
from pqvault.archive.seal import SealRun
from pqvault.errors import UsageError
from pqvault.rootkey import RootKey
from pqvault.signing import SigningKey
from pqvault.storage import LocalStorage


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o377])
def test_identity_files_are_private(tmp_path: Path, umask: int) -> None:
    """attack 38: an identity file is 0600 whatever the umask, and loads again."""
    key = pqvault.Identity.generate()
    before = os.umask(umask)
    try:
        key.save_file(tmp_path / "key.txt")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key.txt").stat().st_mode) == 0o600
    assert pqvault.Identity.load_file(tmp_path / "key.txt") == [key]
    text = (tmp_path / "key.txt").read_text()
    assert key.recipient.text in text and text.rstrip().splitlines()[-1] == key.text


def test_identity_files_are_never_overwritten(tmp_path: Path) -> None:
    """A file, a link or a dangling link of that name is refused and stays as it is."""
    key = pqvault.Identity.generate()
    (tmp_path / "file").write_bytes(b"precious")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nothing")
    for name in ("file", "link", "dangling"):
        with pytest.raises(UsageError, match="never overwritten") as caught:
            key.save_file(tmp_path / name)
        assert caught.value.exit_code == 2
    assert (tmp_path / "file").read_bytes() == b"precious"
    assert not (tmp_path / "nothing").exists()


def test_identity_file_in_no_folder(tmp_path: Path) -> None:
    """A folder that is not there is a usage error that names the file."""
    with pytest.raises(UsageError, match=r"no/key\.txt cannot be written"):
        pqvault.Identity.generate().save_file(tmp_path / "no/key.txt")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666])
def test_identity_files_others_can_read_are_refused(tmp_path: Path, mode: int) -> None:
    """attack 38: a key file open to group or world is refused, with the command that mends it."""
    path = tmp_path / "key.txt"
    pqvault.Identity.generate().save_file(path)
    path.chmod(mode)
    with pytest.raises(UsageError, match="other users") as caught:
        pqvault.Identity.load_file(path)
    assert f"chmod 600 {path}" in caught.value.hint
    path.chmod(0o400)
    assert len(pqvault.Identity.load_file(path)) == 1


def test_identity_through_a_pipe() -> None:
    """A pipe (`-i <(pass show key)`) has no owner to check and is read."""
    key = pqvault.Identity.generate()
    read, write = os.pipe()
    os.write(write, key.text.encode() + b"\n")
    os.close(write)
    try:
        assert pqvault.Identity.load_file(f"/dev/fd/{read}") == [key]
    finally:
        os.close(read)


def test_identity_files_that_are_none(tmp_path: Path) -> None:
    """A missing, empty or foreign file is a usage error that does not repeat what is in it."""
    with pytest.raises(UsageError, match="cannot be read"):
        pqvault.Identity.load_file(tmp_path / "no")
    for content in (
        b"",
        b"# only a comment\n",
        b"hunter2secret\n",
        b"\xff\xfe\x00",
        b"x" * 100_000,
    ):
        path = tmp_path / "key.txt"
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(UsageError) as caught:
            pqvault.Identity.load_file(path)
        assert "hunter2" not in str(caught.value) + caught.value.hint


def test_several_identities_in_a_file(tmp_path: Path, box: object) -> None:
    """All identities of a file are tried."""
    keys = [pqvault.Identity.generate() for _ in range(3)]
    path = tmp_path / "keys.txt"
    path.write_text("\n\n# mine\n" + "\n".join(k.text for k in keys) + "\n")
    path.chmod(0o600)
    assert pqvault.Identity.load_file(path) == keys


def test_nothing_shows_a_secret(tmp_path: Path) -> None:
    """attack 40: repr, str, format, pickles and tracebacks of what holds keys show none."""
    key = pqvault.Identity.generate()
    root = RootKey.generate("00" * 16, "11" * 16)
    run = SealRun(LocalStorage(tmp_path), [], [key.recipient], [key])
    secrets = [
        shown
        for secret in (key.seed, root.secret)
        for shown in (repr(secret)[2:-1], secret.hex(), secret.hex().upper(), key.text)
    ]
    texts = [f"{thing!r} {thing!s} {thing}" for thing in (key, root, run, [key], {"k": key})]
    assert repr(key) == "Identity(...)"
    other = "Q" if key.text[-1] != "Q" else "P"
    for bad in (key.text[:-1] + other, key.text + key.text, key.text.lower(), key.text[:-5]):
        with pytest.raises(UsageError) as caught:
            pqvault.Identity.parse(bad)
        texts.append("".join(traceback.format_exception(caught.value)) + caught.value.hint)
        assert bad[30:60] not in texts[-1]
    for text in texts:
        assert not any(secret in text for secret in secrets)


@pytest.mark.parametrize("kind", [pqvault.Identity, pqvault.Recipient, SigningKey])
def test_a_key_in_place_of_its_file_is_not_repeated(kind: Any) -> None:
    """attack 38: the text of a private key, given where a path belongs, is in no message."""
    for key in (pqvault.Identity.generate(), SigningKey.generate()):
        for text in (key.text, f"# a comment\n{key.text}\n", key.text.lower()):
            with pytest.raises(UsageError, match="text of a private key was given") as caught:
                kind.load_file(text)
            shown = "".join(traceback.format_exception(caught.value)) + caught.value.hint
            assert key.text[20:40].upper() not in shown.upper()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_keys_are_not_pickled(protocol: int) -> None:
    """attack 40: an identity or root key does not go through a pickle, nor a copy."""
    for thing in (pqvault.Identity.generate(), RootKey.generate("00" * 16, "11" * 16)):
        for action in (lambda t: pickle.dumps(t, protocol), copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="not pickled"):
                action(thing)


def test_seeds_of_another_length() -> None:
    """attack 20: an identity is a seed of 32 bytes and nothing else."""
    for length in (0, 31, 33, 64, 2400):
        with pytest.raises(ValueError, match="32 bytes"):
            pqvault.Identity(bytes(length))


def test_recipients_are_checked_when_made() -> None:
    """attack 19: a public key of a wrong length or modulus is refused at import."""
    good = pqvault.Identity.generate().recipient.public_key
    over = b"\xff" * 1184 + good[1184:]
    for bad in (b"", good[:-1], good + b"\0", over):
        with pytest.raises(UsageError, match="not a valid public key") as caught:
            pqvault.Recipient(bad)
        assert caught.value.exit_code == 2


def test_recipient_is_derived() -> None:
    """attack 20: the recipient comes from the seed; text forms come back the same."""
    key = pqvault.Identity(bytes(range(32)))
    assert key.recipient == pqvault.Identity.parse(key.text).recipient
    assert pqvault.Recipient.parse(key.recipient.text) == key.recipient
    assert len(key.recipient.text) == 1959 and len(bytes.fromhex(key.recipient.key_id)) == 16
    assert key.recipient.key_id in repr(key.recipient)


def test_recipients_file(tmp_path: Path) -> None:
    """A recipients file: comments, empty lines, and errors that name the line."""
    keys = [pqvault.Identity.generate().recipient for _ in range(2)]
    path = tmp_path / "team.txt"
    path.write_text(f"# the team\n\n{keys[0].text}\n\n{keys[1].text}\n")
    found = pqvault.Recipient.load_file(path)
    assert found == keys and found[1].source == f"{path}, line 5"
    path.write_text(
        f"{keys[0].text}\nage1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p\n"
    )
    with pytest.raises(UsageError, match="line 2"):
        pqvault.Recipient.load_file(path)
    with pytest.raises(UsageError, match="cannot be read"):
        pqvault.Recipient.load_file(tmp_path / "no")


def test_huge_key_files_are_not_read(tmp_path: Path) -> None:
    """attack 42: a key file of gigabytes is refused without being read."""
    path = tmp_path / "huge"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    path.chmod(0o600)
    for load in (pqvault.Identity.load_file, pqvault.Recipient.load_file):
        with pytest.raises(UsageError, match="is over"):
            load(path)
