"""Where a passphrase comes from: a file, a descriptor, a command, the environment, a person.

The variables are ``<PREFIX>_FILE``, ``_FD``, ``_COMMAND`` and last the plain one, which other
processes of this user can read, so that it comes with a warning. Never the value of a flag:
that would stand in the process list and the shell's history (ATTACKS row 40).
"""

from __future__ import annotations

import getpass
import os
import shlex
import stat
import subprocess
import unicodedata
from collections.abc import Callable
from typing import Final

from pqvault.errors import UsageError

__all__ = ["IDENTITY", "KEYSTORE", "NEW", "Warn", "ask", "ask_new", "configured"]

KEYSTORE: Final = "PQVAULT_PASSPHRASE"
NEW: Final = "PQVAULT_NEW_PASSPHRASE"  # what `key passwd` changes to
IDENTITY: Final = "PQVAULT_IDENTITY_PASSPHRASE"  # of a sealed identity file, else KEYSTORE

MAX_SIZE: Final = 4096  # bytes
_TIMEOUT: Final = 120  # seconds for a command, which may ask a person
_TRY: Final = "run it by itself; its words are split as a shell does, but there is no shell"
_SUFFIXES: Final = ("_FILE", "_FD", "_COMMAND", "")

Warn = Callable[[str], None]


def configured(*prefixes: str) -> bool:
    """Whether the environment names a source, so that nobody will be asked."""
    return _source(prefixes) is not None


def ask(prompt: str, *prefixes: str, warn: Warn = lambda _: None) -> bytes:
    """The passphrase: from the first source that is set, in the order of ``prefixes``, else from
    the terminal. Text is brought to Unicode's NFC, one newline at the end is not part of it.

    Raises UsageError when there is no source and no terminal, or it is empty or too long.
    """
    source = _source(prefixes)
    return _checked(_prompt(prompt, prefixes) if source is None else _read(*source, warn))


def ask_new(prompt: str, *prefixes: str, warn: Warn = lambda _: None) -> bytes:
    """The same for a passphrase that is chosen now; a person types it twice."""
    if configured(*prefixes):
        return ask(prompt, *prefixes, warn=warn)
    first = _checked(_prompt(prompt, prefixes))
    if first != _checked(_prompt("again: ", prefixes)):
        raise UsageError("the two passphrases differ", hint="type the same one twice")
    return first


def _source(prefixes: tuple[str, ...]) -> tuple[str, str] | None:
    for prefix in prefixes:
        for suffix in _SUFFIXES:
            value = os.environ.get(prefix + suffix)
            if value:
                return prefix + suffix, value
    return None


def _read(variable: str, value: str, warn: Warn) -> bytes:
    if variable.endswith("_FILE"):
        return _from_file(variable, value, warn)
    if variable.endswith("_FD"):
        return _from_descriptor(variable, value)
    if variable.endswith("_COMMAND"):
        return _from_command(variable, value)
    warn(f"{variable} can be read by every process of this user: better {variable}_FILE")
    return os.fsencode(value)


def _from_file(variable: str, path: str, warn: Warn) -> bytes:
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                warn(f"the passphrase file {path} can be read by other users")
            return file.read(MAX_SIZE + 2)
    except OSError as error:
        raise UsageError(
            f"the passphrase file {path} cannot be read: {error.strerror}",
            hint=f"{variable} names it: is that the right path?",
        ) from None


# A descriptor gives its passphrase once, and a command may need it twice.
_descriptors: dict[int, bytes] = {}


def _from_descriptor(variable: str, value: str) -> bytes:
    try:
        number = int(value)
        if number not in _descriptors:
            with open(number, "rb") as file:
                _descriptors[number] = file.read(MAX_SIZE + 2)
        return _descriptors[number]
    except ValueError:
        why = f"{variable} is not the number of a descriptor"
    except OSError as error:
        why = f"{variable}: descriptor {value}: {error.strerror}"
    raise UsageError(why, hint=f"open one for the command: {variable}=3 pqvault … 3<FILE")


def _from_command(variable: str, value: str) -> bytes:
    try:
        # No shell; its standard error stays ours, so that its prompts are seen.
        words = shlex.split(value) or [value]  # of blanks alone
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=_TIMEOUT, check=False
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        if isinstance(error, OSError):
            why = f"cannot be run: {error.strerror}"
        elif isinstance(error, ValueError):
            why = "is not what a shell could split"
        else:
            why = f"took longer than {_TIMEOUT} seconds"
        raise UsageError(f"the command of {variable} {why}", hint=_TRY) from None
    if done.returncode:
        raise UsageError(f"the command of {variable} ended with {done.returncode}", hint=_TRY)
    return done.stdout


def _prompt(prompt: str, prefixes: tuple[str, ...]) -> bytes:
    try:
        # Asked first: without a terminal getpass would read standard input, echoing.
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        raise UsageError(
            f"the {prompt.removesuffix(': ')} is needed, and there is no terminal to ask on",
            hint=f"name a file in {prefixes[0]}_FILE, or see _FD and _COMMAND",
        ) from None
    return os.fsencode(getpass.getpass(prompt))


def _checked(data: bytes) -> bytes:
    data = data.removesuffix(b"\n").removesuffix(b"\r")
    try:
        # One word typed on two systems can be two byte strings; NFC makes them one.
        data = unicodedata.normalize("NFC", data.decode("utf-8")).encode("utf-8")
    except UnicodeDecodeError:
        pass  # bytes that are no text stay as they are
    if not data:
        raise UsageError("the passphrase is empty", hint="give one of 1 to 4,096 bytes")
    if len(data) > MAX_SIZE:
        raise UsageError(
            f"the passphrase is longer than {MAX_SIZE:,} bytes",
            hint="is it read from the right file?",
        )
    return data
