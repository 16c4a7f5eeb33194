"""Profiles, identities and recipients, from docs/format.md section 1.1.

The part of `independent_reader` that knows KEMs. It shares no code with pqvault.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import blake3
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM1024PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM1024P384PrivateKey,
    Suite,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

DIGESTS: dict[str, Callable[[bytes], bytes]] = {
    "blake3": lambda data: blake3.blake3(data).digest(),
    "sha256": lambda data: hashlib.sha256(data).digest(),
    "sha384": lambda data: hashlib.sha384(data).digest(),
}


class Damaged(Exception):
    """Something is not as the page says, or does not authenticate."""


def need(condition: bool, what: str) -> None:
    """Refuse."""
    if not condition:
        raise Damaged(what)


class Profile(NamedTuple):
    """A column of the table."""

    kem: str
    suite: Suite
    text: str
    seed: int
    sealed: int
    key_ids: str
    digests: tuple[str, ...]


SOME = ("blake3", "sha256", "sha384")
PROFILES = {
    "standard": Profile(
        "MLKEM768-X25519",
        Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA512, AEAD.AES_256_GCM),
        "AGE-SECRET-KEY-PQ-",
        32,
        1168,
        "blake3",
        SOME,
    ),
    "high": Profile(
        "MLKEM1024-P384",
        Suite(KEM.MLKEM1024_P384, KDF.HKDF_SHA384, AEAD.AES_256_GCM),
        "PQVAULT-SECRET-KEY-HIGH-",
        32,
        1713,
        "blake3",
        SOME,
    ),
    "cnsa2": Profile(
        "ML-KEM-1024",
        Suite(KEM.MLKEM1024, KDF.HKDF_SHA384, AEAD.AES_256_GCM),
        "PQVAULT-SECRET-KEY-CNSA2-",
        64,
        1616,
        "sha384",
        ("sha384",),
    ),
}


def bech32_decode(text: str) -> tuple[str, bytes]:
    """BIP 173 without the limit of length, for an upper-case text."""
    need(text == text.upper() and text.isascii() and text.isprintable(), "not in upper case")
    hrp, one, rest = text.lower().rpartition("1")
    need(bool(one and hrp) and len(rest) >= 6, "not Bech32")
    values = ["qpzry9x8gf2tvdw0s3jn54khce6mua7l".find(letter) for letter in rest]
    need(min(values) >= 0, "not a letter of Bech32")
    check = 1
    for value in [*(ord(c) >> 5 for c in hrp), 0, *(ord(c) & 31 for c in hrp), *values]:
        top, check = check >> 25, (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(
            (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
        ):
            check ^= generator if top >> bit & 1 else 0
    need(check == 1, "the checksum of the identity is wrong")
    number, bits = 0, 5 * (len(values) - 6)
    for value in values[:-6]:
        number = number << 5 | value
    pad = bits % 8
    need(pad < 5 and number & ((1 << pad) - 1) == 0, "the padding of the identity is wrong")
    return hrp.upper(), (number >> pad).to_bytes(bits // 8, "big")


class Key(NamedTuple):
    """An identity, expanded."""

    private: Any
    key_id: bytes
    profile: str


def load_identity(text: str) -> Key:
    """The key of an identity as text."""
    hrp, seed = bech32_decode(text.strip())
    for name, profile in PROFILES.items():
        if hrp == profile.text and len(seed) == profile.seed:
            private, public = EXPAND[name](seed)
            key_id = DIGESTS[profile.key_ids](profile.kem.encode() + public)[:16]
            return Key(private, key_id, name)
    raise Damaged("not an identity of pqvault")


def x_wing(seed: bytes) -> tuple[Any, bytes]:
    expanded = hashlib.shake_256(seed).digest(96)
    mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
    x25519 = X25519PrivateKey.from_private_bytes(expanded[64:])
    public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
    return MLKEM768X25519PrivateKey(mlkem, x25519), public


def with_p384(seed: bytes) -> tuple[Any, bytes]:
    expanded = hashlib.shake_256(seed).digest(112)
    mlkem = MLKEM1024PrivateKey.from_seed_bytes(expanded[:64])
    p384 = ec.derive_private_key(int.from_bytes(expanded[64:], "big"), ec.SECP384R1())
    point = p384.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    public = mlkem.public_key().public_bytes_raw() + point
    return MLKEM1024P384PrivateKey(mlkem, p384), public


def alone(seed: bytes) -> tuple[Any, bytes]:
    mlkem = MLKEM1024PrivateKey.from_seed_bytes(seed)
    return mlkem, mlkem.public_key().public_bytes_raw()


EXPAND: dict[str, Callable[[bytes], tuple[Any, bytes]]] = {
    "standard": x_wing,
    "high": with_p384,
    "cnsa2": alone,
}


# What a recipient's text begins with: profile, bytes of ML-KEM's key, bytes of the curve's.
RECIPIENTS = {
    "age1pq": ("standard", 1184, 32),
    "pqv-high-": ("high", 1568, 97),
    "pqv-cnsa2-": ("cnsa2", 1568, 0),
}
MODULUS = 3329


def load_recipient(text: str) -> bytes:
    """The key id of a recipient as text."""
    need(text == text.lower(), "a recipient is in lower case")
    hrp, public = bech32_decode(text.upper())
    need(hrp.lower() in RECIPIENTS, "not a recipient of pqvault")
    name, mlkem, curve = RECIPIENTS[hrp.lower()]
    need(len(public) == mlkem + curve, "a recipient of another length")
    for at in range(0, mlkem - 32, 3):  # FIPS 203 section 7.2: two numbers in three bytes
        pair = int.from_bytes(public[at : at + 3], "little")
        need(pair & 0xFFF < MODULUS and pair >> 12 < MODULUS, "a number beyond the modulus")
    try:
        if name == "high":
            need(public[mlkem] == 4, "a point that is not uncompressed")
            ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), public[mlkem:])
        elif name == "standard":  # refuses a shared secret of zeros
            X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(public[mlkem:]))
    except ValueError as error:
        raise Damaged("the curve's half of a recipient is none") from error
    profile = PROFILES[name]
    return DIGESTS[profile.key_ids](profile.kem.encode() + public)[:16]
