"""Recipients and identities: the public and the private half of a key."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from pqvault import keyfile
from pqvault.crypto import kem
from pqvault.errors import FormatError, UsageError
from pqvault.format import keytext

__all__ = ["Identity", "Recipient"]


@dataclass(frozen=True, slots=True)
class Recipient:
    """A public key that data is sealed to.

    ``public_key``: 1,216 bytes, ML-KEM-768 ‖ X25519 (X-Wing). Its text form is age's
    ``age1pq1…``, so a key of ``age-keygen -pq`` works unchanged.
    """

    public_key: bytes
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        # At import, not at use (ATTACKS row 19).
        try:
            kem.check_public_key(self.public_key)
        except FormatError as error:
            where = f" in {self.source}" if self.source else ""
            raise UsageError(
                f"the recipient{where} is not a valid public key: {error.message}",
                hint="copy the recipient again from its owner, or make a key with `pqvault keygen`",
            ) from None

    @classmethod
    def parse(cls, text: str, source: str = "") -> Recipient:
        """From its text form. Raises UsageError that says why, for example for a classical key."""
        return cls(keytext.decode_recipient(text), source)

    @classmethod
    def load_file(cls, path: str | os.PathLike[str]) -> list[Recipient]:
        """All recipients of a recipients file: one a line, ``#`` for comments."""
        source = os.fspath(path)
        lines = keytext.parse_recipients_file(keyfile.read(source), source)
        return [cls(key, f"{source}, line {number}") for number, key in lines]

    @property
    def text(self) -> str:
        """``age1pq1…``, 1,959 characters."""
        return keytext.encode_recipient(self.public_key)

    @property
    def key_id(self) -> str:
        """Hex of 16 bytes: the name of this key in envelopes and listings."""
        return kem.key_id(self.public_key).hex()

    def __repr__(self) -> str:
        return f"Recipient({self.text[:20]}…, key_id={self.key_id})"


@dataclass(frozen=True, slots=True)
class Identity:
    """A private key: 32 bytes, expanded as X-Wing says. Never printed, never pickled."""

    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.seed) != kem.SEED_SIZE:
            raise ValueError(f"an identity is a seed of {kem.SEED_SIZE} bytes")

    @classmethod
    def generate(cls) -> Identity:
        """A new one, from the system's random source."""
        return cls(secrets.token_bytes(kem.SEED_SIZE))

    @classmethod
    def parse(cls, text: str) -> Identity:
        """From ``AGE-SECRET-KEY-PQ-1…``. Raises UsageError, which never repeats the text."""
        return cls(keytext.decode_identity(text))

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
        return [cls(seed) for seed in keytext.parse_identity_file(data, source)]

    @property
    def recipient(self) -> Recipient:
        """The public half, computed from the seed: it cannot disagree with it."""
        return Recipient(kem.public_key_of(self.seed))

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
        """``AGE-SECRET-KEY-PQ-1…``: a secret."""
        return keytext.encode_identity(self.seed)

    def file_text(self) -> str:
        """An identity file in age's form: a secret."""
        return keytext.format_identity_file(self.seed, self.recipient.text, time.time())

    def save_file(self, path: str | os.PathLike[str], passphrase: bytes | None = None) -> None:
        """Write a new identity file, mode 0600, sealed when there is a passphrase.

        Raises UsageError when the file exists.
        """
        keyfile.write(path, self.file_text(), passphrase)

    def __repr__(self) -> str:
        return "Identity(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an identity is not pickled: hand over a reference to its file instead")
