"""Rotation: root keys wrapped anew, nothing else touched, by whoever can open what they rotate."""

from __future__ import annotations

import errno
import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tables_kit
from click.testing import CliRunner
from conftest import Box, files_below, make_tree
from hypothesis import given
from hypothesis import strategies as st

import pqvault
from pqvault.archive import retired
from pqvault.archive.finding import find
from pqvault.archive.layout import envelope_name
from pqvault.errors import (
    FormatError,
    IntegrityError,
    Locked,
    NoKeyFits,
    NotFound,
    PolicyRefused,
    PQVaultError,
    RolledBack,
    UsageError,
)
from pqvault.format.envelope import Envelope, WrappedKey
from pqvault.format.retired import Retired
from pqvault.keys import Identity
from pqvault.rootkey import RootKey, keyring
from pqvault.rotation import streams
from pqvault.rotation.archives import ArchiveRotation
from pqvault.rotation.change import Change, Keys, resolve
from pqvault.rotation.run import plan
from pqvault.rotation.runs import Run, look, statuses
from pqvault.storage import LocalStorage
from pqvault.storage.base import Buffer
from pqvault_cli.main import cli

NEW = Identity.generate()
THIRD = Identity.generate()


@pytest.fixture
def sealed(box: Box) -> Box:
    """An archive of two parts, sealed to the box's key."""
    box.tree({"a": b"first", "b": b"second" * 1000})
    box.seal()
    box.tree({"c": b"third"})
    box.seal()
    return box


def rotate(box: Box, *, by: Identity | None = None, **options: Any) -> pqvault.RotateReport:
    return pqvault.rotate(box.archive, identities=[by or box.key], **options)


def opens(box: Box, identity: Identity) -> bool:
    """Whether all of the archive opens with one key."""
    try:
        with pqvault.open(box.archive, identities=[identity]) as archive:
            return archive.open_file("src/c").read() == b"third"
    except NoKeyFits:
        return False


def envelopes(box: Box) -> dict[str, Envelope]:
    folder = box.archive / "envelopes"
    return {path.name: Envelope.parse(path.read_bytes()) for path in folder.iterdir()}


def other_files(box: Box) -> dict[str, tuple[bytes, int]]:
    """Everything but the envelopes: bytes and times."""
    return {
        name: ((box.archive / name).read_bytes(), (box.archive / name).stat().st_mtime_ns)
        for name in files_below(box.archive)
        if not name.startswith("envelopes/")
    }


# -- what a rotation does ------------------------------------------------------------------


def test_the_new_key_takes_the_place_of_the_old(sealed: Box) -> None:
    """Promise 5: one small envelope per part is written, and nothing else at all."""
    before = other_files(sealed)
    report = rotate(sealed, to=NEW.recipient)
    assert (report.rewrapped, report.unchanged, report.failed) == (2, 0, [])
    assert report.written == sum(len(e.marshal()) for e in envelopes(sealed).values())
    assert report.written < 2 * 8192
    assert opens(sealed, NEW) and not opens(sealed, sealed.key)
    assert other_files(sealed) == before
    assert {e.generation for e in envelopes(sealed).values()} == {2}
    assert pqvault.verify(sealed.archive, identities=[NEW]).problems == []


def test_what_is_wrapped_already_stays_as_it_is(sealed: Box) -> None:
    """Others need not be there: their wrapped keys are copied, not made again."""
    rotate(sealed, add=[THIRD.recipient.text])
    first = envelopes(sealed)
    rotate(sealed, to=NEW.recipient)
    for name, envelope in envelopes(sealed).items():
        assert envelope.recipients[1] == first[name].recipients[1]
        assert [w.key_id for w in envelope.recipients] == [NEW.key_id, THIRD.key_id]
        assert envelope.generation == 3
    assert opens(sealed, THIRD)


def test_a_rotation_that_is_done_changes_nothing(sealed: Box) -> None:
    """attack 34: doing it again is how an interrupted one is carried on."""
    rotate(sealed, to=NEW.recipient)
    before = envelopes(sealed)
    again = pqvault.rotate(sealed.archive, identities=[sealed.key, NEW], to=NEW.recipient)
    assert (again.rewrapped, again.unchanged) == (0, 2)
    assert envelopes(sealed) == before


