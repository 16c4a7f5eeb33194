"""The first KEM provider: HPKE base mode (RFC 9180, draft-ietf-hpke-pq) by `cryptography`."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import cryptography
from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import (
    MLKEM768PrivateKey,
    MLKEM768PublicKey,
    MLKEM1024PrivateKey,
    MLKEM1024PublicKey,
)
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from pqvault.crypto.kems import kem_of
from pqvault.crypto.profiles import Profile

__all__ = ["NAME", "check_public_key", "decrypt", "encrypt", "public_key_of", "version"]

NAME: Final = "cryptography"

_KDFS: Final = MappingProxyType({"sha384": KDF.HKDF_SHA384, "sha512": KDF.HKDF_SHA512})
_MLKEM: Final = MappingProxyType[int, tuple[Any, Any]](
    {768: (MLKEM768PrivateKey, MLKEM768PublicKey), 1024: (MLKEM1024PrivateKey, MLKEM1024PublicKey)}
)


@dataclass(frozen=True, slots=True)
class _Hpke:
    """A KEM of the library. ``private``, ``public``: its types for hybrid keys, if it is one."""

    kem: KEM
    private: Any = None
    public: Any = None


_HPKE: Final = MappingProxyType(
    {
        "MLKEM768-X25519": _Hpke(
            KEM.MLKEM768_X25519, hpke.MLKEM768X25519PrivateKey, hpke.MLKEM768X25519PublicKey
        ),
        "MLKEM1024-P384": _Hpke(
            KEM.MLKEM1024_P384, hpke.MLKEM1024P384PrivateKey, hpke.MLKEM1024P384PublicKey
        ),
        "ML-KEM-1024": _Hpke(KEM.MLKEM1024),
    }
)


def _suite(profile: Profile) -> Suite:
    return Suite(_HPKE[profile.kem].kem, _KDFS[profile.hash], AEAD.AES_256_GCM)


def private_key(profile: Profile, seed: bytes) -> Any:
    """The library's private key."""
    kem = kem_of(profile)
    mlkem_seed, scalar = kem.expand(seed)
    mlkem = _MLKEM[kem.mlkem][0].from_seed_bytes(mlkem_seed)
    if kem.curve is None:
        return mlkem
    return _HPKE[profile.kem].private(mlkem, kem.curve.private(scalar))


def _public_key(profile: Profile, public_key: bytes) -> Any:
    kem = kem_of(profile)
    mlkem = _MLKEM[kem.mlkem][1].from_public_bytes(public_key[: kem.mlkem_public])
    if kem.curve is None:
        return mlkem
    return _HPKE[profile.kem].public(mlkem, kem.curve.public(public_key[kem.mlkem_public :]))


def public_key_of(profile: Profile, seed: bytes) -> bytes:
    """ML-KEM key ‖ key of the curve."""
    kem = kem_of(profile)
    mlkem_seed, scalar = kem.expand(seed)
    mlkem = _MLKEM[kem.mlkem][0].from_seed_bytes(mlkem_seed)
    halves = [mlkem.public_key().public_bytes_raw()]
    if kem.curve is not None:
        halves.append(kem.curve.raw(kem.curve.private(scalar).public_key()))
    return b"".join(halves)


def check_public_key(profile: Profile, public_key: bytes) -> None:
    """FIPS 203 section 7.2 (modulus), and the point. Raises ValueError."""
    _public_key(profile, public_key)


def encrypt(profile: Profile, key: bytes, public_key: bytes, info: bytes) -> bytes:
    """enc ‖ ciphertext, with a fresh encapsulation. Raises ValueError."""
    return _suite(profile).encrypt(key, _public_key(profile, public_key), info)


def decrypt(profile: Profile, sealed: bytes, seed: bytes, info: bytes) -> bytes:
    """The key. Raises InvalidTag, ValueError."""
    return _suite(profile).decrypt(sealed, private_key(profile, seed), info)


def version() -> str:
    """The package, and the C library below it as that names itself."""
    return f"cryptography {cryptography.__version__}, {backend.openssl_version_text()}"
