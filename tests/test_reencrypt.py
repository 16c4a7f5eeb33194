"""attack 35: `pqvault reencrypt`: new root keys, the same content, in the same places."""

from __future__ import annotations

import io
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import make_tree

import pqvault
from pqvault.archive import headers, publicstate
from pqvault.archive.publicpart import PublicPart
from pqvault.errors import Incomplete, IntegrityError, Locked, NoKeyFits, PolicyRefused, UsageError
from pqvault.format.commit import Commit
from pqvault.format.envelope import Envelope
from pqvault.keys import Recipient
from pqvault.keystore.store import now
from pqvault.policy import Policy
from pqvault.rootkey import RootKey, keyring
from pqvault.rotation import renewal
from pqvault.rotation.change import Keys, resolve
from pqvault.rotation.runs import Run
from pqvault.rotation.streamrenewal import StreamRenewal
from pqvault.signing import SigningKey
from pqvault.storage import LocalStorage
from pqvault.storage.localfiles import LocalSink

pytestmark = pytest.mark.usefixtures("home")

OLD, NEW = pqvault.Identity.generate(), pqvault.Identity.generate()
CONTENT = b"of the stream" * 1000


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Three parts; the last takes one file away."""
    source = make_tree(tmp_path / "src", {"a": b"a" * 5000, "b": b"b" * 70000, "c": b"c"})
    path = tmp_path / "a.pqv"
    pqvault.seal(source, path, recipients=[OLD.recipient])
    (source / "a").write_bytes(b"another")
    pqvault.seal(source, path, recipients=[OLD.recipient])
    (source / "c").unlink()
    pqvault.seal(source, path, recipients=[OLD.recipient], identities=[OLD], delete=True)
    return path


def listing(archive: Path, *keys: pqvault.Identity, **options: object) -> list[object]:
    """All entries, read and compared with their digests."""
    with pqvault.open(archive, identities=keys, **options) as opened:  # type: ignore[arg-type]
        found: list[object] = []
        for entry in opened.entries():
            content = opened.open_file(entry.path).read() if entry.kind.letter in "fh" else b""
            found.append((entry, content))
        return found


def commits(archive: Path) -> list[Commit]:
    """Those of the parts that are not removed, in their order."""
    found = [
        Commit.parse(path.read_bytes())
        for path in (archive / "commits").iterdir()
        if not (archive / "removed" / path.name).exists()
    ]
    return sorted(found, key=lambda commit: commit.order)


def test_everything_has_a_new_root_key_and_is_what_it_was(archive: Path) -> None:
    before, old = listing(archive, OLD), commits(archive)
    states = [listing(archive, OLD, as_of=commit.part) for commit in old]
    report = pqvault.reencrypt(archive, identities=[OLD], to=NEW.recipient)
    assert (report.parts, report.finished, report.new) == (3, 1, [NEW.key_id])
    new = commits(archive)
    assert listing(archive, NEW) == before
    assert [listing(archive, NEW, as_of=commit.part) for commit in new] == states
    # The id of a part that was replaced by one other still names its state.
    assert [listing(archive, NEW, as_of=commit.part[:8]) for commit in old] == states
    for one, other in zip(old, new, strict=True):
        assert (one.seq, one.created, one.kind) == (other.seq, other.created, other.kind)
        assert [replaced for replaced, _ in other.replaces] == [one.part]
        assert other.root != one.root and other.part != one.part
        assert [(f.name, f.size) for f in one.files] == [(f.name, f.size) for f in other.files]
    # The chain is one of new parts, so that the last one vouches for all.
    assert [[parent for parent, _ in commit.parents] for commit in new] == [
        [],
        [new[0].part],
        [new[1].part],
    ]
    assert pqvault.verify(archive, identities=[NEW]).problems == []
    with pytest.raises(NoKeyFits):
        listing(archive, OLD)
    # After a second time the ids of all three times name those states.
    pqvault.reencrypt(archive, identities=[NEW], to=OLD.recipient)
    for parts in (old, new, commits(archive)):
        assert [listing(archive, OLD, as_of=commit.part) for commit in parts] == states


@pytest.mark.parametrize("folder", ["objects/", "catalog"])
def test_what_does_not_read_back_takes_nothings_place(
    archive: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """attack 35: a disk that keeps something else than was written: the old parts stay, whole."""
    before, old = listing(archive, OLD), commits(archive)
    finish = LocalSink.finish

    def forgetful(sink: LocalSink) -> None:
        path = Path(sink._storage.where(sink._name))
        finish(sink)
        if f"/{folder}" in f"/{sink._name}":
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)

    with monkeypatch.context() as patch:
        patch.setattr(LocalSink, "finish", forgetful)
        with pytest.raises((IntegrityError, Incomplete)):
            pqvault.reencrypt(archive, identities=[OLD], to=NEW.recipient)
    now = commits(archive)
    assert listing(archive, OLD, NEW) == before
    assert all(c in now for c in old if any(f.name.startswith(folder) for f in c.files))
    assert len(list((archive / "parts").iterdir())) == len({c.part for c in (*old, *now)})
    pqvault.reencrypt(archive, identities=[OLD], to=NEW.recipient)
    assert listing(archive, NEW) == before


def test_a_damaged_part_keeps_no_other_from_new_keys(archive: Path) -> None:
    """The key may be in the wrong hands: what can be encrypted again is, whatever comes first."""
    bad = commits(archive)[0]
    catalog = archive / "parts" / bad.part / "catalog"
    whole = catalog.read_bytes()
    catalog.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(Incomplete, match=f"{bad.part}/catalog"):
        pqvault.reencrypt(archive, identities=[OLD], to=NEW.recipient)
    now = commits(archive)
    assert now[0] == bad
    assert [c.sealed_to for c in now[1:]] == 2 * [(NEW.key_id,)]
    catalog.write_bytes(whole)
    pqvault.reencrypt(archive, identities=[OLD], to=NEW.recipient)
    assert [c.sealed_to for c in commits(archive)] == 3 * [(NEW.key_id,)]


def test_who_removes_nobody_is_told(archive: Path) -> None:
    """A key id that is mistyped must not pass for a revocation."""
    report = pqvault.reencrypt(archive, identities=[OLD], remove=["00" * 16])
    assert [w for w in report.warnings if f"nothing here was sealed to {'00' * 16}," in w]
    report = pqvault.reencrypt(archive, identities=[OLD], to=NEW.recipient, remove=[OLD.key_id])
    assert not report.warnings


def test_old_envelopes_are_gone_at_once_and_the_rest_with_gc(archive: Path) -> None:
    old = {commit.part for commit in commits(archive)}
    pqvault.reencrypt(archive, identities=[OLD])
    for part in old:
        assert not (archive / "envelopes" / part).exists()
        assert (archive / "parts" / part).exists() and (archive / "removed" / part).exists()
    kept = pqvault.gc(archive)
    assert kept.removed == [] and len(kept.kept) > 3
    pqvault.gc(archive, older_than=0)
    names = {path.name for path in (archive / "parts").iterdir()}
    assert names == {commit.part for commit in commits(archive)} and not names & old
    assert len(listing(archive, OLD)) == 3
    assert pqvault.verify(archive, identities=[OLD]).problems == []


def test_a_second_time_names_all_that_was_replaced_before(archive: Path) -> None:
    before, first = listing(archive, OLD), commits(archive)
    pqvault.reencrypt(archive, identities=[OLD])
    second = commits(archive)
    pqvault.gc(archive, older_than=0)
    pqvault.reencrypt(archive, identities=[OLD])
    third = commits(archive)
    assert listing(archive, OLD) == before
    for number in range(3):
        names = {part for part, _ in third[number].replaces}
        assert names == {first[number].part, second[number].part}


def test_a_host_with_public_keys_only_goes_on_as_before(archive: Path, tmp_path: Path) -> None:
    """Its journal names parts that are gone: what they held is not sealed again."""
    pqvault.reencrypt(archive, identities=[OLD], to=NEW.recipient)
    pqvault.gc(archive, older_than=0)
    pqvault.reencrypt(archive, identities=[NEW])
    pqvault.gc(archive, older_than=0)
    report = pqvault.seal(tmp_path / "src", archive, recipients=[NEW.recipient])
    assert report.parts == [] and report.unchanged == 3
    (tmp_path / "src" / "d").write_bytes(b"d")
    report = pqvault.seal(tmp_path / "src", archive, recipients=[NEW.recipient])
    assert report.files == 1 and len(report.parts) == 1
    assert len(listing(archive, NEW)) == 4


def test_a_sealed_stream(tmp_path: Path) -> None:
    path = tmp_path / "s.pqv"
    with path.open("wb") as out:
        pqvault.encrypt(io.BytesIO(CONTENT), out, [OLD.recipient])
    before = path.read_bytes()
    report = pqvault.reencrypt(path, identities=[OLD], to=NEW.recipient)
    assert report.parts == 1
    after = path.read_bytes()
    one, used = Envelope.parse_prefix(before)
    other, now_used = Envelope.parse_prefix(after)
    assert one.part != other.part and other.generation == 1
    assert len(after) - now_used == len(before) - used and after[-100:] != before[-100:]
    with pqvault.open_stream(path, [NEW]) as stream:
        assert stream.read() == CONTENT
    with pytest.raises(NoKeyFits):
        pqvault.open_stream(path, [OLD])
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("where", [100, -1])
def test_a_stream_that_does_not_read_back_takes_nothings_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: int
) -> None:
    """attack 35: a disk that keeps something else than was written, of the envelope or the rest."""
    path = tmp_path / "s.pqv"
    with path.open("wb") as out:
        pqvault.encrypt(io.BytesIO(CONTENT), out, [OLD.recipient])
    before = path.read_bytes()
    reseal = StreamRenewal._reseal

    def forgetful(work: StreamRenewal, source: Any, old: Any, key: Any, out: int) -> None:
        reseal(work, source, old, key, out)
        at = where % os.fstat(out).st_size
        os.pwrite(out, bytes([os.pread(out, 1, at)[0] ^ 1]), at)

    monkeypatch.setattr(StreamRenewal, "_reseal", forgetful)
    with pytest.raises(IntegrityError):
        pqvault.reencrypt(path, identities=[OLD], to=NEW.recipient)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("what", ["archive", "stream"])
def test_an_envelope_that_holds_another_root_key_takes_nothings_place(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A fault in memory while keys are wrapped: else nobody could open what is new."""
    stream, wrap = tmp_path / "s.pqv", RootKey._wrap
    with stream.open("wb") as out:
        pqvault.encrypt(io.BytesIO(CONTENT), out, [OLD.recipient])
    before, target = listing(archive, OLD), archive if what == "archive" else stream
    with monkeypatch.context() as patch:
        patch.setattr(RootKey, "_wrap", lambda key, *to: wrap(replace(key, secret=bytes(32)), *to))
        with pytest.raises((IntegrityError, Incomplete), match="failed authentication"):
            pqvault.reencrypt(target, identities=[OLD, NEW], to=NEW.recipient)
    assert listing(archive, OLD) == before
    with pqvault.open_stream(stream, [OLD]) as opened:
        assert opened.read() == CONTENT


