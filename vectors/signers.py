"""Who signs the vectors: docs/format.md sections 9.1 and 9.2 by hand, with nothing of pqvault.

ML-DSA signatures are made with random bytes, so they are kept in files and used again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA87PrivateKey

from vectors.archives import ONE
from vectors.people import bech32, made
from vectors.testkit import HERE, Kept, b64, bind

__all__ = ["BOTH", "CNSA2", "ED", "FRIDA", "GRETA", "HEDI", "KNOWN", "Signer"]

BOTH, CNSA2 = "Ed25519+ML-DSA-65", "ML-DSA-87"
ED, SMALL, LARGE = "Ed25519", "ML-DSA-65", "ML-DSA-87"
PURPOSES: Final = {
    "commit": "signature",
    "envelope": "envelope signature",
    "retired": "retired signature",
}


KNOWN: Final = Kept(HERE / "signatures.json", "--new-signatures")


@dataclass(frozen=True)
class Signer:
    """Section 9.2: the keys of one who signs."""

    name: str
    suite: str
    known: Kept = KNOWN

    @property
    def algorithms(self) -> list[str]:
        """In the order of the suite."""
        return self.suite.split("+")

    def private(self, algorithm: str) -> Any:
        """One of the keys."""
        seed = made(f"{algorithm} key of {self.name}", 32)
        if algorithm == ED:
            return Ed25519PrivateKey.from_private_bytes(seed)
        kind = MLDSA65PrivateKey if algorithm == SMALL else MLDSA87PrivateKey
        return kind.from_seed_bytes(seed)

    @property
    def public_key(self) -> bytes:
        """All of them, one after the other."""
        keys = (self.private(algorithm).public_key() for algorithm in self.algorithms)
        return b"".join(key.public_bytes_raw() for key in keys)

    @property
    def id(self) -> bytes:
        """16 bytes."""
        data = self.suite.encode() + self.public_key
        return (hashlib.sha384(data) if self.suite == CNSA2 else blake3(data)).digest()[:16]

    @property
    def text(self) -> str:
        """As a reader is given it."""
        return bech32("pqvsign-cnsa2-" if self.suite == CNSA2 else "pqvsign", self.public_key)

    def half(self, algorithm: str, context: bytes, data: bytes) -> bytes:
        """One signature."""
        if algorithm == ED:
            return bytes(self.private(ED).sign(context + data))
        digest = hashlib.sha256(context + b"\0" + data).hexdigest()[:16]
        name = f"{self.name} {algorithm} {digest}"
        return self.known.get(name, lambda: bytes(self.private(algorithm).sign(data, context)))

    def sign(
        self,
        data: bytes,
        kind: str = "commit",
        *,
        archive: bytes = ONE.archive,
        part: bytes = ONE.part,
        named: str = "",
        said: bytes = b"",
    ) -> bytes:
        """The whole signature. Faults: another archive, part, algorithm or signer is named."""
        signature = b""
        for algorithm in self.algorithms:
            names = (self.suite.encode(), (named or algorithm).encode(), said or self.id)
            context = bind(PURPOSES[kind], archive, part, *names)
            signature += self.half(algorithm, context, data)
        return signature

    def line(self, signature: bytes, suite: str = "", id: bytes = b"") -> bytes:
        """Section 9.1."""
        named = f"sign {suite or self.suite} {(id or self.id).hex()} {b64(signature)}\n"
        return named.encode()


FRIDA: Final = Signer("frida", BOTH)
GRETA: Final = Signer("greta", BOTH)
HEDI: Final = Signer("hedi", CNSA2)
