"""The profiles: published vectors, one profile an envelope, SHA-384 throughout `cnsa2`."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cryptography_vectors
import pyarrow as pa
import pytest
from click.testing import CliRunner
from conftest import Box, make_tree
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey
from test_outside_vectors import hpke_aad_decrypt, kat

import pqvault
from pqvault import attestation, tables
from pqvault.archive.publicpart import read_public
from pqvault.crypto import kem, oqs_kem, oqs_library, pyca_kem
from pqvault.crypto.profiles import CNSA2, HIGH, PROFILES, STANDARD, Profile
from pqvault.crypto.sign import SUITES
from pqvault.errors import FormatError, IntegrityError, NoKeyFits, PQVaultError, UsageError
from pqvault.format.commit import Commit
from pqvault.format.envelope import Envelope
from pqvault.format.keytext import FORMS
from pqvault.keys import Identity, Recipient, one_profile
from pqvault.logs import InferenceLog
from pqvault.policy import Policy
from pqvault.rootkey import RootKey, keyring
from pqvault.signing import SigningKey
from pqvault.storage import LocalStorage
from pqvault_cli.main import cli

VECTORS = json.loads(
    (
        Path(next(iter(cryptography_vectors.__path__))) / "HPKE" / "hpke-pq-test-vectors.json"
    ).read_text()
)


def without_liboqs() -> str:
    """Why it cannot be tested here, or nothing. Imports and runs nothing."""
    try:
        library = oqs_library.find()
    except PQVaultError as error:
        return error.message
    if library is None or oqs_library.wrapper_version() is None:
        return "liboqs is not installed (the shared library and liboqs-python)"
    return ""


WITHOUT_LIBOQS = without_liboqs()
PROVIDERS = [
    pytest.param(pyca_kem, id="cryptography"),
    pytest.param(
        oqs_kem,
        id="liboqs",
        marks=pytest.mark.skipif(bool(WITHOUT_LIBOQS), reason=WITHOUT_LIBOQS),
    ),
]
BY = pytest.mark.parametrize("by", PROVIDERS)
KEYS = {name: Identity.generate(row) for name, row in PROFILES.items()}
each = pytest.mark.parametrize("profile", PROFILES.values(), ids=str)


def published(profile: Profile) -> list[dict[str, Any]]:
    """The vectors of draft-ietf-hpke-pq of a profile's KEM."""
    return [v for v in VECTORS if v["kem_id"] == profile.kem_id]


# -- the KEMs against what others published -------------------------------------------------


@each
def test_published_private_keys_give_published_public_keys(profile: Profile) -> None:
    """What a profile is offered for: skRm of the draft's vectors gives their pkRm."""
    vectors = published(profile)
    assert len(vectors) >= 1
    for v in vectors:
        seed, public_key = bytes.fromhex(v["skRm"]), bytes.fromhex(v["pkRm"])
        assert kem.public_key_of(profile, seed) == public_key
        assert Identity(seed, profile).recipient == Recipient(public_key, profile=profile)
        assert len(bytes.fromhex(v["enc"])) == profile.enc_size


@each
def test_the_row_holds_a_published_pair(profile: Profile) -> None:
    """The pair that is computed at run time is one of the vectors, not one of our own."""
    pairs = {
        (v["skRm"], hashlib.sha256(bytes.fromhex(v["pkRm"])).hexdigest())
        for v in published(profile)
    }
    assert (profile.known_seed, profile.known_public) in pairs


@pytest.mark.parametrize("profile", [HIGH, CNSA2], ids=str)
def test_published_messages_open(profile: Profile) -> None:
    """The draft has a vector of exactly our KEM, KDF and AEAD: all its messages' first opens."""
    (v,) = [v for v in published(profile) if (v["kdf_id"], v["aead_id"]) == (2, 2)]
    message = v["encryptions"][0]
    opened = hpke_aad_decrypt()(
        pyca_kem._suite(profile),
        bytes.fromhex(v["enc"] + message["ct"]),
        pyca_kem.private_key(profile, bytes.fromhex(v["skRm"])),
        bytes.fromhex(v["info"]),
        bytes.fromhex(message["aad"]),
    )
    assert opened == bytes.fromhex(message["pt"])


