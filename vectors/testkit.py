"""The formats of pqvault written by hand from docs/format.md, with every fault that is asked for.

Nothing of pqvault is imported here: a vector that pqvault's own writer made would only show
that reader and writer make the same mistake. The section numbers are those of format.md.

Everything is made of SHAKE-256 of a name, so that it is the same each time. HPKE cannot be
seeded: what is wrapped stands in ``wrapped.json`` and is used again.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vectors.parquet import Row
from vectors.people import ALICE, PROFILES, Person, made, wrap

HERE: Final = Path(__file__).parent
CHUNK: Final = 16384
CREATED: Final = 1_700_000_000_000  # ms

Fields = dict[str, Any]
Files = dict[str, bytes]
Edit = Callable[[Fields], Fields | None]
Bytes = Callable[[bytes], bytes]


def b64(data: bytes) -> str:
    """RFC 4648 section 4, with padding."""
    return base64.b64encode(data).decode("ascii")


def flip(data: bytes, at: int, bit: int = 1) -> bytes:
    """``data`` with one bit of the byte ``at`` changed."""
    out = bytearray(data)
    out[at] ^= bit
    return bytes(out)


# -- 2: names and keys ----------------------------------------------------------------------


def bind(purpose: str, *fields: bytes) -> bytes:
    """The one encoding of section 2."""
    head = b"pqvault.dev/" + purpose.encode() + b"@v1\x00"
    return head + b"".join(struct.pack(">H", len(field)) + field for field in fields)


def expand(key: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand with SHA-512, RFC 5869 section 2.3."""
    out = block = b""
    while len(out) < length:
        counter = bytes([len(out) // 64 + 1])
        block = hmac.digest(key, block + info + counter, "sha512")
        out += block
    return out[:length]


class Kept:
    """A file of what no seed can make again, so that it is made once and used again.

    ``option``: of the generator that makes what is missing.
    """

    def __init__(self, path: Path, option: str) -> None:
        self.path = path
        self._option = option
        self.start(new=False)

    def start(self, *, new: bool) -> None:
        """Take what is on file; with ``new`` what is missing is made."""
        self.new = new
        there = self.path.exists()
        self.known: dict[str, str] = json.loads(self.path.read_text()) if there else {}
        self.used: set[str] = set()

    def get(self, name: str, make: Callable[[], bytes]) -> bytes:
        """What has this name."""
        if name not in self.known:
            if not self.new:
                raise LookupError(f"{name} is not in {self.path.name}: run with {self._option}")
            self.known[name] = b64(make())
        self.used.add(name)
        return base64.b64decode(self.known[name])

    def save(self) -> None:
        """Write what was used."""
        used = {name: self.known[name] for name in sorted(self.used)}
        self.path.write_text(json.dumps(used, indent=1) + "\n")


WRAPS: Final = Kept(HERE / "wrapped.json", "--new-wraps")


def wrapped(person: Person, info: bytes, key: bytes) -> bytes:
    """enc ‖ ciphertext of ``key`` wrapped to ``person``: the HPKE encapsulations are kept."""
    digest = hashlib.sha256(person.public_key + key + info).hexdigest()[:16]
    return WRAPS.get(f"{person.name} {digest}", lambda: wrap(person, info, key))


# -- 3: text documents ----------------------------------------------------------------------


def document(
    label: str,
    fields: Fields,
    mac_key: bytes,
    *,
    edit: Edit | None = None,
    text: Bytes | None = None,
    after: Bytes | None = None,
) -> bytes:
    """A text document. ``edit`` changes the fields and ``text`` the covered lines before the MAC
    is taken: faults of who sealed. ``after`` changes the file: a fault of anybody else."""
    if edit is not None:
        fields = edit(fields) or fields
    lines = f"{label}\n{json.dumps(fields, separators=(',', ':'))}\n---".encode()
    if text is not None:
        lines = text(lines)
    mac = hmac.digest(mac_key, lines, "sha512")[:32]
    whole = lines + b" " + b64(mac).encode() + b"\n"
    return after(whole) if after is not None else whole


@dataclass(frozen=True)
class Root:
    """A root key and the ids that it is bound to."""

    name: str
    archive: bytes = bytes(16)  # of a sealed stream
    part: bytes = b""
    secret: bytes = b""

    def __post_init__(self) -> None:
        object.__setattr__(self, "part", self.part or made(f"part {self.name}", 16))
        object.__setattr__(self, "secret", self.secret or made(f"root key {self.name}", 32))

    def derive(self, length: int, purpose: str, *fields: bytes) -> bytes:
        """Section 2."""
        return expand(self.secret, bind(purpose, self.archive, self.part, *fields), length)

    def wrapped(
        self,
        person: Person,
        *,
        key_id: bytes = b"",
        part: bytes = b"",
        kem: str = "",
        profile: str = "",
        group: bytes = b"",
    ) -> Fields:
        """One item of ``recipients``, section 4; the keywords are what the wrap is bound to."""
        bound, kem = key_id or person.key_id, kem or PROFILES[person.profile].kem
        info = bind(
            "envelope",
            self.archive,
            part or self.part,
            group,
            (profile or person.profile).encode(),
            kem.encode(),
            bound,
        )
        sealed = wrapped(person, info, self.secret)
        return {"kem": kem, "key_id": bound.hex(), "sealed": b64(sealed)}

    def envelope(
        self,
        *people: Person,
        recipients: Sequence[Fields] = (),
        group: str = "",
        profile: str = "",
        created: int = CREATED,
        generation: int = 1,
        mac_key: bytes = b"",
        **faults: Any,
    ) -> bytes:
        """Section 4."""
        fields = {
            "archive": self.archive.hex(),
            "part": self.part.hex(),
            "group": group,
            "generation": generation,
            "created": created,
            "profile": profile or (people[0].profile if people else "standard"),
            "recipients": [self.wrapped(person) for person in people] or list(recipients),
        }
        mac_key = mac_key or self.derive(64, "envelope mac", group.encode())
        return document("pqvault.dev/envelope@v1", fields, mac_key, **faults)

    def message(self, name: str, plain: bytes, **faults: Any) -> Message:
        """The object ``name`` of this part, section 7."""
        context = bind("object", self.archive, self.part, name.encode())
        return cobblestone(expand(self.secret, context, 32), context, plain, **faults)


# -- 7.1: Cobblestone-256 -------------------------------------------------------------------


@dataclass
class Message:
    """A sealed object, in pieces that can be moved about."""

    salt: bytes
    commitment: bytes
    chunks: list[bytes]

    def __bytes__(self) -> bytes:
        return b"".join((self.salt, self.commitment, *self.chunks))


def cobblestone(
    key: bytes,
    context: bytes,
    plain: bytes,
    *,
    salt: str = "salt",
    first: int = 0,
    cut: Sequence[int] = (),
) -> Message:
    """``first``: the number of the first chunk. ``cut``: sizes of chunks other than the rule's."""
    salted = made(salt, 24)
    okm = expand(key, b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" + salted + context, 76)
    aead, nonce = AESGCM(okm[:32]), int.from_bytes(okm[32:44], "big")
    sizes = list(cut) or [CHUNK] * (len(plain) // CHUNK) + [len(plain) % CHUNK]
    chunks, at = [], 0
    for number, size in enumerate(sizes, first):
        chunk = plain[at : at + size]
        chunks.append(aead.encrypt((nonce ^ number).to_bytes(12, "big"), chunk, None))
        at += size
    return Message(salted, okm[44:], chunks)


# -- 7.2 and 7.3: frames and the seek table -------------------------------------------------

MAGIC = b"\x28\xb5\x2f\xfd"
RAW, RUN, COMPRESSED, RESERVED = range(4)


def block(data: bytes, kind: int = RAW, *, last: bool = False, size: int | None = None) -> bytes:
    """A zstd block. ``size``: what its header says, the length of ``data`` if nothing."""
    header = (len(data) if size is None else size) << 3 | kind << 1 | last
    return header.to_bytes(3, "little") + data


def frame(
    size: int, *blocks: bytes, descriptor: int = 0xA0, extra: bytes = b"", width: int = 4
) -> bytes:
    """A zstd frame. ``extra``: header bytes before the content size of ``width`` bytes."""
    head = MAGIC + bytes([descriptor]) + extra + size.to_bytes(width, "little")
    return head + b"".join(blocks)


def stored(content: bytes) -> bytes:
    """Section 7.3."""
    pieces = [content[i : i + 131072] for i in range(0, len(content), 131072)]
    blocks = [block(piece, last=i == len(pieces) - 1) for i, piece in enumerate(pieces)]
    return frame(len(content), *blocks)


def run(byte: bytes, size: int) -> bytes:
    """A frame of one byte repeated ``size`` times."""
    sizes = [131072] * (size // 131072) + [size % 131072] * bool(size % 131072)
    blocks = [block(byte, RUN, size=n, last=i == len(sizes) - 1) for i, n in enumerate(sizes)]
    return frame(size, *blocks)


def seek_table(pairs: Iterable[tuple[int, int]], **faults: Any) -> bytes:
    """Section 7.2; ``pairs`` of sealed and content size. The faults replace a field."""
    entries = b"".join(struct.pack("<II", *pair) for pair in pairs)
    count = len(entries) // 8
    return b"".join(
        (
            struct.pack("<I", faults.get("magic", 0x184D2A5E)),
            struct.pack("<I", faults.get("length", len(entries) + 9)),
            entries,
            struct.pack("<I", faults.get("count", count)),
            bytes([faults.get("descriptor", 0)]),
            struct.pack("<I", faults.get("end", 0x8F92EAB1)),
        )
    )


Frame = tuple[bytes, int]  # the frame and the size of its content


def sealable(*frames: Frame) -> bytes:
    """The plaintext of an object, section 7.2."""
    table = seek_table((len(sealed), size) for sealed, size in frames)
    return b"".join(sealed for sealed, _ in frames) + table


def content(*pieces: bytes) -> bytes:
    """The plaintext of an object of these pieces of content, each in a stored frame."""
    return sealable(*((stored(piece), len(piece)) for piece in pieces))


# -- 5 and 6: archives ----------------------------------------------------------------------

DIGESTS: Mapping[str, Callable[[bytes], bytes]] = {
    "blake3": lambda data: blake3(data).digest(),
    "sha256": lambda data: hashlib.sha256(data).digest(),
    "sha384": lambda data: hashlib.sha384(data).digest(),
}
ARCHIVE: Final = made("archive", 16)


@dataclass
class Part:
    """A part of an archive. ``objects``: sealed bytes by name; ``catalog``: Parquet, in frames.

    Faults: ``commit`` and ``envelope`` are keywords of :func:`document`, ``files`` replaces
    the files of the part in storage but not in its commit.
    """

    root: Root
    people: tuple[Person, ...] = (ALICE,)
    objects: dict[str, bytes] = field(default_factory=dict)
    catalog: bytes = b""
    seq: int = 1
    created: int = CREATED
    digest: str = "blake3"
    kind: str = "seal"
    parents: Sequence[Part] = ()
    replaces: Sequence[Part] = ()
    commit: Fields = field(default_factory=dict)
    envelope: Fields = field(default_factory=dict)
    mac_purpose: str = "commit mac"

    @property
    def id(self) -> str:
        """The part id."""
        return self.root.part.hex()

    def inside(self) -> Files:
        """What the commit lists: sealed files by name."""
        return {"catalog": self.catalog, **self.objects}

    def commit_file(self) -> bytes:
        """Section 5.1."""
        take = DIGESTS[self.digest]
        parents, replaces = (
            sorted([part.id, DIGESTS[part.digest](part.commit_file()).hex()] for part in parts)
            for parts in (self.parents, self.replaces)
        )
        inside = sorted(self.inside().items())
        fields = {
            "archive": self.root.archive.hex(),
            "part": self.id,
            "seq": self.seq,
            "created": self.created,
            "profile": self.people[0].profile if self.people else "standard",
            "digest": self.digest,
            "kind": self.kind,
            "parents": parents,
            "replaces": replaces,
            "root": self.root.derive(32, "commit id").hex(),
            "sealed_to": [person.key_id.hex() for person in self.people],
            "files": [[name, len(data), take(data).hex()] for name, data in inside],
        }
        mac_key = self.root.derive(64, self.mac_purpose)
        return document("pqvault.dev/commit@v1", fields, mac_key, **self.commit)

    def files(self) -> Files:
        """Everything of this part that is in the archive's folder."""
        envelope = self.root.envelope(*self.people, **self.envelope)
        return {
            f"commits/{self.id}": self.commit_file(),
            f"envelopes/{self.id}": envelope,
            **{f"parts/{self.id}/{name}": data for name, data in self.inside().items()},
        }


def header(archive: bytes = ARCHIVE) -> bytes:
    """``pqvault.json``."""
    return b'{"format":"pqvault.dev/archive@v1","archive":"%s"}\n' % archive.hex().encode()


def folder(*parts: Part) -> Files:
    """An archive of these parts."""
    files = {"pqvault.json": header()}
    for part in parts:
        files |= part.files()
    return files


def line(row: Row, data: bytes | None = None) -> str:
    """One line of the listing that ``payload`` and ``released`` of an archive are digests of."""
    link = "-" if row.link is None else row.link.hex()
    digest = "-" if data is None else hashlib.sha256(data).hexdigest()
    return f"{row.kind} {row.path.hex()} {row.size} {row.mode:o} {row.mtime_ns} {link} {digest}\n"


# -- vectors as files -----------------------------------------------------------------------

CLASSES: Final = {
    "success": 0,
    "no key fits": 12,
    "header failure": 13,
    "envelope failure": 13,
    "commit failure": 13,
    "payload failure": 13,
    "catalog failure": 13,
    "seek table lies": 13,
    "rolled back": 15,
}


@dataclass(frozen=True)
class Vector:
    """One vector; README.md in this folder has the grammar of its file."""

    name: str
    kind: str  # stream, archive
    expect: str
    comment: str
    identity: str
    released: str
    inspect: str  # clean, problem
    files: Files
    found: str = ""  # archive: open, list, read, verify
    intact: str = ""  # archive: yes, no

    @property
    def exit(self) -> int:
        """The exit code that goes with ``expect``."""
        return CLASSES[self.expect]

    def marshal(self) -> bytes:
        """The file."""
        digest = "payload" if self.expect == "success" else "released"
        headers = {
            "kind": self.kind,
            "expect": self.expect,
            "exit": str(self.exit),
            digest: self.released,
            "identity": self.identity,
            "inspect": self.inspect,
            "found": self.found,
            "intact": self.intact,
            "comment": self.comment,
        }
        out = [f"{key}: {value}\n" for key, value in headers.items() if value]
        for name, data in sorted(self.files.items()):
            text = b64(data)
            out.append(f"\n= {name}\n")
            out += [text[i : i + 96] + "\n" for i in range(0, len(text), 96)]
        return "".join(out).encode()

    @classmethod
    def parse(cls, name: str, data: bytes) -> Vector:
        """The vector of a file; anything odd is an error."""
        head, *sections = data.decode("ascii").split("\n= ")
        headers = dict(row.split(": ", 1) for row in head.strip().split("\n"))
        files = {}
        for section in sections:
            file, _, text = section.partition("\n")
            files[file] = base64.b64decode(text.replace("\n", ""), validate=True)
        success = headers["expect"] == "success"
        vector = cls(
            name,
            headers["kind"],
            headers["expect"],
            headers["comment"],
            headers["identity"],
            headers["payload" if success else "released"],
            headers["inspect"],
            files,
            headers.get("found", ""),
            headers.get("intact", ""),
        )
        if vector.marshal() != data:
            raise ValueError(f"{name} is not a vector as README.md says")
        return vector
