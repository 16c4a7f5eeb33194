"""Signatures: Ed25519 (RFC 8032) and ML-DSA (FIPS 204), both of which must verify.

A suite is a list of algorithms; its seeds, public keys and signatures are those of the
algorithms, one after the other. ML-DSA signs with FIPS 204's context string, Ed25519 signs the
context in front of the data: it is self-delimiting, and nothing else here signs what begins so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import (
    MLDSA65PrivateKey,
    MLDSA65PublicKey,
    MLDSA87PrivateKey,
    MLDSA87PublicKey,
)

from pqvault.crypto import kdf
from pqvault.crypto.digest import new as new_digest
from pqvault.crypto.failures import LIBRARY_ERRORS, failure
from pqvault.errors import FormatError, PolicyRefused

__all__ = [
    "DEFAULT",
    "SIGNER_ID_SIZE",
    "SUITES",
    "Suite",
    "check_public_key",
    "public_key_of",
    "sign",
    "sign_foreign",
    "signer_id",
    "suite",
    "verify",
]

SIGNER_ID_SIZE: Final = 16  # bytes


@dataclass(frozen=True, slots=True)
class _Algorithm:
    """Sizes in bytes: FIPS 204 table 2, RFC 8032 section 5.1."""

    name: str
    public: int
    signature: int
    private_type: Any
    public_type: Any
    seed: int = 32
    has_context: bool = True

    def private(self, seed: bytes) -> Any:
        if self.has_context:
            return self.private_type.from_seed_bytes(seed)
        return self.private_type.from_private_bytes(seed)


_ED25519: Final = _Algorithm(
    "Ed25519", 32, 64, Ed25519PrivateKey, Ed25519PublicKey, has_context=False
)
_MLDSA65: Final = _Algorithm("ML-DSA-65", 1952, 3309, MLDSA65PrivateKey, MLDSA65PublicKey)
_MLDSA87: Final = _Algorithm("ML-DSA-87", 2592, 4627, MLDSA87PrivateKey, MLDSA87PublicKey)


@dataclass(frozen=True, slots=True)
class Suite:
    """Algorithms that sign together. ``digest``: of signer ids."""

    name: str
    digest: str
    algorithms: tuple[_Algorithm, ...]

    @property
    def private_size(self) -> int:
        """Bytes of a private key: a seed for each algorithm."""
        return sum(a.seed for a in self.algorithms)

    @property
    def public_key_size(self) -> int:
        """Bytes of a public key."""
        return sum(a.public for a in self.algorithms)

    @property
    def signature_size(self) -> int:
        """Bytes of a signature."""
        return sum(a.signature for a in self.algorithms)


# Closed. The second is what CNSA 2.0 lists, alone.
SUITES: Final = MappingProxyType(
    {
        "Ed25519+ML-DSA-65": Suite("Ed25519+ML-DSA-65", "blake3", (_ED25519, _MLDSA65)),
        "ML-DSA-87": Suite("ML-DSA-87", "sha384", (_MLDSA87,)),
    }
)
DEFAULT: Final = SUITES["Ed25519+ML-DSA-65"]


def suite(name: str, what: str) -> Suite:
    """A suite by its name. Raises FormatError naming ``what``."""
    found = SUITES.get(name)
    if found is None:
        raise FormatError(f"{what} uses the signature suite {name!r}, which is not known")
    return found


def _cut(data: bytes, sizes: Iterator[int]) -> Iterator[bytes]:
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size


def public_key_of(kind: Suite, seed: bytes) -> bytes:
    """The public key of a seed, ``kind.private_size`` bytes."""
    if len(seed) != kind.private_size:
        raise ValueError(f"a signing key of {kind.name} is a seed of {kind.private_size} bytes")
    seeds = _cut(seed, (a.seed for a in kind.algorithms))
    keys = (a.private(s).public_key() for a, s in zip(kind.algorithms, seeds, strict=True))
    return b"".join(key.public_bytes_raw() for key in keys)


def check_public_key(kind: Suite, public_key: bytes) -> None:
    """Raise FormatError for what cannot be a public key of ``kind``."""
    try:
        list(_public_keys(kind, public_key))
    except LIBRARY_ERRORS as error:
        raise failure(error, f"a {kind.name} public key") from None


def _public_keys(kind: Suite, public_key: bytes) -> Iterator[Any]:
    if len(public_key) != kind.public_key_size:
        raise ValueError(f"a public key of {kind.name} is {kind.public_key_size} bytes")
    parts = _cut(public_key, (a.public for a in kind.algorithms))
    for a, part in zip(kind.algorithms, parts, strict=True):
        yield a.public_type.from_public_bytes(part)


def signer_id(kind: Suite, public_key: bytes) -> bytes:
    """16 bytes: the head of the digest of suite name ‖ public key."""
    hasher = new_digest(kind.digest)
    hasher.update(kind.name.encode("ascii"))
    hasher.update(public_key)
    return hasher.digest()[:SIGNER_ID_SIZE]


def _context(
    purpose: str, kind: Suite, a: _Algorithm, signer: bytes, archive: bytes, part: bytes
) -> bytes:
    fields = (archive, part, kind.name.encode("ascii"), a.name.encode("ascii"), signer)
    return kdf.bind(purpose, *fields)


def sign(kind: Suite, seed: bytes, purpose: str, archive: bytes, part: bytes, data: bytes) -> bytes:
    """Sign a document of a part: the signatures of all algorithms, one after the other.

    ``purpose``: one of `kdf.PURPOSES` that is for signatures of such documents. ``archive``,
    ``part``: 16 raw bytes each. ML-DSA is hedged (FIPS 204 section 3.4).
    """
    signer = signer_id(kind, public_key_of(kind, seed))
    signatures = []
    seeds = _cut(seed, (a.seed for a in kind.algorithms))
    for a, part_seed in zip(kind.algorithms, seeds, strict=True):
        context = _context(purpose, kind, a, signer, archive, part)
        key = a.private(part_seed)
        signatures.append(key.sign(data, context) if a.has_context else key.sign(context + data))
    return b"".join(signatures)


def sign_foreign(kind: Suite, seed: bytes, data: bytes) -> list[tuple[str, bytes]]:
    """(algorithm, signature) of each, without a context, over data of another format.

    Raises ValueError for data that begins as our contexts do: Ed25519 has no other wall there.
    """
    if data.startswith(b"pqvault.dev/"):
        raise ValueError("this is signed with a context or not at all")
    seeds = _cut(seed, (a.seed for a in kind.algorithms))
    pairs = zip(kind.algorithms, seeds, strict=True)
    return [(a.name, a.private(part_seed).sign(data)) for a, part_seed in pairs]


def verify(
    kind: Suite,
    public_key: bytes,
    purpose: str,
    archive: bytes,
    part: bytes,
    data: bytes,
    value: bytes,
    what: str,
) -> None:
    """Return when every algorithm's signature is right (ATTACKS row 9: AND, never OR).

    Raises PolicyRefused naming ``what`` and the algorithm that refuses.
    """
    if len(value) != kind.signature_size:
        raise PolicyRefused(f"the signature of {what} does not have {kind.signature_size} bytes")
    signer = signer_id(kind, public_key)
    halves = _cut(value, (a.signature for a in kind.algorithms))
    keys = _public_keys(kind, public_key)
    for a, key, half in zip(kind.algorithms, keys, halves, strict=True):
        context = _context(purpose, kind, a, signer, archive, part)
        try:
            if a.has_context:
                key.verify(half, data, context)
            else:
                key.verify(half, context + data)
        except InvalidSignature:
            raise PolicyRefused(
                f"the {a.name} signature of {what} is wrong",
                hint="it was altered, or signed by somebody who does not have the key",
            ) from None
