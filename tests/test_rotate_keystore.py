"""Rotation with a keystore: whose place is taken, what it refuses, what it remembers."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
import tables_kit
from click.testing import CliRunner
from conftest import Box
from test_keystore import WORDS, path, store  # noqa: F401  (fixtures)

import pqvault
from pqvault.errors import (
    Incomplete,
    IntegrityError,
    KeyStateForbids,
    NoKeyFits,
    NotFound,
    RolledBack,
    UsageError,
)
from pqvault.format.envelope import Envelope
from pqvault.keeping import archives_at, left_out
from pqvault.keys import Identity, Recipient
from pqvault.keystore import Keystore, State, Unlocked, audit, authentic, edits, index, lifecycle
from pqvault.keystore.halves import kind_of
from pqvault.keystore.identities import identities
from pqvault.keystore.seen import Seen
from pqvault.logs import InferenceLog
from pqvault.memory import Sight
from pqvault.reencrypting import reencrypting
from pqvault.rotating import rotating
from pqvault.rotation.change import Change, resolve
from pqvault.rotation.run import RotateReport, plan
from pqvault.rotation.runs import Run, unfinished
from pqvault.scan import scan
from pqvault.storage import LocalStorage
from pqvault_cli.main import cli

OTHER = Identity.generate().recipient
A, B, C = "aa" * 16, "bb" * 16, "cc" * 16


def address(store: Unlocked, text: str) -> Recipient:  # noqa: F811
    return store.store.recipient(text)


def key_ids(archive: Path) -> set[str]:
    """Whom all envelopes name."""
    paths = [p for p in (archive / "envelopes").iterdir() if not p.name.startswith(".")]
    return {w.key_id for p in paths for w in Envelope.parse(p.read_bytes()).recipients}


def turn(store: Unlocked, change: Change, *archives: Path | str, **options: Any) -> RotateReport:  # noqa: F811
    """Rotate with the keys of the keystore, as the command does."""
    keys = identities(store.store, lambda: WORDS, print)
    with (
        Run.create(archives, change) as run,
        rotating(run, keys, keystore=store.store, **options) as work,
    ):
        return work.run()


@pytest.fixture
def desk(store: Unlocked, box: Box) -> Box:  # noqa: F811
    """An archive that is sealed to prod@1 and to escrow@1."""
    lifecycle.new_key(store, "escrow")
    box.tree({"a": b"first"})
    both = [address(store, "prod"), address(store, "escrow")]
    report = pqvault.seal(box.source, box.archive, recipients=both)
    index.record(report.archive_id, str(box.archive), report.recipients, keystore=store.store.path)
    return box


def id_of(store: Unlocked, text: str) -> str:  # noqa: F811
    return store.store.find(text)[1].key_id


# -- whose place is taken ------------------------------------------------------------------


def test_each_key_gives_way_to_its_newest_version(store: Unlocked, desk: Box) -> None:  # noqa: F811
    """Without words about it: what `key rotate` began, `rotate` ends; other keys stay, and those
    that sign have no part in it."""
    lifecycle.new_key(store, "ops", profile=kind_of("standard", sign=True))
    lifecycle.rotate(store, "prod")
    turn(store, resolve(keystore=store.store), desk.archive)
    assert key_ids(desk.archive) == {id_of(store, "prod@2"), id_of(store, "escrow@1")}


def test_the_audit_log_says_what_was_rotated(store: Unlocked, desk: Box) -> None:  # noqa: F811
    lifecycle.rotate(store, "prod")
    turn(store, resolve(keystore=store.store), desk.archive)
    entry = audit.entries(store.store)[-1]
    assert entry.action == "rewrap" and id_of(store, "prod@2") in entry.detail
    assert '"finished":1' in entry.detail and '"envelopes":1' in entry.detail
    store.verify()


def test_the_audit_log_says_what_was_rotated_before_it_was_interrupted(
    store: Unlocked,  # noqa: F811
    desk: Box,
) -> None:
    archives = several(store, desk)
    lifecycle.rotate(store, "prod")

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        turn(store, resolve(keystore=store.store), *archives, progress=interrupt)
    entry = audit.entries(store.store)[-1]
    assert entry.action == "rewrap" and '"envelopes":1' in entry.detail


def test_a_key_of_a_period_does_not_give_way(store: Unlocked, desk: Box) -> None:  # noqa: F811
    """It is made to be destroyed, so that what it opens is erased: nothing is carried over."""
    lifecycle.new_key(store, "logs", period="2026-10")
    pqvault.seal(desk.source, desk.root / "l.pqv", recipients=[address(store, "logs")])
    lifecycle.rotate(store, "logs", period="2026-11")
    report = turn(store, resolve(keystore=store.store), desk.root / "l.pqv")
    assert (report.rewrapped, report.unchanged) == (0, 1)


def test_to_takes_the_place_of_older_versions_of_its_name(store: Unlocked, desk: Box) -> None:  # noqa: F811
    lifecycle.rotate(store, "prod")
    turn(store, resolve(to=address(store, "prod"), keystore=store.store), desk.archive)
    assert key_ids(desk.archive) == {id_of(store, "prod@2"), id_of(store, "escrow@1")}


def test_it_is_not_guessed_which_of_several_keys_goes(store: Unlocked, desk: Box) -> None:  # noqa: F811
    """The escrow key is not dropped because somebody meant the other one."""
    lifecycle.new_key(store, "new")
    change = resolve(to=address(store, "new"), keystore=store.store)
    with pytest.raises(UsageError, match="several keys of this keystore: escrow, prod"):
        turn(store, change, desk.archive)
    mine = identities(store.store, lambda: WORDS, print, ["prod"])
    turn(store, resolve(to=address(store, "new"), mine=mine, keystore=store.store), desk.archive)
    assert key_ids(desk.archive) == {id_of(store, "new@1"), id_of(store, "escrow@1")}


def test_archives_of_others_are_not_ours_to_rotate(store: Unlocked, desk: Box) -> None:  # noqa: F811
    other = desk.root / "o.pqv"
    pqvault.seal(desk.source, other, recipients=[Identity.generate().recipient])
    with pytest.raises(NoKeyFits):
        turn(store, resolve(to=address(store, "prod"), keystore=store.store), other)


def again(store: Unlocked, target: Path) -> None:  # noqa: F811
    """Encrypt again with the keys of the keystore, as the command does."""
    keys = identities(store.store, lambda: WORDS, print)
    change = resolve(keystore=store.store, new_keys=True)
    with (
        Run.create([target], change, kind="reencryptions") as run,
        reencrypting(run, keys, keystore=store.store) as work,
    ):
        work.run()


@pytest.mark.parametrize("rows_at_once", [1000, 0])
@pytest.mark.parametrize("what", ["archive", "stream"])
@pytest.mark.parametrize("how", ["rotate", "reencrypt"])
def test_a_public_key_put_into_the_keystore_is_not_wrapped_to(
    store: Unlocked,  # noqa: F811
    desk: Box,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    what: str,
    rows_at_once: int,
) -> None:
    """Whoever can write the file can put a public key under a name: the rotation to it would
    lock the operator out. It is met when the keystore is unlocked, and where that does not look at
    all rows (there are over 1,000) when the key is used: before anything is written."""
    monkeypatch.setattr(authentic, "AT_ONCE", rows_at_once)
    target = desk.archive
    if what == "stream":
        target = desk.root / "s.pqv"
        with target.open("wb") as out:
            pqvault.encrypt(io.BytesIO(b"content"), out, [address(store, "prod")])
    lifecycle.rotate(store, "prod")
    evil = Identity.generate().recipient
    store.store.db.execute(
        "UPDATE versions SET public_key=?, key_id=? WHERE key_id=?",
        (evil.public_key, evil.key_id, id_of(store, "prod@2")),
    )
    before = {p: p.read_bytes() for p in files(target)}
    with pytest.raises(IntegrityError):
        if how == "rotate":
            turn(store, resolve(keystore=store.store), target)
        else:
            again(store, target)
    assert {p: p.read_bytes() for p in files(target)} == before


def files(target: Path) -> list[Path]:
    """A sealed stream, or all files of an archive."""
    return [target] if target.is_file() else sorted(p for p in target.rglob("*") if p.is_file())


# -- compromised keys ----------------------------------------------------------------------


def test_a_compromised_key_demands_more_than_rotation(store: Unlocked, desk: Box) -> None:  # noqa: F811
    """attack 35, promise 6: a new wrapping keeps the root key, so it is refused with the reason."""
    lifecycle.rotate(store, "prod")
    lifecycle.change_state(store, "prod@1", State.COMPROMISED)
    before = key_ids(desk.archive)
    for change in (
        resolve(keystore=store.store),
        resolve(to=address(store, "prod"), keystore=store.store),
        resolve(add=[Identity.generate().recipient], keystore=store.store),
    ):
        with pytest.raises(KeyStateForbids, match="keeps the root key") as caught:
            turn(store, change, desk.archive)
        assert "reencrypt" in caught.value.hint
    with pytest.raises(KeyStateForbids, match="prod@1 is compromised"):
        resolve(to=address(store, "prod"), remove=[id_of(store, "prod@1")], keystore=store.store)
    assert key_ids(desk.archive) == before and unfinished() == []


def test_a_run_is_carried_on_with_the_states_of_today(store: Unlocked, desk: Box) -> None:  # noqa: F811
    """What was compromised since a rotation was interrupted stays, and is not wrapped to."""
    lifecycle.rotate(store, "prod")
    before = key_ids(desk.archive)
    keys = identities(store.store, lambda: WORDS, print)

    def carry_on(run: Run) -> None:
        with run, rotating(run, keys, keystore=store.store) as work:
            work.run()

    for address, sentence in (("prod@2", "prod@2 is compromised"), ("prod@1", "keeps the root")):
        Run.create([desk.archive], resolve(keystore=store.store)).close()
        lifecycle.change_state(store, address, State.COMPROMISED)
        with pytest.raises(KeyStateForbids, match=sentence):
            carry_on(Run.open(unfinished()[0]))
        assert key_ids(desk.archive) == before
        lifecycle.rotate(store, "prod")


@pytest.mark.parametrize("state", [State.COMPROMISED, State.SUSPENDED, State.DEACTIVATED])
def test_a_re_encryption_is_carried_on_with_the_states_of_today(
    store: Unlocked,  # noqa: F811
    desk: Box,
    state: State,
) -> None:
    lifecycle.rotate(store, "prod")
    before = key_ids(desk.archive)
    keys = identities(store.store, lambda: WORDS, print)
    change = resolve(keystore=store.store, new_keys=True)
    run = Run.create([desk.archive], change, kind="reencryptions")
    lifecycle.change_state(store, "prod@2", state)
    with (
        run,
        reencrypting(run, keys, keystore=store.store) as work,
        pytest.raises(KeyStateForbids, match=f"prod@2.* is {state}"),
    ):
        work.run()
    assert key_ids(desk.archive) == before


def several(store: Unlocked, desk: Box, count: int = 3) -> list[Path]:  # noqa: F811
    """Archives that are sealed to prod@1 alone."""
    archives = [desk.root / f"{number}.pqv" for number in range(count)]
    for archive in archives:
        pqvault.seal(desk.source, archive, recipients=[address(store, "prod")])
    return archives


def test_what_all_fail_for_is_the_error_and_leaves_no_run(store: Unlocked, desk: Box) -> None:  # noqa: F811
    """Exit code 16 and not 3, and nothing to carry on with; of several reasons, and where some
    are done, it is Incomplete, and a run is left."""
    archives = several(store, desk)
    lifecycle.rotate(store, "prod")
    lifecycle.change_state(store, "prod@1", State.COMPROMISED)
    with pytest.raises(
        KeyStateForbids, match=r"none of 3 .* prod@1, which is compromised"
    ) as caught:
        turn(store, resolve(keystore=store.store), *archives)
    assert "reencrypt" in caught.value.hint and unfinished() == []
    (archives[0] / "pqvault.json").unlink()
    with pytest.raises(Incomplete, match="3 of 3"):
        turn(store, resolve(keystore=store.store), *archives)
    (run,) = unfinished()
    run.unlink()
    done = desk.root / "done.pqv"
    pqvault.seal(desk.source, done, recipients=[address(store, "prod")])
    with pytest.raises(Incomplete, match="2 of 3"):
        turn(store, resolve(keystore=store.store), *archives[1:], done)
    assert len(unfinished()) == 1


def test_a_wrong_passphrase_is_asked_for_once(store: Unlocked, desk: Box) -> None:  # noqa: F811
    """Not once for each of thousands of archives; and a run that was there stays there."""
    archives = several(store, desk)
    lifecycle.rotate(store, "prod")
    change, asked = resolve(keystore=store.store), list[int]()

    def wrong() -> bytes:
        asked.append(1)
        return b"wrong"

    with Run.create(archives, change) as run:
        kept = run.path
    for times in (1, 2):
        keys = identities(store.store, wrong, print)
        with Run.open(kept) as run, rotating(run, keys, keystore=store.store) as work:
            with pytest.raises(NoKeyFits, match="none of 3"):
                work.run()
            assert len(work.report.failed) == 3
        assert (len(asked), unfinished()) == (times, [kept])
    keys = identities(store.store, lambda: WORDS, print)
    with Run.open(kept) as run, rotating(run, keys, keystore=store.store) as work:
        assert work.run().rewrapped == 3
    assert unfinished() == []


def test_a_key_that_may_not_seal_is_not_wrapped_to(store: Unlocked, desk: Box) -> None:  # noqa: F811
    lifecycle.change_state(store, "prod@1", State.SUSPENDED)
    with pytest.raises(KeyStateForbids):
        address(store, "prod@1")


def test_a_key_that_expired_stays_when_nothing_takes_its_place(store: Unlocked, desk: Box) -> None:  # noqa: F811
    """It is said, once for all that is sealed to it; a new root key is not wrapped to it."""
    pqvault.seal(desk.source, desk.root / "l.pqv", recipients=[address(store, "prod")])
    with desk.source.joinpath("a").open("rb") as file, (desk.root / "s.pqv").open("wb") as out:
        pqvault.encrypt(file, out, [address(store, "prod")])
    edits.expire(store, "prod@1", 1)
    before = key_ids(desk.archive)
    both = (desk.archive, desk.root / "l.pqv", desk.root / "s.pqv")
    report = turn(store, resolve(keystore=store.store), *both)
    for one in both:
        assert turn(store, resolve(keystore=store.store), one).warnings == report.warnings
        assert plan(str(one), resolve(keystore=store.store)).warnings == (*report.warnings,)
    (warning,) = report.warnings
    assert "prod@1 has expired" in warning and "key rotate prod" in warning
    assert (report.unchanged, key_ids(desk.archive)) == (3, before)
    keys = identities(store.store, lambda: WORDS, print)
    for one in both:
        with pytest.raises(KeyStateForbids, match="prod@1 has expired") as caught:
            pqvault.reencrypt(one, identities=keys, keystore=store.store)
        assert "key rotate" in caught.value.hint
    assert (key_ids(desk.archive), unfinished("reencryptions")) == (before, [])
    lifecycle.rotate(store, "prod")
    report = turn(store, resolve(keystore=store.store), *both)
    assert (report.rewrapped, report.warnings) == (3, [])


def test_a_month_that_is_over_is_encrypted_again_for_itself(store: Unlocked, desk: Box) -> None:  # noqa: F811
    """A key of a period stays alone with what it opens, although it seals no more."""
    lifecycle.new_key(store, "logs", period="2026-10")
    archive = desk.root / "l.pqv"
    pqvault.seal(desk.source, archive, recipients=[address(store, "logs")])
    lifecycle.rotate(store, "logs", period="2026-11")
    keys = identities(store.store, lambda: WORDS, print)
    assert pqvault.reencrypt(archive, identities=keys, keystore=store.store).parts == 1
    assert key_ids(archive) == {id_of(store, "logs@1")}


# -- the index -----------------------------------------------------------------------------


def test_the_index_follows_so_that_the_old_version_can_go(store: Unlocked, desk: Box) -> None:  # noqa: F811
    """attack 36: a key that archives need is not destroyed; one that none needs is."""
    lifecycle.rotate(store, "prod")
    with pytest.raises(KeyStateForbids, match="still opens"):
        lifecycle.destroy(store, "prod@1")
    turn(store, resolve(keystore=store.store), desk.archive)
    assert lifecycle.dependants_of(store, "prod@2")[0].path == str(desk.archive)
    lifecycle.destroy(store, "prod@1")
    with pytest.raises(KeyStateForbids):
        lifecycle.change_state(store, "prod@2", State.DEACTIVATED)
        lifecycle.destroy(store, "prod@2")


def test_the_new_key_is_in_the_index_before_anything_is_wrapped_to_it(
    store: Unlocked,  # noqa: F811
    desk: Box,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed just after the envelope: nobody can destroy the key that alone opens it by now."""

    def crash(*_: Any) -> bool:
        raise KeyboardInterrupt

    lifecycle.rotate(store, "prod")
    monkeypatch.setattr(LocalStorage, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        turn(store, resolve(keystore=store.store), desk.archive)
    for version in ("prod@1", "prod@2"):
        assert [d.path for d in lifecycle.dependants_of(store, version)] == [str(desk.archive)]
    assert len(unfinished()) == 1


def test_a_scan_does_not_wait_for_a_pipe(
    store: Unlocked,  # noqa: F811
    desk: Box,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """attack 26: what only bears the name of a sealed stream is named, and the rest is noted."""
    monkeypatch.setenv("PQVAULT_HOME", str(store.store.path.parent))
    os.mkfifo(desk.root / "pipe.pqv")
    report = scan(desk.root)
    assert [place for place, _ in report.found] == [str(desk.archive)]
    (problem,) = report.problems
    assert "pipe.pqv is not a regular file" in problem.message


def test_a_scan_says_what_it_does_not_follow(
    store: Unlocked,  # noqa: F811
    desk: Box,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An archive behind a link is not noted: its key could be destroyed."""
    monkeypatch.setenv("PQVAULT_HOME", str(store.store.path.parent))
    below = desk.root / "below"
    below.mkdir()
    (below / "link").symlink_to(desk.archive)
    report = scan(below)
    assert report.found == [] and "below/link is a symbolic link" in report.warnings[0]
    assert scan(desk.root).warnings == []  # which has what the link leads to
    assert [*left_out([below], [])] == report.warnings
    with pytest.raises(NotFound) as caught:
        [*archives_at([below])]
    assert caught.value.hint == report.warnings[0]
    assert [*left_out([below], [str(desk.archive)])] == []


def test_a_key_that_an_open_log_needs_stays_in_the_index(
    store: Unlocked,  # noqa: F811
    desk: Box,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a log has not committed is not rotated, and only the old key opens it."""
    monkeypatch.setenv("PQVAULT_HOME", str(store.store.path.parent))
    prod = address(store, "prod")
    with InferenceLog(desk.archive, recipients=[prod], fsync="flush") as log:
        log.log({"request_id": "1"})
        log.flush()
        lifecycle.rotate(store, "prod")
        report = turn(store, resolve(keystore=store.store), desk.archive)
        assert any("of a log that has not ended it" in warning for warning in report.warnings)
        scan(desk.archive.parent)
        assert lifecycle.dependants_of(store, "prod@1")[0].path == str(desk.archive)
        keys = identities(store.store, lambda: WORDS, print)
        again = pqvault.reencrypt(desk.archive, identities=keys, keystore=store.store)
        assert again.warnings == [w for w in report.warnings if "of a log" in w]
        with pytest.raises(KeyStateForbids, match="still opens"):
            lifecycle.destroy(store, "prod@1")
    report = turn(store, resolve(keystore=store.store), desk.archive)
    assert report.rewrapped == 1 and not report.warnings
    lifecycle.destroy(store, "prod@1")


@pytest.mark.parametrize("place", ["memory://bucket/a.pqv", "file://{}/a.pqv", "{}/./a.pqv/"])
def test_a_rotation_knows_the_name_that_a_seal_noted(
    store: Unlocked,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    """Also at a URL, where a path made of it stayed in the index for ever: the old key could not be
    destroyed."""
    monkeypatch.setenv("PQVAULT_HOME", str(store.store.path.parent))
    (tmp_path / "a").write_bytes(b"a")
    place = place.format(tmp_path)
    sealed = CliRunner().invoke(cli, ["seal", str(tmp_path / "a"), "-o", place, "-r", "prod", "-q"])
    assert sealed.exit_code == 0, sealed.output
    lifecycle.rotate(store, "prod")
    with pytest.raises(KeyStateForbids, match="still opens"):
        lifecycle.destroy(store, "prod@1")
    turn(store, resolve(keystore=store.store), place)
    lifecycle.destroy(store, "prod@1")


def test_what_is_sealed_during_a_bulk_rotation_stays_in_the_index(
    store: Unlocked,  # noqa: F811
    desk: Box,
    tmp_path: Path,
) -> None:
    """The index is written once for many archives, after others sealed to one that was done."""
    other = tmp_path / "other.pqv"
    pqvault.seal(desk.source, other, recipients=[address(store, "prod")])
    lifecycle.new_key(store, "late")

    def seal(_: object) -> None:
        desk.tree({"b": b"second"})
        report = pqvault.seal(desk.source, desk.archive, recipients=[address(store, "late")])
        if report.parts:
            where = (report.archive_id, str(desk.archive), report.recipients)
            index.record(*where, keystore=store.store.path)

    change = resolve(add=[OTHER], keystore=store.store)
    turn(store, change, desk.archive, other, progress=seal)
    assert [d.path for d in lifecycle.dependants_of(store, "late")] == [str(desk.archive)]


# -- what is remembered (attack 14) --------------------------------------------------------


@pytest.fixture
def memory(store: Unlocked) -> Seen:  # noqa: F811
    return Seen(store.store.path)


def missing(memory: Seen, parts: list[str], generations: dict[str, int]) -> list[str]:
    found = memory.missing(A, memory.recall(A), parts, generations)
    return [problem.message for problem in found]


def read(box: Box, memory: Seen) -> None:
    with pqvault.open(box.archive, identities=[box.key], memory=memory) as archive:
        assert archive.parts


@pytest.fixture
def known(box: Box, memory: Seen) -> Box:
    """An archive of two parts that was read."""
    for name in ("a", "b"):
        box.tree({name: name.encode()})
        box.seal()
    read(box, memory)
    return box


def newest(box: Box) -> Path:
    return box.archive / "commits" / box.parts()[-1]


def test_a_newest_part_that_is_gone_is_missed(known: Box, memory: Seen) -> None:
    """attack 14: what nobody else could notice, whoever has seen it does."""
    newest(known).unlink()
    with pqvault.open(known.archive, identities=[known.key]):
        pass  # without a memory nothing is amiss
    with pytest.raises(RolledBack, match="seen here before"):
        read(known, memory)
    with pytest.raises(RolledBack):
        known.seal(memory=memory)
    for keys in ([], [known.key]):
        report = pqvault.verify(known.archive, identities=keys, memory=memory)
        assert [type(p) for p in report.problems] == [RolledBack]


def test_an_older_envelope_is_noticed(known: Box, memory: Seen, store: Unlocked) -> None:  # noqa: F811
    """attack 14: put back, so that whoever was taken off opens the part again."""
    part = newest(known).name
    old = (known.archive / "envelopes" / part).read_bytes()
    new = Identity.generate()
    pqvault.rotate(known.archive, identities=[known.key], add=[new.recipient], keystore=store.store)
    read(known, memory)
    (known.archive / "envelopes" / part).write_bytes(old)
    with pytest.raises(RolledBack, match="has generation 1, older than 2"):
        read(known, memory)
    with pytest.raises(RolledBack):
        pqvault.rotate(
            known.archive, identities=[known.key], to=new.recipient, keystore=store.store
        )


def test_an_older_envelope_of_a_column_group_is_noticed(
    tmp_path: Path,
    memory: Seen,
    store: Unlocked,  # noqa: F811
) -> None:
    """attack 14: who was taken off a group would read its columns again, not the others."""
    archive, new = tmp_path / "t.pqv", Identity.generate()
    part = tables_kit.write(archive, tables_kit.talk(10), groups=[tables_kit.GROUP])
    envelope = archive / "envelopes" / f"{part}.pii"
    old = envelope.read_bytes()
    pqvault.rotate(archive, identities=[tables_kit.MEMBER], to=new.recipient, keystore=store.store)
    assert pqvault.verify(archive, identities=[new], memory=memory).problems == []
    envelope.write_bytes(old)
    with pytest.raises(RolledBack, match=r"\.pii has generation 1, older than 2"):
        pqvault.open(archive, identities=[new], memory=memory)


def test_a_part_that_was_removed_is_not_missed(known: Box, memory: Seen) -> None:
    part = newest(known).name
    (known.archive / "removed").mkdir()
    (known.archive / "removed" / part).touch()
    read(known, memory)
    (known.archive / "removed" / part).unlink()
    newest(known).unlink()
    read(known, memory)  # it is no head any more


def test_a_rollback_that_is_allowed_is_accepted_once_and_for_all(
    known: Box,
    store: Unlocked,  # noqa: F811
) -> None:
    newest(known).unlink()
    said: list[str] = []
    read(known, Seen(store.store.path, allow_rollback=True, warn=said.append))
    assert len(said) == 1 and "no longer remembered" in said[0]
    read(known, Seen(store.store.path))


def test_a_part_that_is_sealed_here_is_known_from_then_on(box: Box, memory: Seen) -> None:
    box.tree({"a": b"1"})
    box.seal(memory=memory)
    newest(box).unlink()
    with pytest.raises(RolledBack):
        box.seal(memory=memory)


def test_what_was_not_verified_is_not_remembered(known: Box, memory: Seen) -> None:
    """A commit that a stranger dropped and took away again is no rollback."""
    part = newest(known)
    forged = known.archive / "commits" / C
    forged.write_bytes(part.read_bytes().replace(part.name.encode(), C.encode()))
    options: dict[str, Any] = {"memory": memory, "strict": False}
    with pqvault.open(known.archive, identities=[known.key], **options) as archive:
        assert len(archive.parts) == 2 and archive.problems
    forged.unlink()
    read(known, memory)


def test_heads_are_what_no_seen_part_follows(memory: Seen) -> None:
    """Rows do not grow with the parts of an archive."""
    memory.remember(A, [Sight(A, (), {A: 1})], [])
    memory.remember(A, [Sight(B, (A,), {B: 1})], [])
    assert missing(memory, [], {}) == [f"part {B} is missing, which was seen here before"]
    memory.remember(A, [Sight(C, (B,), {C: 1})], [])
    assert missing(memory, [C], {}) == []
    memory.remember(A, [], [C])
    assert missing(memory, [], {}) == []
    memory.remember(A, [Sight(A, (), {A: 5})], [])
    memory.remember(A, [Sight(A, (), {A: 3})], [])
    assert missing(memory, [A], {A: 5}) == []
    assert len(missing(memory, [A], {A: 4})) == 1
    assert memory.recall(B).heads == frozenset()


def test_what_others_add_while_we_read_is_no_rollback(
    known: Box,
    memory: Seen,
    store: Unlocked,  # noqa: F811
) -> None:
    """Memory first, then the archive: a part or a rotation that comes between is only newer."""

    class Slow(Seen):
        def missing(self, *args: Any) -> list[RolledBack]:
            known.tree({"late": b"x"})
            known.seal(memory=memory)
            pqvault.rotate(known.archive, identities=[known.key], add=[OTHER])
            read(known, memory)
            return super().missing(*args)

    read(known, Slow(store.store.path))


def test_a_keystore_of_before_learns_to_remember(path: Path, store: Unlocked) -> None:  # noqa: F811
    """Its file has no such tables yet."""
    store.store.db.executescript("DROP TABLE IF EXISTS heads; DROP TABLE IF EXISTS generations")
    with Seen(path) as memory:
        assert missing(memory, [], {}) == []
    Keystore(path).unlock(lambda: WORDS)
