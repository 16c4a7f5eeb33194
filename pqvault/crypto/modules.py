"""AES-256-GCM as Parquet's encryption has it (parquet-format, Encryption.md): to read the headers
of pages, of which pyarrow tells nothing. All else of those files is left to pyarrow."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pqvault.crypto.failures import LIBRARY_ERRORS, failure

__all__ = ["ModuleOpener"]

_NONCE: Final = 12  # bytes
_TAG: Final = 16


class ModuleOpener:
    """Opens modules of one file. ``key``: 32 bytes; ``aad``: what those of all its modules begin
    with; ``what``: the file, for errors."""

    def __init__(self, key: bytes, aad: bytes, what: str) -> None:
        self._aead = AESGCM(key)
        self._aad = aad
        self._what = what

    def open(self, module: memoryview, aad: bytes) -> bytes:
        """What is in ``module`` (nonce, ciphertext, tag). Raises IntegrityError."""
        try:
            if len(module) < _NONCE + _TAG:
                raise ValueError("a module is too short")
            return self._aead.decrypt(module[:_NONCE], module[_NONCE:], self._aad + aad)
        except LIBRARY_ERRORS as error:
            raise failure(error, self._what) from None
