"""Signing keys as text, forms of our own in Bech32.

====================  ================================  =======================================
suite                 signer (public)                   signing key (secret)
====================  ================================  =======================================
Ed25519+ML-DSA-65     ``pqvsign1…`` 1,984 bytes         ``PQVAULT-SIGNING-KEY-1…`` 64 bytes
ML-DSA-87             ``pqvsign-cnsa2-1…`` 2,592 bytes  ``PQVAULT-SIGNING-KEY-CNSA2-1…`` 32 bytes
====================  ================================  =======================================

No refusal repeats what it refuses: a private key may stand where a public one belongs.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from pqvault.errors import FormatError, UsageError
from pqvault.format import bech32

__all__ = ["decode_key", "decode_signer", "encode_key", "encode_signer"]

_SIGNERS: Final = MappingProxyType({"Ed25519+ML-DSA-65": "pqvsign", "ML-DSA-87": "pqvsign-cnsa2-"})
_KEYS: Final = MappingProxyType(
    {"Ed25519+ML-DSA-65": "PQVAULT-SIGNING-KEY-", "ML-DSA-87": "PQVAULT-SIGNING-KEY-CNSA2-"}
)
_GET_A_KEY: Final = "make a signing key with `pqvault keygen --sign -o sign.txt`"


def encode_signer(suite: str, public_key: bytes) -> str:
    """``pqvsign1…``."""
    return bech32.encode(_SIGNERS[suite], public_key)


def decode_signer(text: str, *, where: str = "signer") -> tuple[str, bytes]:
    """(suite, public key), its length unchecked. Raises UsageError; ``where`` begins it."""
    if text.upper().startswith("PQVAULT-SIGNING-KEY-"):
        raise UsageError(
            f"{where}: a signing key (a private key) stands where a signer belongs",
            hint="`pqvault keygen -y FILE` prints the signer of a signing key; a private key that"
            " was typed on a command line is no longer private",
        )
    return _decode(text, _SIGNERS, where, "a signer starts with pqvsign")


def encode_key(suite: str, seed: bytes) -> str:
    """``PQVAULT-SIGNING-KEY-1…``: a secret."""
    return bech32.encode(_KEYS[suite], seed)


def decode_key(text: str, *, where: str = "signing key") -> tuple[str, bytes]:
    """(suite, seed), its length unchecked. Raises UsageError; ``where`` begins it."""
    return _decode(text, _KEYS, where, "a signing key starts with PQVAULT-SIGNING-KEY-")


def _decode(
    text: str, table: MappingProxyType[str, str], where: str, wanted: str
) -> tuple[str, bytes]:
    try:
        prefix, data = bech32.decode(text)
    except FormatError as error:
        if not text.startswith(tuple(table.values())):
            raise UsageError(f"{where}: {wanted}", hint=_GET_A_KEY) from None
        raise UsageError(
            f"{where}: {error.message}", hint="copy the key again, whole and on one line"
        ) from None
    for suite, known in table.items():
        if prefix == known:
            return suite, data
    raise UsageError(f"{where}: {wanted}", hint=_GET_A_KEY)
