"""The envelope: a root key wrapped to every recipient. docs/format.md section 4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pqvault.errors import FormatError
from pqvault.format import textdoc
from pqvault.format.signature import Signature, SignedDocument, parse_lines

__all__ = ["LABEL", "MAX_RECIPIENTS", "Envelope", "WrappedKey"]

LABEL: Final = "pqvault.dev/envelope@v1"
MAX_RECIPIENTS: Final = 1024
_KEYS: Final = (
    "archive",
    "part",
    "group",
    "generation",
    "created",
    "profile",
    "recipients",
)
_RECIPIENT_KEYS: Final = ("kem", "key_id", "sealed")


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A root key wrapped to one recipient.

    ``key_id``: hex of 16 bytes. ``sealed``: enc ‖ ciphertext, 1,168 bytes for MLKEM768-X25519.
    """

    kem: str
    key_id: str
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Envelope(SignedDocument):
    """One text document. ``archive``, ``part``: hex of 16 bytes; ``created``: Unix time in ms.

    ``mac`` is 32 bytes; whoever holds the root key makes and checks it. ``signatures``: never in
    a sealed stream, whose object follows the MAC line at once.
    """

    label = LABEL

    archive: str
    part: str
    group: str
    generation: int
    created: int
    profile: str
    recipients: tuple[WrappedKey, ...]
    mac: bytes = bytes(32)
    signatures: tuple[Signature, ...] = ()

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Of those that it is sealed to, in their order."""
        return tuple(wrapped.key_id for wrapped in self.recipients)

    def _fields(self) -> dict[str, Any]:
        recipients = [
            {"kem": r.kem, "key_id": r.key_id, "sealed": textdoc.b64encode(r.sealed)}
            for r in self.recipients
        ]
        return {
            "archive": self.archive,
            "part": self.part,
            "group": self.group,
            "generation": self.generation,
            "created": self.created,
            "profile": self.profile,
            "recipients": recipients,
        }

    @classmethod
    def parse(cls, data: bytes, what: str = "the envelope") -> Envelope:
        """Parse a document that is all of ``data``. Raises FormatError."""
        fields, mac, end = textdoc.parse_prefix(data, LABEL, what)
        return cls._from(fields, mac, what, parse_lines(data[end:], what))

    @classmethod
    def parse_prefix(cls, data: bytes, what: str = "the envelope") -> tuple[Envelope, int]:
        """Parse the envelope at the head of a sealed stream; also gives its length."""
        fields, mac, used = textdoc.parse_prefix(data, LABEL, what)
        return cls._from(fields, mac, what, ()), used

    @classmethod
    def _from(
        cls, value: dict[str, Any], mac: bytes, what: str, signatures: tuple[Signature, ...]
    ) -> Envelope:
        fields = textdoc.Fields(value, _KEYS, what)
        items = fields.items("recipients")
        if not 1 <= len(items) <= MAX_RECIPIENTS:
            raise FormatError(f"{what} names {len(items)} recipients, not 1 to {MAX_RECIPIENTS}")
        recipients = tuple(_recipient(item, what) for item in items)
        if len({r.key_id for r in recipients}) != len(recipients):
            raise FormatError(f"{what} names a recipient twice")
        return cls(
            archive=fields.hex("archive", textdoc.ID_SIZE),
            part=fields.hex("part", textdoc.ID_SIZE),
            group=fields.text("group"),
            generation=fields.integer("generation", 1),
            created=fields.integer("created"),
            profile=fields.text("profile"),
            recipients=recipients,
            mac=mac,
            signatures=signatures,
        )


def _recipient(item: object, what: str) -> WrappedKey:
    fields = textdoc.Fields(item, _RECIPIENT_KEYS, f"a recipient of {what}")
    return WrappedKey(
        kem=fields.text("kem"),
        key_id=fields.hex("key_id", 16),
        sealed=fields.base64("sealed"),
    )
