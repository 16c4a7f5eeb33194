"""Keys as text, in age's own encodings (C2SP age.md, "The MLKEM768-X25519 … recipient type").

===========  =====================  ====================================================
what         text                   bytes
===========  =====================  ====================================================
recipient    ``age1pq1…``           1,216: 1,184 ML-KEM-768 ‖ 32 X25519 public key (X-Wing)
identity     ``AGE-SECRET-KEY-PQ-1…``  32: the seed that both private keys expand from
===========  =====================  ====================================================

A file holds one key a line; lines that are empty or start with ``#`` are skipped, and a
line may end in CRLF. One key has one text: upper-case recipients, lower-case identities
and spaces around a key are refused, as age refuses them.

Every refusal is a `UsageError` that names the file and the line and never repeats the
line, which may hold a private key even where a recipient belongs. Only lengths are
checked here; whether the bytes are a valid key is for ``crypto/`` to say.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from pqvault.errors import FormatError, UsageError
from pqvault.format import bech32

__all__ = [
    "MAX_FILE_SIZE",
    "MAX_KEYS",
    "PUBLIC_KEY_SIZE",
    "SEED_SIZE",
    "decode_identity",
    "decode_recipient",
    "encode_identity",
    "encode_recipient",
    "format_identity_file",
    "parse_identity_file",
    "parse_recipients_file",
]

PUBLIC_KEY_SIZE = 1_216  # bytes: X-Wing's pk, draft-connolly-cfrg-xwing-kem
SEED_SIZE = 32  # bytes: X-Wing's sk, the same
MAX_FILE_SIZE = 16 << 20  # bytes, as age reads (parse.go)
MAX_LINE_SIZE = 8 << 10  # bytes, as age and sshd(8) read; a recipient has 1,959
MAX_KEYS = 1_024  # in one file; an envelope holds no more recipients than this

_RECIPIENT_HRP = "age1pq"
_IDENTITY_HRP = "AGE-SECRET-KEY-PQ-"

_GET_A_KEY = "make a post-quantum key with `pqvault keygen -o key.txt`; its recipient is age1pq1…"


@dataclass(frozen=True, slots=True)
class _Foreign:
    """A known kind of key text that is refused, and why."""

    start: re.Pattern[str]
    reason: str
    hint: str = _GET_A_KEY


def _foreign(start: str, reason: str, hint: str = _GET_A_KEY) -> _Foreign:
    return _Foreign(re.compile(start, re.IGNORECASE), reason, hint)


_QUANTUM = "a quantum computer opens what is sealed to it"
_SSH = r"ssh-|ecdsa-|sk-ssh-|sk-ecdsa-"

# The first row that matches speaks, so narrow prefixes stand before wide ones.
_NOT_RECIPIENTS = (
    _foreign(
        r"age-secret-key-|age-plugin-",
        "an identity (a private key) stands where a recipient belongs",
        "`pqvault keygen -y FILE` prints the recipient of an identity file; a private key "
        "that was typed on a command line or shared is no longer private",
    ),
    _foreign(r"age1pq1", "a recipient is written in lower-case letters only"),
    _foreign(r"age1tagpq1", "recipients of hardware keys (age1tagpq1…) are not supported"),
    _foreign(r"age1tag1", f"this is a classical hardware key (age1tag1…): {_QUANTUM}"),
    _foreign(r"age1[^1]*1", "recipients of age plugins are not supported"),
    _foreign(r"age1", f"this is a classical age key (X25519): {_QUANTUM}"),
    _foreign(_SSH, f"this is an SSH key: {_QUANTUM}"),
    _foreign(r"-----BEGIN", "PEM keys are not supported"),
    _foreign(r"github:", "recipients are never looked up on GitHub"),
    _foreign(
        r"",
        "this is not a recipient",
        "a recipient starts with age1pq1; to name a file of recipients use -R FILE",
    ),
)

_NOT_IDENTITIES = (
    _foreign(r"age-secret-key-pq-1", "an identity is written in upper-case letters only"),
    _foreign(
        r"age-secret-key-1",
        f"this is a classical age key (X25519), which pqvault does not use: {_QUANTUM}",
    ),
    _foreign(r"age-plugin-", "identities of age plugins are not supported"),
    _foreign(
        r"age1",
        "a recipient (a public key) stands where an identity belongs",
        "pass the identity file that `pqvault keygen -o key.txt` wrote",
    ),
    _foreign(
        r"age-encryption\.org|-----BEGIN AGE ENCRYPTED",
        "this identity file is encrypted with age",
        "decrypt it with `age -d` first, onto a disk in memory such as /dev/shm",
    ),
    _foreign(r"-----BEGIN", "SSH and other PEM private keys are not supported"),
    _foreign(_SSH, f"this is an SSH key: {_QUANTUM}"),
    _foreign(
        r"",
        "this is not an identity",
        "an identity starts with AGE-SECRET-KEY-PQ-1; `pqvault keygen -o key.txt` makes one",
    ),
)


def encode_recipient(public_key: bytes) -> str:
    """Return ``age1pq1…`` (1,959 characters) for an X-Wing public key of 1,216 bytes.

    Raises `UsageError` when the length is another one.
    """
    _check_size("an X-Wing public key", public_key, PUBLIC_KEY_SIZE)
    return bech32.encode(_RECIPIENT_HRP, public_key)


def decode_recipient(text: str, *, where: str = "recipient") -> bytes:
    """Return the 1,216 bytes of the X-Wing public key that ``age1pq1…`` stands for.

    `where` begins every error: a file and a line, or what the text was given as.
    Raises `UsageError` for classical keys, other kinds of keys, and damaged text.
    """
    if not text.startswith(_RECIPIENT_HRP + "1"):
        raise _refusal(text, _NOT_RECIPIENTS, where)
    return _decode(text, _RECIPIENT_HRP, PUBLIC_KEY_SIZE, where)


def encode_identity(seed: bytes) -> str:
    """Return ``AGE-SECRET-KEY-PQ-1…`` (77 characters, secret) for a seed of 32 bytes.

    Raises `UsageError` when the length is another one.
    """
    _check_size("the seed of an identity", seed, SEED_SIZE)
    return bech32.encode(_IDENTITY_HRP, seed)


def decode_identity(text: str, *, where: str = "identity") -> bytes:
    """Return the 32-byte seed that ``AGE-SECRET-KEY-PQ-1…`` stands for.

    `where` begins every error, as in `decode_recipient`; no error repeats the text.
    Raises `UsageError` for classical keys, other kinds of keys, and damaged text.
    """
    if not text.startswith(_IDENTITY_HRP + "1"):
        raise _refusal(text, _NOT_IDENTITIES, where)
    return _decode(text, _IDENTITY_HRP, SEED_SIZE, where)


def parse_recipients_file(text: bytes, source: str) -> list[tuple[int, bytes]]:
    """Return (line number from 1, 1,216-byte public key) of each key in a recipients file.

    Repeated keys are returned as often as they stand there. Raises `UsageError` naming
    `source` and the line; for more than 16 MiB, 1,024 keys, or no key at all.
    """
    return _parse_file(text, source, "recipients", decode_recipient)


def parse_identity_file(data: bytes, source: str) -> list[bytes]:
    """Return the 32-byte seeds in an identity file, in the order of its lines.

    Raises `UsageError` naming `source` and the line, never what stands there; for more
    than 16 MiB, 1,024 keys, or no key at all.
    """
    return [seed for _, seed in _parse_file(data, source, "identities", decode_identity)]


def format_identity_file(seed: bytes, public_text: str, created: float) -> str:
    """Return an identity file as ``age-keygen -pq`` writes it: three lines, secret.

    `created`: seconds since 1970, written to the second in UTC (RFC 3339). Raises
    `UsageError` for a wrong key. That the two keys belong together is for the caller.
    """
    decode_recipient(public_text)
    stamp = datetime.fromtimestamp(int(created), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"# created: {stamp}\n# public key: {public_text}\n{encode_identity(seed)}\n"


def _check_size(what: str, data: bytes, size: int) -> None:
    if len(data) != size:
        raise UsageError(f"{what} has {size:,} bytes, not {len(data):,}")


def _decode(text: str, hrp: str, size: int, where: str) -> bytes:
    try:
        found, data = bech32.decode(text)
    except FormatError as error:
        raise _damaged(where, error.message) from None
    # The caller saw the prefix, but a later '1' makes Bech32's own prefix longer.
    if found != hrp:
        raise _damaged(where, "there is a '1' inside the key")
    if len(data) != size:
        raise _damaged(where, f"it stands for {len(data):,} bytes instead of {size:,}")
    return data


def _damaged(where: str, reason: str) -> UsageError:
    return UsageError(f"{where}: {reason}", hint="copy the key again, whole and on one line")


def _refusal(text: str, table: tuple[_Foreign, ...], where: str) -> UsageError:
    if text != text.strip():
        return _damaged(where, "there are spaces around the key")
    row = next(row for row in table if row.start.match(text))
    return UsageError(f"{where}: {row.reason}", hint=row.hint)


def _parse_file(
    data: bytes, source: str, what: str, decode: Callable[..., bytes]
) -> list[tuple[int, bytes]]:
    if len(data) > MAX_FILE_SIZE:
        raise UsageError(f"{source}: a file of {what} has at most {MAX_FILE_SIZE >> 20} MiB")
    keys: list[tuple[int, bytes]] = []
    for number, line in _key_lines(data):
        where = f"{source}, line {number}"
        if len(keys) == MAX_KEYS:
            raise UsageError(f"{where}: a file of {what} holds at most {MAX_KEYS:,} keys")
        keys.append((number, decode(_text_of(line, where), where=where)))
    if not keys:
        raise UsageError(f"{source}: no {what} found", hint=_GET_A_KEY)
    return keys


def _key_lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    # BytesIO, because split() would make 16 million objects of 16 MiB of newlines.
    for number, raw in enumerate(io.BytesIO(data), 1):
        line = raw.removesuffix(b"\n").removesuffix(b"\r")
        if line and not line.startswith(b"#"):
            yield number, line


def _text_of(line: bytes, where: str) -> str:
    if len(line) > MAX_LINE_SIZE:
        raise _damaged(where, f"the line is longer than {MAX_LINE_SIZE:,} bytes")
    # Asked first: a UnicodeDecodeError would carry the line, perhaps a secret, with it.
    if not line.isascii():
        raise _damaged(where, "the line holds bytes that are not ASCII")
    return line.decode("ascii")