def test_what_comes_from_the_future_is_encrypted_again(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host whose clock is ahead sealed it, or somebody who would keep the root key wrote so."""
    stream, true = tmp_path / "s.pqv", time.time
    with monkeypatch.context() as ahead:
        ahead.setattr(time, "time", lambda: true() + 86400)
        with stream.open("wb") as out:
            pqvault.encrypt(io.BytesIO(CONTENT), out, [OLD.recipient])
        pqvault.reencrypt(archive, identities=[OLD])
    before = {commit.part for commit in commits(archive)}
    assert pqvault.reencrypt([archive, stream], identities=[OLD]).parts == 4
    assert before.isdisjoint(commit.part for commit in commits(archive))
    assert len(listing(archive, OLD)) == 3


def test_public_keys_that_nobody_knows_here(archive: Path) -> None:
    """An envelope holds no public keys: whoever shall stay has to be known or left out."""
    other = pqvault.Identity.generate()
    pqvault.rotate(archive, identities=[OLD], add=[other.recipient])
    with pytest.raises(UsageError, match="public keys are not known"):
        pqvault.reencrypt(archive, identities=[OLD])
    pqvault.reencrypt(archive, identities=[OLD], add=[other.recipient])
    assert listing(archive, other) == listing(archive, OLD)
    pqvault.reencrypt(archive, identities=[OLD], remove=[other.key_id])
    with pytest.raises(NoKeyFits):
        listing(archive, other)
    with pytest.raises(PolicyRefused, match="retired"):
        pqvault.seal(archive.parent / "src", archive, recipients=[other.recipient])


def test_signed_archives_are_signed_again_or_refused(archive: Path, tmp_path: Path) -> None:
    signer = SigningKey.generate()
    source = make_tree(tmp_path / "more", {"x": b"x"})
    signed = tmp_path / "signed.pqv"
    for content in (b"one", b"two"):
        (source / "x").write_bytes(content)
        pqvault.seal(source, signed, recipients=[OLD.recipient], sign=[signer])
    before = listing(signed, OLD)
    with pytest.raises(PolicyRefused, match="is signed") as caught:
        pqvault.reencrypt(signed, identities=[OLD])
    assert "--sign" in caught.value.hint and len(commits(signed)) == 2
    pqvault.reencrypt(signed, identities=[OLD], sign=[signer])
    policy = Policy.of([signer.signer])
    assert listing(signed, OLD, policy=policy) == before
    assert pqvault.verify(signed, identities=[OLD], policy=policy).problems == []


def test_what_was_added_unsigned_is_not_signed_unseen(tmp_path: Path) -> None:
    """After signed parts readers refuse it, so it must not become signed content by the way."""
    signer = SigningKey.generate()
    source, signed = make_tree(tmp_path / "more", {"x": b"ours"}), tmp_path / "signed.pqv"
    pqvault.seal(source, signed, recipients=[OLD.recipient], sign=[signer])
    (source / "y").write_bytes(b"of somebody who knows the public key")
    allowed = Policy(allow_unsigned=True)
    pqvault.seal(source, signed, recipients=[OLD.recipient], policy=allowed)
    before = commits(signed)
    with pytest.raises(PolicyRefused, match="is not signed, and parts before it are"):
        pqvault.reencrypt(signed, identities=[OLD], sign=[signer])
    assert commits(signed) == before
    assert pqvault.reencrypt(signed, identities=[OLD], sign=[signer], policy=allowed).parts == 2


def test_an_unfinished_run_with_other_rules_is_not_carried_on(archive: Path) -> None:
    """It believed anybody; who names a signer now does not, and what is allowed now is allowed."""
    before = commits(archive)
    change = resolve(mine=[OLD], new_keys=True)
    Run.create([archive], change, kind="reencryptions").close()
    policy = Policy.of([SigningKey.generate().signer])
    with pytest.raises(PolicyRefused, match="is not signed"):
        pqvault.reencrypt(archive, identities=[OLD], policy=policy)
    assert commits(archive) == before
    pqvault.rotate(archive, identities=[OLD], add=[NEW.recipient])
    pqvault.rotate(archive, identities=[OLD], remove=[NEW.key_id])
    change = resolve(mine=[OLD], add=[NEW.recipient], new_keys=True)
    Run.create([archive], change, kind="reencryptions").close()
    report = pqvault.reencrypt(archive, identities=[OLD], add=[NEW.recipient], allow_retired=True)
    assert report.parts == 3


def test_an_unsigned_archive_may_be_signed_on_the_way(archive: Path) -> None:
    signer = SigningKey.generate()
    before = listing(archive, OLD)
    pqvault.reencrypt(archive, identities=[OLD], sign=[signer])
    assert listing(archive, OLD, policy=Policy.of([signer.signer])) == before


def test_where_signing_makes_an_order_a_damaged_part_ends_it(archive: Path) -> None:
    """One that stays unsigned behind a part that is signed now would be refused by everybody."""
    parts = commits(archive)
    catalog = archive / "parts" / parts[1].part / "catalog"
    whole = catalog.read_bytes()
    catalog.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    key = SigningKey.generate()
    with pytest.raises(Incomplete, match=f"{parts[1].part}/catalog"):
        pqvault.reencrypt(archive, identities=[OLD], to=NEW.recipient, sign=[key])
    now = commits(archive)
    assert now[:2] == parts[:2] and now[2].signatures
    catalog.write_bytes(whole)
    assert listing(archive, OLD, NEW)


def test_parts_of_one_moment_keep_their_order(tmp_path: Path) -> None:
    """Writers that did not see each other: the ids decide who is read last, and new ids too."""
    import hostile as h

    contents = [b"of part %d" % number for number in range(6)]
    for forger in [h.Forger(tmp_path / "f.pqv", OLD.recipient)]:
        for content in contents:
            rows = [h.file_row(b"same", content)]
            forger.part(rows, {0: h.plain_of(content)}, seq=1)
    before = listing(forger.archive, OLD)
    pqvault.reencrypt(forger.archive, identities=[OLD])
    assert listing(forger.archive, OLD) == before


# -- what somebody else puts there ---------------------------------------------------------


def forged(archive: Path, replaces: list[str], seq: int = 1, **options: object) -> str:
    """A part of a stranger who knows the public key, and says that it replaces others."""
    import dataclasses

    import hostile as h

    from pqvault.rootkey import RootKey, keyring

    forger = h.Forger(archive, OLD.recipient)
    part = forger.part([h.file_row(b"forged", b"x")], {0: h.plain_of(b"x")}, seq=seq)
    commit = Commit.parse((archive / "commits" / part).read_bytes())
    named = tuple(
        sorted((p, h.blake((archive / "commits" / p).read_bytes()).hex()) for p in replaces)
    )
    envelope = Envelope.parse((archive / "envelopes" / part).read_bytes())
    key = RootKey.unwrap(envelope, keyring([OLD]), "it")
    commit = key.sign_off(dataclasses.replace(commit, replaces=named, **options))  # type: ignore[arg-type]
    (archive / "commits" / part).write_bytes(commit.marshal())
    return part


def test_an_unsigned_part_replaces_no_signed_one(tmp_path: Path) -> None:
    """attack 7: also for a reader who accepts unsigned parts."""
    signer, source = SigningKey.generate(), make_tree(tmp_path / "src", {"x": b"x"})
    archive = tmp_path / "a.pqv"
    pqvault.seal(source, archive, recipients=[OLD.recipient], sign=[signer])
    (old,) = commits(archive)
    forged(archive, [old.part], seq=old.seq, created=old.created)
    for policy in (
        Policy(),
        Policy(allow_unsigned=True),
        Policy.of([signer.signer]),
        Policy.of([signer.signer], allow_unsigned=True),
    ):
        with pytest.raises(PolicyRefused):
            listing(archive, OLD, policy=policy)
    with pqvault.open(
        archive, identities=[OLD], strict=False, policy=Policy(allow_unsigned=True)
    ) as opened:
        assert [part.id for part in opened.parts] == [old.part] and len(opened.problems) == 1


def test_a_part_replaces_nothing_that_comes_after_it(archive: Path) -> None:
    """attack 14: an old part cannot stand in for a new one."""
    first, _, third = commits(archive)
    forged(archive, [third.part], seq=first.seq, created=first.created)
    with pytest.raises(pqvault.errors.FormatError, match="comes after it"):
        listing(archive, OLD)


def test_a_part_that_nobody_can_open_replaces_nothing(archive: Path) -> None:
    """Its claim is worth nothing; that it is there is told."""
    before = [entry.path for entry, _ in listing(archive, OLD)]  # type: ignore[misc]
    (_, _, third) = commits(archive)
    part = forged(archive, [third.part], seq=third.seq, created=third.created)
    (archive / "envelopes" / part).unlink()
    with pqvault.open(archive, identities=[OLD], strict=False) as opened:
        assert [entry.path for entry in opened.entries()] == before
        assert len(opened.problems) == 1


def test_a_forgery_is_not_carried_over(archive: Path) -> None:
    """A part that says to replace others which are all still there is taken back, not believed."""
    before = listing(archive, OLD)
    first = commits(archive)[0]
    forged(archive, [first.part], seq=first.seq, created=first.created)
    pqvault.reencrypt(archive, identities=[OLD], to=NEW.recipient)
    assert listing(archive, NEW) == before


def test_an_exchanged_object_is_not_encrypted_again(archive: Path) -> None:
    """attack 35: who has the old root key makes authentic objects: the commit's digests decide."""
    import hostile as h

    from pqvault.crypto.cobblestone import MessageReader
    from pqvault.rootkey import RootKey, keyring

    old = commits(archive)[0]
    envelope = Envelope.parse((archive / "envelopes" / old.part).read_bytes())
    key = RootKey.unwrap(envelope, keyring([OLD]), "it")
    name = old.files[1].name
    path = archive / "parts" / old.part / name
    reader = MessageReader(*key.object(name), name)
    plain = reader.update(path.read_bytes()) + reader.finalize()
    path.write_bytes(h.seal_plain(*key.object(name), plain))
    assert listing(archive, OLD)  # a reader cannot tell
    with pytest.raises(Incomplete, match="digest"):
        pqvault.reencrypt(archive, identities=[OLD], to=NEW.recipient)
    assert commits(archive)[0] == old and len(commits(archive)) == 3


def test_going_back_to_before_it_is_noticed(archive: Path, tmp_path: Path) -> None:
    """attack 14: by who remembers the archive, and by a part that came later."""
    import shutil

    from pqvault.errors import RolledBack

    shutil.copytree(archive, tmp_path / "old.pqv")
    pqvault.reencrypt(archive, identities=[OLD])
    (tmp_path / "src" / "new").write_bytes(b"new")
    pqvault.seal(tmp_path / "src", archive, recipients=[OLD.recipient])
    last = commits(archive)[-1]
    shutil.rmtree(tmp_path / "old.pqv" / "removed", ignore_errors=True)
    for folder in ("commits", "envelopes", "parts"):
        source = archive / folder / last.part
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / "old.pqv" / folder / last.part)
    with pytest.raises(RolledBack, match="is missing"):
        listing(tmp_path / "old.pqv", OLD)


