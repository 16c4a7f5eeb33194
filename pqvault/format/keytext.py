"""Keys as text: of the profile `standard` in age's own encodings (C2SP age.md, "The
MLKEM768-X25519 … recipient type"), of the others in forms of our own, in Bech32 too.

========  ==========================  ====================================
profile   recipient (public)          identity (secret)
========  ==========================  ====================================
standard  ``age1pq1…`` 1,216 bytes    ``AGE-SECRET-KEY-PQ-1…`` 32 bytes
high      ``pqv-high-1…`` 1,665       ``PQVAULT-SECRET-KEY-HIGH-1…`` 32
cnsa2     ``pqv-cnsa2-1…`` 1,568      ``PQVAULT-SECRET-KEY-CNSA2-1…`` 64
========  ==========================  ====================================

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
from types import MappingProxyType
from typing import TypeVar

from pqvault.errors import FormatError, UsageError
from pqvault.format import bech32

__all__ = [
    "FORMS",
    "MAX_FILE_SIZE",
    "MAX_KEYS",
    "Form",
    "decode_identity",
    "decode_recipient",
    "encode_identity",
    "encode_recipient",
    "format_identity_file",
    "parse_identity_file",
    "parse_recipients_file",
]

MAX_FILE_SIZE = 16 << 20  # bytes, as age reads (parse.go)
MAX_LINE_SIZE = 8 << 10  # bytes, as age and sshd(8) read; a recipient has 2,682 at most
MAX_KEYS = 1_024  # in one file; an envelope holds no more recipients than this


@dataclass(frozen=True, slots=True)
class Form:
    """How keys of a profile are written: what stands before Bech32's ``1``, and bytes."""

    recipient: str
    public_key_size: int
    identity: str
    seed_size: int


# Closed. profile -> form; pqvault/crypto/profiles.py says where the sizes come from.
FORMS = MappingProxyType(
    {
        "standard": Form("age1pq", 1_216, "AGE-SECRET-KEY-PQ-", 32),
        "high": Form("pqv-high-", 1_665, "PQVAULT-SECRET-KEY-HIGH-", 32),
        "cnsa2": Form("pqv-cnsa2-", 1_568, "PQVAULT-SECRET-KEY-CNSA2-", 64),
    }
)

_Key = TypeVar("_Key")

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
        r"age-secret-key-|age-plugin-|pqvault-secret-key-",
        "an identity (a private key) stands where a recipient belongs",
        "`pqvault keygen -y FILE` prints the recipient of an identity file; a private key "
        "that was typed on a command line or shared is no longer private",
    ),
    _foreign(r"age1pq1|pqv-(high|cnsa2)-1", "a recipient is written in lower-case letters only"),
    _foreign(
        r"pqvault-signing-key-",
        "a signing key (a private key) stands where a recipient belongs",
        "a private key that was typed on a command line is no longer private",
    ),
    _foreign(r"pqvsign", "this is a signer, whose key signs: nothing can be sealed to it"),
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
        "a recipient starts with age1pq1, pqv-high-1 or pqv-cnsa2-1; to name a file of recipients "
        "use -R FILE",
    ),
)

_NOT_IDENTITIES = (
    _foreign(
        r"age-secret-key-pq-1|pqvault-secret-key-(high|cnsa2)-1",
        "an identity is written in upper-case letters only",
    ),
    _foreign(
        r"age-secret-key-1",
        f"this is a classical age key (X25519), which pqvault does not use: {_QUANTUM}",
    ),
    _foreign(r"age-plugin-", "identities of age plugins are not supported"),
    _foreign(
        r"age1|pqv-",
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


def encode_recipient(profile: str, public_key: bytes) -> str:
    """Return ``age1pq1…`` (1,959 characters), or what the profile has, for a public key.

    Raises `UsageError` when the length is another one.
    """
    form = FORMS[profile]
    _check_size(f"a public key of {profile}", public_key, form.public_key_size)
    return bech32.encode(form.recipient, public_key)


def decode_recipient(text: str, *, where: str = "recipient") -> tuple[str, bytes]:
    """Return (profile, public key) that the text of a recipient stands for.

    `where` begins every error: a file and a line, or what the text was given as.
    Raises `UsageError` for classical keys, other kinds of keys, and damaged text.
    """
    for profile, form in FORMS.items():
        if text.startswith(form.recipient + "1"):
            return profile, _decode(text, form.recipient, form.public_key_size, where)
    raise _refusal(text, _NOT_RECIPIENTS, where)


def encode_identity(profile: str, seed: bytes) -> str:
    """Return ``AGE-SECRET-KEY-PQ-1…`` (77 characters, secret), or what the profile has.

    Raises `UsageError` when the length is another one.
    """
    form = FORMS[profile]
    _check_size(f"the seed of an identity of {profile}", seed, form.seed_size)
    return bech32.encode(form.identity, seed)


def decode_identity(text: str, *, where: str = "identity") -> tuple[str, bytes]:
    """Return (profile, seed) that the text of an identity stands for.

    `where` begins every error, as in `decode_recipient`; no error repeats the text.
    Raises `UsageError` for classical keys, other kinds of keys, and damaged text.
    """
    for profile, form in FORMS.items():
        if text.startswith(form.identity + "1"):
            return profile, _decode(text, form.identity, form.seed_size, where)
    raise _refusal(text, _NOT_IDENTITIES, where)


def parse_recipients_file(text: bytes, source: str) -> list[tuple[int, tuple[str, bytes]]]:
    """Return (line number from 1, (profile, public key)) of each key in a recipients file.

    Repeated keys are returned as often as they stand there. Raises `UsageError` naming
    `source` and the line; for more than 16 MiB, 1,024 keys, or no key at all.
    """
    return _parse_file(text, source, "recipients", decode_recipient)


def parse_identity_file(data: bytes, source: str) -> list[tuple[str, bytes]]:
    """Return (profile, seed) of each identity in a file, in the order of its lines.

    Raises `UsageError` naming `source` and the line, never what stands there; for more
    than 16 MiB, 1,024 keys, or no key at all.
    """
    return [key for _, key in _parse_file(data, source, "identities", decode_identity)]


def format_identity_file(profile: str, seed: bytes, public_text: str, created: float) -> str:
    """Return an identity file as ``age-keygen -pq`` writes it: three lines, secret.

    `created`: seconds since 1970, written to the second in UTC (RFC 3339). Raises
    `UsageError` for a wrong key. That the two keys belong together is for the caller.
    """
    decode_recipient(public_text)
    stamp = datetime.fromtimestamp(int(created), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"# created: {stamp}\n# public key: {public_text}\n{encode_identity(profile, seed)}\n"


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
    data: bytes, source: str, what: str, decode: Callable[..., _Key]
) -> list[tuple[int, _Key]]:
    if len(data) > MAX_FILE_SIZE:
        raise UsageError(f"{source}: a file of {what} has at most {MAX_FILE_SIZE >> 20} MiB")
    keys: list[tuple[int, _Key]] = []
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
