"""Requests to a store that may fail for a moment: tried again with backoff, explained at last."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from pqvault.errors import NotFound, PQVaultError
from pqvault.names import printable

__all__ = ["ATTEMPTS", "code_of", "explain_remote", "is_passing", "tried"]

ATTEMPTS: Final = 6
_FIRST: Final = 0.1  # seconds before the second attempt; doubled from then on: 3 s in all
_LONGEST_TEXT: Final = 200  # characters of what a store says that are shown

# What the libraries of stores raise when a connection was cut, or an answer did not come as it was
# sent. By name: each is an optional library, and none is worth importing to compare a class.
_CONNECTION: Final = {
    "ClientConnectionError",
    "ClientPayloadError",
    "EndpointConnectionError",
    "FSTimeoutError",
    "FlexibleChecksumError",
    "HTTPClientError",
    "IncompleteRead",
    "IncompleteReadError",
    "ResponseParserError",
    "ResponseStreamingError",
}
_PASSING: Final = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EIO,
    errno.EPIPE,
    errno.EREMOTEIO,
    errno.ETIMEDOUT,
}

_CREDENTIALS: Final = {
    "CredentialRetrievalError",
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
}

# What S3 answers to a request whose body did not come as it was sent.
_DAMAGED: Final = {"BadDigest", "IncompleteBody", "XAmzContentChecksumMismatch"}

Result = TypeVar("Result")


def is_passing(error: Exception) -> bool:
    """Whether the same request may succeed a moment later: a cut connection, bytes that were
    damaged under way, a store that is busy or has an error of its own (5xx). Not: no such file, no
    permission, a request it refuses."""
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    if isinstance(error, OSError):
        return error.errno in _PASSING or code_of(error) in _DAMAGED
    return _is_one_of(error, _CONNECTION)


def _is_one_of(error: Exception, names: set[str]) -> bool:
    return any(kind.__name__ in names for kind in type(error).__mro__)


def code_of(error: OSError) -> str:
    """The name that S3 gave an error, or ""."""
    # s3fs turns the answer into an OSError and keeps the original as its cause.
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def tried(call: Callable[[], Result]) -> Result:
    """What ``call`` returns, at the latest in its sixth attempt; raises what the last one raised.

    The waits are drawn between half and all of a doubling time, so that a hundred readers that
    failed together do not come back together.
    """
    for attempt in range(ATTEMPTS - 1):
        try:
            return call()
        except Exception as error:
            if not is_passing(error):
                raise
            time.sleep(_FIRST * 2**attempt * random.uniform(0.5, 1))
    return call()


def explain_remote(error: Exception, doing: str, where: str) -> PQVaultError:
    """The error of pqvault's tree for what a store's library raised.

    "cannot read s3://bucket/a: permission denied". What the store said is shown escaped and
    cut: it is the store's word.
    """
    if isinstance(error, PQVaultError):
        return error
    if isinstance(error, OSError) and code_of(error) == "NoSuchBucket":
        hint = "make the bucket, or check the URL: pqvault makes none"
        return NotFound(f"cannot {doing} {where}: no such bucket", hint=hint)
    if isinstance(error, FileNotFoundError):
        return NotFound(f"cannot {doing} {where}: no such object", hint="check the URL")
    if isinstance(error, PermissionError):
        return PQVaultError(
            f"cannot {doing} {where}: the store refuses: {_text(error)}",
            hint="check the credentials (they may have expired) and what they are allowed to do",
        )
    hint = ""
    if is_passing(error):
        hint = "the store may be overloaded or out of reach: check its endpoint, or try again later"
    elif _is_one_of(error, _CREDENTIALS):
        hint = "hand credentials over in the way of the store's library, as AWS_PROFILE"
    return PQVaultError(f"cannot {doing} {where}: {_text(error)}", hint=hint)


def _text(error: Exception) -> str:
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    first = next(iter(said.splitlines()), "")[:_LONGEST_TEXT]
    return printable(first.encode("utf-8", "replace")) or type(error).__name__
