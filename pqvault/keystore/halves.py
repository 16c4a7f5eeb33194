"""What a version of a key may be: a pair that opens or one that signs, whole or its public half.

The row's ``profile`` tells which: of a pair that signs it is the name of its signature suite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pqvault import providers
from pqvault.crypto.profiles import STANDARD
from pqvault.crypto.profiles import profile as find_profile
from pqvault.crypto.sign import SUITES
from pqvault.keys import Identity, Recipient, profile_named
from pqvault.signing import Signer, SigningKey

__all__ = [
    "SEALS",
    "AnyKey",
    "Private",
    "Public",
    "fresh",
    "kind_of",
    "made_by",
    "private_half",
    "public_half",
    "recipient_of",
    "signs",
]

SEALS: Final = STANDARD.name  # of new keys where nothing else is said

Private = Identity | SigningKey
AnyKey = Private | Recipient | Signer


@dataclass(frozen=True, slots=True)
class Public:
    """What the keystore keeps of a key in clear. ``kind``: what its owner calls it."""

    kind: str
    profile: str
    key_id: str
    public_key: bytes
    text: str


def signs(profile: str) -> bool:
    """Whether a version of this profile signs, and neither seals nor opens."""
    return profile in SUITES


def kind_of(profile: str, *, sign: bool) -> str:
    """What the row of a new key of a profile says. Raises UsageError for an unknown one."""
    row = profile_named(profile)
    return row.signatures[0] if sign else row.name


def made_by(profile: str) -> dict[str, str]:
    """For the audit log: who did ML-KEM, where a key of this profile needs it."""
    return {} if signs(profile) else {"kem": providers.in_use()}


def public_half(key: AnyKey) -> Public:
    """The public half of any key."""
    if isinstance(key, Identity | Recipient):
        recipient = key.recipient if isinstance(key, Identity) else key
        kind = "identity" if isinstance(key, Identity) else "recipient"
        profile = recipient.profile.name
        return Public(kind, profile, recipient.key_id, recipient.public_key, recipient.text)
    signer = key.signer if isinstance(key, SigningKey) else key
    kind = "signing key" if isinstance(key, SigningKey) else "signer"
    return Public(kind, signer.suite, signer.signer_id, signer.public_key, signer.text)


def of_public(profile: str, public_key: bytes) -> Public:
    """The same from a row. Raises UsageError when it is no public key."""
    if signs(profile):
        return public_half(Signer(profile, public_key))
    return public_half(recipient_of(profile, public_key))


def recipient_of(profile: str, public_key: bytes, source: str = "") -> Recipient:
    """The recipient in a row. Raises FormatError, UsageError when it is none."""
    row = find_profile(profile, source or "a key of the keystore")
    return Recipient(public_key, source, row)


def private_half(profile: str, seed: bytes) -> Private:
    """The key of a seed."""
    if signs(profile):
        return SigningKey(profile, seed)
    return Identity(seed, find_profile(profile, "a key of the keystore"))


def fresh(profile: str) -> Private:
    """A new key of a profile. Raises UsageError for one that is not known."""
    if signs(profile):
        return SigningKey.generate(profile)
    return Identity.generate(profile_named(profile))
