"""Signatures: who vouches for a part, and what a reader who asks for it refuses."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import pickle
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Box, files_below
from hypothesis import given
from hypothesis import strategies as st

import pqvault
from pqvault import attestation
from pqvault.archive.archive import Archive
from pqvault.archive.publicstate import PublicState
from pqvault.crypto import sign
from pqvault.errors import (
    FormatError,
    IntegrityError,
    KeyStateForbids,
    PolicyRefused,
    PQVaultError,
    UsageError,
)
from pqvault.format.commit import Commit
from pqvault.format.signature import MAX_SIGNATURES, Signature, parse_lines
from pqvault.keystore import Keystore, State, lifecycle, transfer
from pqvault.keystore.halves import kind_of
from pqvault.policy import Policy
from pqvault.signing import Signer, SigningKey, sign_document
from pqvault.storage import LocalStorage

ALICE = SigningKey.generate()
BOB = SigningKey.generate()
CNSA = SigningKey.generate("ML-DSA-87")
TRUST_ALICE = Policy.of([ALICE.signer])


def commits(box: Box) -> list[Path]:
    """The commits in the order of their parts."""
    parts = PublicState(LocalStorage(box.archive)).ordered()
    return [box.archive / "commits" / part.id for part in parts]


@pytest.fixture
def signed(box: Box) -> Box:
    """An archive of one part that Alice signed."""
    box.tree({"a": b"first", "sub": {"b": b"second"}})
    box.seal(sign=[ALICE])
    return box


def refusal(box: Box, policy: Policy = TRUST_ALICE) -> str:
    """Why a reader with a policy refuses: the sentence; with and without a decryption key."""
    with pytest.raises(PolicyRefused) as caught:
        box.open(policy=policy)
    report = pqvault.verify(box.archive, policy=policy)
    assert caught.value.message in [problem.message for problem in report.problems]
    assert report.signed_by == []
    return caught.value.message


# -- keys ----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [ALICE, CNSA], ids=["both", "cnsa2"])
def test_keys_as_text(key: SigningKey, tmp_path: Path) -> None:
    assert SigningKey.parse(key.text) == key and Signer.parse(key.signer.text) == key.signer
    key.save_file(tmp_path / "sign.txt")
    key.save_file(tmp_path / "sealed.txt", b"words")
    assert (tmp_path / "sign.txt").stat().st_mode & 0o777 == 0o600
    assert SigningKey.load_file(tmp_path / "sign.txt") == [key]
    assert SigningKey.load_file(tmp_path / "sealed.txt", ask=lambda _: b"words") == [key]
    assert key.text not in repr(key) and key.seed.hex() not in repr(key)
    for way in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            way(key)


@pytest.mark.parametrize("suite", sign.SUITES)
def test_one_key_is_one_signer(suite: str) -> None:
    """A public key with a byte more or less is none: under another id it would count twice."""
    key = SigningKey.generate(suite).signer.public_key
    assert Signer(suite, key).public_key == key
    for other in (key + b"\0", key[:-1], b""):
        with pytest.raises(UsageError, match="is not a valid public key"):
            Signer(suite, other)


def test_a_private_key_where_a_signer_belongs_is_not_repeated() -> None:
    """Attack 40: the refusal says what it is and shows nothing of it."""
    with pytest.raises(UsageError) as caught:
        Signer.parse(ALICE.text)
    assert "private" in caught.value.message and ALICE.text[25:60] not in str(caught.value)
    for text in ("", "age1pq1qqq", ALICE.signer.text[:-1], ALICE.signer.text.upper()):
        with pytest.raises(UsageError):
            Signer.parse(text)
    for text in ("", ALICE.text.lower(), ALICE.signer.text, ALICE.text + "Q"):
        with pytest.raises(UsageError):
            SigningKey.parse(text)


# -- one signature -------------------------------------------------------------------------


def test_both_halves_must_verify() -> None:
    """Attack 9: half of a signature is none. Break one half at a time."""
    ids, data = ("signature", bytes(16), bytes(range(16))), b"a document"
    kind, public = sign.DEFAULT, ALICE.signer.public_key
    value = sign.sign(kind, ALICE.seed, *ids, data)
    sign.verify(kind, public, *ids, data, value, "it")
    for at, half in ((0, "Ed25519"), (63, "Ed25519"), (64, "ML-DSA-65"), (3372, "ML-DSA-65")):
        broken = bytearray(value)
        broken[at] ^= 1
        with pytest.raises(PolicyRefused, match=f"the {half} signature of it is wrong"):
            sign.verify(kind, public, *ids, data, bytes(broken), "it")
    for short in (b"", value[:64], value[64:], value + b"\0"):
        with pytest.raises(PolicyRefused, match="does not have 3373 bytes"):
            sign.verify(kind, public, *ids, data, short, "it")


def test_what_a_signature_is_bound_to() -> None:
    """Attack 8: not another archive, part, document, signer or suite."""
    one, other = bytes(16), bytes(range(16))
    commit, envelope = "signature", "envelope signature"
    value = sign.sign(sign.DEFAULT, ALICE.seed, commit, one, other, b"data")
    public = ALICE.signer.public_key
    for ids, data, key in (
        ((commit, other, other), b"data", public),
        ((commit, one, one), b"data", public),
        ((commit, one, other), b"Data", public),
        ((commit, one, other), b"data", BOB.signer.public_key),
        ((envelope, one, other), b"data", public),
        (("retired signature", one, other), b"data", public),
        # Alice's ML-DSA key beside Bob's Ed25519 key is a third signer.
        ((commit, one, other), b"data", BOB.signer.public_key[:32] + public[32:]),
        ((commit, one, other), b"data", public[:32] + BOB.signer.public_key[32:]),
    ):
        with pytest.raises(PolicyRefused, match="is wrong"):
            sign.verify(sign.DEFAULT, key, *ids, data, value, "it")


def test_an_ed25519_signature_of_other_data_is_none_of_ours() -> None:
    """Key confusion: what Ed25519 signs begins with the whole context, its own algorithm named."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    ids = ("signature", bytes(16), bytes(16))
    value = sign.sign(sign.DEFAULT, ALICE.seed, *ids, b"data")
    key = Ed25519PublicKey.from_public_bytes(ALICE.signer.public_key[:32])
    with pytest.raises(InvalidSignature):
        key.verify(value[:64], b"data")
    with pytest.raises(PQVaultError):
        sign.check_public_key(sign.DEFAULT, bytes(1983))
    with pytest.raises(FormatError):
        sign.suite("Ed25519", "a commit")


