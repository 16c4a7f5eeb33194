"""Wrap keys for recipients: HPKE in base mode with the KEM of a profile.

One shot: a fresh encapsulation for every wrap. Everything that must hold is bound through
`info`; there is no AAD. Sizes are those of the profile's row in `profiles`.
"""

from __future__ import annotations

import hashlib
import os
from functools import cache
from typing import Final, Protocol

from pqvault.crypto import mac, pyca_kem
from pqvault.crypto.digest import new as new_digest
from pqvault.crypto.failures import LIBRARY_ERRORS, failure
from pqvault.crypto.kems import kem_of
from pqvault.crypto.profiles import PROFILES, Profile
from pqvault.errors import PQVaultError, UsageError

__all__ = [
    "KEY_ID_SIZE",
    "PROVIDERS",
    "VARIABLE",
    "Provider",
    "check_public_key",
    "key_id",
    "offered",
    "provider",
    "public_key_of",
    "require",
    "unwrap",
    "use",
    "wrap",
]

KEY_ID_SIZE: Final = 16  # bytes
PROVIDERS: Final = (pyca_kem.NAME, "liboqs")
VARIABLE: Final = "PQVAULT_KEM_PROVIDER"


class Provider(Protocol):
    """Who does ML-KEM. Lengths are checked here, all else there: ValueError, InvalidTag."""

    @property
    def NAME(self) -> str: ...  # noqa: N802  a module's constant
    def version(self) -> str: ...
    def public_key_of(self, profile: Profile, seed: bytes) -> bytes: ...
    def check_public_key(self, profile: Profile, public_key: bytes) -> None: ...
    def encrypt(self, profile: Profile, key: bytes, public_key: bytes, info: bytes) -> bytes: ...
    def decrypt(self, profile: Profile, sealed: bytes, seed: bytes, info: bytes) -> bytes: ...


_chosen: Provider | None = None


def use(name: str) -> None:
    """Choose who does it in this process, for all that follows; never changed by itself.

    Raises UsageError for a name that is not known, PQVaultError when it is not installed.
    """
    global _chosen
    if name not in PROVIDERS:
        raise UsageError(
            f"there is no KEM provider {name[:80]!r}", hint=f"there are {', '.join(PROVIDERS)}"
        )
    if name == pyca_kem.NAME:
        _chosen = pyca_kem
        return
    from pqvault.crypto import oqs_kem

    oqs_kem.start()
    _chosen = oqs_kem


def provider() -> Provider:
    """Who does it: what :func:`use` chose, else ``PQVAULT_KEM_PROVIDER``, else `cryptography`."""
    if _chosen is None:
        use(os.environ.get(VARIABLE) or pyca_kem.NAME)
    assert _chosen is not None
    return _chosen


@cache
def _gives_the_published_key(by: str, profile: Profile) -> bool:
    """``by``: the provider's name, which is asked once for each profile."""
    try:
        public_key = provider().public_key_of(profile, bytes.fromhex(profile.known_seed))
    except LIBRARY_ERRORS:
        return False
    found = hashlib.sha256(public_key).digest()
    return mac.equal(found, bytes.fromhex(profile.known_public))


def offered() -> list[str]:
    """The profiles whose published private key gives the published public key here."""
    return [
        name for name, row in PROFILES.items() if _gives_the_published_key(provider().NAME, row)
    ]


def require(profile: Profile) -> None:
    """Raise PQVaultError for a profile that is not offered. Computed once in a process."""
    if not _gives_the_published_key(provider().NAME, profile):
        raise PQVaultError(
            f"the profile {profile.name} is not offered: {provider().version()} does not give the"
            f" published {profile.kem} public key of the published private key",
            hint=f"use another profile ({', '.join(offered()) or 'none is left'}), and report this"
            " with what `pqvault doctor` says",
        )


def public_key_of(profile: Profile, seed: bytes) -> bytes:
    """The public key of a seed: ML-KEM key, then that of the curve where there is one."""
    require(profile)
    _check_seed(profile, seed)
    return provider().public_key_of(profile, seed)


def _check_seed(profile: Profile, seed: bytes) -> None:
    if len(seed) != profile.seed_size:
        raise ValueError(f"an identity of {profile} is a seed of {profile.seed_size} bytes")


def check_public_key(profile: Profile, public_key: bytes) -> None:
    """Raise FormatError unless the key passes FIPS 203 section 7.2 (length, modulus) and its
    other half is a point of the curve that shares a secret."""
    require(profile)
    try:
        _check_length(profile, public_key)
        provider().check_public_key(profile, public_key)
        kem = kem_of(profile)
        if kem.curve is not None:
            kem.curve.check(public_key[kem.mlkem_public :])
    except LIBRARY_ERRORS as error:
        raise failure(error, f"a {profile.kem} public key") from None


def _check_length(profile: Profile, public_key: bytes) -> None:
    if len(public_key) != profile.public_key_size:
        raise ValueError(f"a {profile.kem} public key is {profile.public_key_size} bytes")


def key_id(profile: Profile, public_key: bytes) -> bytes:
    """16 bytes: the head of the profile's digest of KEM name ‖ public key."""
    hasher = new_digest(profile.digest)
    hasher.update(profile.kem.encode("ascii"))
    hasher.update(public_key)
    return hasher.digest()[:KEY_ID_SIZE]


def wrap(profile: Profile, key: bytes, public_key: bytes, info: bytes) -> bytes:
    """Wrap a 32-byte key: enc ‖ ciphertext (48 bytes)."""
    require(profile)
    try:
        _check_length(profile, public_key)
        return provider().encrypt(profile, key, public_key, info)
    except LIBRARY_ERRORS as error:
        raise failure(error, "the recipient's public key") from None


def unwrap(profile: Profile, sealed: bytes, seed: bytes, info: bytes, what: str) -> bytes:
    """Open what :func:`wrap` made; raises IntegrityError naming ``what``.

    ML-KEM rejects implicitly (FIPS 203 section 6.3): a wrong ciphertext gives a random key
    and only the AEAD tag shows it. The length is checked first, because short ciphertexts
    help multi-key attacks.
    """
    require(profile)
    _check_seed(profile, seed)
    try:
        if len(sealed) != profile.sealed_size:
            raise ValueError(
                f"a wrapped key of {profile} is {profile.sealed_size} bytes, this one {len(sealed)}"
            )
        return provider().decrypt(profile, sealed, seed, info)
    except LIBRARY_ERRORS as error:
        raise failure(error, what) from None
