"""Passphrases: Argon2id (RFC 9106), then HKDF-Expand into a key and a check.

AES-GCM alone does not commit to its key: one ciphertext can be made that opens under many
passphrases, so that each guess tries thousands (partitioning oracles, Len, Grubbs, Ristenpart
2021). The 32-byte check commits, and it is compared before anything is opened.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NoReturn

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from pqvault.crypto import kdf, mac
from pqvault.errors import FormatError, NoKeyFits, PQVaultError

__all__ = [
    "CHECK_SIZE",
    "COSTS",
    "MAX_PASSPHRASE",
    "SALT_SIZE",
    "Cost",
    "Derived",
    "Lock",
    "new_lock",
]

SALT_SIZE: Final = 16  # bytes, RFC 9106 section 3.1
CHECK_SIZE: Final = 32  # bytes: 128 bits against two passphrases with one check
MAX_PASSPHRASE: Final = 4096  # bytes

MAX_MEMORY: Final = 4 << 20  # KiB: 4 GiB
MAX_PASSES: Final = 16
MAX_LANES: Final = 16


_COPY: Final = "no pqvault asks for so much: the file was altered; restore it from a copy"


@dataclass(frozen=True, slots=True)
class Cost:
    """Argon2id parameters. ``memory`` in KiB, at least 8 a lane.

    Raises FormatError beyond 4 GiB, 16 passes or 16 lanes: they are read from files, so they
    are capped before any memory is taken (ATTACKS row 41).
    """

    memory: int
    passes: int
    lanes: int

    def __post_init__(self) -> None:
        if not 1 <= self.passes <= MAX_PASSES or not 1 <= self.lanes <= MAX_LANES:
            raise FormatError(
                f"Argon2id with {self.passes} passes, {self.lanes} lanes is refused", hint=_COPY
            )
        if not 8 * self.lanes <= self.memory <= MAX_MEMORY:
            raise FormatError(f"Argon2id with {self.memory} KiB of memory is refused", hint=_COPY)

    @property
    def text(self) -> str:
        """The parameters as what is derived is bound to them, and as the audit log has them."""
        return f"argon2id {self.memory} {self.passes} {self.lanes}"


# RFC 9106 section 4: the second recommended option and the first.
COSTS: Final = MappingProxyType({"standard": Cost(1 << 16, 3, 4), "high": Cost(1 << 21, 1, 4)})


@dataclass(frozen=True, slots=True)
class Derived:
    """What a passphrase gives: a key (secret) and the check, 32 bytes each."""

    key: bytes = field(repr=False)
    check: bytes

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is not pickled")


@dataclass(frozen=True, slots=True)
class Lock:
    """What a file keeps of a passphrase: cost, salt (16 bytes) and check (32 bytes)."""

    cost: Cost
    salt: bytes
    check: bytes

    def open(self, passphrase: bytes, what: str) -> bytes:
        """The key, 32 bytes. Raises NoKeyFits for a wrong passphrase."""
        derived = derive(passphrase, self.salt, self.cost)
        if not mac.equal(derived.check, self.check):
            raise NoKeyFits(
                f"the passphrase does not open {what}",
                hint="check the passphrase, and which of PQVAULT_PASSPHRASE_FILE, _FD, _COMMAND "
                "is set; a file that was altered answers the same",
            )
        return derived.key


def new_lock(passphrase: bytes, cost: Cost) -> tuple[Lock, bytes]:
    """A lock with a fresh salt, and its key."""
    salt = secrets.token_bytes(SALT_SIZE)
    derived = derive(passphrase, salt, cost)
    return Lock(cost, salt, derived.check), derived.key


def derive(passphrase: bytes, salt: bytes, cost: Cost) -> Derived:
    """Argon2id to 32 bytes, HKDF-Expand to 64: key ‖ check. Raises FormatError for a bad salt."""
    if len(salt) != SALT_SIZE:
        raise FormatError(f"the salt of a passphrase has {SALT_SIZE} bytes, not {len(salt)}")
    if not 1 <= len(passphrase) <= MAX_PASSPHRASE:
        raise NoKeyFits(f"a passphrase has 1 to {MAX_PASSPHRASE} bytes")
    argon2 = Argon2id(
        salt=salt, length=32, iterations=cost.passes, lanes=cost.lanes, memory_cost=cost.memory
    )
    try:
        stretched = argon2.derive(passphrase)
    except MemoryError:
        raise PQVaultError(
            f"there is no memory for Argon2id, which needs {cost.memory >> 10} MiB"
        ) from None
    parameters = cost.text.encode()
    both = kdf.derive(stretched, 32 + CHECK_SIZE, "passphrase", salt, parameters)
    return Derived(both[:32], both[32:])
