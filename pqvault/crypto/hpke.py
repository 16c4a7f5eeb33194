"""The key schedule of HPKE in base mode, and the combiner of hybrid KEMs, for a second provider.

RFC 9180 sections 4 and 5.1 with a two-stage KDF, AEAD AES-256-GCM, one message; draft-ietf-hpke-pq
for the shared secrets. The primitives are those of `cryptography`.
"""

from __future__ import annotations

import hashlib
from types import MappingProxyType
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from pqvault.crypto.kems import Kem
from pqvault.crypto.profiles import Profile

__all__ = ["combine", "open_message", "seal_message"]

_KDFS: Final = MappingProxyType({"sha384": (2, hashes.SHA384()), "sha512": (3, hashes.SHA512())})
_AES_256_GCM: Final = 2
_KEY_SIZE: Final = 32  # bytes; Nk
_NONCE_SIZE: Final = 12  # bytes; Nn
_BASE_MODE: Final = b"\x00"


def combine(
    kem: Kem, mlkem_secret: bytes, curve_secret: bytes, share: bytes, curve_public: bytes
) -> bytes:
    """The shared secret of a hybrid, 32 bytes. ``share``: the curve's half of enc."""
    # draft-irtf-cfrg-hybrid-kems, C2PRI; ML-KEM's ciphertext and key are bound by ML-KEM itself.
    pieces = (mlkem_secret, curve_secret, share, curve_public, kem.label)
    return hashlib.sha3_256(b"".join(pieces)).digest()


def seal_message(profile: Profile, secret: bytes, info: bytes, plain: bytes) -> bytes:
    """Ciphertext and tag of the one message under a fresh shared secret."""
    key, nonce = _schedule(profile, secret, info)
    return AESGCM(key).encrypt(nonce, plain, None)


def open_message(profile: Profile, secret: bytes, info: bytes, sealed: bytes) -> bytes:
    """The message. Raises InvalidTag."""
    key, nonce = _schedule(profile, secret, info)
    return AESGCM(key).decrypt(nonce, sealed, None)


def _schedule(profile: Profile, secret: bytes, info: bytes) -> tuple[bytes, bytes]:
    kdf_id, hash_ = _KDFS[profile.hash]
    ids = (profile.kem_id, kdf_id, _AES_256_GCM)
    suite = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in ids)

    def extract(salt: bytes, label: bytes, material: bytes) -> bytes:
        return HKDF.extract(hash_, salt, b"HPKE-v1" + suite + label + material)

    def expand(label: bytes, size: int) -> bytes:
        bound = size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + context
        return HKDFExpand(hash_, size, bound).derive(shared)

    # Base mode: an empty psk and psk_id. One message: its sequence number is 0, its nonce the
    # base nonce.
    context = _BASE_MODE + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    shared = extract(secret, b"secret", b"")
    return expand(b"key", _KEY_SIZE), expand(b"base_nonce", _NONCE_SIZE)