# -- the lines -----------------------------------------------------------------------------

ids = st.binary(min_size=16, max_size=16).map(bytes.hex)
suites = st.text("abcXYZ0189+.-", min_size=1, max_size=64)
lines = st.builds(Signature, ids, suites, st.binary(min_size=1, max_size=100))


@given(st.lists(lines, max_size=MAX_SIGNATURES, unique_by=lambda s: s.signer))
def test_lines_round_trip(signatures: list[Signature]) -> None:
    data = b"".join(signature.line() for signature in sorted(signatures))
    assert parse_lines(data, "it") == tuple(sorted(signatures))
    assert b"".join(one.line() for one in parse_lines(data, "it")) == data


LINE = Signature("00" * 16, "suite", b"value").line()
NEXT = Signature("01" * 16, "suite", b"value").line()


@pytest.mark.parametrize(
    "data",
    [
        NEXT + LINE,
        LINE + LINE,
        LINE[:-1],
        LINE + b"\n",
        LINE.replace(b"\n", b"\r\n"),
        LINE.replace(b"sign ", b"Sign "),
        LINE.replace(b" suite", b"  suite"),
        LINE.replace(b"00 ", b"0A ", 1),
        LINE.replace(b"dmFsdWU=", b"dmFsdWV="),
        LINE.replace(b"dmFsdWU=", b"dmFsdWU"),
        b"sign suite " + b"00" * 16 + b" \n",
        b"".join(Signature(f"{n:032x}", "s", b"v").line() for n in range(MAX_SIGNATURES + 1)),
        b"x" * (16 * 16 * 1024 + 1),
    ],
    ids=["order", "twice", "cut", "blank", "crlf", "case", "space", "hex", "base64", "padding",
         "empty", "many", "long"],
)  # fmt: skip
def test_lines_have_one_form(data: bytes) -> None:
    """Attack 43: what is not written so is not read."""
    with pytest.raises(FormatError):
        parse_lines(data, "it")


