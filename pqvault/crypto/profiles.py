"""Profiles: which algorithms go together. One closed table; docs/format.md section 1.1 has it.

KEM names and ids, sizes of keys and of enc: the registry of HPKE
(https://www.iana.org/assignments/hpke) and draft-ietf-hpke-pq section 7. ``known_seed`` and
``known_public`` are the private key and the SHA-256 of the public key of a test vector of that
draft, as `cryptography-vectors` ships them: a profile whose KEM does not give the one for the
other is not offered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from pqvault.errors import FormatError

__all__ = ["CNSA2", "HIGH", "PROFILES", "STANDARD", "Profile", "profile"]

_KEY_AND_TAG: Final = 32 + 16  # bytes: a root key sealed with AES-256-GCM


@dataclass(frozen=True, slots=True)
class Profile:
    """Sizes in bytes. ``digest``: of key ids, and of commits and catalogs by default;
    ``digests``: all that a commit may name. ``signatures``: the suites that may sign it, first
    that of new signing keys."""

    name: str
    kem: str
    kem_id: int
    hash: str  # of HPKE's HKDF
    digest: str
    digests: frozenset[str]
    signatures: tuple[str, ...]
    seed_size: int
    public_key_size: int
    enc_size: int
    known_seed: str = field(repr=False)
    known_public: str = field(repr=False)

    @property
    def sealed_size(self) -> int:
        """A wrapped root key: enc ‖ ciphertext (32 + 16)."""
        return self.enc_size + _KEY_AND_TAG

    def __str__(self) -> str:
        return self.name


STANDARD: Final = Profile(
    name="standard",
    kem="MLKEM768-X25519",  # X-Wing
    kem_id=0x647A,
    hash="sha512",
    digest="blake3",
    digests=frozenset({"blake3", "sha256", "sha384"}),
    signatures=("Ed25519+ML-DSA-65", "ML-DSA-87"),
    seed_size=32,
    public_key_size=1216,  # 1,184 ML-KEM-768 (FIPS 203 table 3) + 32 X25519
    enc_size=1120,  # 1,088 + 32
    known_seed="3ec47fa82dd5689d27c6190e724c74ec8f608df3331ce331929e37b829676630",
    known_public="ad8aaf3f00d8a39bfeec2947a7d5dde68be08bba19bd301a348a45dc5fcc8341",
)
HIGH: Final = Profile(
    name="high",
    kem="MLKEM1024-P384",
    kem_id=0x0051,
    hash="sha384",
    digest="blake3",
    digests=STANDARD.digests,
    signatures=("Ed25519+ML-DSA-65", "ML-DSA-87"),
    seed_size=32,
    public_key_size=1665,  # 1,568 ML-KEM-1024 + 97 P-384, uncompressed
    enc_size=1665,  # 1,568 + 97
    known_seed="dbdae0423ba0e5db3d6322601b8dc302d3051d4677142079c7bdf441f4c448dd",
    known_public="5d0b42c6f1471a72045ec087a4c2e61875541f4550b513672f2d858eb1a133c3",
)
# The algorithms of CNSA 2.0 that this program has a use for. Which of its fixed choices are on
# that list, and which are not, is in docs/format.md section 1.1.
CNSA2: Final = Profile(
    name="cnsa2",
    kem="ML-KEM-1024",
    kem_id=0x0042,
    hash="sha384",
    digest="sha384",
    digests=frozenset({"sha384"}),
    signatures=("ML-DSA-87",),
    seed_size=64,
    public_key_size=1568,
    enc_size=1568,
    known_seed="c58f733ea1245a7a54723c30dbf0837acdd7e93c188692523b53b132b993a25a"
    "f933368a76bbcbf1212e1d34d7128e32c387dc9b04a7ceb0e2b40e1e5769c57d",
    known_public="121abb2e70d21f6bead6d5cdf57f9cbc3dc460081b36007054cb01963b6f6140",
)

PROFILES: Final = MappingProxyType({p.name: p for p in (STANDARD, HIGH, CNSA2)})


def profile(name: str, what: str) -> Profile:
    """A profile by its name. Raises FormatError: ``what`` is of a newer pqvault."""
    found = PROFILES.get(name)
    if found is None:
        raise FormatError(f"{what} uses the profile {name!r}, which this version does not know")
    return found
