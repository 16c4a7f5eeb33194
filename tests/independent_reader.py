"""A reader of pqvault's files, written from docs/format.md and nothing else.

It shares no code with pqvault: when both read the same bytes in the same way, the page is enough
to write a reader from, and pqvault keeps to it. Section numbers are those of the page. It reads
whole files into memory and is not made for speed.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import stat
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from independent_catalog import check_parquet
from independent_documents import (
    COMMIT,
    ENVELOPE,
    ID,
    MIB,
    REMOVED,
    Document,
    bind,
    expand,
    parse_document,
    signatures,
    unbase64,
)
from independent_keys import DIGESTS, PROFILES, Damaged, Key, load_identity, need
from independent_policy import ANYBODY, Policy, Refused

CHUNK, TAG, PRELUDE = 16384, 16, 56


class NoKey(Exception):
    """No recipient is the identity at hand; says nothing about damage."""


class RolledBack(Exception):
    """A part names a parent that is gone, or that is another one."""


class NotHeld(Exception):
    """A view as of a part or time that the archive does not hold any more, or never did."""


class Item(NamedTuple):
    """One thing that an archive holds."""

    kind: str
    mode: int
    mtime_ns: int
    link: bytes | None
    content: bytes | None


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
    signed: bool = False  # as in 9.4

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


AsOf = str | int  # a part id, or a time


class Commit(NamedTuple):
    """A commit of which nothing but its form is known yet."""

    data: bytes
    value: dict[str, Any]

    @property
    def place(self) -> tuple[int, int]:
        return self.value["seq"], self.value["created"]

    @property
    def order(self) -> tuple[int, int, str]:
        return (*self.place, self.value["part"])

    @property
    def digest(self) -> str:
        """By which others name it."""
        return DIGESTS[self.value["digest"]](self.data).hex()


def read_commit(folder: Path, archive: str, part: str) -> Commit:
    """Step 1 of section 5.2."""
    data = file_bytes(folder / "commits" / part)
    commit = parse_document(data, "pqvault.dev/commit@v1", COMMIT)
    signatures(data, commit)
    value = commit.value
    need((value["archive"], value["part"]) == (archive, part), "a document of another part")
    for name in ("parents", "replaces", "files"):
        need(value[name] == sorted(value[name]), f"{name} does not ascend")
    width = {"blake3": 64, "sha256": 64, "sha384": 96}[value["digest"]]
    need(all(len(digest) == width for _, _, digest in value["files"]), "a digest of another length")
    need("catalog" in [name for name, _, _ in value["files"]], "the commit lists no catalog")
    need(part not in dict(value["replaces"]), "it replaces itself")
    return Commit(data, value)


def read_envelope(folder: Path, archive: str, part: str) -> tuple[bytes, Document]:
    """Step 1 of section 5.2."""
    data = file_bytes(folder / "envelopes" / part)
    envelope = parse_document(data, "pqvault.dev/envelope@v1", ENVELOPE)
    signatures(data, envelope)
    names = [envelope.value[name] for name in ("archive", "part", "group")]
    need(names == [archive, part, ""], "a document of another part, or of a group")
    return data, envelope


def open_part(folder: Path, commit: Commit, key: Key, policy: Policy, behind_signed: bool) -> Part:
    """Steps 1 to 7 of section 5.2."""
    archive, part = commit.value["archive"], commit.value["part"]
    sealed, envelope = read_envelope(folder, archive, part)
    opened = open_envelope(envelope, key)
    need(opened.derive("commit id", 32).hex() == commit.value["root"], "another envelope")
    document = parse_document(commit.data, "pqvault.dev/commit@v1", COMMIT)
    document.authenticate(opened.derive("commit mac", 64))
    need(commit.value["profile"] == opened.profile, "a commit of another profile")
    digests = PROFILES[opened.profile].digests
    need(commit.value["digest"] in digests, "a digest of another profile")
    for _, digest in commit.value["parents"] + commit.value["replaces"]:
        need(
            len(digest) == 96 or len(digests) > 1, "a part is named by a digest of another profile"
        )
    policy.check(commit.data, sealed, behind_signed=behind_signed)
    result = Part(folder / "parts" / part, opened, commit.value)
    for name, size, _ in commit.value["files"]:
        result.sizes[name] = size
        if name.startswith("objects/"):
            result.names[int(name[8:14])] = name
    result.signed = policy.is_signed(commit.data)
    result.read_catalog()
    return result


def archive_id(folder: Path) -> str:
    """What ``pqvault.json`` says."""
    marker = file_bytes(folder / "pqvault.json")
    start, end = b'{"format":"pqvault.dev/archive@v1","archive":"', b'"}\n'
    found = re.fullmatch(re.escape(start) + rb"([0-9a-f]{32})" + re.escape(end), marker)
    if found is None:
        raise Damaged("not an archive")
    return found[1].decode()


def names_in(folder: Path) -> set[str]:
    """The parts that have something in ``commits`` or ``removed``."""
    return set(filter(ID, os.listdir(folder))) if folder.exists() else set()


def read_commits(folder: Path, archive: str) -> dict[str, Commit]:
    """Of every part that is there, in order: where one has no form, or its envelope, none has."""
    there = names_in(folder / "commits") - names_in(folder / "removed")
    commits = sorted((read_commit(folder, archive, name) for name in there), key=lambda c: c.order)
    for name in there & names_in(folder / "envelopes"):
        read_envelope(folder, archive, name)
    return {commit.value["part"]: commit for commit in commits}


def check_history(folder: Path, archive: str, commits: dict[str, Commit]) -> None:
    """No part is missing that others name, and none was exchanged (5.3, 5.6, 5.7)."""
    removed = names_in(folder / "removed")
    replaced = {
        other: digest for commit in commits.values() for other, digest in commit.value["replaces"]
    }
    for commit in commits.values():
        for other, digest in commit.value["parents"] + commit.value["replaces"]:
            there = commits[other].digest if other in commits else digest
            if not there == digest == replaced.get(other, digest):
                raise RolledBack(f"part {other} was exchanged")
        for parent, _ in commit.value["parents"]:
            if parent not in commits and parent not in removed:
                raise RolledBack(f"part {parent} is missing")
    records = read_removed(folder, archive)
    for name in set(records) - set(replaced):
        for other in records[name]["by"]:
            if other not in commits and other not in removed:
                raise RolledBack(f"part {other} is missing")


def read_removed(folder: Path, archive: str) -> dict[str, dict[str, Any]]:
    """The records in ``removed/`` that are records; anything else removes a part too (5.7)."""
    found = {}
    for name in names_in(folder / "removed"):
        try:
            data = file_bytes(folder / "removed" / name)
            document = parse_document(data, "pqvault.dev/removed@v1", REMOVED)
            value = document.value
            need(len(data) == document.end, "something behind the MAC line")
            need(value["by"] == sorted(value["by"]), "by does not ascend")
            need(value["reason"] == "replaced" or len(value["by"]) == 1, "pruned for more than one")
        except Damaged:
            continue
        if (value["archive"], value["removed"]) == (archive, name):
            found[name] = value
    return found


def up_to(
    commits: dict[str, Commit], records: dict[str, dict[str, Any]], as_of: AsOf
) -> dict[str, Commit]:
    """The parts of the view as of a part or time (5.3), unless one is gone that belonged to it."""
    if isinstance(as_of, str):
        last = commits.get(as_of) or successor(commits, records, as_of)
        found = {name: one for name, one in commits.items() if one.order <= last.order}
        gone = [n for n, one in records.items() if (one["seq"], one["committed"]) <= last.place]
    else:
        found = {name: one for name, one in commits.items() if one.value["created"] <= as_of}
        gone = [name for name, one in records.items() if one["committed"] <= as_of]
    if not found:
        raise NotHeld("no part is as old as that")

    def held(name: str, seen: frozenset[str]) -> bool:
        """What a removed part held is in the view. ``seen``: records that this one explains."""
        if name not in records or name in seen:
            return False
        return all(by in found or held(by, seen | {name}) for by in records[name]["by"])

    for name in gone:
        if not held(name, frozenset()):
            raise NotHeld(f"part {name} was removed")
    return found


def successor(commits: dict[str, Commit], records: dict[str, dict[str, Any]], part: str) -> Commit:
    """The part whose state is the one with a part that is not there (5.3)."""
    found = [one for one in commits.values() if part in dict(one.value["replaces"])]
    if found:
        holder = max(found, key=lambda one: (len(one.value["replaces"]), one.order))
        gone = records.get(part, {"seq": 0, "committed": 0})
        if len(holder.value["replaces"]) == 1 or (gone["seq"], gone["committed"]) == holder.place:
            return holder
    raise NotHeld(f"there is no part {part}")


def raise_worst(failures: list[Exception]) -> None:
    """Of several, damage comes first."""
    for kind in (Damaged, RolledBack, Refused, NoKey):
        for failure in failures:
            if isinstance(failure, kind):
                raise failure


def open_parts(
    folder: Path, key: Key, policy: Policy = ANYBODY, as_of: AsOf | None = None
) -> list[Part]:
    """The parts of a view, in order: none missing, none that another one replaces (5.3, 5.6)."""
    archive = archive_id(folder)
    commits = view = read_commits(folder, archive)
    parts: dict[str, Part] = {}
    replaced: set[str] = set()
    failures: list[Exception] = []
    try:
        check_history(folder, archive, commits)
        if as_of is not None:
            view = up_to(commits, read_removed(folder, archive), as_of)
    except RolledBack as error:
        failures.append(error)
    some = min((c.order for c in commits.values() if ANYBODY.is_signed(c.data)), default=None)
    # What replaces most comes first; of equal ones the last, which may name the others.
    for commit in sorted(view.values(), key=lambda c: (len(c.value["replaces"]), c.order))[::-1]:
        name = commit.value["part"]
        if name in replaced:
            continue
        try:
            behind = some is not None and some < commit.order
            part = open_part(folder, commit, key, policy, behind)
            others = [commits[other] for other, _ in commit.value["replaces"] if other in commits]
            need(all(one.place <= commit.place for one in others), "it replaces a later part")
            if not part.signed and any(policy.is_signed(one.data) for one in others):
                raise Refused("an unsigned part in the place of a signed one")
        except (Damaged, NoKey, Refused) as error:
            failures.append(error)
        else:
            parts[name] = part
            replaced |= set(dict(commit.value["replaces"]))
    raise_worst(failures)
    return [parts[name] for name in view if name in parts and name not in replaced]


def verify(folder: Path | str, identity_text: str, policy: Policy = ANYBODY) -> None:
    """What a verification looks at: that without a key, and every object of the view."""
    failures: list[Exception] = []
    parts: list[Part] = []
    try:
        verify_without_key(folder, policy)
    except (Damaged, RolledBack, Refused) as error:
        failures.append(error)
    try:
        parts = open_parts(Path(folder), load_identity(identity_text), policy)
    except (Damaged, RolledBack, Refused, NoKey) as error:
        failures.append(error)
    raise_worst(failures)
    for part in parts:
        for name in part.names.values():
            part.read(name)
        tables = [json.loads(one.table) for one in part.entries.values() if one.table is not None]
        named = sorted(one["file"] for table in tables for one in table["files"])
        there = sorted(name for name in part.sizes if name.startswith("tables/"))
        need(named == there, "a table file of no table, of two, or one that is not listed")


def check_files(folder: Path, commit: dict[str, Any]) -> None:
    """Every file of a part by its size and digest."""
    for name, size, digest in commit["files"]:
        data = file_bytes(folder / name)
        need(len(data) == size, f"{name} has another size than its commit says")
        found = DIGESTS[commit["digest"]](data).hex()
        need(found == digest, f"{name} has another digest than its commit says")


def verify_without_key(folder: Path | str, policy: Policy = ANYBODY) -> None:
    """What can be checked of every part without an identity (9.3)."""
    folder = Path(folder)
    archive = archive_id(folder)
    commits = read_commits(folder, archive)
    check_history(folder, archive, commits)
    behind_signed = False
    for name, commit in commits.items():
        sealed, _ = read_envelope(folder, archive, name)
        check_files(folder / "parts" / name, commit.value)
        policy.check(commit.data, sealed, behind_signed=behind_signed)
        behind_signed = behind_signed or ANYBODY.is_signed(commit.data)


def merge(parts: list[Part]) -> dict[bytes, tuple[Part, Entry]]:
    """The entries that stand and are not hidden, by path (5.3, 9.4)."""
    standing: dict[bytes, tuple[int, Part, Entry]] = {}
    ended: dict[bytes, int] = {}  # the last part that says of a path that it is no folder
    signed: dict[bytes, bool] = {}  # paths of signed parts: whether all of it were folders
    for place, part in enumerate(parts):
        for path, entry in part.entries.items():
            is_folder = entry.kind == ord("d")
            if part.signed:
                signed[path] = signed.get(path, True) and is_folder
            elif path in signed:
                if not (signed[path] and is_folder):
                    raise Refused(f"an unsigned part changes {path!r} of a signed one")
                continue
            standing[path] = (place, part, entry)
            if not is_folder:
                ended[path] = place
    return {
        path: (part, entry)
        for path, (place, part, entry) in sorted(standing.items())
        if entry.kind != ord("x")
        and not any(ended.get(above, -1) > place for above in ancestors(path))
    }


def open_archive(
    folder: Path | str, identity_text: str, policy: Policy = ANYBODY, as_of: AsOf | None = None
) -> dict[bytes, Item]:
    """The view of all parts, or that as of a part or time."""
    view = {}
    parts = open_parts(Path(folder), load_identity(identity_text), policy, as_of)
    for path, (part, entry) in merge(parts).items():
        kind = chr(entry.kind)
        kept = kind == "t" and (entry.digest is not None or entry.size)  # the file beside it
        content = part.content(entry) if kind in "fh" or kept else None
        view[path] = Item(kind, entry.mode, entry.mtime_ns, entry.link, content)
    return view