# -- an archive ----------------------------------------------------------------------------


def test_a_signed_archive_is_read_by_all(signed: Box) -> None:
    """With the signer it is signed by them; without, sealed, and its signature is only named."""
    signed.check()
    with signed.open(policy=TRUST_ALICE) as archive:
        assert archive.parts[0].signed_by == (ALICE.signer.signer_id,)
        assert archive.open_file("src/a").read() == b"first"
    with signed.open() as archive:
        assert archive.parts[0].signed_by == ()
    assert pqvault.verify(signed.archive).signed_by == []


def test_a_signer_and_no_key_check_a_whole_archive(signed: Box) -> None:
    report = pqvault.verify(signed.archive, policy=TRUST_ALICE)
    assert (report.problems, report.level) == ([], "intact")
    assert report.signed_by == [ALICE.signer.signer_id]
    target = next((signed.archive / "parts").rglob("objects/*"))
    target.write_bytes(target.read_bytes()[:-1] + b"\0")
    report = pqvault.verify(signed.archive, policy=TRUST_ALICE)
    assert [problem.exit_code for problem in report.problems] == [13]


def test_every_byte_of_a_signed_commit_counts(signed: Box) -> None:
    """Flip one bit of each byte: never does a reader without a key say `signed`."""
    (path,) = commits(signed)
    data = path.read_bytes()
    step = max(1, len(data) // 400)
    for at in range(0, len(data), step):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        report = pqvault.verify(signed.archive, policy=TRUST_ALICE)
        assert report.problems, f"byte {at}"
        assert report.signed_by == []
    path.write_bytes(data)
    assert pqvault.verify(signed.archive, policy=TRUST_ALICE).problems == []


def test_a_stripped_signature(signed: Box) -> None:
    """Attack 7: without its signature it still opens, but not for who asks for one."""
    (path,) = commits(signed)
    path.write_bytes(Commit.parse(path.read_bytes()).unsigned())
    signed.check()
    assert "is not signed" in refusal(signed)


def test_signed_anew_by_another(signed: Box) -> None:
    """Attack 8: whoever has the commit can sign it, and is not who is trusted."""
    (path,) = commits(signed)
    bare = replace(Commit.parse(path.read_bytes()), signatures=())
    path.write_bytes(sign_document(bare, [BOB]).marshal())
    assert "none of whom is trusted" in refusal(signed)


def test_a_wrong_signature_beside_a_right_one(signed: Box) -> None:
    """In the name of somebody who is trusted it is refused, whoever else has signed."""
    (path,) = commits(signed)
    commit = Commit.parse(path.read_bytes())
    forged = BOB.sign(replace(commit, seq=5))
    path.write_bytes(
        replace(commit, signatures=tuple(sorted((*commit.signatures, forged)))).marshal()
    )
    with signed.open(policy=TRUST_ALICE) as archive:
        assert archive.parts[0].signed_by == (ALICE.signer.signer_id,)
    assert "signature of" in refusal(signed, Policy.of([ALICE.signer, BOB.signer]))


def test_a_signature_moved_from_another_part(signed: Box) -> None:
    signed.tree({"c": b"third"})
    signed.seal(sign=[ALICE])
    first, second = commits(signed)
    taken = Commit.parse(first.read_bytes()).signatures
    second.write_bytes(replace(Commit.parse(second.read_bytes()), signatures=taken).marshal())
    assert "is wrong" in refusal(signed)


def test_a_suite_by_another_name(signed: Box) -> None:
    """Attack: downgrade. The line names a suite; the signer's own is what counts."""
    (path,) = commits(signed)
    commit = Commit.parse(path.read_bytes())
    lie = replace(commit.signatures[0], suite="Ed25519", value=commit.signatures[0].value[:64])
    path.write_bytes(replace(commit, signatures=(lie,)).marshal())
    assert "does not have 3373 bytes" in refusal(signed)


def test_the_threshold(box: Box) -> None:
    box.tree({"a": b"first"})
    box.seal(sign=[ALICE, CNSA])
    named = (("alice", ALICE.signer), ("bob", BOB.signer), ("carol", CNSA.signer))
    with box.open(policy=Policy(named, 2)) as archive:
        assert set(archive.parts[0].signed_by) == {"alice", "carol"}
    assert "needs 3 trusted signatures" in refusal(box, Policy(named, 3))
    with pytest.raises(UsageError, match="twice"):
        box.seal(sign=[ALICE, ALICE], append=True)


# -- unsigned parts beside signed ones -----------------------------------------------------


def add_unsigned(box: Box, tree: dict[str, object]) -> None:
    """What somebody with the public keys only can do."""
    from pqvault.policy import Policy as Anyone

    box.tree(tree)
    box.seal(append=True, policy=Anyone(allow_unsigned=True))


def test_a_writer_does_not_go_on_unsigned(signed: Box) -> None:
    signed.tree({"c": b"third"})
    with pytest.raises(PolicyRefused, match="this run would add an unsigned one"):
        signed.seal()
    assert len(commits(signed)) == 1
    add_unsigned(signed, {})
    assert len(commits(signed)) == 2
    with pytest.raises(PolicyRefused, match="this run would add an unsigned one"):
        signed.seal()  # not the last part alone


def test_what_the_policy_would_not_read_is_not_written(box: Box) -> None:
    """A run with signers to go by writes nothing that the next such run would refuse."""
    box.tree({"x": b"1"})
    two = Policy((("a", ALICE.signer), ("b", BOB.signer)), 2)
    for policy, keys in ((TRUST_ALICE, []), (TRUST_ALICE, [BOB]), (two, [ALICE])):
        with pytest.raises(PolicyRefused, match="what is written would be signed by"):
            box.seal(policy=policy, sign=keys)
    assert not box.archive.exists()
    box.seal(policy=two, sign=[ALICE, BOB])
    box.tree({"x": b"2"})
    box.seal(policy=TRUST_ALICE, sign=[ALICE])
    box.tree({"x": b"3"})
    box.seal(policy=Policy.of([ALICE.signer], allow_unsigned=True))


def test_an_unsigned_part_after_a_signed_one(signed: Box) -> None:
    """Attack 7: refused, also by readers who name no signer, unless they allow it."""
    add_unsigned(signed, {})
    assert "is not signed" in refusal(signed)
    with pytest.raises(PolicyRefused, match="parts before it are"):
        signed.open()
    assert [p.exit_code for p in pqvault.verify(signed.archive).problems] == [14]


def sealed_alone(box: Box, tree: dict[str, object], name: str) -> None:
    """Another folder of the same name, appended unsigned."""
    from conftest import make_tree

    source = make_tree(box.root / name / "src", tree)
    box.seal(source, append=True, policy=Policy(allow_unsigned=True))


@pytest.mark.parametrize("policy", [TRUST_ALICE, Policy()], ids=["signer", "nobody named"])
@pytest.mark.parametrize(
    ("tree", "path"),
    [
        ({"a": b"replaced"}, "src/a"),
        ({"a": {"below": b"a folder now"}}, "src/a"),
        ({"sub": b"a file now"}, "src/sub"),
        ({"sub": {"b": b"replaced"}}, "src/sub/b"),
    ],
    ids=["replace", "file to folder", "folder to file", "deep"],
)
def test_an_unsigned_part_hides_nothing_signed(
    signed: Box, tree: dict[str, object], path: str, policy: Policy
) -> None:
    """DESIGN 4.1: in lists, look-ups and extraction alike."""
    sealed_alone(signed, tree, "stranger")
    allowing = replace(policy, allow_unsigned=True)
    with signed.open(policy=allowing) as archive:
        with pytest.raises(PolicyRefused, match=f"{path} is hidden by part"):
            list(archive.entries())
        with pytest.raises(PolicyRefused, match=f"{path} is hidden by part"):
            archive.open_file(path)
    with signed.open(policy=allowing) as archive, pytest.raises(PolicyRefused):
        archive.unseal(signed.root / "out")


def test_what_is_below_a_folder_that_became_a_file_is_protected(signed: Box) -> None:
    sealed_alone(signed, {"sub": b"a file now"}, "stranger")
    with (
        signed.open(policy=replace(TRUST_ALICE, allow_unsigned=True)) as archive,
        pytest.raises(PolicyRefused, match="src/sub is hidden"),
    ):
        archive.open_file("src/sub/b")


def test_an_unsigned_part_may_add(signed: Box) -> None:
    """Folders that both have are the signed part's."""
    (signed.source / "sub").chmod(0o700)
    sealed_alone(signed, {"sub": {"new": b"added"}}, "stranger")
    with signed.open(policy=replace(TRUST_ALICE, allow_unsigned=True)) as archive:
        assert archive.open_file("src/sub/new").read() == b"added"
        assert archive.open_file("src/sub/b").read() == b"second"
        part, _ = archive.find("src/sub")
        assert part.signed_by
        where = {entry.path: part.signed for part, entry in archive.located()}
    assert where == {
        b"src": True, b"src/a": True, b"src/sub": True, b"src/sub/b": True, b"src/sub/new": False,
    }  # fmt: skip


def test_a_signed_part_may_do_all(signed: Box) -> None:
    sealed_alone(signed, {"c": b"from a stranger"}, "stranger")
    signed.tree({"c": b"from alice", "a": b"newer"})
    signed.seal(sign=[ALICE], policy=Policy(allow_unsigned=True), know=True)
    with signed.open(policy=replace(TRUST_ALICE, allow_unsigned=True)) as archive:
        assert archive.open_file("src/a").read() == b"newer"
        assert archive.open_file("src/c").read() == b"from alice"


# -- policy files --------------------------------------------------------------------------


def policy_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return path


def test_a_policy_file(tmp_path: Path, signed: Box) -> None:
    text = f'threshold = 1\n[[signer]]\nname = "release"\nkey = "{ALICE.signer.text}"\n'
    policy = Policy.load_file(policy_file(tmp_path, text))
    assert policy == Policy((("release", ALICE.signer),), 1)
    assert pqvault.verify(signed.archive, policy=policy).signed_by == ["release"]


SIGNER = f'[[signer]]\nname = "a"\nkey = "{ALICE.signer.text}"\n'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "threshold = 1\n",
        "signer = 1\n",
        "signer = [1]\n",
        "threshold = 0\n" + SIGNER,
        "threshold = 2\n" + SIGNER,
        "threshold = true\n" + SIGNER,
        'threshold = "1"\n' + SIGNER,
        "more = 1\n" + SIGNER,
        SIGNER + "also = 1\n",
        '[[signer]]\nname = "a"\n',
        SIGNER + SIGNER,
        SIGNER + SIGNER.replace('"a"', '"b"'),
        SIGNER.replace('"a"', '"\\u001b[31m"'),
        SIGNER.replace('"a"', '""'),
        f'[[signer]]\nname = "a"\nkey = "{ALICE.text}"\n',
        "[[signer]\n",
        "\x00",
    ],
)  # fmt: skip
def test_a_policy_file_is_strict(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Policy.load_file(policy_file(tmp_path, text))
    assert str(tmp_path / "policy.toml") in caught.value.message
    assert ALICE.text[30:60] not in caught.value.message


def test_a_key_of_thousands_of_parts_is_refused_unparsed(tmp_path: Path) -> None:
    """TOML's parser takes memory with the square of them."""
    text = SIGNER + f"# {'.' * 200}\n"
    assert Policy.load_file(policy_file(tmp_path, text)).demands
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match="no policy has"):
            Policy.load_file(policy_file(tmp_path, "a." * 8000 + "a = 1\n"))
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


