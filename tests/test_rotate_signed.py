"""Envelopes and records of retired keys that say who made them."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import independent_reader as reader
import pyarrow as pa
import pytest
from conftest import Box, files_below
from hypothesis import given
from hypothesis import strategies as st
from independent_documents import signed_by
from test_format_properties import envelopes as envelope_documents
from test_rotate import envelopes, rotate
from test_signatures import lines

import pqvault
from pqvault import tables
from pqvault.archive import retired
from pqvault.errors import IntegrityError, PolicyRefused, PQVaultError, UsageError
from pqvault.format.commit import Commit
from pqvault.format.envelope import Envelope
from pqvault.format.retired import Retired
from pqvault.format.signature import MAX_SIGNATURES, Signature
from pqvault.keys import Identity
from pqvault.policy import Policy
from pqvault.rootkey import RootKey, keyring
from pqvault.rotating import rotating
from pqvault.rotation.change import Change, resolve
from pqvault.rotation.run import plan
from pqvault.rotation.runs import Run, unfinished
from pqvault.rotation.streams import UNSIGNED
from pqvault.signing import Document, SigningKey, sign_document
from pqvault.storage import LocalStorage

ALICE, BOB, CNSA = SigningKey.generate(), SigningKey.generate(), SigningKey.generate("ML-DSA-87")
NEW, THIRD = Identity.generate(), Identity.generate()
TRUST = Policy.of([ALICE.signer])
STRICT = replace(TRUST, envelopes=True)


@pytest.fixture
def signed(box: Box) -> Box:
    """Two parts whose commits and envelopes Alice signed."""
    box.tree({"a": b"first"})
    box.seal(sign=[ALICE])
    box.tree({"c": b"third"})
    box.seal(sign=[ALICE])
    return box


def signers(box: Box) -> list[set[str]]:
    """Who signed each envelope, as it says."""
    return [{s.signer for s in e.signatures} for e in envelopes(box).values()]


def change_envelopes(box: Box, change: Callable[[Envelope], Envelope]) -> None:
    """What somebody who can write the archive does to every envelope."""
    for name, envelope in envelopes(box).items():
        (box.archive / "envelopes" / name).write_bytes(change(envelope).marshal())


def refused(box: Box, policy: Policy, words: str) -> None:
    """By readers with a key and by `verify` without one, in the same words, exit code 14."""
    with pytest.raises(PolicyRefused, match=words):
        box.open(policy=policy)
    problems = pqvault.verify(box.archive, policy=policy).problems
    assert problems and {p.exit_code for p in problems} == {14}
    assert words in problems[0].message


# -- envelopes -----------------------------------------------------------------------------


def test_a_seal_signs_the_first_envelope_and_a_rotation_the_next(signed: Box) -> None:
    """Both under a policy that demands it, and read by who asks for nothing."""
    alice = ALICE.signer.signer_id
    for generation in (1, 2):
        assert signers(signed) == [{alice}] * 2
        assert {e.generation for e in envelopes(signed).values()} == {generation}
        report = pqvault.verify(signed.archive, policy=STRICT)
        assert (report.problems, report.wrapped_by) == ([], [alice])
        with pqvault.open(signed.archive, identities=[signed.key, NEW], policy=STRICT) as opened:
            assert [part.wrapped_by for part in opened.parts] == [(alice,)] * 2
        assert pqvault.verify(signed.archive).problems == []
        if generation == 1:
            done = rotate(signed, to=NEW.recipient, sign=[ALICE], policy=STRICT)
            assert (done.rewrapped, done.signed) == (2, 2)
            assert done.written < 2 * 8192


def test_a_signature_does_not_make_up_for_the_mac(signed: Box) -> None:
    change_envelopes(signed, lambda e: sign_document(replace(e, generation=2), [ALICE]))
    with pytest.raises(IntegrityError):
        signed.open(policy=STRICT)


def test_every_part_of_the_list_counts(signed: Box) -> None:
    """attack 8: signature of an envelope stripped, made by another, moved, or of another kind."""
    (first, one), (_, other) = envelopes(signed).items()
    commit = Commit.parse((signed.archive / "commits" / first).read_bytes())
    wrong: list[tuple[Callable[[Envelope], Envelope], str]] = [
        (lambda e: replace(e, signatures=()), "is not signed"),
        (lambda e: sign_document(replace(e, signatures=()), [BOB]), "none of whom is trusted"),
    ]
    always: list[tuple[Callable[[Envelope], Envelope], str]] = [
        (lambda e: replace(e, signatures=other.signatures if e == one else e.signatures), "wrong"),
        (lambda e: replace(e, signatures=commit.signatures), "wrong"),
        (lambda e: replace(e, signatures=(_half(e),)), "does not have 3373 bytes"),
    ]
    for change, words in (*wrong, *always):
        before = envelopes(signed)
        change_envelopes(signed, change)
        refused(signed, STRICT, words)
        if (change, words) in always:
            refused(signed, TRUST, words)
        else:  # none, or one of strangers: only who demands one minds
            signed.open(policy=TRUST).close()
            assert pqvault.verify(signed.archive, policy=TRUST).problems == []
            signed.open(policy=replace(STRICT, allow_unsigned=True)).close()
        for name, envelope in before.items():
            (signed.archive / "envelopes" / name).write_bytes(envelope.marshal())


def test_the_signature_of_an_envelope_is_none_of_a_commit(box: Box) -> None:
    """attack 8: a purpose each."""
    box.tree({"a": b"first"})
    box.seal(sign=[ALICE])
    ((name, envelope),) = envelopes(box).items()
    path = box.archive / "commits" / name
    commit = Commit.parse(path.read_bytes())
    path.write_bytes(replace(commit, signatures=envelope.signatures).marshal())
    refused(box, TRUST, "wrong")


def _half(envelope: Envelope) -> Signature:
    (signature,) = envelope.signatures
    return replace(signature, suite="Ed25519", value=signature.value[:64])


def test_who_can_open_can_let_others_in_but_not_unseen(signed: Box) -> None:
    """attack 6: a recipient adds one. The MAC is right; only the signature tells."""

    def add(envelope: Envelope) -> Envelope:
        key = RootKey.unwrap(envelope, keyring([signed.key]), "it")
        return key.rewrap(envelope, [*envelope.recipients, THIRD.recipient], created=1)

    change_envelopes(signed, add)
    signed.open().close()
    refused(signed, STRICT, "is not signed")
    # An operator who rotates under the policy does not put a name to it either.
    with pytest.raises(PolicyRefused, match="is not signed"):
        rotate(signed, to=NEW.recipient, sign=[ALICE], policy=STRICT)


def test_who_opens_a_column_group_is_signed_for_too(box: Box) -> None:
    """attack 8: the envelope of a group is under the policy of envelopes as the part's is."""
    group = tables.ColumnGroup("pii", ("b",), (THIRD.recipient,))
    rows = pa.table({"a": [1], "b": ["x"]})
    part = tables.write_table(
        box.archive, "t", rows, recipients=[box.key.recipient], groups=[group], sign=[ALICE]
    )
    with pqvault.open(box.archive, identities=[box.key, THIRD], policy=STRICT) as archive:
        assert tables.read_table(archive, "t").equals(rows)
    assert pqvault.verify(box.archive, policy=STRICT).problems == []
    path = box.archive / "envelopes" / f"{part}.pii"
    envelope = Envelope.parse(path.read_bytes())
    key = RootKey.unwrap(envelope, keyring([THIRD]), "it")
    added = key.rewrap(envelope, [*envelope.recipients, NEW.recipient], created=1)
    for signatures, words in (((), "is not signed"), (envelope.signatures, "is wrong")):
        path.write_bytes(replace(added, signatures=signatures).marshal())
        words = f"column group 'pii' .* {words}"
        opened = pqvault.open(box.archive, identities=[box.key, THIRD], policy=STRICT)
        with opened as archive, pytest.raises(PolicyRefused, match=words):
            tables.read_table(archive, "t")
        report = pqvault.verify(box.archive, policy=STRICT)  # which needs no key to see it
        assert [p.exit_code for p in report.problems] == [14] and not report.wrapped_by
        assert re.search(words, report.problems[0].message)


