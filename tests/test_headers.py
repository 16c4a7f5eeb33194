"""Envelopes and commits that are kept in a backup of the keystore, and put back. attack 48."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import Box
from test_keystore import edit, path, store  # noqa: F401  (fixtures)

import pqvault
from pqvault import keeping
from pqvault.archive import headers
from pqvault.archive.headers import PutBack
from pqvault.errors import IntegrityError, NotFound, PQVaultError
from pqvault.format.envelope import Envelope
from pqvault.keystore import Unlocked, backup
from pqvault.rootkey import RootKey, keyring
from pqvault.storage import LocalStorage

OTHER = pqvault.Identity.generate()


@pytest.fixture
def kept(box: Box) -> headers.Headers:
    """What is taken of an archive of two parts."""
    box.tree({"a": b"one"})
    box.seal()
    box.tree({"b": b"two"})
    box.seal(know=True)
    return taken(box)


def taken(box: Box) -> headers.Headers:
    _, found, problems = headers.take(LocalStorage(box.archive), keyring([box.key]))
    assert not problems
    return found


def archive_of(kept: headers.Headers) -> str:
    return Envelope.parse(next(d for n, d in kept.items() if n.startswith("envelopes"))).archive


def put_back(box: Box, kept: headers.Headers, *keys: Any, force: bool = False) -> PutBack:
    storage = LocalStorage(box.archive)
    return headers.put_back(storage, archive_of(kept), kept, keyring(keys), force=force)


def damage(file: Path, data: bytes) -> None:
    file.chmod(0o644)
    file.write_bytes(data)


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 11])
@pytest.mark.parametrize("folder", ["envelopes", "commits"])
def test_each_flipped_byte_is_put_back(
    box: Box, kept: headers.Headers, folder: str, step: int
) -> None:
    """attack 48: any byte of an envelope or a commit; what is good is left as it is."""
    name = next(name for name in kept if name.startswith(folder))
    file = box.archive / name
    for at in range(0, len(kept[name]), step):
        data = bytearray(kept[name])
        data[at] ^= 1
        damage(file, bytes(data))
        report = put_back(box, kept, box.key)
        assert (report.damaged, report.problems) == ([name], []), at
        assert file.read_bytes() == kept[name]
        assert report.same == len(kept)  # the others, and the header
    box.check()


def test_all_that_is_missing_is_put_back(box: Box, kept: headers.Headers) -> None:
    """attack 48: without a key; twice changes nothing more."""
    contents = box.contents()
    for folder in ("envelopes", "commits"):
        shutil.rmtree(box.archive / folder)
    (box.archive / "pqvault.json").unlink()
    report = put_back(box, kept)
    assert sorted(report.missing) == sorted([*kept, "pqvault.json"])
    assert (report.damaged, report.left, report.problems, report.same) == ([], [], [], 0)
    assert box.contents() == contents
    box.check()
    again = put_back(box, kept)
    assert (again.missing, again.same) == ([], len(kept) + 1)


@pytest.mark.parametrize("known", [True, False])
def test_a_newer_envelope_stays(box: Box, kept: headers.Headers, known: bool) -> None:
    """attack 14, attack 48: what a rotation wrote since, unless it is forced."""
    pqvault.rotate(box.archive, identities=[box.key], to=OTHER.recipient)
    now = {name: (box.archive / name).read_bytes() for name in kept}
    report = put_back(box, kept, *([box.key, OTHER] if known else []))
    assert (len(report.left), report.damaged, report.problems) == (2, [], [])
    assert all((box.archive / name).read_bytes() == data for name, data in now.items())
    report = put_back(box, kept, force=True)
    # Nobody is told that they were damaged: whoever was taken off opens them again.
    assert (len(report.forced), report.damaged) == (2, [])
    box.check()


def test_an_older_envelope_gives_way(box: Box, kept: headers.Headers) -> None:
    """attack 14: the other way round."""
    pqvault.rotate(box.archive, identities=[box.key], add=[OTHER.recipient])
    new = taken(box)
    for name in kept:
        damage(box.archive / name, kept[name])
    report = put_back(box, new, box.key)
    assert (len(report.damaged), report.problems) == (2, [])
    assert taken(box) == new


def test_nobody_guesses_which_is_right(box: Box, kept: headers.Headers) -> None:
    """A MAC that differs, and no key: both stay as they are, and it is said."""
    name = next(name for name in kept if name.startswith("envelopes"))
    bad = bytearray(kept[name])
    bad[-5] = ord("A") if bad[-5] != ord("A") else ord("B")
    damage(box.archive / name, bytes(bad))
    report = put_back(box, kept)
    (problem,) = report.problems
    assert (
        isinstance(problem, IntegrityError)
        and name in problem.message
        and "--force" in problem.hint
    )
    assert (box.archive / name).read_bytes() == bytes(bad)
    # And the other way round: what was kept is the damaged one.
    damage(box.archive / name, kept[name])
    report = put_back(box, {**kept, name: bytes(bad)}, box.key)
    assert (report.left, report.damaged, report.problems) == ([name], [], [])
    assert (box.archive / name).read_bytes() == kept[name]


def test_a_stranger_s_envelope_is_damage(box: Box, kept: headers.Headers) -> None:
    """attack 6: whoever knows a public key can write an envelope that opens: to the wrong key."""
    name = next(name for name in kept if name.startswith("envelopes"))
    key = RootKey.generate(archive_of(kept), name.partition("/")[2])
    forged = key.envelope([box.key.recipient], created=1, generation=9)
    damage(box.archive / name, forged.marshal())
    assert put_back(box, kept, box.key).damaged == [name]
    assert put_back(box, {**kept, name: forged.marshal()}, box.key).left == [name]
    box.check()


def test_removed_parts_stay_removed(box: Box, kept: headers.Headers) -> None:
    """What was encrypted again since has gone, and nothing of it comes back."""
    old = set(box.parts())
    pqvault.reencrypt(box.archive, identities=[box.key])
    pqvault.gc(box.archive, older_than=0)
    report = put_back(box, kept, box.key)
    assert (report.missing, report.damaged, report.problems) == ([], [], [])
    assert not old & headers.parts_of(taken(box))
    box.check()


def test_what_is_damaged_is_not_kept(box: Box, kept: headers.Headers) -> None:
    """A backup of damage would be none: it is named and left out."""
    name = next(name for name in kept if name.startswith("envelopes"))
    for place in (-5, 3):
        bad = bytearray(kept[name])
        bad[place] ^= 3
        damage(box.archive / name, bytes(bad))
        _, found, problems = headers.take(LocalStorage(box.archive), keyring([box.key]))
        assert name not in found and len(problems) >= 1


def test_a_damaged_commit_does_not_cost_the_envelope(box: Box, kept: headers.Headers) -> None:
    """The more precious of the two is kept when the other is bad, in whatever place."""
    name = next(name for name in kept if name.startswith("commits"))
    damage(box.archive / name, kept[name].replace(b'"created":1', b'"created":2'))
    _, found, problems = headers.take(LocalStorage(box.archive), keyring([box.key]))
    assert found.keys() == kept.keys() - {name} and [name in p.message for p in problems] == [True]


def test_a_backup_keeps_them_and_the_keystore_does_not(
    box: Box,
    kept: headers.Headers,
    store: Unlocked,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One file; of two copies one; a lost header is told by the parts."""
    monkeypatch.setenv("PQVAULT_HOME", str(tmp_path / "home"))
    shutil.copytree(box.archive, tmp_path / "copy.pqv")
    problems: list[PQVaultError] = []
    places = list(keeping.archives_at([tmp_path]))
    assert len(places) == 2
    backup.backup(store, tmp_path / "b", keeping.taken(places, [box.key], problems))
    assert ["another copy" in p.message for p in problems] == [True]
    (box.archive / "pqvault.json").write_bytes(b"")
    shutil.rmtree(box.archive / "envelopes")
    with backup.private_copy(tmp_path / "b") as copy:
        report = keeping.put_back(copy, str(box.archive), [])
        assert (report.damaged, len(report.missing)) == (["pqvault.json"], 2)
        assert backup.kept_of(copy, box.open().id) == kept
        other = Box(tmp_path / "other", box.key)
        other.tree({"a": b"one"})
        other.seal()
        with pytest.raises(NotFound):
            keeping.put_back(copy, str(other.archive), [])
        (other.archive / "pqvault.json").unlink()
        with pytest.raises(NotFound):
            keeping.put_back(copy, str(other.archive), [])
    box.check()
    backup.restore(tmp_path / "b", lambda s: s.unlock(lambda: b"correct horse"))
    restored = (tmp_path / "home" / "keystore.sqlite").read_bytes()
    assert (
        b"pqvault.dev/envelope" not in restored
        and b"pqvault.dev/envelope" in (tmp_path / "b").read_bytes()
    )


def test_rows_that_no_backup_writes(
    box: Box,
    kept: headers.Headers,
    store: Unlocked,  # noqa: F811
    tmp_path: Path,
) -> None:
    """The rows are not authenticated: no name leads out of the archive's two folders."""
    backup.backup(store, tmp_path / "b", keeping.taken([str(box.archive)], [box.key], []))
    for name in ("../x", "/x", "parts/x", "envelopes/../x", "commits/x", "envelopes/", ""):
        edit(tmp_path / "b", f"INSERT INTO kept SELECT archive, '{name}', data FROM kept LIMIT 1")
    edit(tmp_path / "b", "INSERT INTO kept SELECT archive, x'00', 'text' FROM kept LIMIT 1")
    before = sorted(p for p in tmp_path.rglob("*"))
    with backup.private_copy(tmp_path / "b") as copy:
        report = keeping.put_back(copy, str(box.archive), [box.key], force=True)
    assert (report.missing, report.damaged) == ([], [])
    assert len(report.problems) == 3 and report.same == len(kept) + 1
    assert sorted(p for p in tmp_path.rglob("*")) == before
