"""Shares, backups, restores and drills, from inside; tests/transcripts/escrow.txt is the story."""

from __future__ import annotations

import errno
import io
import itertools
import os
import pickle
import re
import resource
import signal
from pathlib import Path

import pytest
from test_keystore import CHEAPEST, WORDS, path, store, unlock  # noqa: F401  (fixtures)

import pqvault
import pqvault_cli.key_escrow as key_escrow
from pqvault.drill import drill
from pqvault.errors import (
    IntegrityError,
    Locked,
    NoKeyFits,
    NotFound,
    PolicyRefused,
    PQVaultError,
    UsageError,
)
from pqvault.keystore import Keystore, Unlocked, audit, backup, escrow, lifecycle
from pqvault.keystore.identities import identities_of
from pqvault.policy import ANYBODY, Policy
from pqvault.signing import SigningKey


def test_any_enough_shares_are_the_key_and_fewer_are_not(store: Unlocked) -> None:  # noqa: F811
    """All ten threes of five, more than it takes, all twos; a share of another split is refused."""
    shares = escrow.split(store, 3, 5)
    for count in (4, 5):
        assert escrow.join([share.words for share in shares[-count:]]) == store.key.secret
    for chosen in itertools.combinations(shares, 3):
        assert escrow.join([share.words for share in chosen]) == store.key.secret
    for pair in itertools.combinations(shares, 2):
        with pytest.raises(NoKeyFits):
            escrow.join([share.words for share in pair])
    other = escrow.split(store, 3, 5)
    with pytest.raises(NoKeyFits):
        escrow.join([shares[0].words, shares[1].words, other[2].words])
    assert [e.action for e in audit.entries(store.store, 2)] == ["split", "split"]
    assert shares[0].words not in repr(shares[0])
    with pytest.raises(TypeError):
        pickle.dumps(shares[0])


def test_shares_are_written_all_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full at the second share leaves none, and the next try is not refused."""
    paths, texts = [tmp_path / f"s/{n}" for n in range(3)], ["a", "b", "c"]
    synced: list[int] = []

    def fsync(fd: int) -> None:
        synced.append(fd)
        if len(synced) == 3:  # after the first share and its folder
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(UsageError, match="s/1 cannot be written: No space"):
        key_escrow._write_secrets(paths, texts)
    assert os.listdir(tmp_path / "s") == []
    key_escrow._write_secrets(paths, texts)
    paths[0].unlink()
    with pytest.raises(UsageError, match="s/1 cannot be written: File exists"):
        key_escrow._write_secrets(paths, texts)
    assert sorted(os.listdir(tmp_path / "s")) == ["1", "2"]


def test_every_changed_word_is_found(store: Unlocked) -> None:  # noqa: F811
    """SLIP-39's checksum sees one wrong word anywhere, and the error names the share."""
    one, two, _ = escrow.split(store, 2, 3)
    words = one.words.split()
    for at in range(len(words)):
        wrong = [*words]
        wrong[at] = "academic" if wrong[at] != "academic" else "acid"
        with pytest.raises((UsageError, NoKeyFits)):
            escrow.join([" ".join(wrong), two.words])
    assert escrow.join([*escrow.parse(one.text().upper()), two.words]) == store.key.secret


@pytest.mark.parametrize(("threshold", "shares"), [(1, 1), (1, 3), (4, 3), (2, 17), (0, 0)])
def test_impossible_splits(store: Unlocked, threshold: int, shares: int) -> None:  # noqa: F811
    """One share that opens all is no escrow."""
    with pytest.raises(UsageError):
        escrow.split(store, threshold, shares)


def test_shares_of_another_keystore(store: Unlocked, tmp_path: Path) -> None:  # noqa: F811
    """They make a key, but not this one's."""
    other = Keystore.create(WORDS, cost=CHEAPEST, path=tmp_path / "other")
    secret = escrow.join([share.words for share in escrow.split(other, 2, 2)])
    with pytest.raises(IntegrityError):
        store.store.unlock_with(secret)
    files = tuple(str(tmp_path / f"share{number}") for number in range(2))
    for file, share in zip(files, escrow.split(other, 2, 2), strict=True):
        Path(file).write_text(share.text())
    with pytest.raises(NoKeyFits, match="another keystore"):
        key_escrow._unlock_by_shares(store.store, files, "it")
    key_escrow._unlock_by_shares(other.store, files, "it").close()


def test_what_is_no_share_is_not_repeated(store: Unlocked) -> None:  # noqa: F811
    """A file of another secret is given by mistake: its passphrase stays out of the error."""
    one = escrow.split(store, 2, 3)[0].words
    for other in ("correct horse battery", "correct", f"correct {one}"):
        with pytest.raises(UsageError, match="33 words") as caught:
            escrow.join([one, other])
        assert "correct" not in caught.value.message