def test_a_signed_envelope_does_not_give_way_to_an_unsigned_one(signed: Box) -> None:
    before = envelopes(signed)
    with pytest.raises(PolicyRefused, match="is signed, and the one that takes its place") as error:
        rotate(signed, to=NEW.recipient)
    assert "--sign" in error.value.hint
    planned = plan(signed.archive, resolve(to=NEW.recipient, mine=[signed.key]))
    assert isinstance(planned.problem, PolicyRefused)
    assert envelopes(signed) == before
    rotate(signed, to=NEW.recipient, policy=Policy(allow_unsigned=True))
    assert signers(signed) == [set(), set()]
    rotate(signed, by=NEW, to=signed.key.recipient)  # and from then on nobody minds


def test_operators_sign_one_after_the_other(signed: Box) -> None:
    """What is right is signed as it is: no new generation, and signatures of others stay."""
    change_envelopes(signed, lambda e: replace(e, signatures=()))
    wrapped = [e.recipients for e in envelopes(signed).values()]
    planned = plan(signed.archive, Change(), sign=[ALICE])
    assert (planned.rewrap, planned.now) == (2, planned.then)
    for key, count in ((ALICE, 1), (CNSA, 2), (ALICE, 2)):
        report = rotate(signed, sign=[key])
        assert report.rewrapped == 0
        assert report.signed == (0 if key is ALICE and count == 2 else 2)
        assert [len(names) for names in signers(signed)] == [count] * 2
    assert {e.generation for e in envelopes(signed).values()} == {1}
    assert [e.recipients for e in envelopes(signed).values()] == wrapped
    both = Policy.of([ALICE.signer, CNSA.signer], envelopes=True)
    pqvault.verify(signed.archive, policy=replace(both, threshold=2))
    signed.open(policy=replace(STRICT, signers=both.signers)).close()
    with pytest.raises(PolicyRefused, match="needs 2 trusted signatures"):
        signed.open(policy=replace(both, threshold=2))  # the commits have one


