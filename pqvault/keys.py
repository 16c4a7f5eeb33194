"""Recipients and identities: the public and the private half of a key."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NoReturn

from pqvault import keyfile
from pqvault.crypto import kem
from pqvault.crypto.profiles import PROFILES, STANDARD, Profile
from pqvault.errors import FormatError, UsageError
from pqvault.format import keytext

__all__ = ["Identity", "Recipient", "one_profile", "profile_named"]


def profile_named(name: str) -> Profile:
    """A profile that a user named. Raises UsageError."""
    found = PROFILES.get(name)
    if found is None:
        raise UsageError(
            f"there is no profile {name[:80]!r}", hint=f"the profiles are {', '.join(PROFILES)}"
        )
    return found


def one_profile(recipients: Iterable[Recipient]) -> Profile:
    """The profile that all recipients have, `STANDARD` for none. Raises UsageError for two."""
    first: dict[Profile, Recipient] = {}
    for recipient in recipients:
        first.setdefault(recipient.profile, recipient)
    if len(first) > 1:
        named = " and ".join(f"{r.key_id} of the profile {p}" for p, r in first.items())
        raise UsageError(
            f"recipients of several profiles are mixed: {named}",
            hint="who holds the weakest key opens it all, so one envelope has one profile: seal to"
            " recipients of one, and make a key with `pqvault keygen --profile` for who lacks it",
        )
    return next(iter(first), STANDARD)


@dataclass(frozen=True, slots=True)
class Recipient:
    """A public key that data is sealed to.

    ``public_key``: in the profile ``standard`` 1,216 bytes, ML-KEM-768 ‖ X25519 (X-Wing). Its
    text form is age's ``age1pq1…`` there, so a key of ``age-keygen -pq`` works unchanged.
    """

    public_key: bytes
    source: str = field(default="", compare=False)
    profile: Profile = STANDARD

    def __post_init__(self) -> None:
        # At import, not at use (ATTACKS row 19).
        try:
            kem.check_public_key(self.profile, self.public_key)
        except FormatError as error:
            where = f" in {self.source}" if self.source else ""
            raise UsageError(
                f"the recipient{where} is not a valid public key: {error.message}",
                hint="copy the recipient again from its owner, or make a key with `pqvault keygen`",
            ) from None

    @classmethod
    def parse(cls, text: str, source: str = "") -> Recipient:
        """From its text form. Raises UsageError that says why, for example for a classical key."""
        profile, public_key = keytext.decode_recipient(text)
        return cls(public_key, source, PROFILES[profile])

    @classmethod
    def load_file(cls, path: str | os.PathLike[str]) -> list[Recipient]:
        """All recipients of a recipients file: one a line, ``#`` for comments."""
        source = os.fspath(path)
        lines = keytext.parse_recipients_file(keyfile.read(source), source)
        return [
            cls(key, f"{source}, line {number}", PROFILES[profile])
            for number, (profile, key) in lines
        ]

    @property
    def text(self) -> str:
        """``age1pq1…``, 1,959 characters; in other profiles another form."""
        return keytext.encode_recipient(self.profile.name, self.public_key)

    @property
    def key_id(self) -> str:
        """Hex of 16 bytes: the name of this key in envelopes and listings."""
        return kem.key_id(self.profile, self.public_key).hex()

    def __repr__(self) -> str:
        return f"Recipient({self.text[:20]}…, key_id={self.key_id})"


@dataclass(frozen=True, slots=True)
class Identity:
    """A private key: a seed of 32 bytes, in the profile ``cnsa2`` 64. Never printed, never
    pickled."""

    seed: bytes = field(repr=False)
    profile: Profile = STANDARD

    def __post_init__(self) -> None:
        if len(self.seed) != self.profile.seed_size:
            raise ValueError(f"an identity is a seed of {self.profile.seed_size} bytes")

    @classmethod
    def generate(cls, profile: Profile | str = STANDARD) -> Identity:
        """A new one, from the system's random source.

        ``profile``: ``standard``, ``high`` or ``cnsa2``. Raises UsageError for one that is not
        known, PQVaultError for one that is not offered here.
        """
        if isinstance(profile, str):
            profile = profile_named(profile)
        kem.require(profile)
        return cls(secrets.token_bytes(profile.seed_size), profile)

    @classmethod
    def parse(cls, text: str) -> Identity:
        """From ``AGE-SECRET-KEY-PQ-1…``. Raises UsageError, which never repeats the text."""
        profile, seed = keytext.decode_identity(text)
        return cls(seed, PROFILES[profile])

    @classmethod
    def load_file(
        cls, path: str | os.PathLike[str], *, ask: Callable[[str], bytes] | None = None
    ) -> list[Identity]:
        """All identities of an identity file in age's form, or one sealed under a passphrase.

        ``ask(prompt)`` gives the passphrase; by default `pqvault.passphrases` does. Raises
        UsageError when it is a regular file that others may read (ATTACKS row 38), NoKeyFits
        for a wrong passphrase.
        """
        source = os.fspath(path)
        return cls.parse_file(keyfile.read_private(source, ask), source)

    @classmethod
    def parse_file(cls, data: bytes, source: str) -> list[Identity]:
        """All identities of a file's content, in age's form. Raises UsageError."""
        found = keytext.parse_identity_file(data, source)
        return [cls(seed, PROFILES[profile]) for profile, seed in found]

    @property
    def recipient(self) -> Recipient:
        """The public half, computed from the seed: it cannot disagree with it."""
        return Recipient(kem.public_key_of(self.profile, self.seed), profile=self.profile)

    @property
    def key_id(self) -> str:
        """The recipient's."""
        return self.recipient.key_id

    @property
    def rank(self) -> int:
        """Which is used when several fit an envelope: the lowest. Keys in a keystore differ."""
        return 0

    @property
    def text(self) -> str:
        """``AGE-SECRET-KEY-PQ-1…``, in other profiles another form: a secret."""
        return keytext.encode_identity(self.profile.name, self.seed)

    def file_text(self) -> str:
        """An identity file in age's form: a secret."""
        return keytext.format_identity_file(
            self.profile.name, self.seed, self.recipient.text, time.time()
        )

    def save_file(self, path: str | os.PathLike[str], passphrase: bytes | None = None) -> None:
        """Write a new identity file, mode 0600, sealed when there is a passphrase.

        Raises UsageError when the file exists.
        """
        keyfile.write(path, self.file_text(), passphrase)

    def __repr__(self) -> str:
        return "Identity(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an identity is not pickled: hand over a reference to its file instead")
