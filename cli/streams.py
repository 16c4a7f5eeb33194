"""Standard streams and files for encrypt and decrypt."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import BinaryIO

from pqvault.errors import UsageError
from pqvault.wholefile import whole_file

__all__ = ["copy", "standard_input", "standard_output"]


def standard_input() -> BinaryIO:
    """Standard input. Raises UsageError where it was closed before we began."""
    if sys.stdin is None:
        raise UsageError("standard input is closed", hint="name a file")
    return sys.stdin.buffer


def standard_output() -> BinaryIO:
    """Standard output. Raises UsageError where it was closed before we began."""
    if sys.stdout is None:
        raise UsageError("standard output is closed", hint="redirect it to a file")
    return sys.stdout.buffer


def copy(
    source: str,
    target: str,
    do: Callable[[BinaryIO, BinaryIO], int],
    *,
    force: bool,
    binary: bool,
) -> int:
    """Call ``do`` with both ends open; ``-`` is a standard stream.

    Raises UsageError when binary output would go to a terminal, when IN cannot be read, and
    when both are one file.
    """
    for end in (source, target):
        if "://" in end and not os.path.lexists(os.path.dirname(end)):
            raise UsageError(
                f"{end} is a URL, and here are files and pipes only",
                hint="put the store's own tool before or behind a pipe; archives take URLs:"
                " `pqvault seal … -o URL`",
            )
    if target == "-":
        output = standard_output()
        if binary and output.isatty():
            raise UsageError(
                "sealed bytes are not for a terminal", hint="name a file with -o, or use a pipe"
            )
        with _reader(source) as reader:
            done = do(reader, output)
            output.flush()
            return done
    there = source != "-" and os.path.exists(source) and os.path.exists(target)
    if there and os.path.samefile(source, target):
        raise UsageError(f"{source} is both input and output", hint="choose another -o")
    with _reader(source) as reader, whole_file(target, force=force) as writer:
        return do(reader, writer)


def _reader(source: str) -> BinaryIO:
    if source == "-":
        return open(standard_input().fileno(), "rb", buffering=0, closefd=False)
    try:
        return open(source, "rb", buffering=0)
    except OSError as error:
        hint = "check the path"
        if isinstance(error, IsADirectoryError):
            hint = "`pqvault seal` and `pqvault unseal` are for folders, and archives are folders"
        raise UsageError(f"{source} cannot be read: {error.strerror}", hint=hint) from None
