"""The second KEM provider: ML-KEM from liboqs, the curve and HPKE around it from `cryptography`.

Byte-compatible with `pyca_kem`: what one wraps the other opens. Of liboqs only ML-KEM is used,
and of ML-KEM neither its derandomised encapsulation nor expanded private keys (ATTACKS row 23).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import MappingProxyType
from typing import Any, Final

from pqvault.crypto import hpke, oqs_library
from pqvault.crypto.kems import Kem, kem_of
from pqvault.crypto.profiles import Profile
from pqvault.errors import PQVaultError

__all__ = ["NAME", "check_public_key", "decrypt", "encrypt", "public_key_of", "start", "version"]

NAME: Final = "liboqs"

# All that is asked of liboqs. Closed.
_ALLOWED: Final = MappingProxyType({768: "ML-KEM-768", 1024: "ML-KEM-1024"})
_D_AND_Z: Final = 64  # bytes: d ‖ z


@cache
def start() -> tuple[Any, oqs_library.Library]:
    """Load liboqs. Raises PQVaultError when it is not there, too old, or lacks ML-KEM."""
    oqs, library = oqs_library.load()
    for name in _ALLOWED.values():
        if not oqs.is_kem_enabled(name):
            raise PQVaultError(
                f"liboqs in {library.where} was built without {name}",
                hint="build it with KEM_ml_kem_768 and KEM_ml_kem_1024",
            )
    return oqs, library


def version() -> str:
    """Version and place of the library in use."""
    library = start()[1]
    return f"liboqs {library.version}, {library.where}"


@contextmanager
def _mlkem(kem: Kem) -> Iterator[Any]:
    """One ML-KEM object, freed and its private key wiped at the end."""
    with start()[0].KeyEncapsulation(_ALLOWED[kem.mlkem]) as mlkem:
        details = mlkem.details
        sizes = (
            details["length_public_key"],
            details["length_ciphertext"],
            details["length_keypair_seed"],
        )
        if sizes != (kem.mlkem_public, kem.mlkem_ciphertext, _D_AND_Z):
            raise PQVaultError(f"liboqs has other sizes for {_ALLOWED[kem.mlkem]}: {sizes}")
        try:
            yield mlkem
        except RuntimeError as error:  # its word for "refused"
            raise ValueError(f"liboqs: {error}") from None


def public_key_of(profile: Profile, seed: bytes) -> bytes:
    """ML-KEM key ‖ key of the curve."""
    kem = kem_of(profile)
    mlkem_seed, scalar = kem.expand(seed)
    with _mlkem(kem) as mlkem:
        public: bytes = mlkem.generate_keypair_seed(mlkem_seed)
    if kem.curve is None:
        return public
    return public + bytes(kem.curve.raw(kem.curve.private(scalar).public_key()))


def check_public_key(profile: Profile, public_key: bytes) -> None:
    """FIPS 203 section 7.2 (modulus), and the point. Raises ValueError."""
    kem = kem_of(profile)
    if kem.curve is not None:
        kem.curve.public(public_key[kem.mlkem_public :])
    # liboqs has no call for the check alone: encapsulating makes it first.
    with _mlkem(kem) as mlkem:
        mlkem.encap_secret(public_key[: kem.mlkem_public])


def encrypt(profile: Profile, key: bytes, public_key: bytes, info: bytes) -> bytes:
    """enc ‖ ciphertext, with a fresh encapsulation. Raises ValueError."""
    kem = kem_of(profile)
    with _mlkem(kem) as mlkem:
        enc, secret = mlkem.encap_secret(public_key[: kem.mlkem_public])
    if kem.curve is not None:
        theirs = public_key[kem.mlkem_public :]
        ephemeral = kem.curve.generate()
        share = kem.curve.raw(ephemeral.public_key())
        shared = kem.curve.exchange(ephemeral, kem.curve.public(theirs))
        secret = hpke.combine(kem, secret, shared, share, theirs)
        enc += share
    return bytes(enc) + hpke.seal_message(profile, secret, info, key)


def decrypt(profile: Profile, sealed: bytes, seed: bytes, info: bytes) -> bytes:
    """The key. Raises InvalidTag, ValueError."""
    secret = decapsulate(profile, sealed[: profile.enc_size], seed)
    return hpke.open_message(profile, secret, info, sealed[profile.enc_size :])


def decapsulate(profile: Profile, enc: bytes, seed: bytes) -> bytes:
    """The shared secret of HPKE, 32 bytes; a random one for an enc that ML-KEM rejects."""
    kem = kem_of(profile)
    mlkem_seed, scalar = kem.expand(seed)
    with _mlkem(kem) as mlkem:
        mlkem.generate_keypair_seed(mlkem_seed)
        secret: bytes = mlkem.decap_secret(enc[: kem.mlkem_ciphertext])
    if kem.curve is None:
        return secret
    private_key, share = kem.curve.private(scalar), enc[kem.mlkem_ciphertext :]
    shared = kem.curve.exchange(private_key, kem.curve.public(share))
    ours = kem.curve.raw(private_key.public_key())
    return hpke.combine(kem, secret, shared, share, ours)