# -- in the keystore -----------------------------------------------------------------------


def test_signing_keys_in_the_keystore(private_home: Path) -> None:
    """Versions, states and export as of other keys; but they neither seal nor open."""
    from pqvault.keystore.identities import identities_of

    with Keystore.create(b"words") as store:
        lifecycle.new_key(store, "release", profile=kind_of("standard", sign=True))
        first = store.store.signing_version("release")
        lifecycle.rotate(store, "release")
        second = store.store.signing_version("release")
        assert first != second
        assert {s.signer_id for s in store.store.signers("release")} == {first, second}
        with pytest.raises(UsageError, match="a key that signs"):
            store.store.recipient("release")
        assert identities_of(store, pytest.fail) == []
        private = transfer.export_private(store, "release@2", "nowhere")
        assert isinstance(private, SigningKey) and private.signer.signer_id == second
        lifecycle.change_state(store, "release@1", State.COMPROMISED, "lost")
        assert {s.signer_id for s in store.store.signers("release")} == {second}
        lifecycle.change_state(store, "release@2", State.SUSPENDED)
        with pytest.raises(KeyStateForbids, match="may not sign"):
            store.store.signing_version("release")
        with pytest.raises(KeyStateForbids, match="to be trusted"):
            store.store.signers("release")
        with pytest.raises(UsageError, match=r"keys of Ed25519.ML-DSA-65, and this"):
            transfer.import_keys(store, "release", [pqvault.Identity.generate()])
        transfer.import_keys(store, "imported", [ALICE, BOB.signer])
        with pytest.raises(KeyStateForbids, match="deactivated; public key only"):
            store.store.signing_version("imported")
        store.verify()