def test_junk_in_our_name_is_replaced_and_too_much_is_a_sentence(signed: Box) -> None:
    def junk(envelope: Envelope) -> Envelope:
        return replace(envelope, signatures=(replace(envelope.signatures[0], value=b"junk"),))

    change_envelopes(signed, junk)
    refused(signed, TRUST, "does not have 3373 bytes")
    assert rotate(signed, sign=[ALICE]).signed == 2
    signed.open(policy=STRICT).close()
    many = tuple(Signature(f"{n:032x}", "s", b"v") for n in range(MAX_SIGNATURES))
    change_envelopes(signed, lambda e: replace(e, signatures=many))
    with pytest.raises(UsageError, match="at most 16 keys"):
        rotate(signed, sign=[ALICE])
    assert rotate(signed, to=NEW.recipient, sign=[ALICE]).signed == 2


@pytest.mark.parametrize("change", [pqvault.rotate, pqvault.reencrypt])
def test_a_part_that_others_signed_gets_no_new_envelope(box: Box, change: Any) -> None:
    """Format 5.5: who rewraps has checked the commit's signatures too, as a reader does."""
    box.tree({"a": b"first"})
    box.seal(sign=[BOB])
    before = {path: (box.archive / path).read_bytes() for path in files_below(box.archive)}
    options = {"identities": [box.key], "to": NEW.recipient, "sign": [ALICE]}
    with pytest.raises(PolicyRefused, match="none of whom is trusted"):
        change(box.archive, policy=TRUST, **options)
    assert {p: (box.archive / p).read_bytes() for p in files_below(box.archive)} == before
    change(box.archive, policy=Policy.of([BOB.signer, ALICE.signer]), **options)


def test_every_byte_of_a_signed_envelope_counts(signed: Box) -> None:
    """One bit of each tenth byte: a reader with a policy says no."""
    name = next(iter(envelopes(signed)))
    path = signed.archive / "envelopes" / name
    data = path.read_bytes()
    for at in range(0, len(data), 17):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert pqvault.verify(signed.archive, policy=STRICT).problems, f"byte {at}"


