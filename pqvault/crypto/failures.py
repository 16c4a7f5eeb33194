"""Where the library's exceptions become ours; nowhere else.

``str(InvalidTag())`` is empty and the library's errors share no base class, so each
call site says what it was opening and this module makes the sentence.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag

from pqvault.errors import FormatError, IntegrityError, PQVaultError

__all__ = ["LIBRARY_ERRORS", "failure"]

# What the primitives raise for bytes they refuse. MemoryError and bugs pass through.
LIBRARY_ERRORS = (InvalidTag, ValueError)


def failure(error: Exception, what: str) -> PQVaultError:
    """The error of our tree for ``error``, raised while opening ``what``.

    ``what`` names the object, for example ``"chunk 17 of parts/ab…/objects/000000-…"``.
    """
    if isinstance(error, InvalidTag):
        return IntegrityError(f"{what} failed authentication")
    return FormatError(f"{what} is not usable: {error}")