def test_mlkem_1024_kat() -> None:
    """FIPS 203: seeds to keys, and shared secrets of good and of rejected ciphertexts."""
    records = kat("asymmetric/MLKEM/kat_MLKEM_1024.rsp")
    assert len(records) > 100
    for record in records[:100]:
        key = MLKEM1024PrivateKey.from_seed_bytes(record["d"] + record["z"])
        assert kem.public_key_of(CNSA2, record["d"] + record["z"]) == record["pk"]
        assert key.decapsulate(record["ct"]) == record["ss"]
        assert key.decapsulate(record["ct_n"]) == record["ss_n"]


# -- a profile that does not give the published key is hidden -------------------------------


@pytest.fixture
def broken_high(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A library that expands the seeds of `high` in another way."""
    real = pyca_kem.public_key_of

    def other(profile: Profile, seed: bytes) -> bytes:
        return real(profile, bytes(32) if profile is HIGH else seed)

    monkeypatch.setattr(pyca_kem, "public_key_of", other)
    kem._gives_the_published_key.cache_clear()
    yield
    kem._gives_the_published_key.cache_clear()


def test_a_profile_without_its_vector_is_hidden(broken_high: None) -> None:
    """No key of it is made, read or sealed to; the others go on; doctor says so."""
    text = KEYS["high"].text
    for attempt in (
        lambda: Identity.generate("high"),
        lambda: Identity.parse(text).recipient,
        lambda: pqvault.encrypt(io.BytesIO(), io.BytesIO(), [KEYS["high"].recipient]),
    ):
        with pytest.raises(PQVaultError, match=r"profile high is not offered.*published"):
            attempt()
    assert kem.offered() == ["standard", "cnsa2"]
    runner = CliRunner()
    with pytest.raises(PQVaultError, match="not offered"):
        runner.invoke(cli, ["keygen", "--profile", "high"], catch_exceptions=False)
    assert runner.invoke(cli, ["keygen", "--profile", "cnsa2"]).exit_code == 0
    assert "profiles standard, cnsa2\n" in runner.invoke(cli, ["doctor"]).output


def test_the_command_line_offers_the_table() -> None:
    """`--profile` takes what the table has, and what it has not is a usage error."""
    for name in PROFILES:
        found = CliRunner().invoke(cli, ["keygen", "--profile", name])
        assert found.exit_code == 0 and f"\n{FORMS[name].identity}1" in found.output
    assert CliRunner().invoke(cli, ["keygen", "--profile", "low"]).exit_code == 2
    with pytest.raises(UsageError, match="no profile"):
        Identity.generate("low")


# -- ATTACKS rows 18 to 20, for each KEM ----------------------------------------------------


@BY
@each
def test_attack_18_a_wrong_ciphertext_is_an_authentication_failure(
    profile: Profile, by: Any
) -> None:
    """ML-KEM gives a random key for what it rejects: only the tag shows it, as our sentence."""
    kem.use(by.NAME)
    key, info = KEYS[profile.name], b"what it is for"
    sealed = kem.wrap(profile, bytes(32), key.recipient.public_key, info)
    assert kem.unwrap(profile, sealed, key.seed, info, "it") == bytes(32)
    mlkem_part, curve_part = 100, profile.enc_size - 1
    for at in (mlkem_part, curve_part, profile.enc_size, len(sealed) - 1):
        bad = bytearray(sealed)
        bad[at] ^= 1
        with pytest.raises((IntegrityError, FormatError), match=r"^it "):
            kem.unwrap(profile, bytes(bad), key.seed, info, "it")
    with pytest.raises((IntegrityError, FormatError), match=r"^it "):
        kem.unwrap(profile, os.urandom(len(sealed)), key.seed, info, "it")
    for other in (sealed[:-1], sealed + b"\0", b""):
        with pytest.raises(FormatError, match=f"^it is not usable.*{profile.sealed_size} bytes"):
            kem.unwrap(profile, other, key.seed, info, "it")
    with pytest.raises(IntegrityError, match=r"^it failed authentication$"):
        kem.unwrap(profile, sealed, key.seed, info + b"!", "it")


@BY
@each
def test_attack_19_bad_public_keys_are_refused_when_made(profile: Profile, by: Any) -> None:
    """Modulus, lengths, points off the curve or of small order: a recipient that is none never
    comes to be."""
    kem.use(by.NAME)
    good = KEYS[profile.name].recipient.public_key
    bad = [b"\x01\x0d" + good[2:], good[:-1], good + b"\0", b"", bytes(len(good) - 1)]
    if profile is STANDARD:
        prime = 2**255 - 19  # 0, 1 and -1 in all their spellings, and one of the points of order 8
        points = [n.to_bytes(32, "little") for n in (0, 1, prime - 1, prime, prime + 1)]
        order_8 = "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"
        bad += [good[:1184] + point for point in (*points, bytes.fromhex(order_8))]
    if profile is HIGH:
        off_curve, infinity = good[:-1] + bytes([good[-1] ^ 1]), good[:1568] + bytes(97)
        compressed = good[:1568] + bytes([2 + (good[-1] & 1)]) + good[1569:1617]
        bad += [off_curve, infinity, compressed, good[:1568] + b"\x06" + good[1569:]]
    for key in bad:
        with pytest.raises(UsageError, match="not a valid public key"):
            Recipient(key, profile=profile)


@each
def test_attack_20_a_private_key_is_a_seed(profile: Profile) -> None:
    """Expanded decapsulation keys are no identities: only a seed of the one length is."""
    for size in (0, 31, 32, 48, 64, 65, 96, 2400, 3168):
        if size != profile.seed_size:
            with pytest.raises(ValueError, match=f"a seed of {profile.seed_size} bytes"):
                Identity(bytes(size), profile)


# -- one profile an envelope ----------------------------------------------------------------


@each
def test_streams_and_archives_go_round(profile: Profile, tmp_path: Path) -> None:
    """Sealed, inspected, opened: the profile is that of the recipients."""
    key, out = KEYS[profile.name], io.BytesIO()
    pqvault.encrypt(io.BytesIO(b"x" * 100_000), out, [key.recipient])
    envelope = Envelope.parse_prefix(out.getvalue())[0]
    assert (envelope.profile, envelope.recipients[0].kem) == (profile.name, profile.kem)
    assert len(envelope.recipients[0].sealed) == profile.sealed_size
    back = io.BytesIO()
    pqvault.decrypt(io.BytesIO(out.getvalue()), back, [key])
    assert back.getvalue() == b"x" * 100_000
    again = Identity.parse(key.text)
    assert again == key and Recipient.parse(key.recipient.text) == key.recipient
    box = Box(tmp_path, key)
    box.tree({"a": b"one", "b": {"c": b"two" * 1000}})
    box.seal()
    box.tree({"d": b"three"})
    box.seal(know=True)
    box.check()
    facts = pqvault.inspect(box.archive).parts
    assert [p.envelope.profile for p in facts if p.envelope] == [profile.name] * 2
    assert {p.digest for p in facts} == {profile.digest}
    assert box.contents()["src/b/c"] == ("f", b"two" * 1000)


@pytest.mark.parametrize("profile", [HIGH, CNSA2], ids=str)
def test_no_byte_of_the_envelope_can_change(profile: Profile) -> None:
    """One bit in every third byte of a sealed stream's envelope: never the content."""
    key, out = KEYS[profile.name], io.BytesIO()
    pqvault.encrypt(io.BytesIO(b"content"), out, [key.recipient])
    sealed = out.getvalue()
    size = Envelope.parse_prefix(sealed)[1]
    for at in range(0, size, 3):
        bad = bytearray(sealed)
        bad[at] ^= 1 << at % 7
        back = io.BytesIO()
        with pytest.raises((IntegrityError, FormatError, NoKeyFits)):
            pqvault.decrypt(io.BytesIO(bytes(bad)), back, [key])
        assert back.getvalue() == b""


@each
def test_identity_files_hold_keys_of_any_profile(profile: Profile, tmp_path: Path) -> None:
    """Also sealed under a passphrase, and several in one file."""
    key, path = KEYS[profile.name], tmp_path / "key.txt"
    key.save_file(path, b"some words")
    assert Identity.load_file(path, ask=lambda prompt: b"some words") == [key]
    lines = "".join(k.file_text() for k in KEYS.values()).encode()
    assert Identity.parse_file(lines, "all") == list(KEYS.values())
    assert key.recipient.text in key.file_text()


def test_recipients_of_two_profiles_are_refused(tmp_path: Path) -> None:
    """A sentence, exit 2, and nothing is left of what would have been sealed."""
    make_tree(tmp_path / "src", {"a": b"one"})
    pairs = [("standard", "high"), ("high", "cnsa2"), ("cnsa2", "standard")]
    for one, two in pairs:
        mixed = [KEYS[one].recipient, KEYS[two].recipient]
        with pytest.raises(UsageError, match=f"mixed: .* {one} and .* {two}$"):
            pqvault.seal(tmp_path / "src", tmp_path / "v.pqv", recipients=mixed)
        assert not (tmp_path / "v.pqv").exists()
        out = io.BytesIO()
        with pytest.raises(UsageError, match="mixed"):
            pqvault.encrypt(io.BytesIO(b"x"), out, mixed)
        assert out.getvalue() == b""
    assert one_profile([]) is STANDARD


def test_rotation_keeps_the_profile(tmp_path: Path) -> None:
    """A key of another profile takes no place in an envelope: that needs new root keys."""
    box = Box(tmp_path, KEYS["high"])
    box.tree({"a": b"one"})
    box.seal()
    envelopes = {p.name: p.read_bytes() for p in (box.archive / "envelopes").iterdir()}
    for name in ("standard", "cnsa2"):
        for change in ({"to": KEYS[name].recipient}, {"add": [KEYS[name].recipient]}):
            with pytest.raises(UsageError, match=f"profile high.* profile {name}") as caught:
                pqvault.rotate(box.archive, identities=[KEYS["high"]], **change)
            assert ("reencrypt" if name == "standard" else "unseal it") in caught.value.hint
    assert envelopes == {p.name: p.read_bytes() for p in (box.archive / "envelopes").iterdir()}
    new = Identity.generate("high")
    pqvault.rotate(box.archive, identities=[KEYS["high"]], to=new.recipient)
    with pqvault.open(box.archive, identities=[new]) as archive:
        assert [e.path for e in archive.entries()] == [b"src", b"src/a"]


def one_envelope(profile: Profile) -> tuple[RootKey, Envelope]:
    root = RootKey.generate("00" * 16, "11" * 16, profile)
    return root, root.envelope([KEYS[profile.name].recipient], created=1)


@BY
@each
def test_attack_4_no_profile_is_taken_for_another(profile: Profile, by: Any) -> None:
    """The profile and the KEM are in HPKE's info: altered in the envelope, nothing opens."""
    kem.use(by.NAME)
    root, envelope = one_envelope(profile)
    ring = keyring(KEYS.values())
    assert RootKey.unwrap(envelope, ring, "it") == root
    for other in PROFILES.values():
        if other is profile:
            continue
        ids = [KEYS[other.name].key_id, envelope.recipients[0].key_id]
        for key_id in ids:
            wrapped = dataclasses.replace(envelope.recipients[0], kem=other.kem, key_id=key_id)
            for lie in (
                dataclasses.replace(envelope, profile=other.name),
                dataclasses.replace(envelope, recipients=(wrapped,)),
                dataclasses.replace(envelope, profile=other.name, recipients=(wrapped,)),
            ):
                with pytest.raises((IntegrityError, FormatError)):
                    RootKey.unwrap(lie, ring, "it")


def test_attack_3_an_opened_envelope_warms_nothing_for_a_weaker_one() -> None:
    """What opened once is checked anew each time: its profile, its KEM, its MAC."""
    root, envelope = one_envelope(CNSA2)
    ring = keyring(KEYS.values())
    for _ in range(2):
        assert RootKey.unwrap(envelope, ring, "it") == root
        with pytest.raises(FormatError, match="KEM 'ML-KEM-1024', which the profile standard"):
            RootKey.unwrap(dataclasses.replace(envelope, profile="standard"), ring, "it")
        with pytest.raises(FormatError, match="profile 'weak', which this version does not know"):
            RootKey.unwrap(dataclasses.replace(envelope, profile="weak"), ring, "it")


def test_the_commit_has_the_profile_of_its_envelope() -> None:
    """Whoever knows the root key cannot pass a part off as one of another profile."""
    root, _ = one_envelope(HIGH)

    def commit(profile: str, digest: str) -> Commit:
        bare = Commit(
            root.archive, root.part, 1, 1, profile, digest, "append", (), (), root.commit_id,
            (KEYS["high"].key_id,), (),
        )  # fmt: skip
        return root.sign_off(bare)

    root.check_commit(commit("high", "blake3"), "part 1")
    with pytest.raises(IntegrityError, match="has the profile standard, its envelope high"):
        root.check_commit(commit("standard", "blake3"), "part 1")
    with pytest.raises(FormatError, match="the digest blake3, not one of cnsa2"):
        root.check_commit(commit("cnsa2", "blake3"), "part 1")


def test_a_commit_names_other_parts_by_digests_of_its_profile() -> None:
    """Format 5.2 (5): a part of cnsa2 follows and replaces only parts that SHA-384 names, whatever
    whoever has its root key writes."""
    root, _ = one_envelope(CNSA2)
    long, short = ("22" * 16, "33" * 48), ("44" * 16, "55" * 32)

    def check(parents: tuple[tuple[str, str], ...], replaces: tuple[tuple[str, str], ...]) -> None:
        bare = Commit(
            root.archive, root.part, 1, 1, "cnsa2", "sha384", "append", parents, replaces,
            root.commit_id, (KEYS["cnsa2"].key_id,), (),
        )  # fmt: skip
        root.check_commit(root.sign_off(bare), "part 1")

    check((long,), (long,))
    for parents, replaces in (((short,), ()), ((), (short,)), ((long, short), ())):
        with pytest.raises(FormatError, match="names a part by a digest that is not one of cnsa2"):
            check(parents, replaces)


# -- cnsa2: SHA-384 and ML-DSA-87 -----------------------------------------------------------


def test_cnsa2_digests_are_sha384(tmp_path: Path) -> None:
    """Key ids, the commit's files, its parents, the catalog's digests."""
    key = KEYS["cnsa2"]
    public_key = key.recipient.public_key
    assert key.key_id == hashlib.sha384(b"ML-KEM-1024" + public_key).hexdigest()[:32]
    box = Box(tmp_path, key)
    box.tree({"a": b"one"})
    box.seal()
    box.tree({"b": b"two"})
    box.seal(know=True)
    first, second = box.parts()
    archive = json.loads((box.archive / "pqvault.json").read_text())["archive"]
    commit = read_public(LocalStorage(box.archive), archive, second).commit
    parent = (box.archive / "commits" / first).read_bytes()
    assert commit.digest == "sha384"
    assert commit.parents == ((first, hashlib.sha384(parent).hexdigest()),)
    for file in commit.files:
        sealed = (box.archive / "parts" / second / file.name).read_bytes()
        assert file.digest == hashlib.sha384(sealed).hexdigest()
    with box.open() as opened:
        assert opened.find(b"src/b")[1].digest == hashlib.sha384(b"two").digest()


def test_cnsa2_follows_only_its_own(tmp_path: Path) -> None:
    """A part names its parents by their digests: after others' no part of cnsa2 is begun, and one
    that had begun before does not name them. The others follow whatever there is."""
    key, other = KEYS["cnsa2"], KEYS["standard"]
    make_tree(tmp_path / "src", {"a": b"one"})
    archive, table = tmp_path / "v.pqv", pa.table({"x": [1]})
    source = (tmp_path / "src", archive)
    with InferenceLog(archive, recipients=[key.recipient], fsync="flush") as log:
        log.log({"request_id": "r"})
        pqvault.seal(*source, recipients=[other.recipient], append=True)
    pqvault.seal(*source, recipients=[other.recipient], append=True)
    found = pqvault.inspect(archive).parts
    (strict,) = [part for part in found if part.digest == "sha384"]
    assert strict.parents == () and strict.part in found[-1].parents
    for attempt in (
        lambda: pqvault.seal(*source, recipients=[key.recipient], append=True),
        lambda: tables.write_table(archive, "runs", table, recipients=[key.recipient]),
        lambda: InferenceLog(archive, recipients=[key.recipient]),
    ):
        with pytest.raises(UsageError, match=r"has digests of blake3, which a part of .* cnsa2"):
            attempt()
    with pqvault.open(archive, identities=[key, other]) as opened:
        assert len(opened.parts) == 3 and opened.problems == []


def test_cnsa2_is_attested_with_sha384(tmp_path: Path) -> None:
    """The Statement over it names no other digest, nor does its DSSE envelope another signature."""
    box, key = Box(tmp_path, KEYS["cnsa2"]), SigningKey.generate("ML-DSA-87")
    box.tree({"a": b"one"})
    box.seal(sign=[key])
    statement = attestation.statement(box.archive, Policy.of([key.signer]))
    assert len(statement["subject"]) == 3
    for subject in statement["subject"]:
        data = (box.archive / subject["name"]).read_bytes()
        assert subject["digest"] == {"sha384": hashlib.sha384(data).hexdigest()}
    signatures = attestation.envelope(statement, [key])["signatures"]
    assert [s["keyid"].partition(":")[2] for s in signatures] == ["ML-DSA-87"]


def test_cnsa2_is_signed_with_mldsa87(tmp_path: Path) -> None:
    """Its own suite signs it, and no other; the other profiles take both."""
    suites = {name: SigningKey.generate(name) for name in SUITES}
    for profile in PROFILES.values():
        box = Box(tmp_path / profile.name, KEYS[profile.name])
        box.tree({"a": b"one"})
        for name, key in suites.items():
            if name in profile.signatures:
                box.seal(sign=[key], append=True)
                continue
            with pytest.raises(UsageError, match="cnsa2 signs with ML-DSA-87") as caught:
                box.seal(sign=[key], append=True)
            assert "--sign --profile cnsa2" in caught.value.hint
        assert pqvault.inspect(box.archive).parts[0].signers
    change = {"identities": [KEYS["cnsa2"]], "to": Identity.generate("cnsa2").recipient}
    with pytest.raises(UsageError, match="cnsa2 signs with ML-DSA-87"):
        pqvault.rotate(tmp_path / "cnsa2" / "v.pqv", **change, sign=[suites["Ed25519+ML-DSA-65"]])
    pqvault.rotate(tmp_path / "cnsa2" / "v.pqv", **change, sign=[suites["ML-DSA-87"]])
    made = CliRunner().invoke(cli, ["keygen", "--sign", "--profile", "cnsa2"]).output
    assert "PQVAULT-SIGNING-KEY-CNSA2-1" in made


# -- tables, logs and column groups ---------------------------------------------------------


@each
def test_tables_and_logs_have_the_profile(profile: Profile, tmp_path: Path) -> None:
    """Of their recipients, groups of columns with them; recipients of two are refused there too."""
    key, other = KEYS[profile.name], Identity.generate(profile)
    archive, table = tmp_path / "v.pqv", pa.table({"x": [1, 2, 3]})
    tables.write_table(archive, "runs", table, recipients=[key.recipient])
    groups = {"content": [other.recipient]}
    with InferenceLog(archive, recipients=[key.recipient], groups=groups, fsync="flush") as log:
        log.log({"request_id": "r", "prompt": "hi"})
    assert tables.read_table(archive, "runs", identities=[key]).equals(table)
    read = tables.read_table(archive, "inference", identities=[key, other])
    assert read["input_messages"].to_pylist() == ['"hi"']
    envelopes = [Envelope.parse(path.read_bytes()) for path in (archive / "envelopes").iterdir()]
    assert sorted(e.group for e in envelopes) == ["", "", "content"]
    assert {e.profile for e in envelopes} == {profile.name}
    assert {part.digest for part in pqvault.inspect(archive).parts} == {profile.digest}
    assert pqvault.verify(archive, identities=[key]).problems == []
    wrong = KEYS["high" if profile is STANDARD else "standard"].recipient
    with pytest.raises(UsageError, match="mixed"):
        tables.write_table(archive, "runs", table, recipients=[key.recipient, wrong])
    with pytest.raises(UsageError, match="mixed"):
        InferenceLog(archive, recipients=[key.recipient], groups={"content": [wrong]})


def test_the_envelope_of_a_group_has_the_profile_of_its_part(tmp_path: Path) -> None:
    """Who can open it cannot wrap it to a key of another profile without a reader's noticing."""
    key, archive = KEYS["high"], tmp_path / "v.pqv"
    groups = {"content": [key.recipient]}
    people = {"recipients": [key.recipient], "groups": groups}
    with InferenceLog(archive, **people, fsync="flush") as log:
        log.log({"request_id": "r", "prompt": "hi"})
    (path,) = (archive / "envelopes").glob("*.content")
    root = RootKey.unwrap(Envelope.parse(path.read_bytes()), keyring([key]), "it")
    weaker = dataclasses.replace(root, profile=STANDARD)
    forged = weaker.envelope([KEYS["standard"].recipient], created=1, group="content")
    path.write_bytes(forged.marshal())
    with pytest.raises(IntegrityError, match="has the profile standard, its part high"):
        tables.read_table(archive, "inference", identities=KEYS.values())


def test_nothing_calls_itself_compliant() -> None:
    """The profile has algorithms of CNSA 2.0; who complies with it is not for a program to say."""
    root = Path(pqvault.__file__).parent.parent
    texts: list[Callable[[], Iterator[Path]]] = [
        lambda: root.glob("*.md"),
        lambda: (root / "docs").rglob("*.md"),
        lambda: (root / "pqvault").rglob("*.py"),
        lambda: (root / "cli").rglob("*.py"),
    ]
    files = [path for find in texts for path in find()]
    assert len(files) > 100
    for path in files:
        assert "compliant" not in path.read_text().lower(), path