def test_the_envelope_keeps_its_mode(sealed: Box) -> None:
    """A training job that may read the archive may read it after the operator's rotation."""
    for path in (sealed.archive / "envelopes").iterdir():
        path.chmod(0o640)
    old = os.umask(0o077)
    try:
        rotate(sealed, to=NEW.recipient)
    finally:
        os.umask(old)
    modes = {path.stat().st_mode & 0o777 for path in (sealed.archive / "envelopes").iterdir()}
    assert modes == {0o640}


def test_nobody_is_left_out_of_everything(sealed: Box) -> None:
    """Taking off the last recipient is refused, and nothing is written."""
    before = envelopes(sealed)
    with pytest.raises(UsageError, match="nobody could open"):
        rotate(sealed, remove=[sealed.key.key_id])
    assert envelopes(sealed) == before


def test_the_plan_says_what_the_rotation_does_and_needs_no_key(sealed: Box) -> None:
    change = resolve(to=NEW.recipient, mine=[sealed.key])
    planned = plan(sealed.archive, change)
    assert (planned.rewrap, planned.now, planned.then) == (2, (sealed.key.key_id,), (NEW.key_id,))
    assert opens(sealed, sealed.key)
    rotate(sealed, to=NEW.recipient)
    assert plan(sealed.archive, change).rewrap == 0


def test_parts_that_do_not_open_are_named_and_the_others_done(sealed: Box) -> None:
    """A part of somebody else's is no reason to leave ours as they are."""
    sealed.tree({"d": b"of others"})
    pqvault.seal(sealed.source, sealed.archive, recipients=[THIRD.recipient])
    with pytest.raises(NoKeyFits, match="fits the envelope of part"):
        rotate(sealed, to=NEW.recipient)
    generations = sorted(e.generation for e in envelopes(sealed).values())
    assert generations == [1, 2, 2]


def test_a_part_without_an_envelope_is_named(sealed: Box) -> None:
    first = sealed.parts()[0]
    (sealed.archive / envelope_name(first)).unlink()
    with pytest.raises(IntegrityError, match=f"envelope of part {first} is missing"):
        rotate(sealed, to=NEW.recipient)
    assert [e.generation for e in envelopes(sealed).values()] == [2]


# -- who controls the bytes ----------------------------------------------------------------


def test_an_envelope_of_a_stranger_is_not_rewrapped(sealed: Box) -> None:
    """attack 33: a valid envelope with a root key that is not the part's: steps 2 to 5 first.

    Rewrapped, it would have destroyed nothing that the stranger had not; but the operator would
    be told that all is well.
    """
    part = sealed.parts()[0]
    path = sealed.archive / envelope_name(part)
    archive = Envelope.parse(path.read_bytes()).archive
    forged = RootKey.generate(archive, part).envelope([sealed.key.recipient], created=1).marshal()
    path.write_bytes(forged)
    with pytest.raises(IntegrityError, match="does not belong to"):
        rotate(sealed, to=NEW.recipient)
    assert path.read_bytes() == forged


def test_a_list_of_recipients_that_was_altered_is_not_rewrapped(sealed: Box) -> None:
    """attack 6: a recipient that a stranger added does not get what is wrapped next."""
    part = sealed.parts()[0]
    path = sealed.archive / envelope_name(part)
    envelope = Envelope.parse(path.read_bytes())
    added = WrappedKey("MLKEM768-X25519", THIRD.key_id, envelope.recipients[0].sealed)
    altered = Envelope(
        envelope.archive, part, "", 1, 1, "standard", (*envelope.recipients, added), envelope.mac
    ).marshal()
    path.write_bytes(altered)
    with pytest.raises(IntegrityError, match="list of recipients was altered"):
        rotate(sealed, to=NEW.recipient)
    assert path.read_bytes() == altered


def test_a_commit_that_was_altered_stops_the_rotation_of_its_part(sealed: Box) -> None:
    part = sealed.parts()[1]
    path = sealed.archive / "commits" / part
    path.write_bytes(path.read_bytes().replace(b'"created":1', b'"created":2'))
    with pytest.raises(IntegrityError, match="commit of part"):
        rotate(sealed, to=NEW.recipient)
    assert sorted(e.generation for e in envelopes(sealed).values()) == [1, 2]


