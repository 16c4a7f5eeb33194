"""A keyset's content, and the references that it makes of keys. docs/format.md section 11."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from typing import Any, Final

from pqvault.errors import FormatError
from pqvault.format import textdoc

__all__ = ["FORMAT", "KEY_SIZE", "MAX_KEYS", "KeysetContent", "MasterKey", "Reference", "is_name"]

FORMAT: Final = "pqvault.dev/keyset@v1"
KEY_SIZE: Final = 32  # bytes of every key here
MAX_KEYS: Final = 4_096  # versions of master keys
_NAME: Final = re.compile(r"[A-Za-z0-9._/@-]{1,128}")
_KEYS: Final = ("format", "secret", "keys")
_MASTER_KEYS: Final = ("name", "version", "created", "key")
_WRAPPED: Final = 12 + KEY_SIZE + 16  # bytes: nonce ‖ AES-256-GCM of a data key
_REFERENCE: Final = re.compile(
    r"pqk1:([0-9a-f]{32}):(0|[1-9][0-9]{0,8}):([A-Za-z0-9+/=]{80})"  # base64 of 60 bytes
)


def is_name(text: str) -> bool:
    """Whether a master key may have this name: nothing that Parquet's own settings split at."""
    return _NAME.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class MasterKey:
    """One version of a master key. ``created``: Unix time in ms; ``key``: 32 bytes, or none when
    it was destroyed."""

    name: str
    version: int
    created: int
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeysetContent:
    """``secret``: 32 bytes that the keyset's id comes from. ``keys``: by name, then version."""

    secret: bytes = field(repr=False)
    keys: tuple[MasterKey, ...]

    def marshal(self) -> bytes:
        """One line of JSON, byte for byte what :meth:`parse` takes. It is a secret."""
        keys = [
            {
                "name": k.name,
                "version": k.version,
                "created": k.created,
                "key": textdoc.b64encode(k.key),
            }
            for k in self.keys
        ]
        value = {"format": FORMAT, "secret": textdoc.b64encode(self.secret), "keys": keys}
        return textdoc.marshal_json(value) + b"\n"

    @classmethod
    def parse(cls, data: bytes, what: str = "the keyset") -> KeysetContent:
        """Raises FormatError for anything that :meth:`marshal` never gives."""
        if len(data) > textdoc.MAX_SIZE or data[-1:] != b"\n":
            raise FormatError(f"{what} is truncated, or over {textdoc.MAX_SIZE} bytes")
        fields = textdoc.Fields(textdoc.parse_json(data[:-1], what), _KEYS, what)
        items = fields.items("keys")
        if fields.text("format") != FORMAT or len(items) > MAX_KEYS:
            raise FormatError(f"{what} is no keyset, or one of another version")
        keys = tuple(_master_key(item, what) for item in items)
        order = [(key.name, key.version) for key in keys]
        if any(here >= then for here, then in itertools.pairwise(order)):
            raise FormatError(f"the keys of {what} are not in order")
        return cls(_key(fields, "secret", what), keys)


def _master_key(value: Any, what: str) -> MasterKey:
    fields = textdoc.Fields(value, _MASTER_KEYS, f"a key of {what}")
    name = fields.text("name")
    if not is_name(name):
        raise FormatError(f"a key of {what} has a name that no key may have")
    version = fields.integer("version", 1)
    if version > 999_999_999:
        raise FormatError(f"a key of {what} has a version that no key may have")
    key = _key(fields, "key", what, or_none=True)
    return MasterKey(name, version, fields.integer("created"), key)


def _key(fields: textdoc.Fields, name: str, what: str, or_none: bool = False) -> bytes:
    key = fields.base64(name)
    if len(key) != KEY_SIZE and (key or not or_none):
        raise FormatError(f"a key of {what} is not {KEY_SIZE} bytes")
    return key


@dataclass(frozen=True, slots=True)
class Reference:
    """What stands in a Parquet file for a data key. ``keyset``: hex of 16 bytes; ``wrapped``: 60
    bytes, the data key under that version of a master key whose name stands beside it."""

    keyset: str
    version: int
    wrapped: bytes

    def marshal(self) -> str:
        """``pqk1:<keyset id>:<version>:<base64>``, about 120 characters."""
        return f"pqk1:{self.keyset}:{self.version}:{textdoc.b64encode(self.wrapped)}"

    @classmethod
    def parse(cls, text: str, what: str = "the wrapped key") -> Reference:
        """Raises FormatError."""
        match = _REFERENCE.fullmatch(text)
        if match is None:
            raise FormatError(f"{what} is not one of a pqvault keyset (pqk1:…)")
        wrapped = textdoc.b64decode(match[3], what)
        if len(wrapped) != _WRAPPED or match[2] == "0":
            raise FormatError(f"{what} is not one of a pqvault keyset (pqk1:…)")
        return cls(match[1], int(match[2]), wrapped)
