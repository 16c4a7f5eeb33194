"""Signature lines: what may follow the MAC line of a text document. docs/format.md section 9.1.

::

    sign <suite> <signer id> <base64 of the signature>

Each covers the document up to and with its MAC line, so that signers need not know each other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from pqvault.errors import FormatError
from pqvault.format import textdoc

__all__ = ["MAX_SIGNATURES", "Signature", "SignedDocument", "parse_lines"]

MAX_SIGNATURES: Final = 16
MAX_LINE: Final = 16 * 1024  # bytes with its LF; ML-DSA-87 takes 6,250
_LINE: Final = re.compile(rb"sign ([A-Za-z0-9+.-]{1,64}) ([0-9a-f]{32}) ([A-Za-z0-9+/=]+)\n")


@dataclass(frozen=True, slots=True, order=True)
class Signature:
    """One line. ``signer``: its id, hex of 16 bytes; ``value``: bytes, not yet verified."""

    signer: str
    suite: str
    value: bytes

    def line(self) -> bytes:
        """The line with its newline."""
        return f"sign {self.suite} {self.signer} {textdoc.b64encode(self.value)}\n".encode("ascii")


class SignedDocument:
    """A text document, named by its ``label``, whose MAC signatures may follow."""

    __slots__ = ()
    label: ClassVar[str]
    mac: bytes
    signatures: tuple[Signature, ...]

    def _fields(self) -> dict[str, Any]:
        """What its JSON line says."""
        raise NotImplementedError

    def authenticated(self) -> bytes:
        """What the MAC covers."""
        return textdoc.authenticated(self.label, self._fields())

    def unsigned(self) -> bytes:
        """The document without its signatures: what each of them covers."""
        return textdoc.marshal(self.label, self._fields(), self.mac)

    def marshal(self) -> bytes:
        """The document, byte for byte what ``parse`` takes: signatures ascend by signer id."""
        return self.unsigned() + b"".join(one.line() for one in sorted(self.signatures))


def parse_lines(data: bytes, what: str) -> tuple[Signature, ...]:
    """Signature lines, ascending by signer id, and nothing else. Raises FormatError."""
    if len(data) > MAX_SIGNATURES * MAX_LINE:
        raise FormatError(f"{what} has more after its MAC line than signatures take")
    found = []
    for line in data.splitlines(keepends=True):
        match = _LINE.fullmatch(line)
        if match is None or len(line) > MAX_LINE:
            raise FormatError(f"{what} has a line after its MAC line that is no signature")
        suite, signer, value = (text.decode("ascii") for text in match.groups())
        found.append(Signature(signer, suite, textdoc.b64decode(value, f"a signature of {what}")))
    signers = [signature.signer for signature in found]
    if len(found) > MAX_SIGNATURES or signers != sorted(set(signers)):
        raise FormatError(f"the signatures of {what} are not sorted, or over {MAX_SIGNATURES}")
    return tuple(found)