def test_a_rotation_meanwhile_is_not_undone(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends in the moment before the new part is there, so that it cannot have seen that."""
    put = renewal.put_part

    def rotate_first(*args: Any) -> None:
        monkeypatch.setattr(renewal, "put_part", put)
        pqvault.rotate(archive, identities=[OLD], to=NEW.recipient)
        put(*args)

    before = listing(archive, OLD)
    monkeypatch.setattr(renewal, "put_part", rotate_first)
    with pytest.raises(Locked, match="changed by others"):
        pqvault.reencrypt(archive, identities=[OLD])
    assert listing(archive, NEW) == before
    with pytest.raises(NoKeyFits):
        listing(archive, OLD)
    assert pqvault.reencrypt(archive, identities=[NEW]).parts == 3
    assert listing(archive, NEW) == before


def test_what_was_rotated_in_between_is_encrypted_again_all_the_same(archive: Path) -> None:
    """Its envelope is new, and its root key is that of an earlier run."""
    both = [OLD.recipient, NEW.recipient]
    pqvault.reencrypt(archive, identities=[OLD], add=both)
    roots = {commit.root for commit in commits(archive)}

    def interrupt(_: object) -> None:
        if len(roots & {commit.root for commit in commits(archive)}) < 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pqvault.reencrypt(archive, identities=[OLD], remove=[NEW.key_id], progress=interrupt)
    pqvault.rotate(archive, identities=[OLD], remove=[NEW.key_id])
    assert len(roots & {commit.root for commit in commits(archive)}) == 2
    assert pqvault.reencrypt(archive, identities=[OLD], remove=[NEW.key_id]).parts == 2
    assert not roots & {commit.root for commit in commits(archive)}


def test_a_stream_is_done_when_its_root_key_is_of_this_run_and_opens_for_whom_it_shall(
    tmp_path: Path,
) -> None:
    """attack 35: a rotation in between writes a new envelope of the old root key."""
    path, started, known = (
        tmp_path / "s.pqv",
        now(),
        {r.key_id: r for r in (OLD.recipient, NEW.recipient)},
    )
    with path.open("wb") as out:
        pqvault.encrypt(io.BytesIO(CONTENT), out, [OLD.recipient, NEW.recipient])

    def left(**wanted: Any) -> tuple[Recipient, ...]:
        change = resolve(mine=[OLD], new_keys=True, **wanted)
        return StreamRenewal(path, change, Keys([OLD]), known.get, started).look()[2]

    assert left() == ()
    assert left(remove=[NEW.key_id]) == (OLD.recipient,)
    pqvault.rotate(path, identities=[OLD], remove=[NEW.key_id])
    assert left(remove=[NEW.key_id]) == (OLD.recipient,)


@pytest.mark.parametrize("verb", [pqvault.reencrypt, pqvault.compact, pqvault.prune])
def test_a_part_that_nobody_looked_at_is_taken_back(
    archive: Path, monkeypatch: pytest.MonkeyPatch, verb: Any
) -> None:
    """attack 33: killed before it was found good, or put there by who knows a public key: whoever
    changes the archive next does not believe it, as long as what it replaces is there."""
    before, old = listing(archive, OLD), {commit.part for commit in commits(archive)}

    def killed(_: object, new: PublicPart, __: object) -> None:
        for path in (archive / "parts" / new.id).rglob("0*"):
            path.write_bytes(bytes(path.stat().st_size))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(renewal.ArchiveRenewal, "_verify", killed)
        with pytest.raises(KeyboardInterrupt):
            pqvault.reencrypt(archive, identities=[OLD])
    (new,) = {commit.part for commit in commits(archive)} - old
    verb(archive, identities=[OLD], **({} if verb is pqvault.reencrypt else {"keep_last": 3}))
    assert listing(archive, OLD) == before
    assert new not in {commit.part for commit in commits(archive)}
    assert pqvault.verify(archive, identities=[OLD]).problems == []


@pytest.mark.parametrize("module, name", [(publicstate, "read_public"), (headers, "_read_all")])
def test_who_has_no_key_meanwhile(
    archive: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    """Parts are replaced after they were listed and before they are read: nothing is missing."""
    real = getattr(module, name)

    def reencrypt_first(*args: Any) -> Any:
        monkeypatch.setattr(module, name, real)
        pqvault.reencrypt(archive, identities=[OLD])
        return real(*args)

    monkeypatch.setattr(module, name, reencrypt_first)
    if module is publicstate:
        assert pqvault.verify(archive).problems == []
    else:
        _, found, problems = headers.take(LocalStorage(archive), keyring([OLD]))
        assert not problems
        assert headers.parts_of(found) == {commit.part for commit in commits(archive)}


def test_a_reader_meanwhile(archive: Path) -> None:
    """Archives are opened again and again while their parts are replaced."""
    import threading

    wanted, stop = listing(archive, OLD), threading.Event()
    seen, failed = list[bool](), list[BaseException]()

    def read() -> None:
        while not stop.is_set():
            try:
                seen.append(listing(archive, OLD) == wanted)
            except pqvault.errors.PQVaultError as error:
                failed.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for _ in range(5):
            pqvault.reencrypt(archive, identities=[OLD])
    finally:
        stop.set()
        thread.join()
    assert seen and all(seen) and not failed
