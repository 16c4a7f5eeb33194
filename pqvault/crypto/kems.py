"""What a KEM is made of: ML-KEM, alone or with a curve. Seeds to halves, keys cut in two.

Both providers go by this table, so that they cannot disagree about it. Sources: FIPS 203 table 3,
draft-ietf-hpke-pq section 4 and, for the hybrids, draft-irtf-cfrg-concrete-hybrid-kems: a seed of
32 bytes is expanded with SHAKE256 to 64 bytes for ML-KEM (d ‖ z), then the curve's scalar.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pqvault.crypto.profiles import Profile

__all__ = ["KEMS", "P384", "X25519", "Kem", "kem_of"]

_MLKEM_SEED: Final = 64  # bytes: d ‖ z


@dataclass(frozen=True, slots=True)
class X25519:
    """RFC 7748."""

    scalar_size: int = 32

    def private(self, scalar: bytes) -> X25519PrivateKey:
        """From 32 bytes."""
        return X25519PrivateKey.from_private_bytes(scalar)

    def public(self, data: bytes) -> X25519PublicKey:
        """From 32 bytes."""
        return X25519PublicKey.from_public_bytes(data)

    def check(self, data: bytes) -> None:
        """Raise ValueError for a point of small order, with which every shared one is zero."""
        try:
            self.exchange(self.generate(), self.public(data))
        except ValueError:
            raise ValueError("its X25519 half shares nothing with anybody") from None

    def raw(self, public_key: X25519PublicKey) -> bytes:
        """As 32 bytes."""
        return public_key.public_bytes_raw()

    def generate(self) -> X25519PrivateKey:
        """A fresh one."""
        return X25519PrivateKey.generate()

    def exchange(self, private_key: X25519PrivateKey, public_key: X25519PublicKey) -> bytes:
        """The shared point, 32 bytes. Raises ValueError when it is zero."""
        return private_key.exchange(public_key)


@dataclass(frozen=True, slots=True)
class P384:
    """FIPS 186-5; points uncompressed (SEC 1 section 2.3.3)."""

    scalar_size: int = 48

    def private(self, scalar: bytes) -> ec.EllipticCurvePrivateKey:
        """From 48 bytes, big-endian. Raises ValueError out of range, once in 2^190 seeds."""
        return ec.derive_private_key(int.from_bytes(scalar, "big"), ec.SECP384R1())

    def public(self, data: bytes) -> ec.EllipticCurvePublicKey:
        """From 97 bytes. Raises ValueError for what is no point of the curve."""
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), data)

    def check(self, data: bytes) -> None:
        """Raise ValueError for what is no point of the curve; all others are of its order."""
        self.public(data)

    def raw(self, public_key: ec.EllipticCurvePublicKey) -> bytes:
        """As 97 bytes."""
        return public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def generate(self) -> ec.EllipticCurvePrivateKey:
        """A fresh one."""
        return ec.generate_private_key(ec.SECP384R1())

    def exchange(
        self, private_key: ec.EllipticCurvePrivateKey, public_key: ec.EllipticCurvePublicKey
    ) -> bytes:
        """The x coordinate of the shared point, 48 bytes."""
        return private_key.exchange(ec.ECDH(), public_key)


@dataclass(frozen=True, slots=True)
class Kem:
    """``mlkem``: 768 or 1024; sizes in bytes. ``curve``: Any, because keys of one are not keys of
    the other. ``label``: what the combiner of a hybrid ends with."""

    mlkem: int
    mlkem_public: int
    mlkem_ciphertext: int
    curve: Any = None
    label: bytes = b""

    def expand(self, seed: bytes) -> tuple[bytes, bytes]:
        """The seed of ML-KEM (64 bytes) and the scalar of the curve, empty without one."""
        if self.curve is None:
            return seed, b""
        expanded = hashlib.shake_256(seed).digest(_MLKEM_SEED + self.curve.scalar_size)
        return expanded[:_MLKEM_SEED], expanded[_MLKEM_SEED:]


KEMS: Final = MappingProxyType(
    {
        "MLKEM768-X25519": Kem(768, 1184, 1088, X25519(), b"\\.//^\\"),
        "MLKEM1024-P384": Kem(1024, 1568, 1568, P384(), b"MLKEM1024-P384"),
        "ML-KEM-1024": Kem(1024, 1568, 1568),
    }
)


def kem_of(profile: Profile) -> Kem:
    """The KEM of a profile."""
    return KEMS[profile.kem]
