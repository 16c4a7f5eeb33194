"""Who seals and reads the vectors: docs/format.md section 1.1 by hand, with each profile.

Nothing of pqvault is imported here, as in `testkit`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from blake3 import blake3
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mlkem import (
    MLKEM768PrivateKey,
    MLKEM768PublicKey,
    MLKEM1024PrivateKey,
    MLKEM1024PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

__all__ = ["ALICE", "BOB", "CAROL", "DORA", "EVE", "PROFILES", "Person", "bech32", "made", "wrap"]


def made(name: str, size: int) -> bytes:
    """``size`` bytes that nobody can compress, always the same for one name."""
    return hashlib.shake_256(b"pqvault vectors: " + name.encode()).digest(size)


def bech32(prefix: str, data: bytes, *, padding: str = "0", check: int = 1) -> str:
    """BIP 173 without its limit of length; upper case as the prefix is. Faults: the bit that
    fills the last letter, and what the checksum comes to (in Bech32m another number)."""
    alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    bits = "".join(f"{byte:08b}" for byte in data)
    bits += padding * (-len(bits) % 5)
    values = [int(bits[i : i + 5], 2) for i in range(0, len(bits), 5)]
    lower = prefix.lower()
    head = [ord(c) >> 5 for c in lower] + [0] + [ord(c) & 31 for c in lower]
    sum_ = 1
    for value in head + values + [0] * 6:
        top = sum_ >> 25
        sum_ = (sum_ & 0x1FFFFFF) << 5 ^ value
        for i, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            sum_ ^= generator if top >> i & 1 else 0
    values += [(sum_ ^ check) >> 5 * (5 - i) & 31 for i in range(6)]
    text = "".join(alphabet[value] for value in values)
    return prefix + "1" + (text if prefix == lower else text.upper())


@dataclass(frozen=True)
class Profile:
    """A column of the table of section 1.1. ``sizes``: of an identity, and of ML-KEM's key."""

    kem: str
    sizes: tuple[int, int]
    digest: Callable[[bytes], bytes]
    prefix: str
    suite: Suite


PROFILES: Final = {
    "standard": Profile(
        "MLKEM768-X25519",
        (32, 1184),
        lambda data: blake3(data).digest(),
        "AGE-SECRET-KEY-PQ-",
        Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA512, AEAD.AES_256_GCM),
    ),
    "high": Profile(
        "MLKEM1024-P384",
        (32, 1568),
        lambda data: blake3(data).digest(),
        "PQVAULT-SECRET-KEY-HIGH-",
        Suite(KEM.MLKEM1024_P384, KDF.HKDF_SHA384, AEAD.AES_256_GCM),
    ),
    "cnsa2": Profile(
        "ML-KEM-1024",
        (64, 1568),
        lambda data: hashlib.sha384(data).digest(),
        "PQVAULT-SECRET-KEY-CNSA2-",
        Suite(KEM.MLKEM1024, KDF.HKDF_SHA384, AEAD.AES_256_GCM),
    ),
}


@dataclass(frozen=True)
class Person:
    """An identity and its recipient."""

    name: str
    profile: str = "standard"

    @property
    def seed(self) -> bytes:
        """The private key."""
        return made(f"identity of {self.name}", PROFILES[self.profile].sizes[0])

    @property
    def public_key(self) -> bytes:
        """ML-KEM key, then that of the curve."""
        return _public_key(self.profile, self.seed)

    @property
    def key_id(self) -> bytes:
        """16 bytes."""
        profile = PROFILES[self.profile]
        return profile.digest(profile.kem.encode() + self.public_key)[:16]

    @property
    def text(self) -> str:
        """The identity as text."""
        return bech32(PROFILES[self.profile].prefix, self.seed)


@cache
def _public_key(profile: str, seed: bytes) -> bytes:
    if profile == "cnsa2":
        return MLKEM1024PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()
    if profile == "high":
        expanded = hashlib.shake_256(seed).digest(112)
        number = int.from_bytes(expanded[64:], "big")
        p384 = ec.derive_private_key(number, ec.SECP384R1()).public_key()
        point = p384.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        mlkem = MLKEM1024PrivateKey.from_seed_bytes(expanded[:64]).public_key()
        return mlkem.public_bytes_raw() + point
    expanded = hashlib.shake_256(seed).digest(96)
    small = MLKEM768PrivateKey.from_seed_bytes(expanded[:64]).public_key()
    x25519 = X25519PrivateKey.from_private_bytes(expanded[64:]).public_key()
    return small.public_bytes_raw() + x25519.public_bytes_raw()


def wrap(person: Person, info: bytes, key: bytes) -> bytes:
    """enc ‖ ciphertext of ``key`` for a person, with a fresh encapsulation: another each time."""
    profile = PROFILES[person.profile]
    mlkem, curve = person.public_key[: profile.sizes[1]], person.public_key[profile.sizes[1] :]
    public_key: Any
    if person.profile == "cnsa2":
        public_key = MLKEM1024PublicKey.from_public_bytes(mlkem)
    elif person.profile == "high":
        public_key = hpke.MLKEM1024P384PublicKey(
            MLKEM1024PublicKey.from_public_bytes(mlkem),
            ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), curve),
        )
    else:
        public_key = hpke.MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(mlkem), X25519PublicKey.from_public_bytes(curve)
        )
    return profile.suite.encrypt(key, public_key, info)


ALICE: Final = Person("alice")  # who reads the vectors
BOB: Final = Person("bob")  # another recipient
CAROL: Final = Person("carol")  # no recipient of anything
DORA: Final = Person("dora", "high")
EVE: Final = Person("eve", "cnsa2")
