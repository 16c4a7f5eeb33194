"""Bech32 (BIP 173) as age writes keys: C2SP age.md, "Conventions used in this document".

The data part has no length limit, the checksum constant is 1, and a text is all
lower-case or all upper-case; the checksum is always computed over the lower-case form.
There is one text for each (prefix, bytes): ``encode(*decode(text)) == text``.

No error here repeats a character of the text, because it may be a private key.
"""

from __future__ import annotations

from collections.abc import Iterable

from pqvault.errors import FormatError

__all__ = ["decode", "encode"]

_CHARSET = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_NO_VALUE = 0xFF
# For bytes.translate: the value 0-31 of each ASCII code, or _NO_VALUE.
_VALUES = bytes(_CHARSET.index(code) if code in _CHARSET else _NO_VALUE for code in range(256))
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM_SIZE = 6  # characters

# The five conditional XORs of BIP 173's polymod depend on five bits only, so they are
# summed up once here: a 1,216-byte key takes 32 table rows instead of 10,000 tests.
_STEP = tuple(
    (row & 1) * _GENERATOR[0]
    ^ (row >> 1 & 1) * _GENERATOR[1]
    ^ (row >> 2 & 1) * _GENERATOR[2]
    ^ (row >> 3 & 1) * _GENERATOR[3]
    ^ (row >> 4 & 1) * _GENERATOR[4]
    for row in range(32)
)


def encode(hrp: str, data: bytes) -> str:
    """Return `data`, of any length, as Bech32 with the human-readable prefix `hrp`.

    An upper-case prefix gives an upper-case text. Raises `FormatError` when the prefix
    is empty, of mixed case, or not printable ASCII (BIP 173, "Bech32").
    """
    _check_hrp(hrp)
    lower = hrp.lower()
    values = _bytes_to_groups(data)
    values += _checksum(lower, values)
    text = lower + "1" + bytes(_CHARSET[value] for value in values).decode("ascii")
    return text if hrp == lower else text.upper()


def decode(text: str) -> tuple[str, bytes]:
    """Return the prefix, in the case of the text, and the bytes of a Bech32 `text`.

    Raises `FormatError` for anything that `encode` does not write.
    """
    # First, because 'K' (the Kelvin sign) lower-cases to 'k' and others grow longer.
    if not text.isascii():
        raise FormatError("the text holds a character that is not ASCII")
    if text not in (text.lower(), text.upper()):
        raise FormatError("the text mixes upper-case and lower-case letters")
    separator = text.rfind("1")
    if separator < 0:
        raise FormatError("the text has no separator '1'")
    hrp = text[:separator]
    _check_hrp(hrp)
    values = _to_values(text, separator + 1)
    if len(values) < _CHECKSUM_SIZE:
        raise FormatError("the text is too short to hold a checksum")
    if _polymod(_expand(hrp.lower()), values) != 1:
        raise FormatError("the checksum does not match, so the text is mistyped or cut")
    return hrp, _groups_to_bytes(values[:-_CHECKSUM_SIZE])


def _check_hrp(hrp: str) -> None:
    if not hrp:
        raise FormatError("the prefix is empty")
    if not all(33 <= ord(character) <= 126 for character in hrp):
        raise FormatError("the prefix holds a character that is not printable ASCII")
    if hrp not in (hrp.lower(), hrp.upper()):
        raise FormatError("the prefix mixes upper-case and lower-case letters")


def _to_values(text: str, start: int) -> bytes:
    """Return the 5-bit value of each character of the data part, one a byte."""
    values = text[start:].lower().encode("ascii").translate(_VALUES)
    stranger = values.find(_NO_VALUE)
    if stranger >= 0:
        raise FormatError(f"character {start + stranger + 1} is not one that Bech32 uses")
    return values


def _expand(hrp: str) -> list[int]:
    codes = hrp.encode("ascii")
    return [code >> 5 for code in codes] + [0] + [code & 31 for code in codes]


def _polymod(*parts: Iterable[int]) -> int:
    checksum = 1
    for part in parts:
        for value in part:
            checksum = (checksum & 0x1FFFFFF) << 5 ^ value ^ _STEP[checksum >> 25]
    return checksum


def _checksum(hrp: str, values: list[int]) -> list[int]:
    remainder = _polymod(_expand(hrp), values, bytes(_CHECKSUM_SIZE)) ^ 1
    return [remainder >> 5 * (_CHECKSUM_SIZE - 1 - i) & 31 for i in range(_CHECKSUM_SIZE)]


def _bytes_to_groups(data: bytes) -> list[int]:
    """Cut bytes into 5-bit groups; the last one is filled up with zero bits."""
    groups = []
    pending = bits = 0
    for byte in data:
        pending = (pending << 8 | byte) & 0xFFF  # at most 4 bits wait, then 8 come
        bits += 8
        while bits >= 5:
            bits -= 5
            groups.append(pending >> bits & 31)
    if bits:
        groups.append(pending << (5 - bits) & 31)
    return groups


def _groups_to_bytes(groups: bytes) -> bytes:
    """Join 5-bit groups; fewer than 5 bits may be left over, and they must be zero."""
    data = bytearray()
    pending = bits = 0
    for group in groups:
        pending = (pending << 5 | group) & 0xFFF  # at most 7 bits wait, then 5 come
        bits += 5
        if bits >= 8:
            bits -= 8
            data.append(pending >> bits & 0xFF)
    if bits >= 5:
        raise FormatError("the data part has a character too many")
    if pending & ((1 << bits) - 1):
        raise FormatError("the padding bits are not zero")
    return bytes(data)
