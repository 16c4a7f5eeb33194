"""Names as text that is safe to show: any bytes in, printable characters out, and back.

A name in an archive can hold whatever a Linux file name can: terminal escapes, newlines,
characters that reverse the reading direction, characters that nobody sees. Shown raw, such
a name can forge a line of a listing or drive the terminal.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

__all__ = ["from_printable", "printable", "quiet", "spellings"]

# Nothing to escape, which is nearly every name: visible ASCII and the space, without % and \.
_PLAIN = re.compile(rb"[ -$&-\[\]-~]*")

# Letters and marks that draw nothing, so that `str.isprintable` lets them pass: Unicode's
# Default_Ignorable_Code_Point less the classes it refuses, and the blank braille cell.
_INVISIBLE = frozenset(
    map(
        chr,
        (
            *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0),
            *range(0x180B, 0x1810),
            *range(0xFE00, 0xFE10),
            *range(0xE0100, 0xE01F0),
        ),
    )
)


def printable(path: bytes) -> str:
    """``path`` with every byte that could deceive a reader or a terminal written as ``%XX``.

    Escaped are: controls (C0, DEL, C1), line and paragraph separators, direction marks and
    other format characters, every space but U+0020, invisible and unassigned characters,
    bytes that are not UTF-8, the backslash (shells and JSON give it a meaning) and ``%``
    itself, which makes the result reversible with :func:`from_printable`.
    """
    if _PLAIN.fullmatch(path):
        return path.decode("ascii")
    return "".join(map(_shown, path.decode("utf-8", "surrogateescape")))


def from_printable(text: str) -> bytes:
    """The bytes that :func:`printable` shows as ``text``; a ``%`` without two digits is itself."""
    return unquote_to_bytes(text.encode("utf-8", "surrogateescape"))


def spellings(path: bytes) -> list[bytes]:
    """What somebody may mean who gives ``path``: itself, and the other name that is shown so."""
    text = path.decode("utf-8", "surrogateescape")
    shown = from_printable(text)
    return [path, shown] if shown != path and printable(shown) == text else [path]


def quiet(text: str) -> str:
    """A sentence with words of others in it (a library's, about a file of a stranger): what could
    drive a terminal is escaped as :func:`printable` does, and nothing else, so that names in it
    that were escaped before stay as they are."""
    return text if text.isascii() and text.isprintable() else "".join(map(_heard, text))


def _heard(char: str) -> str:
    return char if char in "%\\" else _shown(char)


def _shown(char: str) -> str:
    # isprintable() is false for all of Unicode's classes Other and Separator but U+0020:
    # that covers controls, direction marks, lone bytes (surrogates here) and unassigned.
    if char.isprintable() and char not in "%\\" and char not in _INVISIBLE:
        return char
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))
