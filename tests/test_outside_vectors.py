"""Vectors that others made: C2SP chunked-encryption, ML-KEM, HPKE with X-Wing, age's key pair.

The files come from the PyPI package cryptography-vectors. What they say is theirs; that pqvault
agrees is what stands between our own vectors and a mistake in both the reader and the page.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cryptography_vectors
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from pqvault.crypto import cobblestone, kem, kems, pyca_kem
from pqvault.crypto.cobblestone import CHUNK_SIZE, MessageReader, MessageWriter, RandomReader
from pqvault.crypto.profiles import STANDARD
from pqvault.errors import IntegrityError, UsageError
from pqvault.format import keytext
from pqvault.keys import Identity, Recipient

AES256 = "AEAD_AES_256_GCM"


def vector_file(name: str) -> str:
    with cryptography_vectors.open_vector_file(name, "r") as file:
        return str(file.read())


# -- C2SP chunked-encryption: Cobblestone-256 -----------------------------------------------


@dataclass(frozen=True)
class Chunked:
    """One vector. ``payload``: SHA-256 of the plaintext, or of what may come before a failure."""

    name: str
    success: bool
    key: bytes
    context: bytes
    sealed: bytes
    aead_key: bytes
    nonce: bytes
    payload: str | None
    length: int

    @classmethod
    def of(cls, vector: dict[str, Any]) -> Chunked:
        sealed = base64.b64decode(vector["ciphertext"] or "")
        if vector.get("compressed"):
            sealed = zlib.decompress(sealed)
        return cls(
            vector["name"],
            vector["expect"] == "success",
            bytes.fromhex(vector["key"]),
            vector["context"].encode(),
            sealed,
            bytes.fromhex(vector.get("aead_key", "")),
            bytes.fromhex(vector.get("base_nonce", "")),
            vector.get("payload_sha256"),
            vector.get("payload_length", 0),
        )


ALL_CHUNKED = json.loads(vector_file("chunked-encryption/vectors.json"))["vectors"]
CHUNKED = [Chunked.of(vector) for vector in ALL_CHUNKED if vector["aead"] == AES256]
chunked = pytest.mark.parametrize("vector", CHUNKED, ids=[vector.name for vector in CHUNKED])

# What does not apply to us, by name, and why.
OTHER_SUITES = {
    "AEAD_AES_128_GCM": "Cobblestone-128: pqvault has keys of 256 bits only",
    "AEAD_CHACHA20_POLY1305": "the same construction with another AEAD: pqvault has one",
}
WRONG_KEY_SIZE = {"aes256gcm_short_key", "aes256gcm_long_key"}


def derive(vector: Chunked, salt: bytes, digest: str) -> tuple[AESGCM, int, bytes]:
    """AES key, base nonce and commitment of a message, by hand (C2SP, "Key derivation")."""
    info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" + salt + vector.context
    okm = block = b""
    while len(okm) < 76:
        counter = bytes([len(okm) // hashlib.new(digest).digest_size + 1])
        block = hmac.digest(vector.key, block + info + counter, digest)
        okm += block
    return AESGCM(okm[:32]), int.from_bytes(okm[32:44], "big"), okm[44:76]


def digest_of_vectors() -> str:
    """The hash that the file was made with.

    It is SHA-256 in cryptography-vectors 50: the file is older than the name Cobblestone, which
    goes with SHA-512. All but the key derivation is the same.
    """
    vector = next(vector for vector in CHUNKED if vector.success)
    salt, commitment = vector.sealed[:24], vector.sealed[24:56]
    return next(d for d in ("sha512", "sha256") if derive(vector, salt, d)[2] == commitment)


DIGEST = digest_of_vectors()


def carried_over(vector: Chunked) -> bytes:
    """The message of a vector under SHA-512, every fault of it kept.

    A commitment that is right stays right and every chunk that opens under some number is sealed
    again under that number, at the same place; whatever opens nowhere is left as it is.
    """
    salt, commitment, rest = vector.sealed[:24], vector.sealed[24:56], vector.sealed[56:]
    old, old_nonce, old_commitment = derive(vector, salt, DIGEST)
    new, new_nonce, new_commitment = derive(vector, salt, "sha512")
    if commitment != old_commitment:
        return vector.sealed
    out = salt + new_commitment
    chunks = [rest[at : at + 16400] for at in range(0, len(rest), 16400)]
    for number, chunk in enumerate(chunks):
        for counter in dict.fromkeys([number, *range(len(chunks))]):
            try:
                plain = old.decrypt((old_nonce ^ counter).to_bytes(12, "big"), chunk, None)
            except (InvalidTag, ValueError):
                continue
            chunk = new.encrypt((new_nonce ^ counter).to_bytes(12, "big"), plain, None)
            break
        out += chunk
    return out


@dataclass
class Bytes:
    """A source in memory."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def pread_into(self, buffer: memoryview, offset: int) -> None:
        piece = self.data[offset : offset + len(buffer)]
        if len(piece) != len(buffer):
            raise IntegrityError("the source is too short")
        buffer[:] = piece