def test_a_backup_is_the_keystore_of_that_moment(
    store: Unlocked,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It opens by itself, holds what was there, and goes back into an empty home."""
    target = tmp_path / "backup.sqlite"
    backup.backup(store, target)
    lifecycle.rotate(store, "prod")
    assert [f.address for f in unlock(target).store.list()] == ["prod@1"]
    monkeypatch.setenv("PQVAULT_HOME", str(tmp_path / "home"))
    assert backup.restore(target, lambda s: s.unlock(lambda: WORDS)) is None
    with Keystore() as restored:
        assert [f.address for f in restored.list()] == ["prod@1"]
    with pytest.raises(UsageError):
        backup.restore(target, lambda s: s.unlock(lambda: WORDS))
    old = backup.restore(target, lambda s: s.unlock(lambda: WORDS), replace=True)
    assert old is not None
    with unlock(old) as kept:
        assert kept.verify()
    left = {file.name for file in (tmp_path / "home").iterdir()} - {old.name}
    assert {name.split("-")[0] for name in left} == {"keystore.sqlite"}


def test_a_backup_that_cannot_be_written_is_told_by_its_name(
    store: Unlocked,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Not by that of the file beside it, which nobody typed."""
    for target in (tmp_path / "none" / "backup", Path("/proc/backup")):
        with pytest.raises(UsageError, match=f"^{target} cannot be written: No such file"):
            backup.backup(store, target)


def test_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAT has none, and a stick is where backups go."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setenv("PQVAULT_HOME", str(tmp_path / "home"))
    with Keystore.create(WORDS, cost=CHEAPEST) as made:
        backup.backup(made, tmp_path / "copy")
        with pytest.raises(UsageError, match="never overwritten"):
            backup.backup(made, tmp_path / "copy")
    backup.restore(tmp_path / "copy", lambda s: s.unlock(lambda: WORDS), replace=True)
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600
    with Keystore() as restored:
        assert restored.list() == []


def test_a_keystore_that_others_have_open_is_not_put_aside(
    store: Unlocked,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is only in its log would be lost with it; and what is restored has a log again."""
    monkeypatch.setenv("PQVAULT_HOME", str(tmp_path))
    copy = tmp_path / "copy"
    backup.backup(store, copy)
    lifecycle.new_key(store, "newer")

    def restore() -> Path | None:
        return backup.restore(copy, lambda s: s.unlock(lambda: WORDS), replace=True)

    with Keystore(store.store.path) as reader:
        reader.db.execute("BEGIN")
        assert len(reader.list()) == 2
        lifecycle.new_key(store, "newest")
        store.close()
        with pytest.raises(Locked):
            restore()
    old = restore()
    with Keystore(old) as kept, Keystore() as restored:
        assert (len(kept.list()), len(restored.list())) == (3, 1)
        for one in (kept, restored):
            assert one.db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_damaged_keystore_gives_way(
    store: Unlocked,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The hint of whoever meets it says to restore it; it is kept as it is."""
    monkeypatch.setenv("PQVAULT_HOME", str(tmp_path))
    backup.backup(store, tmp_path / "copy")
    store.close()
    store.store.path.write_bytes(b"no database" * 1000)
    old = backup.restore(tmp_path / "copy", lambda s: s.unlock(lambda: WORDS), replace=True)
    assert old is not None and old.read_bytes() == b"no database" * 1000
    with Keystore() as restored:
        assert [f.address for f in restored.list()] == ["prod@1"]


def test_a_backup_that_cannot_be_written_is_named(store: Unlocked, tmp_path: Path) -> None:  # noqa: F811
    """Not the keystore, which is well: a full disk, and a name that SQLite does not take."""
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    with pytest.raises(UsageError, match="UTF-8"):
        backup.backup(store, odd)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for number in range(40):  # so that the copy is larger than the log, which has to grow too
        lifecycle.new_key(store, f"key{number}")
    store.store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(PQVaultError, match=re.escape(str(tmp_path / "usb"))):
            backup.backup(store, tmp_path / "usb")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert not [name for name in os.listdir(tmp_path) if "usb" in name or "caf" in name]


def test_an_edited_backup_is_not_restored(
    store: Unlocked,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is restored was verified; what is not leaves nothing behind."""
    from test_keystore import edit

    monkeypatch.setenv("PQVAULT_HOME", str(tmp_path / "home"))
    target = tmp_path / "backup.sqlite"
    backup.backup(store, target)
    edit(target, "UPDATE versions SET state = 'suspended'")
    with pytest.raises(IntegrityError):
        backup.restore(target, lambda s: s.unlock(lambda: WORDS))
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.parametrize("what", ["drill", "restore"])
def test_a_bad_backup_is_named_and_not_its_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The copy is gone by then, and restoring it is what just failed."""
    monkeypatch.setenv("PQVAULT_HOME", str(tmp_path / "home"))
    bad = tmp_path / "bad.sqlite"
    bad.write_bytes(b"no database" * 100)
    with pytest.raises(IntegrityError) as caught:
        if what == "restore":
            backup.restore(bad, lambda s: s.unlock(lambda: WORDS))
        with backup.private_copy(bad):
            pass
    assert caught.value.message.startswith(f"the backup {bad} is damaged")
    assert "another backup" in caught.value.hint


def test_a_drill_asks_who_signed(store: Unlocked, tmp_path: Path) -> None:  # noqa: F811
    """attack 7: an archive that somebody else sealed to our key is no proof that ours is there."""
    alice, bob = SigningKey.generate(), SigningKey.generate()
    (identity,) = identities_of(store, lambda _: None)
    (tmp_path / "f").write_bytes(b"content")
    archive, stream, kept = tmp_path / "a.pqv", tmp_path / "s.pqv", tmp_path / "kept"
    pqvault.seal(tmp_path / "f", archive, recipients=[identity.recipient], sign=[alice])
    with stream.open("wb") as out:
        pqvault.encrypt(io.BytesIO(b"content"), out, [identity.recipient])
    backup.backup(store, kept)

    def run(where: Path | str, *signers: SigningKey) -> list[str]:
        policy = Policy.of([key.signer for key in signers]) if signers else ANYBODY
        report = drill(kept, where, lambda locked: locked.unlock(lambda: WORDS), policy=policy)
        return [type(problem).__name__ for problem in report.problems]

    assert run(archive) == run(archive, alice) == run(stream) == []
    assert run(f"file://{archive}") == []
    with pytest.raises(NotFound, match="no such file"):
        run(tmp_path / "none.pqv")
    assert "PolicyRefused" in run(archive, bob)
    with pytest.raises(PolicyRefused, match="carries no signature"):
        run(stream, alice)