def test_a_rolled_back_archive_is_not_rotated(sealed: Box) -> None:
    first = sealed.parts()[0]
    (sealed.archive / "commits" / first).unlink()
    with pytest.raises(RolledBack):
        rotate(sealed, to=NEW.recipient)


# -- several at once -----------------------------------------------------------------------


class Interfering(LocalStorage):
    """Storage where something else happens just before the first replace."""

    happen: Callable[[], object]

    def replace(self, name: str, old: bytes, new: Buffer) -> bool:
        happen, self.__class__.happen = self.__class__.happen, lambda: None
        happen()
        return super().replace(name, old, new)


def interfered(box: Box, happen: Callable[[], object]) -> LocalStorage:
    kind = type("Once", (Interfering,), {"happen": staticmethod(happen)})
    storage: LocalStorage = kind(box.archive)
    return storage


def test_two_rotations_at_once_keep_each_others_change(sealed: Box) -> None:
    """attack 37: the second one sees that the envelope is not the one it read, and reads again."""
    storage = interfered(sealed, lambda: rotate(sealed, add=[THIRD.recipient]))
    change = resolve(add=[NEW.recipient], mine=[sealed.key])
    result = ArchiveRotation(storage, change, Keys([sealed.key])).run()
    assert result.problems == []
    everybody = {sealed.key.key_id, NEW.key_id, THIRD.key_id}
    for envelope in envelopes(sealed).values():
        assert {w.key_id for w in envelope.recipients} == everybody
        assert envelope.generation == 3


def test_parts_that_are_added_meanwhile_are_rotated_too(sealed: Box) -> None:
    """attack 34: no part is left on the old key because it came while we were at it."""

    def append() -> None:
        sealed.tree({"d": b"late"})
        sealed.seal()

    change = resolve(to=NEW.recipient, mine=[sealed.key])
    result = ArchiveRotation(interfered(sealed, append), change, Keys([sealed.key])).run()
    assert (result.rewrapped, result.problems) == (3, [])
    assert opens(sealed, NEW)


