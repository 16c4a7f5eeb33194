"""The record of a removed part: why it went, and who holds its content. docs/format.md 5.7."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from pqvault.errors import FormatError
from pqvault.format import textdoc

__all__ = ["LABEL", "Reason", "Removed"]

LABEL: Final = "pqvault.dev/removed@v1"
_KEYS: Final = (
    "archive",
    "part",
    "removed",
    "seq",
    "committed",
    "commit",
    "reason",
    "by",
    "created",
)
Reason = Literal["replaced", "pruned"]


@dataclass(frozen=True, slots=True)
class Removed:
    """One text document. Ids are hex of 16 bytes, ``commit`` hex of a digest; times are ms.

    ``removed``: the part that went, ``seq``, ``committed`` and ``commit`` those, the time and the
    digest of its commit. ``by``: the parts that hold its content, sorted; when it was pruned, the
    one from whose state on nothing needs it. ``part``: whose root key made ``mac``, 32 bytes.
    """

    archive: str
    part: str
    removed: str
    seq: int
    committed: int
    commit: str
    reason: Reason
    by: tuple[str, ...]
    created: int
    mac: bytes = bytes(32)

    def _fields(self) -> dict[str, Any]:
        return {
            "archive": self.archive,
            "part": self.part,
            "removed": self.removed,
            "seq": self.seq,
            "committed": self.committed,
            "commit": self.commit,
            "reason": self.reason,
            "by": list(self.by),
            "created": self.created,
        }

    def authenticated(self) -> bytes:
        """What the MAC covers."""
        return textdoc.authenticated(LABEL, self._fields())

    def marshal(self) -> bytes:
        """The document, byte for byte what :meth:`parse` takes."""
        return textdoc.marshal(LABEL, self._fields(), self.mac)

    @classmethod
    def parse(cls, data: bytes, what: str = "the record of a removal") -> Removed:
        """Parse a document that is all of ``data``. Raises FormatError."""
        value, mac = textdoc.parse(data, LABEL, what)
        fields = textdoc.Fields(value, _KEYS, what)
        reason = fields.text("reason")
        if reason not in get_args(Reason):
            raise FormatError(f"{what} gives the reason {reason!r}, which is not known")
        by = tuple(fields.hex_value(item, textdoc.ID_SIZE, "by") for item in fields.items("by"))
        if list(by) != sorted(set(by)) or not by or (reason == "pruned" and len(by) > 1):
            raise FormatError(f"{what} does not say rightly who holds the content of the part")
        commit = fields.text("commit")
        return cls(
            archive=fields.hex("archive", textdoc.ID_SIZE),
            part=fields.hex("part", textdoc.ID_SIZE),
            removed=fields.hex("removed", textdoc.ID_SIZE),
            seq=fields.integer("seq", 1),
            committed=fields.integer("committed"),
            commit=fields.hex("commit", 48 if len(commit) == 96 else 32),
            reason=reason,  # type: ignore[arg-type]
            by=by,
            created=fields.integer("created"),
            mac=mac,
        )
