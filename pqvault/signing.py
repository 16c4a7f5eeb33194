"""Signers and signing keys: who vouches for commits, envelopes and records of retired keys.
docs/format.md section 9."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final, NoReturn, TypeAlias, TypeVar

from pqvault import keyfile
from pqvault.crypto import sign
from pqvault.crypto.profiles import PROFILES, Profile
from pqvault.errors import FormatError, UsageError
from pqvault.format import signtext
from pqvault.format.commit import Commit
from pqvault.format.envelope import Envelope
from pqvault.format.retired import Retired
from pqvault.format.signature import MAX_SIGNATURES, Signature

__all__ = ["Document", "Signer", "SigningKey", "check_suites", "sign_document"]

MAX_KEYS = 1_024  # in one file

Document: TypeAlias = Commit | Envelope | Retired
Signed = TypeVar("Signed", Commit, Envelope, Retired)
# A purpose each, so that a signature of one never stands for that of another.
_PURPOSES: Final = MappingProxyType(
    {Commit: "signature", Envelope: "envelope signature", Retired: "retired signature"}
)

Parsed = TypeVar("Parsed")


@dataclass(frozen=True, slots=True)
class Signer:
    """The public half of a signing key: who uses it decides whom to trust.

    ``public_key``: 1,984 bytes (Ed25519 32 ‖ ML-DSA-65 1,952), in the suite ``ML-DSA-87`` 2,592.
    """

    suite: str
    public_key: bytes
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        try:
            sign.check_public_key(sign.suite(self.suite, "a signer"), self.public_key)
        except FormatError as error:
            where = f" in {self.source}" if self.source else ""
            raise UsageError(
                f"the signer{where} is not a valid public key: {error.message}",
                hint="copy the signer again from its owner",
            ) from None

    @classmethod
    def parse(cls, text: str, source: str = "") -> Signer:
        """From ``pqvsign1…``. Raises UsageError."""
        suite, public_key = signtext.decode_signer(text, where=source or "signer")
        return cls(suite, public_key, source)

    @classmethod
    def load_file(cls, path: str | os.PathLike[str]) -> list[Signer]:
        """All signers of a file: one a line, ``#`` for comments."""
        source = os.fspath(path)
        return _lines(keyfile.read(source), source, "signers", cls.parse)

    @property
    def text(self) -> str:
        """``pqvsign1…``, 3,189 characters."""
        return signtext.encode_signer(self.suite, self.public_key)

    @property
    def signer_id(self) -> str:
        """Hex of 16 bytes: the name of this key in signatures and listings."""
        return sign.signer_id(sign.SUITES[self.suite], self.public_key).hex()

    def check(self, document: Document, signature: Signature, what: str) -> None:
        """Return when ``signature`` is this signer's over ``document``. Raises PolicyRefused."""
        sign.verify(
            sign.SUITES[self.suite],
            self.public_key,
            _PURPOSES[type(document)],
            bytes.fromhex(document.archive),
            bytes.fromhex(document.part),
            document.unsigned(),
            signature.value if signature.suite == self.suite else b"",
            what,
        )

    def __repr__(self) -> str:
        return f"Signer({self.text[:20]}…, signer_id={self.signer_id})"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key that signs: 64 bytes, an Ed25519 and an ML-DSA-65 seed; in the suite
    ``ML-DSA-87`` 32. Never printed, never pickled."""

    suite: str
    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        size = sign.suite(self.suite, "a signing key").private_size
        if len(self.seed) != size:
            raise ValueError(f"a signing key of {self.suite} is {size} bytes")

    @classmethod
    def generate(cls, suite: str = sign.DEFAULT.name) -> SigningKey:
        """A new one, from the system's random source."""
        return cls(suite, os.urandom(sign.suite(suite, "a signing key").private_size))

    @classmethod
    def parse(cls, text: str, source: str = "") -> SigningKey:
        """From ``PQVAULT-SIGNING-KEY-1…``. Raises UsageError, which never repeats the text."""
        suite, seed = signtext.decode_key(text, where=source or "signing key")
        if len(seed) != sign.SUITES[suite].private_size:
            raise UsageError(
                f"{source or 'signing key'}: it is of another length", hint="was all of it copied?"
            )
        return cls(suite, seed)

    @classmethod
    def load_file(
        cls, path: str | os.PathLike[str], *, ask: Callable[[str], bytes] | None = None
    ) -> list[SigningKey]:
        """All signing keys of a file, which may be sealed under a passphrase.

        Raises as `pqvault.keys.Identity.load_file` does.
        """
        source = os.fspath(path)
        return cls.parse_file(keyfile.read_private(source, ask), source)

    @classmethod
    def parse_file(cls, data: bytes, source: str) -> list[SigningKey]:
        """All signing keys of a file's content. Raises UsageError."""
        return _lines(data, source, "signing keys", cls.parse)

    @staticmethod
    def is_file(data: bytes) -> bool:
        """Whether a file's content is signing keys, whole or damaged, rather than identities."""
        return any(line.startswith(b"PQVAULT-SIGNING-KEY-") for line in data.split(b"\n"))

    @property
    def signer(self) -> Signer:
        """The public half, computed from the seed: it cannot disagree with it."""
        return Signer(self.suite, sign.public_key_of(sign.SUITES[self.suite], self.seed))

    @property
    def text(self) -> str:
        """``PQVAULT-SIGNING-KEY-1…``: a secret."""
        return signtext.encode_key(self.suite, self.seed)

    def file_text(self) -> str:
        """A signing key file, three lines: a secret."""
        stamp = datetime.fromtimestamp(int(time.time()), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return f"# created: {stamp}\n# signer: {self.signer.text}\n{self.text}\n"

    def save_file(self, path: str | os.PathLike[str], passphrase: bytes | None = None) -> None:
        """Write a new file, mode 0600, sealed when there is a passphrase. Raises UsageError."""
        keyfile.write(path, self.file_text(), passphrase)

    def sign(self, document: Document) -> Signature:
        """Sign a document, whose MAC is set."""
        value = sign.sign(
            sign.SUITES[self.suite],
            self.seed,
            _PURPOSES[type(document)],
            bytes.fromhex(document.archive),
            bytes.fromhex(document.part),
            document.unsigned(),
        )
        return Signature(self.signer.signer_id, self.suite, value)

    def sign_foreign(self, data: bytes) -> list[tuple[str, bytes]]:
        """(algorithm, signature) of each, over data of a format that is not ours, such as DSSE.

        Without a context, so it never is a signature of a document of ours. Raises ValueError
        for data that begins as those do.
        """
        return sign.sign_foreign(sign.SUITES[self.suite], self.seed, data)

    def __repr__(self) -> str:
        return "SigningKey(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a signing key is not pickled: hand over a reference to its file instead")


