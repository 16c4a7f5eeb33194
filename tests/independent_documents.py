"""Names, text documents and signatures, from docs/format.md sections 2, 3, 5.1 and 9.

The part of `independent_reader` that reads text. It shares no code with pqvault.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey, MLDSA87PublicKey
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from independent_keys import DIGESTS, PROFILES, Damaged, bech32_decode, need

MIB = 1 << 20

# Derivations (2)


def bind(purpose: str, *fields: bytes) -> bytes:
    """The one encoding of what a key is for."""
    framed = b"".join(struct.pack(">H", len(one)) + one for one in fields)
    return b"pqvault.dev/" + purpose.encode() + b"@v1\0" + framed


def expand(key: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand with SHA-512."""
    return HKDFExpand(SHA512(), length, info).derive(key)


# Text documents (3)

Check = Callable[[Any], bool]


def integer(low: int) -> Check:
    return lambda value: type(value) is int and low <= value < 1 << 53


def matches(pattern: str) -> Check:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def listed(check: Check, key: Callable[[Any], Any], low: int = 0, most: int = 1 << 30) -> Check:
    """A list of so many, of which no two have the same key."""

    def accept(value: Any) -> bool:
        if type(value) is not list or not low <= len(value) <= most or not all(map(check, value)):
            return False
        return len(set(map(key, value))) == len(value)

    return accept


def row(*checks: Check) -> Check:
    return lambda value: (
        type(value) is list
        and len(value) == len(checks)
        and all(check(one) for check, one in zip(checks, value, strict=True))
    )


def record(fields: dict[str, Check]) -> Check:
    return lambda value: (
        type(value) is dict
        and list(value) == list(fields)
        and all(check(value[name]) for name, check in fields.items())
    )


def is_base64(value: Any) -> bool:
    try:
        return isinstance(value, str) and unbase64(value) is not None
    except Damaged:
        return False


