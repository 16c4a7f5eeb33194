"""What callers may give for keys and paths: the objects, or what they are made from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, Final

from pqvault.errors import UsageError
from pqvault.keys import Identity, Recipient
from pqvault.signing import SigningKey

__all__ = [
    "Identities",
    "Recipients",
    "SigningKeys",
    "StrPath",
    "to_identities",
    "to_recipients",
    "to_signing_keys",
]

_RECIPIENT: Final = (
    "give its text or a Recipient: Recipient.load_file(path) reads them from a file, and"
    " identity.recipient is that of an identity"
)
_IDENTITY: Final = "give an Identity or the path of an identity file"
_SIGNING_KEY: Final = "give a SigningKey or the path of its file"

StrPath = str | os.PathLike[str]
Recipients = Recipient | str | Iterable[Recipient | str]
Identities = Identity | StrPath | Iterable[Identity | StrPath]
SigningKeys = SigningKey | StrPath | Iterable[SigningKey | StrPath]


def to_recipients(recipients: Recipients) -> list[Recipient]:
    """Recipients, from objects or their ``age1pq1…`` text; one alone will do."""
    return [
        one if isinstance(one, Recipient) else Recipient.parse(one)
        for one in _each(recipients, (Recipient, str), "a recipient", _RECIPIENT)
    ]


def to_identities(identities: Identities) -> list[Identity]:
    """Identities, from objects or the paths of identity files; one alone will do."""
    found: list[Identity] = []
    for one in _each(identities, (Identity, str, os.PathLike), "an identity", _IDENTITY):
        found += [one] if isinstance(one, Identity) else Identity.load_file(one)
    return found


def to_signing_keys(keys: SigningKeys) -> list[SigningKey]:
    """Signing keys, from objects or the paths of their files; one alone will do."""
    found: list[SigningKey] = []
    for one in _each(keys, (SigningKey, str, os.PathLike), "a signing key", _SIGNING_KEY):
        found += [one] if isinstance(one, SigningKey) else SigningKey.load_file(one)
    return found


def _each(given: Any, kinds: tuple[type, ...], what: str, hint: str) -> Iterator[Any]:
    single = isinstance(given, (*kinds, bytes)) or not isinstance(given, Iterable)
    for one in [given] if single else given:
        if not isinstance(one, kinds):
            # Its type alone: what it says may be secret.
            raise UsageError(f"{what} was given as {type(one).__name__}", hint=hint)
        yield one
