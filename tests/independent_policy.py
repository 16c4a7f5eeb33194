"""Whose signatures a reader wants, from docs/format.md sections 9.3 and 9.4.

The part of `independent_reader` that knows policies. It shares no code with pqvault.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import Any

from independent_documents import COMMIT, load_signer, parse_document, signatures, signed_by
from independent_keys import Damaged, need


class Refused(Exception):
    """A part, or an entry of one, that a reader must not take (exit 14)."""


@dataclass(frozen=True)
class Policy:
    """What a reader was given, and whether it was told to accept what is unsigned."""

    signers: tuple[str, ...] = ()
    threshold: int = 1
    envelopes: bool = False
    unsigned: bool = False

    @classmethod
    def parse(cls, text: str, *, unsigned: bool = False) -> Policy:
        """The policy file."""
        need(len(text.encode()) <= 4 << 20, "a policy of over 4 MiB")
        try:
            value: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise Damaged("not TOML") from error
        need(set(value) <= {"threshold", "envelopes", "signer"}, "an unknown key in a policy")
        rows = value.get("signer")
        need(type(rows) is list and rows != [], "a policy without signers")
        need(all(type(one) is dict and set(one) == {"name", "key"} for one in rows), "a bad signer")
        names, keys = ([one[field] for one in rows] for field in ("name", "key"))
        need(len(set(names)) == len(set(keys)) == len(rows), "a signer twice")
        for name, key in zip(names, keys, strict=True):
            need(1 <= len(name) <= 64 and all(" " <= letter <= "~" for letter in name), "a name")
            load_signer(key)
        threshold, envelopes = value.get("threshold", 1), value.get("envelopes", False)
        need(type(threshold) is int and 1 <= threshold <= len(rows), "a bad threshold")
        need(type(envelopes) is bool, "envelopes is true or false")
        return cls(tuple(keys), threshold, envelopes, unsigned)

    def count(self, data: bytes, label: str) -> int:
        """How many of the signers have signed a document that was parsed; none wrongly."""
        try:
            return sum(signed_by(data, label, signer) for signer in self.signers)
        except Damaged as error:
            raise Refused(f"a signature of the {label} is wrong: {error}") from error

    def is_signed(self, commit: bytes) -> bool:
        """*Signed* as in 9.4."""
        if self.signers:
            return self.count(commit, "commit") >= self.threshold
        return signatures(commit, parse_document(commit, "pqvault.dev/commit@v1", COMMIT)) != []

    def check(self, commit: bytes, envelope: bytes, *, behind_signed: bool) -> None:
        """Step 6 of section 5.2. ``behind_signed``: a part with signatures comes before it."""
        signed = self.is_signed(commit)
        if not signed and not self.unsigned and (self.signers or behind_signed):
            raise Refused("a part is not signed")
        enough = self.count(envelope, "envelope") >= self.threshold
        if self.envelopes and not enough and not self.unsigned:
            raise Refused("an envelope is not signed")


ANYBODY = Policy()