def test_chunked_vectors_are_there() -> None:
    """What is left out is left out by name."""
    assert len(CHUNKED) == 34
    assert sum(vector.success for vector in CHUNKED) == 9
    assert {vector["aead"] for vector in ALL_CHUNKED} == {AES256, *OTHER_SUITES}
    assert {vector.name for vector in CHUNKED} >= WRONG_KEY_SIZE
    # Raw mode has no salt and no commitment; none of these is for it alone.
    assert not [v["name"] for v in ALL_CHUNKED if "raw" in v["name"] or "mode" in v]


def test_chunked_vectors_are_carried_over_with_their_faults() -> None:
    """Lengths stay, and what was right in them stays right."""
    for vector in CHUNKED:
        again = carried_over(vector)
        assert len(again) == len(vector.sealed)
        assert (again == vector.sealed) == (DIGEST == "sha512") or not vector.success
        for digest, sealed in ((DIGEST, vector.sealed), ("sha512", again)):
            if vector.success:
                assert derive(vector, sealed[:24], digest)[2] == sealed[24:56]


def in_order(vector: Chunked, step: int, out: bytearray) -> None:
    sealed = carried_over(vector)
    reader = MessageReader(vector.key, vector.context, vector.name)
    for at in range(0, len(sealed), step):
        out += reader.update(sealed[at : at + step])
    out += reader.finalize()


@chunked
@pytest.mark.parametrize("step", [1 << 24, 16400, 999])
def test_chunked_in_order(vector: Chunked, step: int) -> None:
    """attack 10, attack 12: cut, swapped, repeated, extended: nothing but a prefix comes out."""
    out = bytearray()
    if vector.name in WRONG_KEY_SIZE:
        with pytest.raises(ValueError, match="32 bytes"):
            in_order(vector, step, out)
    elif vector.success:
        in_order(vector, step, out)
        assert len(out) == vector.length
    else:
        with pytest.raises(IntegrityError) as caught:
            in_order(vector, step, out)
        assert vector.name in str(caught.value)
    # In pieces no larger than a chunk, all that may come out has come before the failure.
    if vector.success or step <= 16400:
        assert hashlib.sha256(out).hexdigest() == (vector.payload or hashlib.sha256().hexdigest())


