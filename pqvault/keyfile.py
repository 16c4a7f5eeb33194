"""Files of keys: read with a bound and an eye on who else may read, written once, mode 0600."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pqvault import passphrases, sealedfile
from pqvault.errors import UsageError

__all__ = ["MAX_SIZE", "is_secret", "read", "read_private", "write"]

MAX_SIZE: Final = 16 * 1024 * 1024  # bytes
_SECRETS: Final = ("SECRET-KEY-", "SIGNING-KEY-")  # in the texts of private keys of all kinds


def is_secret(text: str) -> bool:
    """Whether a text is or holds a private key: such a one is never repeated."""
    return any(secret in text.upper() for secret in _SECRETS)


def read(path: str) -> bytes:
    """A file of public keys. Raises UsageError."""
    return _read(path, private=False)


def read_private(path: str, ask: Callable[[str], bytes] | None = None) -> bytes:
    """A file of private keys; one that is sealed under a passphrase is opened.

    ``ask(prompt)`` gives the passphrase; by default `pqvault.passphrases` does. Raises
    UsageError when it is a regular file that others may read (ATTACKS row 38), NoKeyFits for a
    wrong passphrase.
    """
    data = _read(path, private=True)
    if not sealedfile.is_sealed(data):
        return data
    words = (ask or _ask)(f"passphrase of {path}: ")
    return sealedfile.open_file(data, words, f"the identity file {path}")


def write(path: str | os.PathLike[str], text: str, passphrase: bytes | None = None) -> None:
    """Write a new file of private keys, mode 0600, sealed when there is a passphrase.

    Raises UsageError when the file exists.
    """
    from pqvault.wholefile import sync_folder  # 30 ms, for who makes a key

    data = text.encode()
    if passphrase is not None:
        data = sealedfile.seal_file(data, passphrase)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    target = Path(path)
    try:
        fd = os.open(target, flags, 0o600)
    except FileExistsError:
        raise UsageError(
            f"{target} exists, and an identity file is never overwritten",
            hint="choose another name with -o",
        ) from None
    except OSError as error:
        raise UsageError(
            f"{target} cannot be written: {error.strerror}", hint="choose another folder with -o"
        ) from None
    try:
        with open(fd, "wb") as file:
            os.fchmod(fd, 0o600)
            file.write(data)
            file.flush()
            os.fsync(fd)
        # Its name too: what is sealed to the key next is durable, and nothing else opens it.
        sync_folder(target.parent)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise UsageError(
            f"{target} cannot be written: {error.strerror}", hint="choose another folder with -o"
        ) from None


def _ask(prompt: str) -> bytes:
    return passphrases.ask(prompt, passphrases.IDENTITY, passphrases.KEYSTORE)


def _read(path: str, *, private: bool) -> bytes:
    try:
        with open(path, "rb") as file:
            info = os.fstat(file.fileno())
            if private and stat.S_ISREG(info.st_mode) and info.st_mode & 0o077:
                raise UsageError(
                    f"the identity file {path} can be read by other users",
                    hint=f"run `chmod 600 {path}`",
                )
            data = file.read(MAX_SIZE + 1)
    except OSError as error:
        if is_secret(path):
            raise UsageError(
                "the text of a private key was given where the path of its file belongs",
                hint="save it in a file of mode 0600 and give its path; one that was typed on a"
                " command line or shared is no longer private",
            ) from None
        raise UsageError(
            f"the key file {path} cannot be read: {error.strerror}", hint="check the path"
        ) from None
    if len(data) > MAX_SIZE:
        raise UsageError(
            f"the key file {path} is over {MAX_SIZE} bytes", hint="is it the file that was meant?"
        )
    return data
