"""What callers may give for keys and paths: the objects, or what they are made from."""

from __future__ import annotations

import os
from collections.abc import Sequence

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

StrPath = str | os.PathLike[str]
Recipients = Sequence[Recipient | str]
Identities = Sequence[Identity | str | os.PathLike[str]]
SigningKeys = Sequence[SigningKey | str | os.PathLike[str]]


def to_recipients(recipients: Recipients) -> list[Recipient]:
    """Recipients, from objects or their ``age1pq1…`` text."""
    return [r if isinstance(r, Recipient) else Recipient.parse(r) for r in recipients]


def to_identities(identities: Identities) -> list[Identity]:
    """Identities, from objects or the paths of identity files."""
    found: list[Identity] = []
    for identity in identities:
        if isinstance(identity, Identity):
            found.append(identity)
        else:
            found += Identity.load_file(identity)
    return found


def to_signing_keys(keys: SigningKeys) -> list[SigningKey]:
    """Signing keys, from objects or the paths of their files."""
    found: list[SigningKey] = []
    for key in keys:
        found += [key] if isinstance(key, SigningKey) else SigningKey.load_file(key)
    return found