@chunked
@pytest.mark.parametrize("carry", [False, True], ids=["theirs", "carried over"])
def test_chunked_at_random(vector: Chunked, carry: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """attack 1, attack 10: the commitment first, the last chunk before anything else."""
    if vector.name in WRONG_KEY_SIZE:
        # A mistake of the caller, not of the message.
        with pytest.raises(ValueError, match="32 bytes"):
            RandomReader(Bytes(vector.sealed), vector.key, vector.context, vector.name)
        return

    def expand(key: bytes, salt: bytes, context: bytes) -> bytes:
        assert (key, context) == (vector.key, vector.context)
        return their_okm(vector, salt)

    if not carry:
        monkeypatch.setattr(cobblestone, "_expand", expand)
    sealed = carried_over(vector) if carry else vector.sealed
    if not vector.success:
        with pytest.raises((IntegrityError, ValueError)):
            reader = RandomReader(Bytes(sealed), vector.key, vector.context, vector.name)
            reader.pread(0, reader.size)
        return
    reader = RandomReader(Bytes(sealed), vector.key, vector.context, vector.name)
    whole = reader.pread(0, reader.size)
    assert reader.size == vector.length
    assert hashlib.sha256(whole).hexdigest() == vector.payload
    for offset in range(0, reader.size, CHUNK_SIZE - 1):
        length = min(CHUNK_SIZE + 2, reader.size - offset)
        assert reader.pread(offset, length) == whole[offset : offset + length]


def their_okm(vector: Chunked, salt: bytes) -> bytes:
    """Key, base nonce and commitment as the vectors derive them, where they name them as named."""
    info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" + salt + vector.context
    hash_ = {"sha256": hashes.SHA256(), "sha512": hashes.SHA512()}[DIGEST]
    okm = HKDFExpand(algorithm=hash_, length=76, info=info).derive(vector.key)
    if vector.aead_key and vector.success:
        assert (okm[:32], okm[32:44]) == (vector.aead_key, vector.nonce)
    return okm


@chunked
def test_chunked_sealed_anew(vector: Chunked) -> None:
    """Our writer's message of the same content opens, and is as long."""
    if not vector.success:
        return
    content = bytearray()
    in_order(vector, 1 << 24, content)
    writer = MessageWriter(vector.key, vector.context)
    out = bytearray(MessageWriter.room(len(content)))
    sealed = bytes(out[: writer.update_into(content, out)]) + writer.finalize()
    assert len(sealed) == len(vector.sealed)
    again = RandomReader(Bytes(sealed), vector.key, vector.context, "again")
    assert again.pread(0, again.size) == content


# -- ML-KEM-768, FIPS 203 -------------------------------------------------------------------


def kat(name: str) -> list[dict[str, bytes]]:
    """The records of a .rsp file."""
    records: list[dict[str, bytes]] = []
    for line in vector_file(name).splitlines():
        key, _, value = line.partition(" = ")
        if key == "count":
            records.append({})
        elif value:
            records[-1][key] = bytes.fromhex(value)
    return records


def test_mlkem_from_seed() -> None:
    """The key of a seed d ‖ z, its public half, and both decapsulations (the second rejects)."""
    records = kat("asymmetric/MLKEM/kat_MLKEM_768.rsp")
    assert len(records) >= 100
    for record in records:
        key = MLKEM768PrivateKey.from_seed_bytes(record["d"] + record["z"])
        assert key.public_key().public_bytes_raw() == record["pk"]
        assert key.decapsulate(record["ct"]) == record["ss"]
        # attack 18: a bad ciphertext gives another secret, not an error
        assert key.decapsulate(record["ct_n"]) == record["ss_n"]


@pytest.mark.parametrize("record", kat("asymmetric/MLKEM/kat_MLKEM_768.rsp")[:5])
def test_mlkem_half_of_our_public_key(
    record: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first 1,184 bytes of a recipient are the ML-KEM key of the first 64 expanded bytes."""
    seed = bytes(32)

    class Expanded:
        def digest(self, size: int) -> bytes:
            assert size == 96
            return record["d"] + record["z"] + bytes(31) + b"\x01"

    monkeypatch.setattr(kems.hashlib, "shake_256", lambda data: Expanded())
    assert pyca_kem.public_key_of(STANDARD, seed)[:1184] == record["pk"]


def test_mlkem_library_sees_bad_keys() -> None:
    """attack 19: FIPS 203 section 7.2, refused when the recipient is made and not when used."""
    good = kem.public_key_of(STANDARD, bytes(32))
    Recipient(good)
    polynomials = 1152
    bad = {
        "all coefficients 4,095": b"\xff" * polynomials + good[polynomials:],
        "the first is the modulus": b"\x01\x0d" + good[2:],  # 0xd01 = 3,329
        "the last is the modulus": good[: polynomials - 2]
        + bytes([good[polynomials - 2] & 0x0F | 0x10, 0xD0])
        + good[polynomials:],
        "a byte short": good[:-1],
        "a byte long": good + b"\0",
        "empty": b"",
        "the ML-KEM half alone": good[:1184],
    }
    assert int.from_bytes(bad["the first is the modulus"][:2], "little") & 0xFFF == 3329
    assert int.from_bytes(bad["the last is the modulus"][1150:1152], "little") >> 4 == 3329
    for why, key in bad.items():
        with pytest.raises(UsageError) as caught:
            Recipient(key)
        assert "not a valid public key" in str(caught.value), why
        assert caught.value.exit_code == 2


# -- HPKE with X-Wing, draft-ietf-hpke-pq ---------------------------------------------------

X_WING, HKDF_SHA256, CHACHA20_POLY1305 = 0x647A, 1, 3
HKDF_SHA512, AES_256_GCM = 3, 2
HPKE = [
    {
        key: value if isinstance(value, int | list) else bytes.fromhex(value)
        for key, value in v.items()
    }
    for v in json.loads(vector_file("HPKE/hpke-pq-test-vectors.json"))
    if v["kem_id"] == X_WING
]
hpke = pytest.mark.parametrize("vector", HPKE, ids=[f"kdf{v['kdf_id']}" for v in HPKE])


def decapsulate(seed: bytes, enc: bytes) -> bytes:
    """X-Wing, draft-connolly-cfrg-xwing-kem section 5.4, by hand."""
    expanded = hashlib.shake_256(seed).digest(96)
    x25519 = X25519PrivateKey.from_private_bytes(expanded[64:])
    share = enc[1088:]
    first = MLKEM768PrivateKey.from_seed_bytes(expanded[:64]).decapsulate(enc[:1088])
    second = x25519.exchange(X25519PublicKey.from_public_bytes(share))
    own = x25519.public_key().public_bytes_raw()
    return hashlib.sha3_256(first + second + share + own + b"\\.//^\\").digest()


def key_schedule(
    secret: bytes, info: bytes, kdf: int, aead: int, digest: str, key_size: int
) -> tuple[bytes, bytes]:
    """Key and base nonce of base mode, RFC 9180 section 5.1, by hand."""
    suite = b"HPKE" + b"".join(n.to_bytes(2, "big") for n in (X_WING, kdf, aead))
    size = hashlib.new(digest).digest_size

    def extract(salt: bytes, label: bytes, data: bytes) -> bytes:
        return hmac.digest(salt or bytes(size), b"HPKE-v1" + suite + label + data, digest)

    def expand(key: bytes, label: bytes, context: bytes, length: int) -> bytes:
        data = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + context
        assert length <= size
        return hmac.digest(key, data + b"\x01", digest)[:length]

    context = b"\0" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    shared = extract(secret, b"secret", b"")
    return expand(shared, b"key", context, key_size), expand(shared, b"base_nonce", context, 12)


def test_hpke_vectors_are_there() -> None:
    """None has our KDF and AEAD: those of theirs lead to ours in the tests below."""
    assert len(HPKE) == 2
    assert (HKDF_SHA512, AES_256_GCM) not in {(v["kdf_id"], v["aead_id"]) for v in HPKE}


@hpke
def test_hpke_public_key_of_seed(vector: dict[str, Any]) -> None:
    """An identity is skRm, 32 bytes, and expands as the standard says."""
    assert len(vector["skRm"]) == STANDARD.seed_size
    assert kem.public_key_of(STANDARD, vector["skRm"]) == vector["pkRm"]
    assert Identity(vector["skRm"]).recipient == Recipient(vector["pkRm"])


@hpke
def test_hpke_decapsulation(vector: dict[str, Any]) -> None:
    """The shared secret, from the seed."""
    assert decapsulate(vector["skRm"], vector["enc"]) == vector["shared_secret"]


def hpke_aad_decrypt() -> Callable[..., bytes]:
    """The library's way to open with an AAD, which its public class does not have."""
    hpke_module = pytest.importorskip("cryptography.hazmat.bindings._rust").openssl.hpke
    found: Callable[..., bytes] | None = getattr(hpke_module, "_decrypt_with_aad", None)
    if found is None:
        pytest.skip("this version of cryptography opens HPKE with an AAD no more")
    return found


@hpke
def test_hpke_opens_with_our_expanded_key(vector: dict[str, Any]) -> None:
    """Their first message, opened by the library with the key that kem.py makes of the seed."""
    from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

    kdf = {HKDF_SHA256: KDF.HKDF_SHA256, 0x11: KDF.SHAKE256}[vector["kdf_id"]]
    assert vector["aead_id"] == CHACHA20_POLY1305
    suite = Suite(KEM.MLKEM768_X25519, kdf, AEAD.CHACHA20_POLY1305)
    message = vector["encryptions"][0]
    sealed = vector["enc"] + bytes.fromhex(message["ct"])
    aad = bytes.fromhex(message["aad"])
    private_key = pyca_kem.private_key(STANDARD, vector["skRm"])
    opened = hpke_aad_decrypt()(suite, sealed, private_key, vector["info"], aad)
    assert opened == bytes.fromhex(message["pt"])


def test_hpke_key_schedule_by_hand() -> None:
    """The hand-written schedule below gives their key and nonce, and opens their messages."""
    vector = next(v for v in HPKE if v["kdf_id"] == HKDF_SHA256)
    kdf, aead = HKDF_SHA256, CHACHA20_POLY1305
    key, nonce = key_schedule(vector["shared_secret"], vector["info"], kdf, aead, "sha256", 32)
    assert (key, nonce) == (vector["key"], vector["base_nonce"])
    message = vector["encryptions"][0]
    opened = ChaCha20Poly1305(key).decrypt(
        nonce, bytes.fromhex(message["ct"]), bytes.fromhex(message["aad"])
    )
    assert opened == bytes.fromhex(message["pt"])


@hpke
def test_hpke_our_wrap_by_hand(vector: dict[str, Any]) -> None:
    """What kem.wrap makes for their key opens with the same schedule and our KDF and AEAD."""
    info, root = b"pqvault.dev/envelope@v1\0", bytes(range(32))
    sealed = kem.wrap(STANDARD, root, vector["pkRm"], info)
    assert len(sealed) == STANDARD.sealed_size
    secret = decapsulate(vector["skRm"], sealed[:1120])
    key, nonce = key_schedule(secret, info, HKDF_SHA512, AES_256_GCM, "sha512", 32)
    assert AESGCM(key).decrypt(nonce, sealed[1120:], None) == root
    assert kem.unwrap(STANDARD, sealed, vector["skRm"], info, "it") == root


# -- age's key pair, C2SP age.md ------------------------------------------------------------

AGE_IDENTITY = "AGE-SECRET-KEY-PQ-1XX76JRALNLXDMEW0CRK45QMCCH4X06SE84UN3VPM33W6HWDX0H3SK3ZQFR"
AGE_RECIPIENT_START = "age1pq1x34nzsvr0rxjsgdn8zgyhfe8j7ceq5r9rdelkjuh3y"
AGE_RECIPIENT_SHA256 = "a091dd7e0ee9d62b75173dcc98441a0424baa941e66a8776e570a4ae60ff61ea"


def test_age_key_pair() -> None:
    """A key of ``age-keygen -pq`` works unchanged: its recipient comes out to the letter."""
    profile, seed = keytext.decode_identity(AGE_IDENTITY)
    text = keytext.encode_recipient(profile, kem.public_key_of(STANDARD, seed))
    assert text.startswith(AGE_RECIPIENT_START)
    assert hashlib.sha256(text.encode()).hexdigest() == AGE_RECIPIENT_SHA256
    assert Identity.parse(AGE_IDENTITY).recipient.text == text
    assert Identity.parse(AGE_IDENTITY).text == AGE_IDENTITY
