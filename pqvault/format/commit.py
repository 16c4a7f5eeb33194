"""The commit: the public list of a part's files, written last. docs/format.md section 5."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from pqvault.errors import FormatError
from pqvault.format import textdoc
from pqvault.format.signature import Signature, SignedDocument, parse_lines

__all__ = ["CATALOG", "KINDS", "LABEL", "Commit", "PartFile", "is_table", "object_number"]

LABEL: Final = "pqvault.dev/commit@v1"
CATALOG: Final = "catalog"
# `seal`: its writer could read the archive, so it may carry tombstones. `append`: it may not.
KINDS: Final = ("seal", "append")
_KEYS: Final = (
    "archive",
    "part",
    "seq",
    "created",
    "profile",
    "digest",
    "kind",
    "parents",
    "replaces",
    "root",
    "sealed_to",
    "files",
)
_OBJECT: Final = re.compile(r"objects/([0-9]{6})-[0-9a-f]{8}")
_TABLE: Final = re.compile(r"tables/[0-9a-f]{32}\.parquet")
_DIGEST_SIZES: Final = {"blake3": 32, "sha256": 32, "sha384": 48}


def object_number(name: str) -> int:
    """The number of ``objects/NNNNNN-xxxxxxxx``, by which extents name it; -1 for others."""
    match = _OBJECT.fullmatch(name)
    return int(match[1]) if match else -1


def is_table(name: str) -> bool:
    """Whether a name is that of a table file, ``tables/<32 hex>.parquet``."""
    return _TABLE.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class PartFile:
    """A file of a part: its name below ``parts/<part>/``, sealed size in bytes, digest in hex."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Commit(SignedDocument):
    """One text document. Ids, digests and ``root`` are lower-case hex; ``created`` is ms.

    ``parents``, ``replaces`` (part id, digest of its commit) and ``files`` are sorted, so that
    there is one commit for one part.
    """

    label = LABEL

    archive: str
    part: str
    seq: int
    created: int
    profile: str
    digest: str
    kind: str
    parents: tuple[tuple[str, str], ...]
    replaces: tuple[tuple[str, str], ...]
    root: str
    sealed_to: tuple[str, ...]
    files: tuple[PartFile, ...]
    mac: bytes = bytes(32)
    signatures: tuple[Signature, ...] = ()

    @property
    def order(self) -> tuple[int, int, str]:
        """Parts are read in this order; the later one wins."""
        return (self.seq, self.created, self.part)

    @property
    def parent_ids(self) -> tuple[str, ...]:
        """The part ids of its parents."""
        return tuple(parent for parent, _ in self.parents)

    @property
    def has_tables(self) -> bool:
        """Whether files of tables are among its own."""
        return any(is_table(file.name) for file in self.files)

    def _fields(self) -> dict[str, Any]:
        return {
            "archive": self.archive,
            "part": self.part,
            "seq": self.seq,
            "created": self.created,
            "profile": self.profile,
            "digest": self.digest,
            "kind": self.kind,
            "parents": [list(parent) for parent in self.parents],
            "replaces": [list(replaced) for replaced in self.replaces],
            "root": self.root,
            "sealed_to": list(self.sealed_to),
            "files": [[f.name, f.size, f.digest] for f in self.files],
        }

    @classmethod
    def parse(cls, data: bytes, what: str = "the commit") -> Commit:
        """Parse a document that is all of ``data``. Raises FormatError."""
        value, mac, end = textdoc.parse_prefix(data, LABEL, what)
        fields = textdoc.Fields(value, _KEYS, what)
        digest = fields.text("digest")
        if digest not in _DIGEST_SIZES:
            raise FormatError(f"{what} uses the digest {digest!r}, which is not known")
        kind = fields.text("kind")
        if kind not in KINDS:
            raise FormatError(f"{what} is of the kind {kind!r}, which is not known")
        size = _DIGEST_SIZES[digest]
        part = fields.hex("part", textdoc.ID_SIZE)
        replaces = _commits(fields, "replaces", what)
        if part in dict(replaces):
            raise FormatError(f"{what} replaces itself")
        return cls(
            archive=fields.hex("archive", textdoc.ID_SIZE),
            part=part,
            seq=fields.integer("seq", 1),
            created=fields.integer("created"),
            profile=fields.text("profile"),
            digest=digest,
            kind=kind,
            parents=_commits(fields, "parents", what),
            replaces=replaces,
            root=fields.hex("root", 32),
            sealed_to=_ids(fields, "sealed_to", what),
            files=_files(fields, size, what),
            mac=mac,
            signatures=parse_lines(data[end:], what),
        )


def _ids(fields: textdoc.Fields, key: str, what: str) -> tuple[str, ...]:
    ids = tuple(fields.hex_value(item, 16, key) for item in fields.items(key))
    if len(set(ids)) != len(ids):
        raise FormatError(f"{key!r} of {what} repeats an id")
    return ids


def _commits(fields: textdoc.Fields, key: str, what: str) -> tuple[tuple[str, str], ...]:
    """Part ids with the digests of their commits."""
    found = []
    for item in fields.items(key):
        if not isinstance(item, list) or len(item) != 2:
            raise FormatError(f"one of the {key!r} in {what} is not an id and a digest")
        part = fields.hex_value(item[0], 16, key)
        # A digest has the name that the commit itself gives: two sizes are possible.
        size = 48 if isinstance(item[1], str) and len(item[1]) == 96 else 32
        found.append((part, fields.hex_value(item[1], size, key)))
    ids = [part for part, _ in found]
    if ids != sorted(set(ids)):
        raise FormatError(f"the {key!r} of {what} are not sorted")
    return tuple(found)


def _files(fields: textdoc.Fields, digest_size: int, what: str) -> tuple[PartFile, ...]:
    files = []
    for item in fields.items("files"):
        if not isinstance(item, list) or len(item) != 3:
            raise FormatError(f"a file in {what} is not a name, a size and a digest")
        name, size, digest = item
        if not isinstance(name, str) or not (
            name == CATALOG or _OBJECT.fullmatch(name) or is_table(name)
        ):
            raise FormatError(f"{what} lists a file that no part has")
        if not isinstance(size, int) or isinstance(size, bool):
            raise FormatError(f"{what} gives {name} no size")
        files.append(PartFile(name, size, fields.hex_value(digest, digest_size, "files")))
    names = [file.name for file in files]
    if names != sorted(set(names)) or CATALOG not in names:
        raise FormatError(f"the files of {what} are not sorted, or the catalog is not among them")
    numbers = [object_number(name) for name in names if _OBJECT.fullmatch(name)]
    if len(set(numbers)) != len(numbers):
        raise FormatError(f"{what} lists two objects of one number")
    return tuple(files)
