"""Signature lines: what may follow the MAC line of a text document. docs/format.md section 9.1.

::

    sign <suite> <signer id> <base64 of the signature>

Each covers the document up to and with its MAC line, so that signers need not know each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pqvault.errors import FormatError
from pqvault.format.textdoc import b64decode, b64encode

__all__ = ["MAX_SIGNATURES", "Signature", "marshal_lines", "parse_lines"]

MAX_SIGNATURES: Final = 16
MAX_LINE: Final = 16 * 1024  # bytes; ML-DSA-87 takes 6,250
_LINE: Final = re.compile(rb"sign ([A-Za-z0-9+.-]{1,64}) ([0-9a-f]{32}) ([A-Za-z0-9+/=]+)\n")


@dataclass(frozen=True, slots=True, order=True)
class Signature:
    """One line. ``signer``: its id, hex of 16 bytes; ``value``: bytes, not yet verified."""

    signer: str
    suite: str
    value: bytes

    def line(self) -> bytes:
        """The line with its newline."""
        return f"sign {self.suite} {self.signer} {b64encode(self.value)}\n".encode("ascii")


def marshal_lines(signatures: Iterable[Signature]) -> bytes:
    """The lines, ascending by signer id."""
    return b"".join(signature.line() for signature in sorted(signatures))


def parse_lines(data: bytes, what: str) -> tuple[Signature, ...]:
    """What :func:`marshal_lines` wrote and nothing else. Raises FormatError."""
    if len(data) > MAX_SIGNATURES * MAX_LINE:
        raise FormatError(f"{what} has more after its MAC line than signatures take")
    found = []
    for line in data.splitlines(keepends=True):
        match = _LINE.fullmatch(line)
        if match is None:
            raise FormatError(f"{what} has a line after its MAC line that is no signature")
        suite, signer, value = (text.decode("ascii") for text in match.groups())
        found.append(Signature(signer, suite, b64decode(value, f"a signature of {what}")))
    signers = [signature.signer for signature in found]
    if len(found) > MAX_SIGNATURES or signers != sorted(set(signers)):
        raise FormatError(f"the signatures of {what} are not sorted, or over {MAX_SIGNATURES}")
    return tuple(found)
