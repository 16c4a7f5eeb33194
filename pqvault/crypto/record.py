"""AES-256-GCM for small records: seeds and store keys. nonce (12 bytes) ‖ ciphertext ‖ tag (16).

Nonces are random, which NIST SP 800-38D section 8.3 allows for 2^32 records under one key.
A keystore seals one record for each key version, so that is far away.
"""

from __future__ import annotations

import secrets
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pqvault.crypto.failures import LIBRARY_ERRORS, failure

__all__ = ["KEY_SIZE", "OVERHEAD", "open_record", "seal_record"]

KEY_SIZE: Final = 32  # bytes
NONCE_SIZE: Final = 12  # bytes
OVERHEAD: Final = NONCE_SIZE + 16  # bytes that sealing adds


def seal_record(key: bytes, data: bytes, aad: bytes) -> bytes:
    """``data`` sealed under ``key`` (32 bytes) and bound to ``aad``."""
    return _seal_with_nonce(key, data, aad, secrets.token_bytes(NONCE_SIZE))


def _seal_with_nonce(key: bytes, data: bytes, aad: bytes, nonce: bytes) -> bytes:
    # Vectors call this; nothing else may, because a nonce must never come twice.
    if len(key) != KEY_SIZE:
        raise ValueError(f"a record key is {KEY_SIZE} bytes")
    return nonce + AESGCM(key).encrypt(nonce, data, aad)


def open_record(key: bytes, sealed: bytes, aad: bytes, what: str) -> bytes:
    """What :func:`seal_record` sealed. Raises IntegrityError naming ``what``."""
    try:
        if len(sealed) < OVERHEAD:
            raise ValueError(f"a sealed record has at least {OVERHEAD} bytes")
        return AESGCM(key).decrypt(sealed[:NONCE_SIZE], sealed[NONCE_SIZE:], aad)
    except LIBRARY_ERRORS as error:
        raise failure(error, what) from None
