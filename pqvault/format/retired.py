"""The record of a retired key, to which nothing more is to be sealed. docs/format.md 5.4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pqvault.format import textdoc
from pqvault.format.signature import Signature, SignedDocument, parse_lines

__all__ = ["LABEL", "Retired"]

LABEL: Final = "pqvault.dev/retired@v1"
_KEYS: Final = ("archive", "part", "key_id", "created")


@dataclass(frozen=True, slots=True)
class Retired(SignedDocument):
    """One text document. ``archive``, ``part``, ``key_id``: hex of 16 bytes; ``created``: ms.

    ``part``: whose root key made ``mac``, 32 bytes: whoever wrote this could open that part.
    """

    label = LABEL

    archive: str
    part: str
    key_id: str
    created: int
    mac: bytes = bytes(32)
    signatures: tuple[Signature, ...] = ()

    def _fields(self) -> dict[str, Any]:
        return {
            "archive": self.archive,
            "part": self.part,
            "key_id": self.key_id,
            "created": self.created,
        }

    @classmethod
    def parse(cls, data: bytes, what: str = "the retired record") -> Retired:
        """Parse a document that is all of ``data``. Raises FormatError."""
        value, mac, end = textdoc.parse_prefix(data, LABEL, what)
        fields = textdoc.Fields(value, _KEYS, what)
        return cls(
            archive=fields.hex("archive", textdoc.ID_SIZE),
            part=fields.hex("part", textdoc.ID_SIZE),
            key_id=fields.hex("key_id", 16),
            created=fields.integer("created"),
            mac=mac,
            signatures=parse_lines(data[end:], what),
        )
