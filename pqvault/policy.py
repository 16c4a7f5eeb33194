"""Whose signatures a reader wants to see. docs/format.md section 9.3.

A policy file is TOML::

    threshold = 1
    envelopes = true

    [[signer]]
    name = "release"
    key = "pqvsign1…"
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from pqvault import keyfile
from pqvault.errors import FormatError, PolicyRefused, UsageError
from pqvault.format.commit import Commit
from pqvault.format.envelope import Envelope
from pqvault.signing import Document, Signer, SigningKey

__all__ = ["ANYBODY", "Policy"]

MAX_SIZE: Final = 4 * 1024 * 1024  # bytes
# On a line; a name may be all dots. Of a key of n parts tomllib makes n^2/2: 100 kB took 10 GB.
_MOST_DOTS: Final = 100
_NAME: Final = re.compile(r"[ -~]{1,64}")
_SHAPE: Final = (
    "a policy has the keys threshold and envelopes, and [[signer]] tables with name and key"
)
_HINT: Final = "ask the owner of the archive who signs it; `pqvault parts` shows who has signed"


@dataclass(frozen=True, slots=True)
class Policy:
    """The signers that are trusted, by name, and how many of them must have signed a part.

    ``allow_unsigned``: parts that too few of them signed are read too, but may not hide or
    remove anything of a signed part. ``envelopes``: so many must have signed each envelope too,
    which says who wrapped the root key to whom; without it a wrong signature of a trusted
    signer is refused, and none is not.
    """

    signers: tuple[tuple[str, Signer], ...] = ()
    threshold: int = 1
    allow_unsigned: bool = False
    envelopes: bool = False

    @classmethod
    def of(
        cls, signers: Iterable[Signer], *, allow_unsigned: bool = False, envelopes: bool = False
    ) -> Policy:
        """Any one of ``signers``, each called by its id."""
        named = {signer.signer_id: signer for signer in signers}
        return cls(tuple(named.items()), 1, allow_unsigned, envelopes)

    @classmethod
    def load_file(cls, path: str | os.PathLike[str], *, allow_unsigned: bool = False) -> Policy:
        """From a policy file. Raises UsageError that names what is wrong in it."""
        source = os.fspath(path)
        data = keyfile.read(source)
        if len(data) > MAX_SIZE:
            raise UsageError(f"the policy {source} is over {MAX_SIZE} bytes", hint=_SHAPE)
        lines = (line for line in data.splitlines() if not line.lstrip().startswith(b"#"))
        if any(line.count(b".") > _MOST_DOTS for line in lines):
            raise UsageError(
                f"the policy {source} has a key or a name that no policy has", hint=_SHAPE
            )
        try:
            value = tomllib.loads(data.decode("utf-8"))
        except (ValueError, RecursionError):  # UnicodeDecodeError and TOMLDecodeError are these
            raise UsageError(f"the policy {source} is not TOML", hint=_SHAPE) from None
        signers, threshold, envelopes = _parse(value, source)
        return cls(signers, threshold, allow_unsigned, envelopes)

    @property
    def demands(self) -> bool:
        """Whether it asks for signatures at all."""
        return bool(self.signers)

    def check(self, commit: Commit, what: str) -> tuple[str, ...]:
        """The names of the trusted signers of a commit, each signature verified.

        Raises PolicyRefused when they are fewer than ``threshold`` (unless ``allow_unsigned``),
        and for a signature in the name of one of them that is wrong.
        """
        return self._check(commit, what, demanded=self.demands)

    def check_writer(self, sign: Iterable[SigningKey]) -> None:
        """Raise PolicyRefused for keys whose signatures do not make a part that is read."""
        trusted = {signer.signer_id for _, signer in self.signers}
        count = len(trusted.intersection(key.signer.signer_id for key in sign))
        if self.demands and not self.allow_unsigned and count < self.threshold:
            raise PolicyRefused(
                f"what is written would be signed by {count} of the signers that are given, and"
                f" {self.threshold} must have signed what is read",
                hint="sign with --sign and the key of a signer, or pass --allow-unsigned",
            )

    def check_envelope(self, envelope: Envelope, what: str) -> tuple[str, ...]:
        """The same of an envelope, which need not be signed unless ``envelopes``."""
        return self._check(envelope, what, demanded=self.demands and self.envelopes)

    def signed_by(self, document: Document, what: str) -> tuple[str, ...]:
        """The names of the trusted signers of a document. Raises PolicyRefused for a signature
        in the name of one of them that is wrong."""
        by_id = {signer.signer_id: (name, signer) for name, signer in self.signers}
        found = []
        for signature in document.signatures:
            if signature.signer in by_id:
                name, signer = by_id[signature.signer]
                signer.check(document, signature, f"{name} over {what}")
                found.append(name)
        return tuple(found)

    # -- as it is kept with an unfinished rotation

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return {
            "signers": [[name, signer.text] for name, signer in self.signers],
            "threshold": self.threshold,
            "allow_unsigned": self.allow_unsigned,
            "envelopes": self.envelopes,
        }

    @classmethod
    def from_json(cls, value: Any) -> Policy:
        """Raises FormatError for what `to_json` never gave."""
        try:
            signers = tuple((str(name), Signer.parse(text)) for name, text in value["signers"])
            flags = (bool(value["allow_unsigned"]), bool(value["envelopes"]))
            return cls(signers, int(value["threshold"]), *flags)
        except (KeyError, TypeError, ValueError, AttributeError, UsageError):
            raise FormatError("the policy of an unfinished rotation is damaged") from None

    def _check(self, document: Document, what: str, *, demanded: bool) -> tuple[str, ...]:
        found = self.signed_by(document, what)
        if demanded and len(found) < self.threshold:
            if self.allow_unsigned:
                return ()
            raise PolicyRefused(_missing(document, what, self.threshold), hint=_HINT)
        return found

    def unsigned_after_signed(self, commits: Iterable[Commit]) -> dict[str, PolicyRefused]:
        """Refusals, by part id, of parts without any signature that come after a part with one,
        for readers who name no signers: a signed archive does not go on unsigned without a word.
        """
        if self.demands or self.allow_unsigned:
            return {}
        found, signed = {}, False
        for commit in commits:
            if signed and not commit.signatures:
                found[commit.part] = PolicyRefused(
                    f"part {commit.part} is not signed, and parts before it are",
                    hint="find out who added it; --allow-unsigned reads it all the same",
                )
            signed = signed or bool(commit.signatures)
        return found

    def counts_as_signed(self, commit: Commit, signed_by: tuple[str, ...]) -> bool:
        """Whether a part's entries are protected from unsigned parts. Without signers to go by,
        whatever carries a signature is."""
        return bool(signed_by) if self.demands else bool(commit.signatures)


ANYBODY: Final = Policy()


def _missing(document: Document, what: str, threshold: int) -> str:
    if not document.signatures:
        return f"{what} is not signed, and its signer must be one of those given"
    others = ", ".join(signature.signer for signature in document.signatures)
    if threshold > 1:
        return f"{what} needs {threshold} trusted signatures, and is signed by {others}"
    return f"{what} is signed by {others}, none of whom is trusted"


def _parse(value: dict[str, Any], source: str) -> tuple[tuple[tuple[str, Signer], ...], int, bool]:
    if unknown_keys := set(value) - {"threshold", "envelopes", "signer"}:
        unknown = ", ".join(sorted(unknown_keys))
        raise UsageError(f"the policy {source} has the unknown keys {unknown[:80]}", hint=_SHAPE)
    items = value.get("signer")
    if not isinstance(items, list) or not items:
        raise UsageError(f"the policy {source} names no signer", hint="add a [[signer]] table")
    signers: dict[str, Signer] = {}
    for number, item in enumerate(items, 1):
        where = f"the policy {source}, signer {number}"
        if not isinstance(item, dict) or set(item) != {"name", "key"}:
            raise UsageError(f"{where}: it has not exactly a name and a key", hint=_SHAPE)
        name, key = item["name"], item["key"]
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in signers:
            raise UsageError(
                f"{where}: its name is not 1 to 64 printable characters of its own",
                hint="give each signer another name",
            )
        signers[name] = Signer.parse(key if isinstance(key, str) else "", where)
    if len({signer.signer_id for signer in signers.values()}) != len(signers):
        raise UsageError(f"the policy {source} names one key twice", hint="leave one of them out")
    threshold = value.get("threshold", 1)
    if type(threshold) is not int or not 1 <= threshold <= len(signers):
        raise UsageError(
            f"the policy {source}: threshold is not from 1 to {len(signers)}",
            hint="it says how many of the signers must have signed",
        )
    envelopes = value.get("envelopes", False)
    if type(envelopes) is not bool:
        raise UsageError(
            f"the policy {source}: envelopes is not true or false", hint="write envelopes = true"
        )
    return tuple(signers.items()), threshold, envelopes