def test_a_signed_rotation_is_carried_on_with_the_same_keys(
    signed: Box, tmp_path: Path, private_home: Path
) -> None:
    """attack 34: neither without them, nor with others, nor with a weaker policy."""
    change = resolve(to=NEW.recipient, mine=[signed.key])
    alice = [ALICE.signer.signer_id]
    with Run.create([signed.archive] * 2, change, signers=alice, policy=STRICT) as run:
        kept = run.path
    assert unfinished() == [kept]
    for keys in ([], [BOB], [ALICE, BOB], [ALICE, ALICE]):
        with Run.open(kept) as run, pytest.raises(UsageError), rotating(run, [], sign=keys):
            pass
    change_envelopes(signed, lambda e: replace(e, signatures=()))
    with Run.open(kept) as run, rotating(run, [signed.key], sign=[ALICE]) as work:
        assert run.policy == STRICT
        with pytest.raises(PQVaultError, match="is not signed"):
            work.run()
    change_envelopes(signed, lambda e: sign_document(e, [ALICE]))
    with Run.open(kept) as run, rotating(run, [signed.key], sign=[ALICE]) as work:
        assert work.run().signed == 2
    assert unfinished() == []


def test_streams_carry_no_signatures(tmp_path: Path, box: Box) -> None:
    """Whoever can open one can put another object there, so nothing would be vouched for."""
    path = tmp_path / "s.pqv"
    with path.open("wb") as out:
        pqvault.encrypt(io.BytesIO(b"content"), out, [box.key.recipient])
    report = pqvault.rotate(path, identities=[box.key], to=NEW.recipient, sign=[ALICE])
    assert (report.rewrapped, report.signed) == (1, 0)
    asked: list[dict[str, Any]] = [{"policy": STRICT}, {"sign": [ALICE]}]
    told = [report, *(pqvault.rotate(path, identities=[NEW], to=NEW.recipient, **a) for a in asked)]
    told += [pqvault.reencrypt([path, path], identities=[NEW], **a) for a in asked]
    assert [one.warnings for one in told] == [[UNSIGNED]] * 5
    with pqvault.open_stream(path, [NEW]) as stream:
        assert stream.read() == b"content"
    envelope, end = Envelope.parse_prefix(path.read_bytes())
    data = sign_document(envelope, [ALICE]).marshal() + path.read_bytes()[end:]
    path.write_bytes(data)
    with pytest.raises(IntegrityError):
        pqvault.open_stream(path, [NEW])


# -- retired keys --------------------------------------------------------------------------


def record(box: Box, identity: Identity) -> Path:
    return box.archive / "retired" / identity.key_id


def test_a_signed_record_says_who_retired_the_key(signed: Box) -> None:
    """`seal` holds no key to check the MAC, but knows whom it trusts."""
    rotate(signed, to=NEW.recipient, remove=[signed.key.key_id], sign=[ALICE])
    document = Retired.parse(record(signed, signed.key).read_bytes())
    assert TRUST.signed_by(document, "it") == (ALICE.signer.signer_id,)
    with pytest.raises(PolicyRefused, match=r"\(signed by [0-9a-f]{32}\) is retired in"):
        signed.seal(append=True, sign=[ALICE], policy=TRUST)
    for policy, words in (
        (Policy.of([BOB.signer]), "by nobody who is trusted"),
        (Policy(), f"{signed.key.key_id} is retired"),
    ):
        with pytest.raises(PolicyRefused, match=words):
            signed.seal(append=True, sign=[ALICE, BOB], policy=policy)


def test_what_is_not_to_be_believed_counts_all_the_same(signed: Box) -> None:
    """The name of the file is enough to refuse; the sentence says what the record is worth."""
    rotate(signed, to=NEW.recipient, remove=[signed.key.key_id], sign=[ALICE])
    good = Retired.parse(record(signed, signed.key).read_bytes())
    forged = replace(good, signatures=sign_document(replace(good, created=1), [ALICE]).signatures)
    for data, words in (
        (replace(good, signatures=()).marshal(), "by nobody who is trusted"),
        (forged.marshal(), "signature of .* is wrong"),
        (replace(good, key_id="00" * 16).marshal(), "belongs to another archive or key"),
        (b"", "does not begin with"),
    ):
        record(signed, signed.key).write_bytes(data)
        with pytest.raises(PolicyRefused, match=words):
            signed.seal(append=True, sign=[ALICE], policy=TRUST)
        report = signed.seal(append=True, sign=[ALICE], policy=TRUST, allow_retired=True)
        (warning,) = (w for w in report.warnings if "is retired here" in w)
        assert "and sealed to all the same" in warning
    record(signed, signed.key).write_bytes(forged.marshal())
    found = pqvault.verify(signed.archive, identities=[signed.key, NEW], policy=TRUST).problems
    assert [p.exit_code for p in found] == [14]
    assert pqvault.verify(signed.archive).problems == []


