"""Every error pqvault raises, in one tree.

::

    PQVaultError                    1   something went wrong
    ├── UsageError                  2   the call's words are off
    ├── Incomplete                  3   some items failed, the rest is done
    ├── NotFound                   10   no such archive, part, entry or key
    ├── Locked                     11   another process holds it
    ├── NoKeyFits                  12   no identity fits (or a wrong passphrase)
    ├── IntegrityError             13   authentication failed: damaged or altered
    │   └── FormatError            13   bytes that no pqvault wrote
    ├── PolicyRefused              14   a signature or a policy says no
    ├── RolledBack                 15   something that was there is gone
    └── KeyStateForbids            16   the key's state forbids it

Each class carries the exit code of the command line. ``str(error)`` is one sentence
that names the object; ``error.hint`` is one sentence with the next step, or ``""``.
Code outside 0-16 and 130 must be read as failure.
"""

from __future__ import annotations

__all__ = [
    "FormatError",
    "Incomplete",
    "IntegrityError",
    "KeyStateForbids",
    "Locked",
    "NoKeyFits",
    "NotFound",
    "PQVaultError",
    "PolicyRefused",
    "RolledBack",
    "UsageError",
]


class PQVaultError(Exception):
    """Base of all errors that pqvault raises on purpose.

    ``message`` is one sentence that names the object, ``hint`` one with the next step.
    """

    exit_code = 1
    default_hint = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint


class UsageError(PQVaultError):
    """The arguments cannot be used as they are."""

    exit_code = 2


class Incomplete(PQVaultError):
    """Some items failed and are named; all others are done."""

    exit_code = 3


class NotFound(PQVaultError):
    """No such archive, part, entry, keystore or key."""

    exit_code = 10


class Locked(PQVaultError):
    """Another process holds the lock."""

    exit_code = 11
    default_hint = "wait for the other process to end, then run the command again"


class NoKeyFits(PQVaultError):
    """None of the identities given opens this; nothing is said about damage."""

    exit_code = 12
    default_hint = "pass the identity file of a recipient with -i; `pqvault inspect` shows key ids"


class IntegrityError(PQVaultError):
    """Authentication failed: damaged, truncated, swapped or altered."""

    exit_code = 13
    default_hint = (
        "restore this file from a copy; of an archive `pqvault verify` lists all that is damaged"
    )


class FormatError(IntegrityError):
    """Bytes that no pqvault writes: refused before they are believed."""


class PolicyRefused(PQVaultError):
    """A signature or a policy says no."""

    exit_code = 14


class RolledBack(PQVaultError):
    """Something that was there is gone, or an older state stands in for a newer one."""

    exit_code = 15


class KeyStateForbids(PQVaultError):
    """The state of the key forbids this use. ``key``: its address, where many may fail for it."""

    exit_code = 16

    def __init__(self, message: str, *, hint: str = "", key: str = "") -> None:
        super().__init__(message, hint=hint)
        self.key = key
