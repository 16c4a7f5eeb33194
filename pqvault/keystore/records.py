"""What the keystore keeps, as frozen values. Times: Unix time in milliseconds."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from pqvault.errors import UsageError
from pqvault.keystore.states import State

__all__ = [
    "Address",
    "AuditEntry",
    "KeyName",
    "KeyVersion",
    "Meta",
    "Transition",
    "Unlock",
    "check_name",
    "is_address",
]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ADDRESS: Final = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})(?:@([0-9]{1,9}|[0-9]{4}-[0-9]{2}))?"
)
_RESERVED: Final = (
    "age1",
    "age-",
    "pqv-high-1",
    "pqv-cnsa2-1",
)  # where key texts begin, which -r takes too


@dataclass(frozen=True, slots=True)
class Meta:
    """The one row about the store. ``root``: digest over all rows that are authenticated."""

    format: int
    keystore: str
    created: int
    generation: int
    audit_seq: int
    audit_hash: bytes
    root: bytes
    mac: bytes


@dataclass(frozen=True, slots=True)
class Unlock:
    """One way to the store key: ``kind`` and its public parameters (JSON)."""

    kind: str
    parameters: str
    sealed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyName:
    """A key as people know it; ``uid`` stays when it is renamed.

    ``floor_seal``, ``floor_open``: the lowest version that may seal, and open.
    """

    uid: str
    name: str
    created: int
    labels: tuple[tuple[str, str], ...] = ()
    floor_seal: int = 1
    floor_open: int = 1

    def at(self, v: KeyVersion) -> str:
        """The address of a version: ``prod@2``."""
        return f"{self.name}@{v.version}"


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """One key pair. ``sealed_seed`` is None when destroyed, or when only a recipient was imported.

    ``transitions``, ``history``: how many there were, and a digest over them.
    """

    uid: str
    version: int
    profile: str
    key_id: str
    public_key: bytes = field(repr=False)
    sealed_seed: bytes | None = field(repr=False)
    state: State
    created: int
    expires: int | None
    period: str
    transitions: int
    history: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of state: when, from where ("" for new), to where, why."""

    seq: int
    time: int
    old: str
    new: str
    reason: str


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of the audit log. ``detail``: JSON. ``hash`` covers ``previous`` and the rest."""

    seq: int
    time: int
    action: str
    subject: str
    detail: str
    previous: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class Address:
    """``prod``, ``prod@2`` or ``logs@2026-11``."""

    name: str
    version: int | None = None
    period: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises UsageError for what cannot name a key."""
        match = _ADDRESS.fullmatch(text)
        if match is None or not is_address(text):
            raise UsageError(
                f"{text[:80]!r} names no key",
                hint="write NAME, NAME@VERSION or NAME@YEAR-MONTH; see `pqvault key list`",
            )
        name, which = match[1], match[2] or ""
        if "-" in which:
            return cls(name, None, which)
        return cls(name, int(which) if which else None)


def is_address(text: str) -> bool:
    """Whether ``text`` could name a key, which no recipient's text does."""
    return bool(_ADDRESS.fullmatch(text)) and not text.lower().startswith(_RESERVED)


def check_name(name: str) -> str:
    """``name``. Raises UsageError when a key cannot be called that."""
    if not _NAME.fullmatch(name) or name.lower().startswith(_RESERVED):
        raise UsageError(
            f"a key cannot be called {name[:80]!r}",
            hint="use 1 to 64 letters, digits, dots, dashes, underscores; not age1…, age-…, pqv-…",
        )
    return name