def unbase64(text: str) -> bytes:
    """Strict base64."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Damaged("bad base64") from error
    need(base64.b64encode(data).decode() == text, "bad base64")
    return data


ID = matches("[0-9a-f]{32}")
HASH = matches("(?:[0-9a-f]{64}|[0-9a-f]{96})")
KEM_NAME = matches("|".join(profile.kem for profile in PROFILES.values()))
GROUP = matches("|[a-z0-9][a-z0-9_-]{0,63}")
TABLE_FILE = "tables/[0-9a-f]{32}\\.parquet"
ENVELOPE = {
    "archive": ID,
    "part": ID,
    "group": GROUP,
    "generation": integer(1),
    "created": integer(0),
    "profile": matches("standard|high|cnsa2"),
    "recipients": listed(
        record({"kem": KEM_NAME, "key_id": ID, "sealed": is_base64}),
        lambda one: one["key_id"],
        1,
        1024,
    ),
}
COMMIT = {
    "archive": ID,
    "part": ID,
    "seq": integer(1),
    "created": integer(0),
    "profile": matches("standard|high|cnsa2"),
    "digest": matches("blake3|sha256|sha384"),
    "kind": matches("seal|append"),
    "parents": listed(row(ID, HASH), lambda one: one[0]),
    "replaces": listed(row(ID, HASH), lambda one: one[0]),
    "root": matches("[0-9a-f]{64}"),
    "sealed_to": listed(ID, str),
    "files": listed(
        row(matches(f"catalog|objects/[0-9]{{6}}-[0-9a-f]{{8}}|{TABLE_FILE}"), integer(0), HASH),
        lambda one: one[0][:14] if one[0].startswith("objects/") else one[0],  # no number twice
    ),
}

RETIRED = {"archive": ID, "part": ID, "key_id": ID, "created": integer(0)}


REMOVED = {
    "archive": ID,
    "part": ID,
    "removed": ID,
    "seq": integer(1),
    "committed": integer(0),
    "commit": HASH,
    "reason": matches("replaced|pruned"),
    "by": listed(ID, str, 1),
    "created": integer(0),
}


@dataclass
class Document:
    """A text document whose MAC is not checked yet."""

    value: dict[str, Any]
    covered: bytes
    mac: bytes
    end: int  # where its last LF ends

    def authenticate(self, key: bytes) -> None:
        found = hmac.digest(key, self.covered, "sha512")[:32]
        need(hmac.compare_digest(found, self.mac), "the MAC of a text document is wrong")


def parse_document(data: bytes, label: str, fields: dict[str, Check]) -> Document:
    """The document that ``data`` begins with."""
    lines = data[: 4 * MIB].split(b"\n", 3)
    need(len(lines) == 4, "a document has three lines and at most 4 MiB")
    need(lines[0] == label.encode(), "another label")
    try:
        line = lines[1].decode("ascii")
        value = json.loads(line)
        again = json.dumps(value, separators=(",", ":"))
    except (ValueError, RecursionError) as error:
        raise Damaged("not JSON") from error
    need(again == line and "\x7f" not in line and "\\" not in line, "not canonical")
    need(record(fields)(value), "not the keys and values of this label")
    need(re.fullmatch(rb"--- [A-Za-z0-9+/]{43}=", lines[2]) is not None, "no MAC line")
    covered = b"\n".join((lines[0], lines[1], b"---"))
    return Document(value, covered, unbase64(lines[2][4:].decode()), len(covered) + 46)


# Signatures (9)


@dataclass
class Signature:
    """A line behind the MAC line."""

    suite: str
    signer: bytes
    value: bytes


def signatures(data: bytes, document: Document) -> list[Signature]:
    """All lines behind the MAC line of a document that is a file."""
    lines = data[document.end :].splitlines(keepends=True)
    found = []
    for line in lines:
        shape = re.fullmatch(
            rb"sign ([A-Za-z0-9+.-]{1,64}) ([0-9a-f]{32}) ([A-Za-z0-9+/]+={0,2})\n", line
        )
        if shape is None or len(line) > 16384:
            raise Damaged("something behind the MAC line that is no signature")
        suite, signer, value = (one.decode() for one in shape.groups())
        found.append(Signature(suite, bytes.fromhex(signer), unbase64(value)))
    ids = [one.signer for one in found]
    need(len(ids) <= 16 and ids == sorted(set(ids)), "signatures out of order")
    return found


SUITES: dict[str, list[tuple[bytes, Any, int, int]]] = {
    "Ed25519+ML-DSA-65": [
        (b"Ed25519", Ed25519PublicKey, 32, 64),
        (b"ML-DSA-65", MLDSA65PublicKey, 1952, 3309),
    ],
    "ML-DSA-87": [(b"ML-DSA-87", MLDSA87PublicKey, 2592, 4627)],
}


@cache
def load_signer(text: str) -> tuple[str, bytes]:
    """The suite and the public key of a ``pqvsign…1…``."""
    need(text == text.lower(), "a signer is in lower case")
    hrp, public = bech32_decode(text.upper())
    suites = {"PQVSIGN": "Ed25519+ML-DSA-65", "PQVSIGN-CNSA2-": "ML-DSA-87"}
    need(hrp in suites, "not a signer")
    sizes = sum(public_size for _, _, public_size, _ in SUITES[suites[hrp]])
    need(len(public) == sizes, "a signer of another length")
    return suites[hrp], public


def signer_id(suite: str, public: bytes) -> bytes:
    """16 bytes."""
    return DIGESTS["sha384" if suite == "ML-DSA-87" else "blake3"](suite.encode() + public)[:16]


def signed_by(data: bytes, label: str, signer_text: str) -> bool:
    """Whether a signer has signed a document that is a file; a wrong signature is an error."""
    fields, purpose = {
        "commit": (COMMIT, "signature"),
        "envelope": (ENVELOPE, "envelope signature"),
        "retired": (RETIRED, "retired signature"),
    }[label]
    document = parse_document(data, f"pqvault.dev/{label}@v1", fields)
    suite, public = load_signer(signer_text)
    signer = signer_id(suite, public)
    mine = [one for one in signatures(data, document) if one.signer == signer]
    if not mine:
        return False
    need(mine[0].suite == suite, "another suite than the signer's")
    names = [bytes.fromhex(document.value[name]) for name in ("archive", "part")]
    covered, value = data[: document.end], mine[0].value
    need(len(value) == sum(part[3] for part in SUITES[suite]), "a signature of another length")
    for algorithm, kind, public_size, size in SUITES[suite]:
        context = bind(purpose, *names, suite.encode(), algorithm, signer)
        key, half = kind.from_public_bytes(public[:public_size]), value[:size]
        public, value = public[public_size:], value[size:]
        try:
            if algorithm == b"Ed25519":
                key.verify(half, context + covered)
            else:
                key.verify(half, covered, context)
        except InvalidSignature as error:
            raise Damaged(f"the {algorithm.decode()} signature is wrong") from error
    return True