@pytest.mark.parametrize("by", ["reencrypt", "compact", "prune"])
def test_parts_that_others_take_away_meanwhile_are_not_missed(
    sealed: Box, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    replace, keys = LocalStorage.replace, {"identities": [sealed.key]}
    (sealed.source / "a").write_bytes(b"other")
    (sealed.source / "b").write_bytes(b"other")
    sealed.seal()

    def others_first(*args: Any) -> bool:
        monkeypatch.setattr(LocalStorage, "replace", replace)
        if by == "prune":
            pqvault.prune(sealed.archive, keep_last=1, **keys)  # type: ignore[arg-type]
            pqvault.gc(sealed.archive, older_than=0)
        else:
            getattr(pqvault, by)(sealed.archive, **keys)
        return replace(*args)

    monkeypatch.setattr(LocalStorage, "replace", others_first)
    rotate(sealed, to=NEW.recipient)
    assert opens(sealed, NEW) and not opens(sealed, sealed.key)


def test_an_envelope_that_others_keep_replacing_is_given_up(sealed: Box) -> None:
    """attack 37: exit 11 in the end, with whatever they wrote in place."""

    class Never(LocalStorage):
        def replace(self, name: str, old: bytes, new: Buffer) -> bool:
            return False

    change = resolve(to=NEW.recipient, mine=[sealed.key])
    result = ArchiveRotation(Never(sealed.archive), change, Keys([sealed.key])).run()
    assert [type(problem) for problem in result.problems] == [Locked, Locked]
    assert opens(sealed, sealed.key)


# -- retired keys --------------------------------------------------------------------------


def test_a_key_that_is_removed_is_retired_and_seal_refuses_it(sealed: Box) -> None:
    """A host with an old configuration does not go on sealing to whom the operator took off."""
    report = rotate(sealed, to=NEW.recipient, remove=[sealed.key.key_id])
    assert report.retired == [sealed.key.key_id]
    sealed.tree({"d": b"more"})
    with pytest.raises(PolicyRefused, match=f"{sealed.key.key_id} is retired"):
        sealed.seal()
    assert len(envelopes(sealed)) == 2
    sealed.seal(allow_retired=True)
    assert len(envelopes(sealed)) == 3
    # and once more, for the part that came since; the record is there already
    again = rotate(sealed, to=NEW.recipient, remove=[sealed.key.key_id])
    assert (again.rewrapped, again.retired) == (1, [])


def test_a_key_that_is_retired_while_a_host_seals_is_refused_at_the_commit(sealed: Box) -> None:
    rotate(sealed, add=[THIRD.recipient])
    sealed.tree({"d": b"more" * 1000})

    def on(_: Any) -> None:
        if not (sealed.archive / "retired").exists():
            rotate(sealed, by=THIRD, remove=[sealed.key.key_id])

    with pytest.raises(PolicyRefused):
        sealed.seal(progress=on)
    assert len(envelopes(sealed)) == 2
    assert len(files_below(sealed.archive / "parts")) == 4  # nothing of the third part is left


def test_the_record_is_made_with_the_root_key_of_a_part(sealed: Box) -> None:
    """Whoever can open that part can tell a record of the operator from a stranger's."""
    rotate(sealed, to=NEW.recipient, remove=[sealed.key.key_id])
    storage = LocalStorage(sealed.archive)
    part = sealed_part = next(iter(envelopes(sealed).values()))
    record = retired.read_record(storage, part.archive, sealed.key.key_id)
    sealed_part = envelopes(sealed)[record.part]
    key = RootKey.unwrap(sealed_part, keyring([NEW]), "it")
    key.check_retired(record, "it")
    for wrong in (
        Retired(record.archive, record.part, NEW.key_id, record.created, record.mac),
        Retired(record.archive, record.part, record.key_id, 1, record.mac),
    ):
        with pytest.raises(IntegrityError):
            key.check_retired(wrong, "it")
    with pytest.raises(IntegrityError, match="another archive or key"):
        retired.read_record(storage, "00" * 16, sealed.key.key_id)


def test_verify_finds_a_record_that_nobody_with_a_key_has_made(sealed: Box) -> None:
    """With a key a stranger's record shows; without one only what is no record at all."""
    rotate(sealed, to=NEW.recipient, remove=[sealed.key.key_id])
    assert pqvault.verify(sealed.archive, identities=[NEW]).problems == []
    good = (sealed.archive / "retired" / sealed.key.key_id).read_bytes()
    record = Retired.parse(good)
    forged = Retired(record.archive, record.part, THIRD.key_id, 1, bytes(32)).marshal()
    (sealed.archive / "retired" / THIRD.key_id).write_bytes(forged)
    assert pqvault.verify(sealed.archive).problems == []
    (problem,) = pqvault.verify(sealed.archive, identities=[NEW]).problems
    assert f"retired/{THIRD.key_id} failed authentication" in problem.message
    (sealed.archive / "retired" / THIRD.key_id).write_bytes(good)
    for keys in ([], [NEW]):
        (problem,) = pqvault.verify(sealed.archive, identities=keys).problems
        assert "was copied here" in problem.message
    assert opens(sealed, NEW)  # readers do not mind


def test_a_retired_key_comes_back_only_when_that_is_said(sealed: Box) -> None:
    rotate(sealed, to=NEW.recipient, remove=[sealed.key.key_id])
    with pytest.raises(PolicyRefused):
        rotate(sealed, by=NEW, add=[sealed.key.recipient])
    rotate(sealed, by=NEW, add=[sealed.key.recipient], allow_retired=True)
    assert retired.retired_ids(LocalStorage(sealed.archive)) == set()
    sealed.tree({"d": b"more"})
    sealed.seal()


def test_a_key_the_archive_never_knew_is_not_retired_in_it(sealed: Box) -> None:
    """`--recursive --remove alice` writes nothing into archives that alice never had."""
    before = other_files(sealed)
    report = rotate(sealed, remove=[THIRD.key_id])
    assert (report.rewrapped, report.retired) == (0, [])
    assert other_files(sealed) == before


def test_who_removes_nobody_is_told(sealed: Box) -> None:
    """A key id that is mistyped must not pass for a revocation."""
    assert (
        f"nothing here was sealed to {'00' * 16}," in rotate(sealed, remove=["00" * 16]).warnings[0]
    )
    both = ["00" * 16, sealed.key.key_id]
    report = rotate(sealed, to=NEW.recipient, remove=both)
    assert report.rewrapped and not report.warnings


@given(st.binary(max_size=200))
def test_what_parses_as_a_retired_record_marshals_to_itself(junk: bytes) -> None:
    """Parse, then marshal: identity; and everything else is refused."""
    good = RootKey("00" * 16, "11" * 16, bytes(32)).retire("22" * 16, created=7).marshal()
    for data in (junk, good[: len(junk)] + junk, good[: -len(junk) or None] + junk):
        try:
            record = Retired.parse(data)
        except IntegrityError:
            continue
        assert record.marshal() == data
    assert Retired.parse(good).marshal() == good


# -- sealed streams ------------------------------------------------------------------------


@pytest.fixture
def stream(tmp_path: Path, identity: Identity) -> Path:
    path = tmp_path / "s.pqv"
    with path.open("wb") as out:
        pqvault.encrypt(io.BytesIO(os.urandom(300_000)), out, [identity.recipient])
    return path


def test_a_sealed_stream_gets_a_new_envelope_and_keeps_its_object(
    stream: Path, identity: Identity
) -> None:
    """The bytes behind the envelope are copied, not decrypted; the cost is told."""
    before = stream.read_bytes()
    stream.chmod(0o640)
    report = pqvault.rotate(stream, identities=[identity], to=NEW.recipient)
    after = stream.read_bytes()
    old, new = (Envelope.parse_prefix(data) for data in (before, after))
    assert before[old[1] :] == after[new[1] :]
    assert report.copied == len(after) - new[1] and report.written == new[1]
    assert new[0].generation == 2 and stream.stat().st_mode & 0o777 == 0o640
    with pqvault.open_stream(stream, [NEW]) as reader:
        assert reader.size == 300_000
    with pytest.raises(NoKeyFits):
        pqvault.open_stream(stream, [identity])
    assert list(stream.parent.glob(".*")) == []


def test_a_stream_is_copied_where_the_kernel_cannot(
    stream: Path, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    pqvault.rotate(stream, identities=[identity], to=NEW.recipient)
    with pqvault.open_stream(stream, [NEW]) as reader:
        assert reader.size == 300_000


@pytest.mark.parametrize("fault", ["truncated", "envelope of another stream"])
def test_a_stream_that_is_not_whole_is_not_rotated(
    stream: Path, identity: Identity, fault: str
) -> None:
    """attack 10: no torn stream, and no object under the envelope of another, is made new."""
    data = stream.read_bytes()
    if fault == "truncated":
        data = data[:-1]
    else:
        out = io.BytesIO()
        pqvault.encrypt(io.BytesIO(b"other"), out, [identity.recipient])
        head = Envelope.parse_prefix(out.getvalue())[1]
        data = out.getvalue()[:head] + data[Envelope.parse_prefix(data)[1] :]
    stream.write_bytes(data)
    with pytest.raises(IntegrityError):
        pqvault.rotate(stream, identities=[identity], to=NEW.recipient)
    assert stream.read_bytes() == data and list(stream.parent.glob(".*")) == []


@pytest.mark.parametrize("verb", [pqvault.rotate, pqvault.reencrypt])
def test_a_stream_that_another_process_rotates_is_locked(
    stream: Path, identity: Identity, monkeypatch: pytest.MonkeyPatch, verb: Any
) -> None:
    """attack 37: not waited for, because it may copy for long."""
    import fcntl

    with stream.open("rb") as other, monkeypatch.context() as patch:
        fcntl.flock(other, fcntl.LOCK_EX)
        patch.setattr(time, "sleep", lambda _: pytest.fail("it waits"))
        with pytest.raises(Locked):
            verb(stream, identities=[identity], to=NEW.recipient)
    left = stream.with_name(f".{stream.name}.0123abcd.rotating")
    theirs = stream.with_name(f".other-{stream.name}.0123abcd.rotating")  # perhaps just now
    for path in (left, theirs):
        path.write_bytes(b"of a rotation")
    os.link(stream, stream.with_name("same"))
    report = verb(stream, identities=[identity], to=NEW.recipient)
    assert not left.exists() and theirs.exists()
    assert "hard links" in report.warnings[0]


@pytest.mark.parametrize("said", [0, 28])
def test_a_stream_that_is_not_copied_whole_stays_what_it_was(
    stream: Path, identity: Identity, monkeypatch: pytest.MonkeyPatch, said: int
) -> None:
    """attack 47: by a kernel that ends early, as some do, or for want of space."""

    def copy(source: int, target: int, count: int, *_: int) -> int:
        if said:
            raise OSError(said, os.strerror(said))
        return 0

    before = stream.read_bytes()
    monkeypatch.setattr(os, "copy_file_range", copy)
    with pytest.raises(PQVaultError, match="no space" if said else "got shorter"):
        pqvault.rotate(stream, identities=[identity], to=NEW.recipient)
    assert stream.read_bytes() == before and list(stream.parent.glob(".*")) == []


@pytest.mark.parametrize("verb", [pqvault.rotate, pqvault.reencrypt])
def test_a_stream_that_was_replaced_before_it_was_locked_is_not_written_over(
    stream: Path, identity: Identity, monkeypatch: pytest.MonkeyPatch, verb: Any
) -> None:
    """attack 37: else who comes second takes back what the first one did, a removal for example."""
    theirs = stream.with_name("theirs")
    theirs.write_bytes(stream.read_bytes())
    inode = theirs.stat().st_ino
    monkeypatch.setattr(streams, "lock_file", lambda *_, **__: os.replace(theirs, stream))
    with pytest.raises(Locked, match="was replaced by another process"):
        verb(stream, identities=[identity], to=NEW.recipient)
    assert stream.stat().st_ino == inode and list(stream.parent.glob(".*")) == []


@pytest.mark.parametrize("kind", ["link", "FIFO"])
def test_what_is_no_regular_file_is_not_rotated(stream: Path, kind: str) -> None:
    """attack 27: a link that somebody puts there is not followed, a FIFO not waited for."""
    path = stream.with_name("planted")
    path.symlink_to(stream) if kind == "link" else os.mkfifo(path)
    said = "it is a symbolic link" if kind == "link" else "is not a regular file"
    with pytest.raises(FormatError, match=said), streams.opened(path):
        pass


# -- what a change is ----------------------------------------------------------------------

KEYS = [Identity(bytes([n]) * 32).recipient for n in range(6)]
IDS = [key.key_id for key in KEYS]
subsets = st.sets(st.sampled_from(range(6)))


@given(subsets, subsets, subsets, st.none() | st.sampled_from(range(6)), subsets)
def test_a_change_applied_twice_is_applied_once(
    there: set[int], add: set[int], remove: set[int], to: int | None, ours: set[int]
) -> None:
    """Idempotent, complete, and the same after it was written down (attack 34)."""
    try:
        change = resolve(
            to=None if to is None else KEYS[to],
            add=[KEYS[n] for n in add],
            remove=[IDS[n] for n in remove],
            mine=[Identity(bytes([n]) * 32) for n in ours],
        )
    except UsageError:
        assert not (add or remove or to is not None) or remove & (add | {to})
        return
    assert Change.from_json(change.to_json()) == change
    before = envelope_of({IDS[n]: WrappedKey("MLKEM768-X25519", IDS[n], b"") for n in there})
    try:
        members = change.members(before, "it")
    except NoKeyFits:
        assert to is not None and not there & (ours | {to})
        return
    except UsageError:
        assert not (there - remove - (ours if to is not None else set())) | add
        return
    after = {m.key_id for m in members} if members is not None else {IDS[n] for n in there}
    gone = remove | (ours if to is not None else set())
    assert after == {IDS[n] for n in (there - gone) | add | ({to} if to is not None else set())}
    again = envelope_of({i: WrappedKey("MLKEM768-X25519", i, b"") for i in after})
    assert change.members(again, "it") is None


def envelope_of(recipients: dict[str, WrappedKey]) -> Envelope:
    return Envelope("00" * 16, "11" * 16, "", 1, 1, "standard", tuple(recipients.values()))


@pytest.mark.parametrize("verb", ["rotate", "reencrypt"])
def test_a_key_of_another_profile_is_refused_before_anything_is_written(
    sealed: Box, verb: str
) -> None:
    """Above all no record that the old key is retired, which would stop all who seal to it."""
    profile = "high" if verb == "rotate" else "cnsa2"
    new = Identity.generate(profile).recipient
    before = {name: (sealed.archive / name).read_bytes() for name in files_below(sealed.archive)}
    change = {"add": [new], "remove": [sealed.key.key_id]}
    with pytest.raises(UsageError, match="profile"):
        getattr(pqvault, verb)(sealed.archive, identities=[sealed.key], **change)
    assert before == {n: (sealed.archive / n).read_bytes() for n in files_below(sealed.archive)}
    if verb == "rotate":
        planned = plan(str(sealed.archive), Change(add=(new,)))
        assert planned.problem is not None and "profile" in planned.problem.message


@pytest.mark.parametrize("verb", [pqvault.rotate, pqvault.reencrypt])
def test_links_are_not_passed_over_in_silence(sealed: Box, stream: Path, verb: Any) -> None:
    """Who does all below a folder, because a key leaked, has to know what was left out."""
    below = sealed.root / "all"
    below.mkdir()
    options: dict[str, Any] = {"identities": [sealed.key], "to": NEW.recipient, "recursive": True}
    assert "no archive" in verb(below, **options).warnings[0]
    for number, target in enumerate((sealed.archive, stream)):
        (below / f"{number}.pqv").symlink_to(target)
    none, *links = verb(below, **options).warnings
    assert "no archive" in none
    assert [link.split(" is a ")[0] for link in links] == [f"{below}/0.pqv", f"{below}/1.pqv"]
    (below / "lost.pqv").symlink_to("nowhere")
    (below / "other").symlink_to(sealed.source)
    (below / "up").symlink_to(below.parent)
    stream.rename(below / "s.pqv")
    (below / "1.pqv").unlink()
    (below / "1.pqv").symlink_to("s.pqv")  # which is done by its own name
    report = verb(below, **options)
    assert (report.targets, report.finished) == (1, 1)
    (warning,) = report.warnings
    assert warning.startswith(f"{below}/0.pqv is a symbolic link") and opens(sealed, sealed.key)


def test_the_last_of_a_column_group_stays_on_its_part(tmp_path: Path) -> None:
    """Else nobody could read those columns: one key opens the part, another one the group."""
    archive, kit = tmp_path / "t.pqv", tables_kit
    kit.write(archive, kit.talk(10), groups=[kit.GROUP])
    old = files_below(archive)
    before = {name: (archive / name).read_bytes() for name in old}
    for by in (kit.KEY, kit.MEMBER):
        with pytest.raises(UsageError, match=r"nobody could open .*\.pii") as caught:
            pqvault.rotate(archive, identities=[by], remove=[kit.MEMBER.key_id])
        assert "-i" in caught.value.hint and "--add" not in caught.value.hint
    assert {name: (archive / name).read_bytes() for name in files_below(archive)} == before
    # What the hint says.
    more = {"remove": [kit.MEMBER.key_id], "to": NEW.recipient}
    pqvault.rotate(archive, identities=[kit.MEMBER], **more)
    assert kit.read(archive, key=NEW).equals(kit.talk(10))


def test_who_is_added_to_an_archive_is_not_added_to_its_groups() -> None:
    """A group of columns is sealed to fewer people on purpose."""
    wrapped = WrappedKey("MLKEM768-X25519", IDS[0], b"")
    group = Envelope("00" * 16, "11" * 16, "pii", 1, 1, "standard", (wrapped,))
    assert Change(add=(KEYS[1],)).members(group, "it") is None
    assert Change(to=KEYS[1], ours={IDS[2]: ""}).members(group, "it") is None
    assert Change(to=KEYS[1], ours={IDS[0]: ""}).members(group, "it") == (KEYS[1],)


# -- many ----------------------------------------------------------------------------------


def test_folders_of_archives_are_rotated_and_what_fails_is_named(
    tmp_path: Path, identity: Identity
) -> None:
    """attack 34: one that fails keeps none of the others, and the run stays unfinished."""
    source = make_tree(tmp_path / "src", {"f": b"x"})
    folder = tmp_path / "all"
    for number in range(5):
        owner = THIRD if number == 2 else identity
        pqvault.seal(source, folder / f"{number}.pqv", recipients=[owner.recipient])
    with pytest.raises(NotFound, match="is not an archive"):
        pqvault.rotate(folder, identities=[identity], to=NEW.recipient)
    with pytest.raises(PQVaultError, match="1 of 5 archives") as caught:
        pqvault.rotate(folder, identities=[identity], to=NEW.recipient, recursive=True)
    assert caught.value.exit_code == 3
    for number in range(5):
        with pqvault.open(
            folder / f"{number}.pqv", identities=[THIRD if number == 2 else NEW]
        ) as archive:
            assert archive.open_file("src/f").read() == b"x"


def test_a_folder_that_cannot_be_read_is_not_passed_over(
    tmp_path: Path, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is below it would keep the old key, and nobody would know."""
    source, scandir = make_tree(tmp_path / "src", {"f": b"x"}), os.scandir
    for name in ("a.pqv", "team/b.pqv"):
        pqvault.seal(source, tmp_path / "all" / name, recipients=[identity.recipient])

    def refuse(path: Any) -> Any:
        if os.fspath(path) == str(tmp_path / "all/team"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PQVaultError, match=r"cannot list .*/all/team: permission denied"):
        pqvault.rotate(tmp_path / "all", identities=[identity], to=NEW.recipient, recursive=True)
    found = [str(path) for path in find(tmp_path / "all")]
    assert found == [str(tmp_path / "all" / name) for name in ("a.pqv", "team")]


def test_a_damaged_list_of_what_is_left_is_named(tmp_path: Path, identity: Identity) -> None:
    run = Run.create(["/one", "/two"], resolve(to=NEW.recipient, mine=[identity]))
    run.close()
    whole = run.path.read_bytes()
    head, first, second = whole.splitlines(keepends=True)
    for damaged in (
        whole[: len(head) + 4],
        head + b'"/o\xff"\n' + second,
        head.replace(b'"started"', b'"starred"') + first + second,
        head.replace(b'"total": 2', b'"total": -2') + first + second,
        head.replace(b'"total": 2', b'"total": null') + first + second,
    ):
        run.path.write_bytes(damaged)
        with pytest.raises(FormatError, match="is not an unfinished rotation") as caught:
            look(run.path)
        assert str(run.path) in caught.value.hint


def test_a_damaged_list_keeps_nobody_from_anything_else(sealed: Box) -> None:
    """Neither from seeing what else is unfinished, nor from new root keys when a key leaked."""
    kind: Any = "reencryptions"
    change = resolve(mine=[sealed.key], new_keys=True)
    for name in ("0.jsonl", "1.jsonl"):
        run = Run.create(["/elsewhere"], change, kind=kind)
        run.close()
        os.rename(run.path, run.path.with_name(name))
    run.path.with_name("0.jsonl").write_bytes(b"")
    found, damaged = statuses(kind)
    assert [status.run for status in found] == ["1"] and "0.jsonl" in damaged[0].message
    assert pqvault.reencrypt(sealed.archive, identities=[sealed.key]).parts == 2
    result = CliRunner().invoke(cli, ["reencrypt", "--status"])
    assert result.exit_code == 3 and "0.jsonl is not" in result.output and "1  " in result.output
    result = CliRunner().invoke(cli, ["reencrypt", "--abandon"])
    assert result.exit_code == 13 and "1 is forgotten" in result.output


def test_what_cannot_be_finished_keeps_no_other_run_from_being_carried_on(
    tmp_path: Path, identity: Identity
) -> None:
    source = make_tree(tmp_path / "src", {"f": b"x"})
    theirs, ours = tmp_path / "theirs.pqv", tmp_path / "ours.pqv"
    pqvault.seal(source, theirs, recipients=[THIRD.recipient])
    pqvault.seal(source, ours, recipients=[identity.recipient])
    change = resolve(to=NEW.recipient, mine=[identity])
    for run in (Run.create([theirs, tmp_path / "gone.pqv"], change), Run.create([ours], change)):
        run.close()
        os.rename(run.path, run.path.with_name(f"{run.total == 1:d}.jsonl"))  # the order
    key = tmp_path / "key.txt"
    key.write_text(identity.text + "\n")
    key.chmod(0o600)
    result = CliRunner().invoke(cli, ["rotate", "--resume", "-i", str(key)])
    assert result.exit_code == 3 and "no key of ours fits" in result.output
    with pqvault.open(ours, identities=[NEW]) as archive:
        assert archive.open_file("src/f").read() == b"x"