def test_a_record_that_was_there_is_signed(signed: Box) -> None:
    free = Policy(allow_unsigned=True)
    rotate(signed, to=NEW.recipient, remove=[signed.key.key_id], policy=free)
    storage = LocalStorage(signed.archive)
    assert "nobody" in retired.whose(storage, signed.key.key_id, TRUST)
    for signed_now in (1, 0):
        report = rotate(signed, by=NEW, remove=[signed.key.key_id], sign=[ALICE])
        assert len(report.retired) == signed_now
        assert "signed by" in retired.whose(storage, signed.key.key_id, TRUST)


def test_a_record_of_whom_no_part_names_any_more_is_signed(signed: Box) -> None:
    """Added and taken off again without a signature: the record can be vouched for."""
    free = Policy(allow_unsigned=True)
    rotate(signed, add=[NEW.recipient], policy=free)
    rotate(signed, remove=[NEW.key_id], policy=free)
    storage = LocalStorage(signed.archive)
    assert "nobody" in retired.whose(storage, NEW.key_id, TRUST)
    assert rotate(signed, remove=[NEW.key_id], sign=[ALICE]).retired == [NEW.key_id]
    assert "signed by" in retired.whose(storage, NEW.key_id, TRUST)


def test_a_rotation_that_is_refused_retires_nobody(signed: Box) -> None:
    """Else a slip would keep everybody from sealing to a key that stays."""
    both = {"remove": [signed.key.key_id], "identities": [signed.key]}
    for options, error in (
        ({"sign": [ALICE]}, UsageError),  # nobody would be left
        ({"to": NEW.recipient}, PolicyRefused),  # the signed envelope would become an unsigned one
        ({"to": NEW.recipient, "sign": [ALICE], "policy": Policy.of([BOB.signer])}, PolicyRefused),
    ):
        for change in (pqvault.rotate, pqvault.reencrypt):
            with pytest.raises(error):
                change(signed.archive, **both, **options)
            assert not record(signed, signed.key).exists()
    signed.seal(append=True, sign=[ALICE])


# -- by another reader ---------------------------------------------------------------------


@pytest.mark.parametrize("key", [ALICE, CNSA], ids=["both", "cnsa2"])
def test_a_reader_written_from_the_page_agrees(box: Box, key: SigningKey) -> None:
    """docs/format.md section 9, for each kind of document."""
    box.tree({"a": b"first"})
    box.seal(sign=[key])
    rotate(box, to=NEW.recipient, remove=[box.key.key_id], sign=[key])
    kinds: dict[str, tuple[Any, str]] = {
        "commit": (Commit, "commits"),
        "envelope": (Envelope, "envelopes"),
        "retired": (Retired, "retired"),
    }
    for label, (kind, folder) in kinds.items():
        (path,) = (box.archive / folder).iterdir()
        data = path.read_bytes()
        assert signed_by(data, label, key.signer.text)
        assert not signed_by(data, label, BOB.signer.text)
        document: Document = kind.parse(data)
        assert document.marshal() == data
        other = replace(document, created=1)
        with pytest.raises(reader.Damaged):
            signed_by(other.marshal(), label, key.signer.text)
    assert reader.open_archive(box.archive, NEW.text)[b"src/a"].content == b"first"


@given(envelope_documents, st.lists(lines, max_size=MAX_SIGNATURES, unique_by=lambda s: s.signer))
def test_signed_envelopes_round_trip(envelope: Envelope, signatures: list[Signature]) -> None:
    """parse-then-marshal identity, and what is signed is the document without them."""
    signed_one = replace(envelope, signatures=tuple(sorted(signatures)))
    data = signed_one.marshal()
    assert Envelope.parse(data) == signed_one and data.startswith(signed_one.unsigned())
    assert Envelope.parse_prefix(data) == (envelope, len(envelope.marshal()))
    record = Retired(envelope.archive, envelope.part, "00" * 16, envelope.created, envelope.mac)
    record = replace(record, signatures=signed_one.signatures)
    assert Retired.parse(record.marshal()) == record
