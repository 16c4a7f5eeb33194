"""A reader of pqvault's files, written from docs/format.md and nothing else.

It shares no code with pqvault: when both read the same bytes in the same way, the page is enough
to write a reader from, and pqvault keeps to it. Section numbers are those of the page. It reads
whole files into memory and is not made for speed.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import re
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey, MLDSA87PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from independent_catalog import check_parquet
from independent_keys import DIGESTS, PROFILES, Damaged, Key, bech32_decode, load_identity, need

__all__ = ["Damaged", "bech32_decode", "load_identity"]

MIB = 1 << 20
CHUNK, TAG, PRELUDE = 16384, 16, 56


class NoKey(Exception):
    """No recipient is the identity at hand; says nothing about damage."""


class RolledBack(Exception):
    """A part names a parent that is gone, or that is another one."""


class Item(NamedTuple):
    """One thing that an archive holds."""

    kind: str
    mode: int
    mtime_ns: int
    link: bytes | None
    content: bytes | None


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
    "by": listed(ID, str),
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


# Envelopes (4)


@dataclass
class Opened:
    """A part (or stream) with its root key."""

    archive: bytes
    part: bytes
    root: bytes
    profile: str

    def derive(self, purpose: str, length: int, *fields: bytes) -> bytes:
        return expand(self.root, bind(purpose, self.archive, self.part, *fields), length)

    def open_object(self, name: str, sealed: bytes) -> bytes:
        """The content of an object (7)."""
        context = bind("object", self.archive, self.part, name.encode())
        return unframe(cobblestone(expand(self.root, context, 32), context, sealed))


def open_envelope(envelope: Document, key: Key) -> Opened:
    """Unwrap the root key and check the MAC."""
    value = envelope.value
    archive, part = bytes.fromhex(value["archive"]), bytes.fromhex(value["part"])
    profile = PROFILES[value["profile"]]
    for one in value["recipients"]:
        need(one["kem"] == profile.kem, "a KEM of another profile")
    fitting = [one for one in value["recipients"] if one["key_id"] == key.key_id.hex()]
    if not fitting:
        raise NoKey(f"no key fits part {value['part']}")
    sealed = unbase64(fitting[0]["sealed"])
    need(len(sealed) == profile.sealed, "a wrapped key of another length")
    need(key.profile == value["profile"], "a key of another profile")
    names = (value["profile"].encode(), profile.kem.encode(), key.key_id)
    group = value["group"].encode()
    info = bind("envelope", archive, part, group, *names)
    try:
        root = profile.suite.decrypt(sealed, key.private, info=info)
    except (InvalidTag, ValueError) as error:
        raise Damaged("the envelope does not open") from error
    opened = Opened(archive, part, root, value["profile"])
    envelope.authenticate(opened.derive("envelope mac", 64, group))
    return opened


# Objects (7)


def cobblestone(key: bytes, context: bytes, sealed: bytes) -> bytes:
    """Decrypt Cobblestone-256 (C2SP chunked-encryption)."""
    need(len(sealed) >= PRELUDE + TAG, "an object is truncated")
    salt, commitment = sealed[:24], sealed[24:PRELUDE]
    label = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0"
    derived = expand(key, label + salt + context, 76)
    need(hmac.compare_digest(derived[44:], commitment), "an object has another commitment")
    aead, base = AESGCM(derived[:32]), int.from_bytes(derived[32:44], "big")
    plain = []
    for count, at in enumerate(range(PRELUDE, len(sealed) + 1, CHUNK + TAG)):
        chunk = sealed[at : at + CHUNK + TAG]
        need(len(chunk) >= TAG, "an object is truncated")  # so the last one is a short one
        try:
            plain.append(aead.decrypt((base ^ count).to_bytes(12, "big"), chunk, None))
        except InvalidTag as error:
            raise Damaged(f"chunk {count} of an object does not authenticate") from error
    return b"".join(plain)


def unframe(plain: bytes) -> bytes:
    """The content of all frames."""
    return b"".join(unframe_one(frame, size) for frame, size in frames(plain))


def frames(plain: bytes) -> list[tuple[bytes, int]]:
    """Every frame with its content size, by the seek table."""
    need(len(plain) >= 17, "no seek table")
    count, flags, magic = struct.unpack("<IBI", plain[-9:])
    size = 8 * count + 17
    need(magic == 0x8F92EAB1 and flags == 0, "not a seek table")
    need(count <= 134_217_728 and size <= len(plain), "the seek table is too long")
    table = plain[len(plain) - size :]
    need(struct.unpack("<II", table[:8]) == (0x184D2A5E, size - 8), "not a seek table")
    at, found = 0, []
    for sealed_size, content_size in struct.iter_unpack("<II", table[8:-9]):
        need(at + sealed_size <= len(plain) - size, "a frame goes beyond the frames")
        found.append((plain[at : at + sealed_size], content_size))
        at += sealed_size
    need(at == len(plain) - size, "the seek table does not fit the frames")
    return found


def unframe_one(frame: bytes, content_size: int) -> bytes:
    """One zstd frame; its header is read by hand (RFC 8878, 3.1.1.1)."""
    need(1 <= content_size <= 8 * MIB and len(frame) <= 8_388_809, "a frame is too big")
    need(len(frame) > 6 and frame[:4] == b"\x28\xb5\x2f\xfd", "not a zstd frame")
    flags, single = frame[4], bool(frame[4] & 0x20)
    need(flags & 0x1F == 0, "a frame with a dictionary, a checksum or reserved bits")
    width = (1 if single else 0, 2, 4, 8)[flags >> 6]
    need(width > 0, "a frame without its content size")
    start = 5 if single else 6
    declared = int.from_bytes(frame[start : start + width], "little")
    declared += 256 if width == 2 else 0
    need(declared == content_size, "a frame has another size than the seek table says")
    window = declared
    if not single:
        base = 1 << 10 + (frame[5] >> 3)
        window = base + base // 8 * (frame[5] & 7)
    need(window <= 8 * MIB, "a frame has too big a window")
    check_blocks(frame, start + width)
    try:
        codec = zstandard.ZstdDecompressor(max_window_size=8 * MIB)
        content = codec.decompress(frame, max_output_size=content_size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Damaged("a frame does not decompress") from error
    need(len(content) == content_size, "a frame has another size than it says")
    return content


def check_blocks(frame: bytes, at: int) -> None:
    """Blocks of known kinds and at most 128 KiB, the last of which ends the frame."""
    last = 0
    while not last:
        need(at + 3 <= len(frame), "a frame without a last block")
        header = int.from_bytes(frame[at : at + 3], "little")
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        need(kind != 3 and size <= 131_072, "a block that no frame has")
        at += 3 + (1 if kind == 1 else size)
    need(at == len(frame), "a frame ends elsewhere")


def open_stream(path: Path | str, identity_text: str) -> bytes:
    """The content of a sealed stream (8)."""
    data = Path(path).read_bytes()
    envelope = parse_document(data, "pqvault.dev/envelope@v1", ENVELOPE)
    need((envelope.value["archive"], envelope.value["group"]) == ("0" * 32, ""), "not a stream")
    opened = open_envelope(envelope, load_identity(identity_text))
    return opened.open_object("stream", data[envelope.end :])


# Catalogs (6)


class Entry(NamedTuple):
    """A row of a catalog."""

    path: bytes
    kind: int
    size: int
    mode: int
    mtime_ns: int
    link: bytes | None
    digest: bytes | None
    extents: list[dict[str, int]]
    table: bytes | None = None  # what section 10.1 says


@dataclass
class Part:
    """An authenticated part and what it holds."""

    folder: Path
    opened: Opened
    commit: dict[str, Any]
    names: dict[int, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    cache: dict[int, bytes] = field(default_factory=dict)
    entries: dict[bytes, Entry] = field(default_factory=dict)

    def read(self, name: str) -> bytes:
        data = file_bytes(self.folder / name)
        need(len(data) == self.sizes[name], f"{name} has another size than its commit says")
        return self.opened.open_object(name, data)

    def content(self, entry: Entry) -> bytes:
        """All extents, checked against the digest."""
        pieces = []
        for extent in entry.extents:
            number, offset, length = extent["object"], extent["offset"], extent["length"]
            if number == -1:
                need(offset == 0, "a hole with an offset")
                pieces.append(bytes(length))
                continue
            need(number in self.names, "an extent in an object that the commit does not list")
            if number not in self.cache:
                self.cache[number] = self.read(self.names[number])
            need(0 <= offset <= len(self.cache[number]) - length, "an extent beyond its object")
            pieces.append(self.cache[number][offset : offset + length])
        data = b"".join(pieces)
        found = DIGESTS[self.commit["digest"]](data)
        need(entry.digest in (None, found), "content has another digest")
        return data

    def read_catalog(self) -> None:
        """Read all rows and check every rule."""
        data = self.read("catalog")
        least = check_parquet(data)
        try:
            file = pq.ParquetFile(pa.BufferReader(data))
            check_schema(file.schema_arrow)
            for group in range(file.metadata.num_row_groups):
                rows = file.read_row_group(group).to_pylist()
                need(
                    len(rows) == file.metadata.row_group(group).num_rows, "other rows than it says"
                )
                need(least[group] in (None, rows[0]["path"]), "a statistic is not true")
                check_statistics(file.metadata.row_group(group), rows)
                for values in rows:
                    entry = Entry(**values)
                    need(
                        not self.entries or entry.path > next(reversed(self.entries)),
                        "rows do not ascend",
                    )
                    self.entries[entry.path] = entry
        except (pa.ArrowException, OSError) as error:
            raise Damaged("the catalog is not Parquet") from error
        for entry in self.entries.values():
            self.check(entry)

    def check(self, entry: Entry) -> None:
        """Rules 1 to 5 for one row."""
        need(1 <= len(entry.path) <= 65535 and b"\0" not in entry.path, "a bad path")
        for name in entry.path.split(b"/"):
            need(1 <= len(name) <= 255 and name not in (b".", b".."), "a bad path")
        kind = chr(entry.kind)
        need(kind in "fdlhxt", "an unknown kind")
        need((entry.table is not None) == (kind == "t"), "table is for t")
        need(entry.table is None or len(entry.table) <= 4 * MIB, "a table's description is long")
        need(0 <= entry.mode <= 0o7777, "a bad mode")
        if kind == "x":
            need(self.commit["kind"] == "seal", "a tombstone in a part of kind append")
        else:
            for above in ancestors(entry.path):
                need(above in self.entries and self.entries[above].kind == ord("d"), "no folder")
        need((entry.link is not None) == (kind in "lh"), "link is for l and h")
        link = entry.link
        need(link is None or (1 <= len(link) <= 65535 and b"\0" not in link), "a bad link")
        size = {"blake3": 32, "sha256": 32, "sha384": 48}[self.commit["digest"]]
        if kind in "fht":
            need(entry.digest is None or len(entry.digest) == size, "a bad digest")
        else:
            need(entry.size == 0 and entry.digest is None, "size and digest are for f and h")
        need(all(extent["length"] >= 1 for extent in entry.extents), "an empty extent")
        need(sum(extent["length"] for extent in entry.extents) == entry.size, "not its size")
        if kind == "h":
            first = self.entries.get(entry.link or b"")
            need(first is not None and first.kind == ord("f"), "a hard link to no file")
            assert first is not None
            same = (first.size, first.digest, first.extents, first.mode, first.mtime_ns)
            here = (entry.size, entry.digest, entry.extents, entry.mode, entry.mtime_ns)
            need(same == here, "a hard link to other content, or of another mode or time")


def check_schema(schema: pa.Schema) -> None:
    """Exactly the columns of the page."""
    names = ["path", "kind", "size", "mode", "mtime_ns", "link", "digest", "extents", "table"]
    types = [pa.binary(), pa.uint8(), pa.int64(), pa.uint16(), pa.int64(), pa.binary(), pa.binary()]
    need(schema.names in (names, names[:8]), "not the columns of a catalog")
    need(schema.types[:7] == types, "not the columns of a catalog")
    nullable = [field.nullable for field in schema]
    need(nullable == ([False] * 5 + [True, True, False, True])[: len(schema)], "null or not")
    need(len(schema) == 8 or schema.types[8] == pa.binary(), "not the columns of a catalog")
    extents = schema.field("extents").type
    need(pa.types.is_list(extents) and not extents.value_field.nullable, "extents is no list")
    need(
        list(extents.value_type)
        == [
            pa.field("object", pa.int32(), nullable=False),
            pa.field("offset", pa.int64(), nullable=False),
            pa.field("length", pa.int64(), nullable=False),
        ],
        "extents is not a list of (object, offset, length)",
    )


def check_statistics(group: pq.RowGroupMetaData, rows: list[dict[str, Any]]) -> None:
    """Rule 6, for the columns that are not nested."""
    for column in map(group.column, range(group.num_columns)):
        if column.path_in_schema.startswith("extents."):
            continue
        found = [values[column.path_in_schema] for values in rows]
        held = [value for value in found if value is not None]
        statistics = column.statistics
        if statistics is None:
            continue
        if statistics.has_null_count:
            need(statistics.null_count == len(found) - len(held), "a statistic is not true")
        if statistics.has_min_max and held:
            low, high = min(held), max(held)
            need(statistics.min <= low and high <= statistics.max, "a statistic is not true")


def ancestors(path: bytes) -> list[bytes]:
    """The proper ancestors of a path."""
    return [path[:at] for at, byte in enumerate(path) if byte == 0x2F]


# Archives (5)


def file_bytes(path: Path) -> bytes:
    """A whole file that must be there."""
    try:
        need(stat.S_ISREG(path.lstat().st_mode), f"{path} is no file")
        return path.read_bytes()
    except OSError as error:
        raise Damaged(f"{path} cannot be read") from error


def open_part(folder: Path, archive: str, part: str, key: Key) -> Part:
    """Steps 1 to 7 of section 5.2."""
    data = file_bytes(folder / "commits" / part)
    commit = parse_document(data, "pqvault.dev/commit@v1", COMMIT)
    signatures(data, commit)
    sealed = file_bytes(folder / "envelopes" / part)
    envelope = parse_document(sealed, "pqvault.dev/envelope@v1", ENVELOPE)
    signatures(sealed, envelope)
    need(envelope.value["group"] == "", "the envelope of a group")
    for document in (commit, envelope):
        names = (document.value["archive"], document.value["part"])
        need(names == (archive, part), "a document of another part")
    opened = open_envelope(envelope, key)
    need(opened.derive("commit id", 32).hex() == commit.value["root"], "another envelope")
    commit.authenticate(opened.derive("commit mac", 64))
    need(commit.value["profile"] == opened.profile, "a commit of another profile")
    digests = PROFILES[opened.profile].digests
    need(commit.value["digest"] in digests, "a digest of another profile")
    for _, digest in commit.value["parents"] + commit.value["replaces"]:
        need(
            len(digest) == 96 or len(digests) > 1, "a part is named by a digest of another profile"
        )
    result = Part(folder / "parts" / part, opened, commit.value)
    for name in ("parents", "replaces", "files"):
        need(commit.value[name] == sorted(commit.value[name]), f"{name} does not ascend")
    width = {"blake3": 64, "sha256": 64, "sha384": 96}[commit.value["digest"]]
    for name, size, digest in commit.value["files"]:
        need(len(digest) == width, "a digest of another length")
        result.sizes[name] = size
        if name.startswith("objects/"):
            result.names[int(name[8:14])] = name
    need("catalog" in result.sizes, "the commit lists no catalog")
    result.read_catalog()
    return result


def open_parts(folder: Path, key: Key) -> list[Part]:
    """Every part, in order, none missing."""
    marker = file_bytes(folder / "pqvault.json")
    start, end = b'{"format":"pqvault.dev/archive@v1","archive":"', b'"}\n'
    found = re.fullmatch(re.escape(start) + rb"([0-9a-f]{32})" + re.escape(end), marker)
    if found is None:
        raise Damaged("not an archive")
    archive = found[1].decode()
    parts: dict[str, Part] = {}
    commits = folder / "commits"
    for name in os.listdir(commits) if commits.exists() else ():
        if ID(name) and not os.path.lexists(folder / "removed" / name):
            parts[name] = open_part(folder, archive, name, key)

    def gone(name: str) -> bool:
        return os.path.lexists(folder / "removed" / name)

    for part in parts.values():
        need(part.commit["part"] not in dict(part.commit["replaces"]), "it replaces itself")
        for parent, digest in part.commit["parents"] + part.commit["replaces"]:
            if parent in parts:
                data = file_bytes(folder / "commits" / parent)
                if DIGESTS[parts[parent].commit["digest"]](data).hex() != digest:
                    raise RolledBack(f"part {parent} was exchanged")
            elif [parent, digest] in part.commit["parents"] and not gone(parent):
                raise RolledBack(f"part {parent} is missing")
    named: dict[str, str] = {}
    for part in parts.values():
        for other, digest in part.commit["replaces"]:
            named.setdefault(other, digest)
    for part in parts.values():
        for other, digest in part.commit["parents"] + part.commit["replaces"]:
            if named.get(other, digest) != digest:
                raise RolledBack(f"part {other} was exchanged")
    check_removed(folder, archive, parts, set(named))

    def place(part: Part) -> tuple[int, int]:
        return part.commit["seq"], part.commit["created"]

    replaced: set[str] = set()
    for name, part in sorted(parts.items(), key=lambda item: -len(item[1].commit["replaces"])):
        if name not in replaced:
            others = set(dict(part.commit["replaces"])) & parts.keys()
            need(all(place(parts[o]) <= place(part) for o in others), "it replaces a later part")
            replaced |= others
    parts = {name: part for name, part in parts.items() if name not in replaced}

    def order(part: Part) -> tuple[int, int, str]:
        return part.commit["seq"], part.commit["created"], part.commit["part"]

    return sorted(parts.values(), key=order)


def check_removed(folder: Path, archive: str, parts: dict[str, Part], replaced: set[str]) -> None:
    """Who holds what removed parts held must be there (5.7)."""
    there = folder / "removed"
    names = set(filter(ID, os.listdir(there))) if there.exists() else set()
    for name in names - replaced:
        try:
            data = file_bytes(there / name)
            record = parse_document(data, "pqvault.dev/removed@v1", REMOVED)
        except Damaged:
            continue  # anything removes a part
        if (record.value["archive"], record.value["removed"]) != (archive, name):
            continue
        for other in record.value["by"]:
            if other not in parts and other not in names:
                raise RolledBack(f"part {other} is missing")


def verify(folder: Path | str, identity_text: str) -> None:
    """What a verification looks at beside the view: every file by its digest, every object."""
    for part in open_parts(Path(folder), load_identity(identity_text)):
        take = DIGESTS[part.commit["digest"]]
        for name, _, digest in part.commit["files"]:
            data = file_bytes(part.folder / name)
            need(take(data).hex() == digest, f"{name} has another digest than its commit says")
            if name.startswith("objects/"):
                part.read(name)
        tables = [json.loads(one.table) for one in part.entries.values() if one.table is not None]
        named = sorted(one["file"] for table in tables for one in table["files"])
        there = sorted(name for name in part.sizes if name.startswith("tables/"))
        need(named == there, "a table file of no table, of two, or one that is not listed")


def open_archive(folder: Path | str, identity_text: str) -> dict[bytes, Item]:
    """The view of all parts (5.3)."""
    standing: dict[bytes, tuple[int, Part, Entry]] = {}
    ended: dict[bytes, int] = {}  # the last part that says of a path that it is no folder
    for place, part in enumerate(open_parts(Path(folder), load_identity(identity_text))):
        for path, entry in part.entries.items():
            standing[path] = (place, part, entry)
            if entry.kind != ord("d"):
                ended[path] = place
    view = {}
    for path, (place, part, entry) in sorted(standing.items()):
        hidden = any(ended.get(above, -1) > place for above in ancestors(path))
        if hidden or entry.kind == ord("x"):
            continue
        kind = chr(entry.kind)
        kept = kind == "t" and (entry.digest is not None or entry.size)  # the file beside it
        content = part.content(entry) if kind in "fh" or kept else None
        view[path] = Item(kind, entry.mode, entry.mtime_ns, entry.link, content)
    return view
