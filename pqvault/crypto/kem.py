"""HPKE base mode (RFC 9180, draft-ietf-hpke-pq) over MLKEM768-X25519, that is X-Wing.

KEM 0x647a, KDF HKDF-SHA512, AEAD AES-256-GCM. One shot: a fresh encapsulation for every
wrap. Everything that must hold is bound through `info`; there is no AAD.
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from pqvault.crypto.digest import new as new_digest
from pqvault.crypto.failures import LIBRARY_ERRORS, failure

__all__ = [
    "KEM_NAME",
    "KEY_ID_SIZE",
    "PUBLIC_KEY_SIZE",
    "SEALED_KEY_SIZE",
    "SEED_SIZE",
    "check_public_key",
    "key_id",
    "library_version",
    "public_key_of",
    "unwrap",
    "wrap",
]

KEM_NAME: Final = "MLKEM768-X25519"
SEED_SIZE: Final = 32  # bytes; the identity
PUBLIC_KEY_SIZE: Final = 1216  # bytes: 1,184 ML-KEM-768 (FIPS 203 table 3) + 32 X25519
SEALED_KEY_SIZE: Final = 1168  # bytes: enc 1,120 (1,088 + 32) + 32-byte key + 16-byte tag
KEY_ID_SIZE: Final = 16  # bytes

_MLKEM_PUBLIC: Final = 1184
_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA512, AEAD.AES_256_GCM)


def _private_key(seed: bytes) -> MLKEM768X25519PrivateKey:
    # draft-connolly-cfrg-xwing-kem section 5.2: SHAKE256(seed, 96) = 64-byte ML-KEM seed d ‖ z,
    # then the X25519 scalar. Only the seed is ever stored, so the expanded key cannot disagree.
    if len(seed) != SEED_SIZE:
        raise ValueError(f"an identity is a seed of {SEED_SIZE} bytes")
    expanded = hashlib.shake_256(seed).digest(96)
    return MLKEM768X25519PrivateKey(
        MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
        X25519PrivateKey.from_private_bytes(expanded[64:]),
    )


def _public_key(public_key: bytes) -> MLKEM768X25519PublicKey:
    if len(public_key) != PUBLIC_KEY_SIZE:
        raise ValueError(f"a {KEM_NAME} public key is {PUBLIC_KEY_SIZE} bytes")
    return MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(public_key[:_MLKEM_PUBLIC]),
        X25519PublicKey.from_public_bytes(public_key[_MLKEM_PUBLIC:]),
    )


def public_key_of(seed: bytes) -> bytes:
    """The 1,216-byte public key of a 32-byte seed: ML-KEM-768 key ‖ X25519 key."""
    expanded = hashlib.shake_256(seed).digest(96)
    mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64]).public_key()
    x25519 = X25519PrivateKey.from_private_bytes(expanded[64:]).public_key()
    return mlkem.public_bytes_raw() + x25519.public_bytes_raw()


def check_public_key(public_key: bytes) -> None:
    """Raise FormatError unless the key passes FIPS 203 section 7.2 (length, modulus)."""
    try:
        _public_key(public_key)
    except LIBRARY_ERRORS as error:
        raise failure(error, f"a {KEM_NAME} public key") from None


def key_id(public_key: bytes) -> bytes:
    """16 bytes: the head of BLAKE3-256(KEM name ‖ public key)."""
    hasher = new_digest("blake3")
    hasher.update(KEM_NAME.encode("ascii"))
    hasher.update(public_key)
    return hasher.digest()[:KEY_ID_SIZE]


def wrap(key: bytes, public_key: bytes, info: bytes) -> bytes:
    """Wrap a 32-byte key: enc (1,120 bytes) ‖ ciphertext (48 bytes)."""
    try:
        return _SUITE.encrypt(key, _public_key(public_key), info)
    except LIBRARY_ERRORS as error:
        raise failure(error, "the recipient's public key") from None


def unwrap(sealed: bytes, seed: bytes, info: bytes, what: str) -> bytes:
    """Open what :func:`wrap` made; raises IntegrityError naming ``what``.

    ML-KEM rejects implicitly (FIPS 203 section 6.3): a wrong ciphertext gives a random key
    and only the AEAD tag shows it. The length is checked first, because short ciphertexts
    help multi-key attacks.
    """
    private_key = _private_key(seed)
    try:
        if len(sealed) != SEALED_KEY_SIZE:
            raise ValueError(f"a wrapped key is {SEALED_KEY_SIZE} bytes, this one {len(sealed)}")
        return _SUITE.decrypt(sealed, private_key, info)
    except LIBRARY_ERRORS as error:
        raise failure(error, what) from None


def library_version() -> str:
    """The C library below `cryptography`, as it names itself."""
    return backend.openssl_version_text()