def test_archive_takes_a_policy(signed: Box) -> None:
    """The class too, for who builds on it."""
    with Archive(LocalStorage(signed.archive), [signed.key], policy=TRUST_ALICE) as archive:
        assert archive.parts[0].signed


# -- for supply-chain tools ----------------------------------------------------------------


def test_an_attestation(signed: Box) -> None:
    """The Statement lists every file with its SHA-256; its DSSE envelope verifies as the protocol
    says, with the public halves alone."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey

    found = attestation.statement(signed.archive, TRUST_ALICE)
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    names = {subject["name"]: subject["digest"]["sha256"] for subject in found["subject"]}
    on_disk = {
        name: hashlib.sha256((signed.archive / name).read_bytes()).hexdigest()
        for name in files_below(signed.archive)
        if name.startswith(("parts/", "commits/"))
    }
    assert names == on_disk
    wrapped = attestation.envelope(found, [BOB])
    payload = base64.b64decode(wrapped["payload"])
    assert json.loads(payload) == found
    kind = wrapped["payloadType"]
    encoded = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    values = {s["keyid"].split(":")[1]: base64.b64decode(s["sig"]) for s in wrapped["signatures"]}
    public = BOB.signer.public_key
    Ed25519PublicKey.from_public_bytes(public[:32]).verify(values["Ed25519"], encoded)
    MLDSA65PublicKey.from_public_bytes(public[32:]).verify(values["ML-DSA-65"], encoded)
    with pytest.raises(ValueError, match="with a context"):
        BOB.sign_foreign(b"pqvault.dev/commit@v1")


def test_nothing_is_attested_that_was_not_checked(signed: Box) -> None:
    with pytest.raises(UsageError):
        attestation.statement(signed.archive, Policy())
    with pytest.raises(PolicyRefused):
        attestation.statement(signed.archive, Policy.of([BOB.signer]))
    target = next((signed.archive / "parts").rglob("objects/*"))
    target.write_bytes(target.read_bytes()[:-1] + b"\0")
    with pytest.raises(IntegrityError):
        attestation.statement(signed.archive, TRUST_ALICE)


def test_unsigned_parts_are_not_attested(signed: Box) -> None:
    sealed_alone(signed, {"more": b"unsigned"}, "stranger")
    with pytest.raises(PolicyRefused):
        attestation.statement(signed.archive, replace(TRUST_ALICE, allow_unsigned=True))