def check_suites(profile: Profile, keys: Iterable[SigningKey]) -> None:
    """Raise UsageError for a signing key that may not sign what has a profile."""
    for key in keys:
        if key.suite not in profile.signatures:
            raise UsageError(
                f"the signing key {key.signer.signer_id} is of {key.suite}, and the profile"
                f" {profile} signs with {' or '.join(profile.signatures)}",
                hint=f"`pqvault keygen --sign --profile {profile}` makes one that may",
            )


def sign_document(document: Signed, keys: Iterable[SigningKey]) -> Signed:
    """``document``, whose MAC is set, with a signature of each key. Those of others that it has
    stay. Raises UsageError for a key that is given twice, too many, or a suite that the
    profile of a commit or an envelope does not have."""
    keys = tuple(keys)
    if not isinstance(document, Retired):
        check_suites(PROFILES[document.profile], keys)
    new: list[Signature] = [key.sign(document) for key in keys]
    ours = {signature.signer for signature in new}
    if len(ours) < len(new):
        raise UsageError("a signing key is given twice", hint="leave one of them out")
    new += [signature for signature in document.signatures if signature.signer not in ours]
    signatures = tuple(sorted(new))
    if len(signatures) > MAX_SIGNATURES:
        raise UsageError(f"at most {MAX_SIGNATURES} keys sign a document", hint="leave some out")
    return replace(document, signatures=signatures)


def _lines(
    data: bytes, source: str, what: str, parse: Callable[[str, str], Parsed]
) -> list[Parsed]:
    found: list[Parsed] = []
    for number, raw in enumerate(data.split(b"\n"), 1):
        line = raw.removesuffix(b"\r")
        if not line or line.startswith(b"#"):
            continue
        where = f"{source}, line {number}"
        # Asked first: a UnicodeDecodeError would carry the line, perhaps a secret, with it.
        if not line.isascii() or len(found) == MAX_KEYS:
            raise UsageError(
                f"{where}: a file of {what} has one key a line, {MAX_KEYS:,} at most",
                hint="lines that begin with # are comments; is it the file that was meant?",
            )
        found.append(parse(line.decode("ascii"), where))
    if not found:
        raise UsageError(f"{source}: no {what} found", hint="is it the file that was meant?")
    return found
