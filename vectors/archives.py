"""The vectors of archives. Each function makes one: its name is the vector's."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vectors import parquet, tables
from vectors.parquet import CATALOG, TABLE, Column, Row
from vectors.people import ALICE, BOB, CAROL, DORA, EVE, Person, made
from vectors.testkit import (
    ARCHIVE,
    CREATED,
    DIGESTS,
    RUN,
    Bytes,
    Files,
    Part,
    Root,
    Vector,
    b64,
    block,
    content,
    document,
    flip,
    folder,
    frame,
    header,
    line,
    run,
    sealable,
    seek_table,
    stored,
)

Made = Files | tuple[Files, list[str]]  # the files; the lines of what may be read of them


@dataclass(frozen=True)
class Case:
    """A vector to be made."""

    make: Callable[[], Made]
    expect: str
    comment: str
    found: str
    identity: Person
    intact: str
    inspect: str

    def vector(self) -> Vector:
        """Make it."""
        result = self.make()
        files, lines = result if isinstance(result, tuple) else (result, [])
        return Vector(
            name=self.make.__name__,
            kind="archive",
            expect=self.expect,
            comment=self.comment,
            identity=self.identity.text,
            released=hashlib.sha256("".join(lines).encode()).hexdigest(),
            inspect=self.inspect,
            files=files,
            found=self.found,
            intact=self.intact,
        )


CASES: list[Case] = []


def case(
    expect: str,
    comment: str,
    *,
    found: str = "",
    identity: Person = ALICE,
    intact: str = "yes",
    inspect: str = "clean",
) -> Callable[[Callable[[], Made]], Callable[[], Made]]:
    """Register the vector that the function below makes.

    ``found``: where a reader with the key meets the fault; ``intact``: what a check without
    one says; ``inspect``: whether the public documents show it.
    """

    def register(make: Callable[[], Made]) -> Callable[[], Made]:
        CASES.append(Case(make, expect, comment, found, identity, intact, inspect))
        return make

    return register


# -- parts to put faults into ---------------------------------------------------------------

ONE = Root("one", ARCHIVE)
TWO = Root("two", ARCHIVE)
THREE = Root("three", ARCHIVE)
FOREIGN = Root("one", made("another archive", 16))
OBJECT = "objects/000000-3f2a91c0"
SECOND = "objects/000007-00c0ffee"
TEXT = b"post-quantum "


def file(path: bytes, data: bytes, offset: int = 0, number: int = 0, **changes: Any) -> Row:
    """The row of a file whose content is in one place of one object."""
    extents = ((number, offset, len(data)),) if data else ()
    digest = DIGESTS["blake3"](data)
    return Row(path, "f", len(data), digest=digest, extents=extents)._replace(**changes)


def folder_row(path: bytes, **changes: Any) -> Row:
    """The row of a folder."""
    return Row(path, "d", mode=0o755)._replace(**changes)


A, B = b"first file", b"second file, a little longer"
ROWS = [folder_row(b"d"), file(b"d/a", A), file(b"d/b", B, len(A))]
LINES = [line(ROWS[0]), line(ROWS[1], A), line(ROWS[2], B)]
HOLDS = {OBJECT: content(A + B)}


def part(
    rows: Sequence[Row] | None = None,
    *,
    root: Root = ONE,
    objects: Files | None = None,
    columns: Sequence[Column] = CATALOG,
    groups: Sequence[Sequence[Row]] | None = None,
    plain: bytes | None = None,
    statistics: Any = None,
    **options: Any,
) -> Part:
    """A part of one object (``objects``: their plaintext) and these rows, by default two files.

    ``plain``: the plaintext of the object ``catalog``, where it is to be another one.
    """
    rows = ROWS if rows is None else rows
    objects = HOLDS if objects is None else objects
    extra = {"statistics": statistics} if statistics is not None else {}
    if plain is None:
        table = parquet.write(groups or [rows], columns, **extra)
        plain = content(table)
    inside = {name: bytes(root.message(name, data)) for name, data in objects.items()}
    sealed = bytes(root.message("catalog", plain))
    return Part(root, objects=inside, catalog=sealed, **options)


def archive(*args: Any, **options: Any) -> Files:
    """An archive of one part."""
    return folder(part(*args, **options))


def change(files: Files, name: str, edit: Bytes) -> Files:
    """One file of a good archive changed by somebody else."""
    found = [key for key in files if key.startswith(name)]
    assert len(found) == 1, found
    return files | {found[0]: edit(files[found[0]])}


def without(files: Files, name: str) -> Files:
    """One file of a good archive gone."""
    left = {key: data for key, data in files.items() if not key.startswith(name)}
    assert len(left) == len(files) - 1
    return left


def with_rows(*rows: Row) -> Files:
    """An archive with these rows in the place of the two files'."""
    return archive(list(rows))


# -- success --------------------------------------------------------------------------------


@case("success", "a folder and two files in one object")
def archive_of_one_part() -> Made:
    return archive(), LINES


@case("success", "no part: an archive that was just created")
def archive_without_parts() -> Made:
    return {"pqvault.json": header()}, []


@case("success", "a part with a catalog of no rows and no object")
def archive_of_an_empty_part() -> Made:
    return archive(objects={}, groups=[], plain=content(parquet.write([]))), []


@case("success", "two recipients, the identity is the second")
def archive_second_recipient() -> Made:
    return archive(people=(BOB, ALICE)), LINES


@case("success", "the digests of commit and catalog are SHA-256")
def archive_with_sha256() -> Made:
    return archive(in_digest(ROWS, [b"", A, B], "sha256"), digest="sha256"), LINES


@case("success", "profile high", identity=DORA)
def archive_of_profile_high() -> Made:
    return archive(people=(DORA,)), LINES


@case("success", "profile cnsa2: all digests are SHA-384", identity=EVE)
def archive_of_profile_cnsa2() -> Made:
    rows = in_digest(ROWS, [b"", A, B], "sha384")
    return archive(rows, people=(EVE,), digest="sha384"), LINES


@case("success", "the digests of commit and catalog are SHA-384")
def archive_with_sha384() -> Made:
    return archive(in_digest(ROWS, [b"", A, B], "sha384"), digest="sha384"), LINES


def in_digest(rows: Sequence[Row], contents: Sequence[bytes], name: str) -> list[Row]:
    """The same rows with another digest of their contents."""
    take = DIGESTS[name]
    return [
        row._replace(digest=take(data)) if row.digest is not None else row
        for row, data in zip(rows, contents, strict=True)
    ]


@case("success", "a row group for each row")
def archive_row_groups_of_one() -> Made:
    return archive(groups=[[row] for row in ROWS]), LINES


@case("success", "a row group for each row, and no statistics to look them up by")
def archive_without_statistics() -> Made:
    return archive(groups=[[row] for row in ROWS], statistics=lambda rows: None), LINES


@case("success", "a file in two objects with a hole between, and a hole at its end")
def archive_file_over_two_objects() -> Made:
    head, end = b"head of it", b"and the rest"
    whole = head + bytes(5000) + end + bytes(70)
    extents = ((0, 0, 10), (-1, 0, 5000), (7, 3, len(end)), (-1, 0, 70))
    row = file(b"sparse", whole, extents=extents)
    objects = {OBJECT: content(head), SECOND: content(b"..." + end)}
    return archive([row], objects=objects), [line(row, whole)]


@case("success", "a file over three frames, the middle one stored")
def archive_file_over_three_frames() -> Made:
    first, second, third = b"a" * 300, made("stored frame", 200), b"c" * 500
    data = first + second + third
    plain = sealable((run(b"a", 300), 300), (stored(second), 200), (run(b"c", 500), 500))
    row = file(b"three", data)
    return archive([row], objects={OBJECT: plain}), [line(row, data)]


@case("success", "a hard link and symbolic links, one of them to where nothing is")
def archive_links() -> Made:
    rows = [
        folder_row(b"d"),
        file(b"d/a", A),
        Row(b"d/same", "h", len(A), link=b"d/a", digest=ROWS[1].digest, extents=ROWS[1].extents),
        Row(b"d/to", "l", mode=0o777, link=b"../../etc/passwd"),
        Row(b"d/up", "l", mode=0o777, link=b"a"),
    ]
    lines = [line(rows[0]), line(rows[1], A), line(rows[2], A), line(rows[3]), line(rows[4])]
    return archive(rows), lines


@case("success", "attack 28: names with every byte that a name may have, and escapes for terminals")
def archive_odd_names() -> Made:
    names = [
        bytes(range(1, 47)) + bytes(range(48, 200)),
        bytes(range(200, 256)),
        b"\x1b[31mred\x1b[0m",
        b"line\nfeed",
        "right\u202eleft".encode(),
        b"..." + b" ",
        b"C:\\windows\\..",
        b"n" * 255,
    ]
    rows = [file(name, b"", mtime_ns=-1) for name in sorted(names)]
    return archive(rows, objects={}), [line(row, b"") for row in rows]


@case("success", "times before 1970, all permission bits, a file of no bytes, nested empty folders")
def archive_odd_values() -> Made:
    rows = [
        folder_row(b"deep", mode=0),
        folder_row(b"deep/er", mtime_ns=-(2**63)),
        file(b"empty", b"", mode=0o7777, mtime_ns=2**63 - 1),
    ]
    return archive(rows, objects={}), [line(rows[0]), line(rows[1]), line(rows[2], b"")]


@case("success", "names that sort between a folder and what is in it")
def archive_names_around_a_folder() -> Made:
    rows = [
        folder_row(b"d"),
        file(b"d!", b""),
        folder_row(b"d-x"),
        file(b"d-x/y", b""),
        file(b"d/a", b""),
        folder_row(b"d/a-b"),
        file(b"d/a-b/c", b""),
        file(b"d0", b""),
    ]
    lines = [line(row, None if row.kind == "d" else b"") for row in rows]
    return archive(rows, objects={}), lines


@case("success", "a file without a digest, as of one that changed while it was read")
def archive_file_without_digest() -> Made:
    row = file(b"changed", A, digest=None)
    return with_rows(row), [line(row, A)]


@case("success", "an object that no entry names")
def archive_object_unused() -> Made:
    objects = HOLDS | {SECOND: content(b"nobody names it")}
    return archive(objects=objects), LINES


@case("success", "attack 45: files that are none of an archive's, everywhere")
def archive_with_strange_files() -> Made:
    strange = {
        "README": b"x",
        "commits/.hidden": b"x",
        "commits/" + "A" * 32: b"upper case",
        "commits/" + "0" * 31: b"short",
        "envelopes/" + "0" * 32: b"no commit for it",
        "parts/" + "0" * 32 + "/catalog": b"no commit for it",
        f"parts/{ONE.part.hex()}/objects/000001-00000000": b"in no commit",
        f"parts/{ONE.part.hex()}/wal": b"",
        "removed/strange": b"",
        "retired/strange": b"no key id",
        f"envelopes/.{ONE.part.hex()}.01234567.tmp": b"of a rotation that was killed",
    }
    return archive() | strange, LINES


@case("success", "a key is retired: a record for writers, which a reader does not mind")
def archive_with_retired_key() -> Made:
    fields = {
        "archive": ONE.archive.hex(),
        "part": ONE.part.hex(),
        "key_id": BOB.key_id.hex(),
        "created": CREATED + 1000,
    }
    mac_key = ONE.derive(64, "retired mac")
    record = document("pqvault.dev/retired@v1", fields, mac_key)
    return archive() | {f"retired/{BOB.key_id.hex()}": record}, LINES


SIGNATURE_LINES = b"".join(
    b"sign %s %032x %s\n" % (suite, number, b64(made(f"signature {number}", size)).encode())
    for number, (suite, size) in enumerate([(b"Ed25519+ML-DSA-65", 3373), (b"of-the-future", 7)])
)


@case("success", "signatures behind all MAC lines, of signers and a suite that nobody asks for")
def archive_with_signatures() -> Made:
    files, _ = archive_with_retired_key()  # type: ignore[misc]
    return {
        name: data + SIGNATURE_LINES if name.startswith(("com", "env", "ret")) else data
        for name, data in files.items()  # type: ignore[union-attr]
    }, LINES


def signature_lines(size: int, count: int = 1, suite: str = "of-the-future") -> Bytes:
    """Signature lines behind a document, of signers 0, 1, 2, …; ``size``: bytes of each."""
    room = size - len(f"sign {suite} {0:032x} \n")
    assert room % 4 == 0, f"{room} bytes are no base64"
    text = b64(bytes(room // 4 * 3))
    lines = "".join(f"sign {suite} {number:032x} {text}\n" for number in range(count))
    return lambda data: data + lines.encode()


@case("success", "16 signatures, each in a line of 16,384 bytes")
def archive_with_signatures_at_their_limit() -> Made:
    return change(archive(), "commits/", signature_lines(16384, 16, "four")), LINES


@case("success", "the envelope was rewrapped by rotations: generation 7, made later than the part")
def archive_rotated() -> Made:
    rewrapped = ONE.envelope(ALICE, generation=7, created=CREATED + 1000)
    return archive() | {ENVELOPE: rewrapped}, LINES


NEWER = b"newer"


def later(rows: Sequence[Row], *, data: bytes = NEWER, **options: Any) -> Part:
    """A second part, the child of the first."""
    options = {"root": TWO, "seq": 2, "created": CREATED + 1, "parents": [part()]} | options
    return part(rows, objects={OBJECT: content(data)}, **options)


@case("success", "a second part replaces one file, adds another and takes a third away")
def parts_two() -> Made:
    rows = [
        folder_row(b"d", mode=0o700),
        file(b"d/a", NEWER),
        Row(b"d/b", "x", mode=0),
        file(b"e", NEWER),
    ]
    lines = [line(rows[0]), line(rows[1], NEWER), line(rows[3], NEWER)]
    return folder(part(), later(rows)), lines


@case("success", "a part with tombstones alone in its archive: what they name is not there")
def parts_tombstones_alone() -> Made:
    rows = [ROWS[0], ROWS[1], Row(b"d/b", "x", mode=0), Row(b"gone", "x", mode=0)]
    return archive(rows), LINES[:2]


@case("success", "a second part puts a file where a folder was, which hides all below it")
def parts_file_over_folder() -> Made:
    row = file(b"d", NEWER)
    return folder(part(), later([row])), [line(row, NEWER)]


@case("success", "a tombstone of a folder hides all below it, and not the names beside it")
def parts_tombstone_of_folder() -> Made:
    first = part([folder_row(b"d"), file(b"d!", b""), file(b"d/a", A), file(b"d0", b"")])
    rows = [Row(b"d", "x", mode=0)]
    return folder(first, later(rows, parents=[first])), [
        line(file(b"d!", b""), b""),
        line(file(b"d0", b""), b""),
    ]


@case(
    "success", "a third part brings a folder back that a second one took away: not what was in it"
)
def parts_brought_back() -> Made:
    second = later([Row(b"d", "x", mode=0)])
    rows = [folder_row(b"d"), file(b"d/c", b"again")]
    third = later(rows, data=b"again", root=THREE, seq=3, parents=[second])
    return folder(part(), second, third), [line(rows[0]), line(rows[1], b"again")]


@case("success", "a second part adds to a folder: what an older part has in it stays")
def parts_folder_again() -> Made:
    rows = [folder_row(b"d", mode=0o711), file(b"d/c", NEWER)]
    lines = [line(rows[0]), LINES[1], LINES[2], line(rows[1], NEWER)]
    return folder(part(), later(rows)), lines


@case("success", "a tombstone of what no part has")
def parts_tombstone_of_nothing() -> Made:
    return folder(part(), later([Row(b"d/a/none", "x", mode=0), Row(b"z", "x", mode=0)])), LINES


@case("success", "a link in a third part hides what two parts have below that name")
def parts_link_over_folder() -> Made:
    second = later([folder_row(b"d"), file(b"d/c", NEWER)])
    row = Row(b"d", "l", mode=0o777, link=b"elsewhere")
    third = later([row], root=THREE, seq=3, parents=[second])
    return folder(part(), second, third), [line(row)]


@case("success", "two parts of one seq: the later time wins, whatever their ids")
def parts_in_order_of_time() -> Made:
    row = file(b"d/a", NEWER)
    early = later([folder_row(b"d"), row], seq=1, created=CREATED - 1, parents=[])
    late = later([folder_row(b"d"), row], seq=1, root=THREE, parents=[])
    return folder(part(), early, late), [LINES[0], line(row, NEWER), LINES[2]]


@case("success", "two parts of one seq and one time: the later id wins")
def parts_in_order_of_id() -> Made:
    assert TWO.part < THREE.part
    row, other = file(b"a", NEWER), file(b"a", b"other")
    early = later([row], parents=[])
    late = later([other], data=b"other", root=THREE, parents=[])
    return folder(late, early), [line(other, b"other")]


@case("success", "a part of the kind append adds files")
def parts_appended() -> Made:
    row = file(b"log", NEWER)
    return folder(part(), later([row], kind="append", parents=[])), [*LINES, line(row, NEWER)]


@case("success", "a parent is gone, and its removal on record")
def parts_parent_removed() -> Made:
    row = file(b"log", NEWER)
    files = folder(later([row])) | {f"removed/{ONE.part.hex()}": b""}
    return files, [line(row, NEWER)]


@case("success", "a part is still there, and its removal on record: it does not count")
def parts_removed_but_there() -> Made:
    row = file(b"log", NEWER)
    files = folder(part(), later([row])) | {f"removed/{ONE.part.hex()}": b"any content"}
    return files, [line(row, NEWER)]


def again(rows: Sequence[Row] = ROWS, **options: Any) -> Part:
    """A part in the place of the first, with all that it holds."""
    return part(rows, **{"root": TWO, "replaces": [part()]} | options)


def removal(*by: Part, **changes: Any) -> Files:
    """The record that the first part was removed, and the parts ``by`` hold what it held."""
    fields = {
        "archive": ONE.archive.hex(),
        "part": by[0].id,
        "removed": ONE.part.hex(),
        "seq": 1,
        "committed": CREATED,
        "commit": DIGESTS["blake3"](part().commit_file()).hex(),
        "reason": "replaced",
        "by": [one.id for one in by],
        "created": CREATED + 1000,
    }
    mac_key = by[0].root.derive(64, "removed mac")
    record = document("pqvault.dev/removed@v1", fields | changes, mac_key)
    return {f"removed/{ONE.part.hex()}": record}


@case("success", "a part that replaces another one, which is removed and gone")
def parts_replaced() -> Made:
    return folder(again()) | removal(again()), LINES


@case("success", "a part that replaces another one, which is still there: it is not read")
def parts_replaced_but_there() -> Made:
    old = folder(part([file(b"other", A)], objects={OBJECT: content(A)}))
    new = again(replaces=[part([file(b"other", A)], objects={OBJECT: content(A)})])
    return folder(new) | old, LINES


@case("success", "a part that replaces the parent of another one, which still names that")
def parts_parent_replaced() -> Made:
    row = file(b"log", NEWER)
    child = later([row], root=THREE)
    return folder(again(), child) | removal(again()), [*LINES, line(row, NEWER)]


@case("success", "a part that replaces two others, of which one had replaced the other")
def parts_replaced_twice() -> Made:
    second = again()
    third = again(root=THREE, replaces=[part(), second])
    return folder(part(), second, third), LINES


@case("success", "a part in the place of two that follow each other, at the place of the last")
def parts_replaced_by_one() -> Made:
    row = file(b"log", NEWER)
    second = later([row])
    held = [*ROWS, row._replace(extents=((0, len(A + B), len(NEWER)),))]
    both = part(
        held,
        root=THREE,
        objects={OBJECT: content(A + B + NEWER)},
        seq=2,
        created=CREATED + 1,
        replaces=[part(), second],
    )
    return folder(part(), second, both), [*LINES, line(row, NEWER)]


@case("success", "a part was pruned, which no state from the later one on needs")
def parts_pruned() -> Made:
    row = file(b"log", NEWER)
    child = later([row])
    return folder(child) | removal(child, reason="pruned"), [line(row, NEWER)]


@case("success", "a parent with digests of 48 bytes, which its child names it by")
def parts_parent_with_sha384() -> Made:
    row = file(b"log", NEWER)
    first = part(in_digest(ROWS, [b"", A, B], "sha384"), digest="sha384")
    return folder(first, later([row], parents=[first])), [*LINES, line(row, NEWER)]


# -- no key fits ----------------------------------------------------------------------------


@case("no key fits", "sealed to Alice, read by Carol", identity=CAROL, found="open")
def archive_of_somebody_else() -> Made:
    return archive()


@case("no key fits", "the second of two parts is sealed to somebody else", found="open")
def parts_second_of_somebody_else() -> Made:
    return folder(part(), later([file(b"log", NEWER)], people=(BOB,)))


# -- header failure -------------------------------------------------------------------------


def with_header(data: bytes) -> Files:
    """A good archive with another ``pqvault.json``."""
    return archive() | {"pqvault.json": data}


NO_HEADER = {"found": "open", "intact": "no", "inspect": "problem"}


@case("header failure", "attack 4: a version that is not", **NO_HEADER)
def header_of_version_2() -> Made:
    return with_header(header().replace(b"@v1", b"@v2"))


@case("header failure", "a space", **NO_HEADER)
def header_with_space() -> Made:
    return with_header(header().replace(b":", b": ", 1))


@case("header failure", "the last LF is gone", **NO_HEADER)
def header_without_lf() -> Made:
    return with_header(header()[:-1])


@case("header failure", "the id in upper case", **NO_HEADER)
def header_id_in_upper_case() -> Made:
    return with_header(header().replace(ARCHIVE.hex().encode(), ARCHIVE.hex().upper().encode()))


@case("header failure", "empty", **NO_HEADER)
def header_empty() -> Made:
    return with_header(b"")


@case("header failure", "a JSON list", **NO_HEADER)
def header_list() -> Made:
    return with_header(b"[]\n")


@case("header failure", "attack 42: 5,000 bytes of it", **NO_HEADER)
def header_long() -> Made:
    return with_header(header()[:-1] + b" " * 5000 + b"\n")


# -- envelope failure -----------------------------------------------------------------------

SHOWN = {"found": "open", "intact": "no", "inspect": "problem"}
HIDDEN = {"found": "open"}
ENVELOPE = f"envelopes/{ONE.part.hex()}"


@case("envelope failure", "the envelope is gone", found="open", intact="no")
def archive_envelope_missing() -> Made:
    return without(archive(), ENVELOPE)


@case("envelope failure", "attack 6: one bit of the MAC", **HIDDEN)
def archive_envelope_mac_flipped() -> Made:
    return change(archive(), ENVELOPE, flip_mac)


def flip_mac(document: bytes) -> bytes:
    """A text document with one bit of its MAC changed."""
    mac = flip(base64.b64decode(document[-45:-1]), 31)
    return document[:-45] + b64(mac).encode() + b"\n"


@case("envelope failure", "attack 13: the envelope of another part of this archive", **SHOWN)
def archive_envelope_of_other_part() -> Made:
    return change(archive(), ENVELOPE, lambda _: TWO.envelope(ALICE))


@case("envelope failure", "attack 13: the envelope of the same part in another archive", **SHOWN)
def archive_envelope_of_other_archive() -> Made:
    return change(archive(), ENVELOPE, lambda _: FOREIGN.envelope(ALICE))


@case("envelope failure", "a group, which is not of this version", **SHOWN)
def archive_envelope_of_a_group() -> Made:
    item = ONE.wrapped(ALICE, group=b"labels")
    return change(archive(), ENVELOPE, lambda _: ONE.envelope(recipients=[item], group="labels"))


@case("envelope failure", "attack 4: a profile that is not known", **HIDDEN)
def archive_envelope_unknown_profile() -> Made:
    return archive(envelope={"profile": "low"})


@case("envelope failure", "a byte behind the MAC line", **SHOWN)
def archive_envelope_byte_behind_it() -> Made:
    return change(archive(), ENVELOPE, lambda data: data + b"\n")


@case("envelope failure", "attack 43: signatures out of the order of their signers", **SHOWN)
def archive_envelope_signatures_out_of_order() -> Made:
    lines = b"".join(reversed(SIGNATURE_LINES.splitlines(keepends=True)))
    return change(archive(), ENVELOPE, lambda data: data + lines)


@case("envelope failure", "attack 43: a signer twice", **SHOWN)
def archive_envelope_signer_twice() -> Made:
    line = SIGNATURE_LINES.splitlines(keepends=True)[0]
    return change(archive(), ENVELOPE, lambda data: data + line + line)


@case("envelope failure", "a signature whose line does not end", **SHOWN)
def archive_envelope_signature_cut() -> Made:
    return change(archive(), ENVELOPE, lambda data: data + SIGNATURE_LINES[:-1])


@case("envelope failure", "17 signatures", **SHOWN)
def archive_envelope_of_17_signatures() -> Made:
    return change(archive(), ENVELOPE, signature_lines(100, 17, "four"))


@case("envelope failure", "a signature in a line of 16,385 bytes", **SHOWN)
def archive_envelope_signature_over_limit() -> Made:
    return change(archive(), ENVELOPE, signature_lines(16385, 1, "fives"))


@case("envelope failure", "a signature of a suite with another sign than . + and -", **SHOWN)
def archive_envelope_signature_of_an_odd_suite() -> Made:
    return change(archive(), ENVELOPE, signature_lines(104, 1, "by/night"))


@case("envelope failure", "a signature of a suite of 65 characters", **SHOWN)
def archive_envelope_signature_of_a_long_suite() -> Made:
    return change(archive(), ENVELOPE, signature_lines(161, 1, "s" * 65))


@case("envelope failure", "a signature of no bytes", **SHOWN)
def archive_envelope_signature_of_no_bytes() -> Made:
    return change(archive(), ENVELOPE, signature_lines(44, 1, "four"))


@case("envelope failure", "attack 15: the commit in its place", **SHOWN)
def archive_envelope_is_the_commit() -> Made:
    files = archive()
    return files | {ENVELOPE: files[f"commits/{ONE.part.hex()}"]}


# -- commit failure -------------------------------------------------------------------------

COMMIT = f"commits/{ONE.part.hex()}"


def with_commit(**faults: Any) -> Files:
    """A commit with a fault that its MAC covers."""
    return archive(commit=faults)


def edited(**changes: Any) -> Files:
    """A commit with other values, and the MAC of these."""
    return with_commit(edit=lambda fields: fields | changes)


def listed(edit: Callable[[list[Any]], list[Any]]) -> Files:
    """A commit that lists other files."""
    return with_commit(edit=lambda fields: fields | {"files": edit(fields["files"])})


def commit_text(old: bytes, new: bytes) -> Files:
    """A commit whose covered bytes differ from the canonical ones; the MAC is of these."""

    def swap(lines: bytes) -> bytes:
        assert lines.count(old) == 1, old
        return lines.replace(old, new)

    return with_commit(text=swap)


@case("commit failure", "the envelope was replaced by a valid one of another root key", **HIDDEN)
def commit_root_of_other_key() -> Made:
    other = replace(ONE, secret=made("other secret", 32))
    return change(archive(), ENVELOPE, lambda _: other.envelope(ALICE))


@case("commit failure", "another root, under a good MAC", **HIDDEN)
def commit_root_flipped() -> Made:
    return edited(root=flip(ONE.derive(32, "commit id"), 31).hex())


@case("commit failure", "one bit of the MAC", **HIDDEN)
def commit_mac_flipped() -> Made:
    return change(archive(), COMMIT, flip_mac)


@case("commit failure", "the MAC is made with the key of the envelope's MAC", **HIDDEN)
def commit_mac_with_key_of_envelope_mac() -> Made:
    files = archive()
    body = files[COMMIT][: files[COMMIT].rindex(b" ")]
    mac = hmac.digest(ONE.derive(64, "envelope mac", b""), body, "sha512")[:32]
    return files | {COMMIT: body + b" " + b64(mac).encode() + b"\n"}


@case("commit failure", "the time altered after the MAC was taken", **HIDDEN)
def commit_created_altered() -> Made:
    return change(archive(), COMMIT, lambda data: data.replace(b'"created":17', b'"created":16'))


@case("commit failure", "attack 14: the seq altered after the MAC was taken", **HIDDEN)
def commit_seq_altered() -> Made:
    return change(archive(), COMMIT, lambda data: data.replace(b'"seq":1', b'"seq":9'))


@case("commit failure", "the kind altered after the MAC was taken", **HIDDEN)
def commit_kind_altered() -> Made:
    return change(archive(kind="append"), COMMIT, lambda d: d.replace(b'"append"', b'"seal"'))


@case("commit failure", "an object taken out of the list after the MAC was taken", **HIDDEN)
def commit_file_taken_out() -> Made:
    files, other = archive(), archive(objects={})
    mac = files[COMMIT][-49:]
    return files | {COMMIT: other[COMMIT][:-49] + mac}


@case("commit failure", "attack 13: a commit under the name of another part", **SHOWN)
def commit_under_other_name() -> Made:
    files = archive()
    other = TWO.part.hex()
    moved = {name.replace(ONE.part.hex(), other): data for name, data in files.items()}
    return moved


@case("commit failure", "attack 13: a part of another archive, whole, with its envelope", **SHOWN)
def commit_of_other_archive() -> Made:
    return {**folder(part(root=FOREIGN)), "pqvault.json": header()}


@case("commit failure", "attack 4: the label of a version that is not", **SHOWN)
def commit_label_v2() -> Made:
    return commit_text(b"commit@v1", b"commit@v2")


@case("commit failure", "attack 15: the envelope in its place", **SHOWN)
def commit_is_the_envelope() -> Made:
    return archive() | {COMMIT: ONE.envelope(ALICE)}


@case("commit failure", "attack 15: the catalog in its place", **SHOWN)
def commit_is_the_catalog() -> Made:
    files = archive()
    return files | {COMMIT: files[f"parts/{ONE.part.hex()}/catalog"]}


@case("commit failure", "empty", **SHOWN)
def commit_empty() -> Made:
    return archive() | {COMMIT: b""}


@case("commit failure", "the last byte is gone", **SHOWN)
def commit_cut() -> Made:
    return change(archive(), COMMIT, lambda data: data[:-1])


@case("commit failure", "a byte behind the MAC line", **SHOWN)
def commit_byte_behind_it() -> Made:
    return change(archive(), COMMIT, lambda data: data + b"\n")


@case("commit failure", "attack 8: something like a signature behind the MAC line", **SHOWN)
def commit_signed() -> Made:
    return change(archive(), COMMIT, lambda data: data + b"--- ed25519 " + b"A" * 86 + b"==\n")


@case("commit failure", "attack 43: a space", **SHOWN)
def commit_with_space() -> Made:
    return commit_text(b'"seq":1', b'"seq": 1')


@case("commit failure", "attack 43: a key twice", **SHOWN)
def commit_key_twice() -> Made:
    return commit_text(b'"seq":1', b'"seq":1,"seq":1')


@case("commit failure", "a key that is not of this version", **SHOWN)
def commit_unknown_key() -> Made:
    return commit_text(b'"seq":1', b'"seq":1,"note":"x"')


@case("commit failure", "the seq 0: the first is 1", **SHOWN)
def commit_seq_zero() -> Made:
    return archive(seq=0)


@case("commit failure", "attack 4: a digest that is not known", **SHOWN)
def commit_unknown_digest() -> Made:
    return edited(digest="md5")


@case("commit failure", "a kind that is not known", **SHOWN)
def commit_unknown_kind() -> Made:
    return edited(kind="merge")


@case("commit failure", "attack 4: a profile that is not known", **HIDDEN)
def commit_unknown_profile() -> Made:
    return edited(profile="low")


@case("commit failure", "attack 4: a commit of another profile than its envelope's", **HIDDEN)
def commit_of_other_profile() -> Made:
    return edited(profile="high")


@case("commit failure", "a parent of cnsa2 that is named by BLAKE3", identity=EVE, **HIDDEN)
def commit_of_cnsa2_with_parent_by_blake3() -> Made:
    rows = in_digest([file(b"log", NEWER)], [NEWER], "sha384")
    child = later(rows, people=(EVE,), digest="sha384")
    return folder(child) | {f"removed/{ONE.part.hex()}": b""}


@case("commit failure", "a part of cnsa2 that replaces one named by BLAKE3", identity=EVE, **HIDDEN)
def commit_of_cnsa2_that_replaces_by_blake3() -> Made:
    rows = in_digest([file(b"log", NEWER)], [NEWER], "sha384")
    return folder(later(rows, people=(EVE,), digest="sha384", parents=[], replaces=[part()]))


@case("commit failure", "digests of BLAKE3 in cnsa2", identity=EVE, **HIDDEN)
def commit_of_cnsa2_with_blake3() -> Made:
    return archive(people=(EVE,))


@case("commit failure", "digests of another length than their name says", **SHOWN)
def commit_digests_of_other_length() -> Made:
    return edited(digest="sha384")


@case("commit failure", "attack 44: a size below zero", **SHOWN)
def commit_size_negative() -> Made:
    return listed(lambda files: [[files[0][0], -1, files[0][2]], files[1]])


@case("commit failure", "attack 44: a size with a fraction", **SHOWN)
def commit_size_with_fraction() -> Made:
    return listed(lambda files: [[files[0][0], 1.5, files[0][2]], files[1]])


@case("commit failure", "attack 44: a size of 2^53", **SHOWN)
def commit_size_over_limit() -> Made:
    return listed(lambda files: [[files[0][0], 2**53, files[0][2]], files[1]])


@case("commit failure", "no catalog in the list", **SHOWN)
def commit_without_catalog() -> Made:
    return listed(lambda files: files[1:])


@case("commit failure", "the list in another order", **SHOWN)
def commit_files_in_other_order() -> Made:
    return listed(lambda files: files[::-1])


@case("commit failure", "attack 15: a file twice", **SHOWN)
def commit_file_twice() -> Made:
    return listed(lambda files: [*files, files[1]])


@case("commit failure", "attack 15: two objects of one number", **SHOWN)
def commit_object_number_twice() -> Made:
    return archive(objects=HOLDS | {"objects/000000-ffffffff": content(TEXT)})


@case("commit failure", "attack 26: a file outside the part", **SHOWN)
def commit_dotdot_file_name() -> Made:
    return listed(lambda files: [*files, ["objects/../../../passwd", 1, "00" * 32]])


@case("commit failure", "the name of an object with an LF behind it", **SHOWN)
def commit_object_name_with_lf() -> Made:
    return listed(lambda files: [files[0], [files[1][0] + "\n", *files[1][1:]]])


@case("commit failure", "the number of an object in digits that are not ASCII", **SHOWN)
def commit_object_number_in_other_digits() -> Made:
    name = "objects/\u0660\u0660\u0660\u0660\u0660\u0661-00000000"
    return listed(lambda files: [*files, [name, 1, "00" * 32]])


@case("commit failure", "a file that parts do not have", **SHOWN)
def commit_unknown_file() -> Made:
    return listed(lambda files: [*files, ["tables", 1, "00" * 32]])


@case("commit failure", "it replaces a part, without the digest of its commit", **SHOWN)
def commit_replaces_a_part() -> Made:
    return edited(replaces=[TWO.part.hex()])


@case("commit failure", "it replaces itself", **SHOWN)
def commit_replaces_itself() -> Made:
    return edited(replaces=[[ONE.part.hex(), "00" * 32]])


@case("commit failure", "it replaces two parts in another order", **SHOWN)
def commit_replaces_in_other_order() -> Made:
    return edited(replaces=[["ff" * 16, "00" * 32], ["00" * 16, "00" * 32]])


@case("commit failure", "attack 14: it replaces a part that comes after it", found="open")
def commit_replaces_a_later_part() -> Made:
    older = later([file(b"log", NEWER)], replaces=[part(seq=3)], parents=[])
    return folder(part(seq=3), older)


@case("commit failure", "a parent twice", **SHOWN)
def commit_parent_twice() -> Made:
    parent = [TWO.part.hex(), "00" * 32]
    return edited(parents=[parent, parent])


@case("commit failure", "the parents in another order", **SHOWN)
def commit_parents_in_other_order() -> Made:
    return edited(parents=[["ff" * 16, "00" * 32], ["00" * 16, "00" * 32]])


@case("commit failure", "a parent without its digest", **SHOWN)
def commit_parent_without_digest() -> Made:
    return edited(parents=[[TWO.part.hex()]])


@case("commit failure", "a recipient twice", **SHOWN)
def commit_recipient_twice() -> Made:
    return edited(sealed_to=[ALICE.key_id.hex()] * 2)


# -- rolled back ----------------------------------------------------------------------------

BACK = {"found": "open", "intact": "no", "inspect": "problem"}


@case("rolled back", "attack 14: the first part is gone, which the second names", **BACK)
def parts_parent_missing() -> Made:
    return folder(later([file(b"log", NEWER)]))


@case("rolled back", "attack 14: the first part is another one of the same id", **BACK)
def parts_parent_exchanged() -> Made:
    older = part([folder_row(b"d")], objects={})
    return folder(later([file(b"log", NEWER)])) | folder(older)


@case("rolled back", "a chain of three, of which the middle one is gone", **BACK)
def parts_middle_missing() -> Made:
    second = later([file(b"log", NEWER)])
    third = later([file(b"log", NEWER)], root=THREE, seq=3, parents=[second])
    return folder(part(), third)


@case("rolled back", "only the commit of the parent is gone, all else is there", **BACK)
def parts_parent_commit_missing() -> Made:
    return without(folder(part(), later([file(b"log", NEWER)])), COMMIT)


@case(
    "rolled back",
    "attack 14: a part in the place of another one, which is there with other bytes",
    **BACK,
)
def parts_replaced_exchanged() -> Made:
    return folder(again()) | folder(part([folder_row(b"d")], objects={}))


@case(
    "rolled back", "attack 14: a part in the place of another parent than the child names", **BACK
)
def parts_replaced_parent_exchanged() -> Made:
    other = part([folder_row(b"d")], objects={})
    child = later([file(b"log", NEWER)], root=THREE)
    return folder(again(replaces=[other]), child) | removal(again())


@case("rolled back", "attack 14: the part is gone that holds what a removed one held", **BACK)
def parts_holder_missing() -> Made:
    row = file(b"log", NEWER)
    return folder(later([row], root=THREE, parents=[])) | removal(again())


# -- payload failure ------------------------------------------------------------------------

IN = f"parts/{ONE.part.hex()}/"
READ = {"found": "read", "intact": "no"}
ONE_LINE = [LINES[0]]  # the folder, which has no content


@case("payload failure", "one bit of an object", **READ)
def object_flipped() -> Made:
    return change(archive(), IN + "obj", lambda data: flip(data, 70)), ONE_LINE


@case("payload failure", "attack 10: an object cut", **READ)
def object_cut() -> Made:
    return change(archive(), IN + "obj", lambda data: data[:-1]), ONE_LINE


@case("payload failure", "an object longer than it was", **READ)
def object_longer() -> Made:
    return change(archive(), IN + "obj", lambda data: data + b"\0"), ONE_LINE


@case("payload failure", "an object of no bytes", **READ)
def object_empty() -> Made:
    return change(archive(), IN + "obj", lambda data: b""), ONE_LINE


@case("payload failure", "an object is gone", **READ)
def object_missing() -> Made:
    return without(archive(), IN + "obj"), ONE_LINE


@case("payload failure", "an object under another name", **READ)
def object_renamed() -> Made:
    files = archive()
    data = files.pop(IN + OBJECT)
    return files | {IN + "objects/000000-ffffffff": data}, ONE_LINE


@case("payload failure", "attack 13: two objects change places", **READ)
def objects_exchanged() -> Made:
    rows = [file(b"a", A), file(b"b", B, number=7), folder_row(b"d")]
    files = archive(rows, objects={OBJECT: content(A), SECOND: content(B)})
    first, second = files[IN + OBJECT], files[IN + SECOND]
    return files | {IN + OBJECT: second, IN + SECOND: first}, [line(rows[2])]


@case("payload failure", "attack 13: an object of another part, under the same name", **READ)
def object_of_other_part() -> Made:
    other = bytes(TWO.message(OBJECT, content(A + B)))
    return archive() | {IN + OBJECT: other}, ONE_LINE


@case("payload failure", "attack 13: an object of the same part in another archive", **READ)
def object_of_other_archive() -> Made:
    other = bytes(FOREIGN.message(OBJECT, content(A + B)))
    return archive() | {IN + OBJECT: other}, ONE_LINE


@case("payload failure", "attack 15: the catalog in the place of an object", **READ)
def object_is_the_catalog() -> Made:
    files = archive()
    return files | {IN + OBJECT: files[IN + "catalog"]}, ONE_LINE


@case(
    "payload failure", "an older object of the same name, key and size", found="verify", intact="no"
)
def object_sealed_anew() -> Made:
    other = bytes(ONE.message(OBJECT, content(A + B), salt="another salt"))
    return archive() | {IN + OBJECT: other}, LINES


@case("payload failure", "one of two objects is bad: the files of the other are there", **READ)
def object_flipped_beside_a_good_one() -> Made:
    rows = [file(b"a", A), file(b"b", B, number=7)]
    files = archive(rows, objects={OBJECT: content(A), SECOND: content(B)})
    return change(files, IN + OBJECT, lambda data: flip(data, 70)), [line(rows[1], B)]


@case("payload failure", "the frame of an object is none", found="read")
def object_frame_of_noise() -> Made:
    plain = sealable((made("no frame", 50), len(A + B)))
    return archive(objects={OBJECT: plain}), ONE_LINE


@case(
    "payload failure",
    "the commit says another size of an object, under a good MAC",
    **READ,
)
def commit_size_of_object_wrong() -> Made:
    return listed(lambda f: [f[0], [f[1][0], f[1][1] + 1, f[1][2]]]), ONE_LINE


@case(
    "payload failure",
    "the commit says another digest of an object, under a good MAC",
    found="verify",
    intact="no",
)
def commit_digest_of_object_wrong() -> Made:
    return listed(lambda f: [f[0], [f[1][0], f[1][1], "00" * 32]]), LINES


@case("payload failure", "an object that no entry names has a bad frame", found="verify")
def object_unused_and_bad() -> Made:
    plain = sealable((made("no frame", 50), 50))
    return archive(objects=HOLDS | {SECOND: plain}), LINES


# -- seek table lies ------------------------------------------------------------------------


@case("seek table lies", "the content sizes of two frames of an object change places", found="read")
def object_seektable_sizes_swapped() -> Made:
    one, two = stored(A), stored(B)
    plain = one + two + seek_table([(len(one), len(B)), (len(two), len(A))])
    return archive(objects={OBJECT: plain}), ONE_LINE


@case("seek table lies", "an object has none", found="read")
def object_seektable_missing() -> Made:
    return archive(objects={OBJECT: stored(A + B)}), ONE_LINE


@case("seek table lies", "the catalog has none", found="open")
def catalog_seektable_missing() -> Made:
    return archive(plain=stored(parquet.write([ROWS])))


@case("seek table lies", "a frame of the catalog is a byte shorter than said", found="open")
def catalog_seektable_content_too_large() -> Made:
    data = parquet.write([ROWS])
    frame_ = stored(data)
    return archive(plain=frame_ + seek_table([(len(frame_), len(data) + 1)]))


# -- catalog failure: the object ------------------------------------------------------------


@case("catalog failure", "one bit of the catalog", found="open", intact="no")
def catalog_flipped() -> Made:
    return change(archive(), IN + "catalog", lambda data: flip(data, 100))


@case("catalog failure", "the catalog is gone", found="open", intact="no")
def catalog_missing() -> Made:
    return without(archive(), IN + "catalog")


@case("catalog failure", "attack 10: the catalog cut", found="open", intact="no")
def catalog_cut() -> Made:
    return change(archive(), IN + "catalog", lambda data: data[:-1])


@case(
    "catalog failure", "attack 15: an object in the place of the catalog", found="open", intact="no"
)
def catalog_is_an_object() -> Made:
    rows = content(parquet.write([ROWS]))
    return archive() | {IN + "catalog": bytes(ONE.message(OBJECT, rows))}


@case("catalog failure", "attack 13: the catalog of another part", found="open", intact="no")
def catalog_of_other_part() -> Made:
    other = bytes(TWO.message("catalog", content(parquet.write([ROWS]))))
    return archive() | {IN + "catalog": other}


@case("catalog failure", "no content", found="open")
def catalog_empty() -> Made:
    return archive(plain=sealable())


@case(
    "catalog failure",
    "the commit says another size of the catalog, under a good MAC",
    found="open",
    intact="no",
)
def commit_size_of_catalog_wrong() -> Made:
    return listed(lambda f: [["catalog", f[0][1] - 1, f[0][2]], f[1]])


@case("catalog failure", "attack 42: a footer of over 4 MiB", found="open")
def catalog_footer_of_4_mib() -> Made:
    data = parquet.write([ROWS], created_by="\0" * (4 << 20))
    return archive(plain=squeezed(data))


@case("catalog failure", "attack 42: columns that say to unpack to 65 MiB", found="list")
def catalog_columns_of_65_mib() -> Made:
    return archive(plain=content(parquet.write([ROWS], unpacked=65 << 20)))


@case("catalog failure", "JSON, no Parquet", found="open")
def catalog_json() -> Made:
    return archive(plain=content(b'[{"path":"d"}]'))


@case("catalog failure", "attack 32: Parquet whose footer is cut", found="open")
def catalog_footer_cut() -> Made:
    return archive(plain=content(parquet.write([ROWS])[:-20]))


@case("catalog failure", "attack 32: Parquet whose footer says to be 4 GiB long", found="open")
def catalog_footer_of_4_gib() -> Made:
    return archive(plain=content(parquet.write([ROWS])[:-8] + b"\xff\xff\xff\xffPAR1"))


@case("catalog failure", "attack 32: Parquet that says to be encrypted", found="open")
def catalog_says_encrypted() -> Made:
    return archive(plain=content(parquet.write([ROWS])[:-4] + b"PARE"))


@case("catalog failure", "attack 32: a footer that says how columns are encrypted", found="open")
def catalog_footer_says_encrypted() -> Made:
    return archive(plain=content(parquet.write([ROWS], footer=[parquet.algorithm()])))


@case(
    "catalog failure", "attack 15: the footer counts a row more than its row groups", found="open"
)
def catalog_rows_of_the_file_too_many() -> Made:
    return archive(plain=content(parquet.write([ROWS], total=len(ROWS) + 1)))


@case("catalog failure", "attack 15: rows, says the footer, and no row group", found="open")
def catalog_rows_without_row_groups() -> Made:
    return archive(plain=content(parquet.write([], total=len(ROWS))))


@case("catalog failure", "attack 26: the paths are said to be in another file", found="open")
def catalog_column_in_another_file() -> Made:
    return archive(plain=content(parquet.write([ROWS], file="../paths.parquet")))


@case("catalog failure", "attack 32: a histogram of three levels for a column of one", found="open")
def catalog_histogram_of_other_length() -> Made:
    return archive(plain=content(parquet.write([ROWS], extra=[parquet.histogram([1, 2, 3])])))


@case("catalog failure", "attack 42: columns of 4,194,305 values, says the footer", found="list")
def catalog_values_over_limit() -> Made:
    return archive(plain=content(parquet.write([ROWS], values=(4 << 20) + 1)))


@case("catalog failure", "attack 32: data pages of noise", found="list")
def catalog_pages_of_noise() -> Made:
    data = parquet.write([ROWS])
    return archive(plain=content(data[:4] + made("pages", 200) + data[204:]))


# -- catalog failure: columns ---------------------------------------------------------------


def with_columns(**changes: Column | None) -> Files:
    """Columns replaced, or left out."""
    columns = [changes.get(c.name, c) for c in CATALOG]
    return archive(columns=[c for c in columns if c is not None])


BY_NAME = {column.name: column for column in CATALOG}


@case("catalog failure", "a column is missing", found="open")
def catalog_column_missing() -> Made:
    return with_columns(digest=None)


@case("catalog failure", "a column too many", found="open")
def catalog_column_too_many() -> Made:
    return archive(columns=[*CATALOG, BY_NAME["mode"].but(name="uid")])


@case("catalog failure", "two columns change places", found="open")
def catalog_columns_in_other_order() -> Made:
    return archive(columns=[CATALOG[1], CATALOG[0], *CATALOG[2:]])


@case("catalog failure", "a column twice", found="open")
def catalog_column_twice() -> Made:
    return archive(columns=[*CATALOG, CATALOG[0]])


@case("catalog failure", "paths are text", found="open")
def catalog_paths_as_text() -> Made:
    return with_columns(path=BY_NAME["path"].but(converted=parquet.UTF8))


@case("catalog failure", "sizes of 32 bits", found="open")
def catalog_sizes_of_32_bits() -> Made:
    return with_columns(size=BY_NAME["size"].but(type=parquet.INT32))


@case("catalog failure", "modes that may be missing", found="open")
def catalog_modes_optional() -> Made:
    return with_columns(mode=BY_NAME["mode"].but(optional=True))


@case("catalog failure", "attack 42: paths in a dictionary", found="list")
def catalog_paths_in_a_dictionary() -> Made:
    return with_columns(path=BY_NAME["path"].but(dictionary=True))


@case("success", "kinds, sizes, modes and times in dictionaries")
def catalog_numbers_in_dictionaries() -> Made:
    names = ("kind", "size", "mode", "mtime_ns")
    return with_columns(**{n: BY_NAME[n].but(dictionary=True) for n in names}), LINES


@case("catalog failure", "a path is missing", found="open")
def catalog_path_missing() -> Made:
    column = BY_NAME["path"].but(optional=True, of=lambda row: None)
    return archive(columns=[column, *CATALOG[1:]], statistics=lambda rows: None)


# -- catalog failure: row groups ------------------------------------------------------------


@case("catalog failure", "a row group of no rows", found="open")
def catalog_row_group_of_no_rows() -> Made:
    return archive(groups=[ROWS, []])


@case("catalog failure", "attack 42: a row group of 8,193 rows", found="open")
def catalog_row_group_of_8193_rows() -> Made:
    digits = "0123456789abcdefghijklmnopqrstuv"
    names = sorted(a + b + c for a in digits for b in digits for c in digits)[:8193]
    rows = [Row(name.encode(), "x", mode=0, mtime_ns=0) for name in names]
    return archive(objects={}, plain=squeezed(parquet.write([rows])))


def squeezed(data: bytes) -> bytes:
    """The plaintext of an object in one frame, long runs of one byte in run-length blocks."""
    blocks, at = [], 0
    for found in re.finditer(rb"(.)\1{63,}", data, re.DOTALL):
        blocks += [
            block(data[i : min(i + MOST, found.start())]) for i in range(at, found.start(), MOST)
        ]
        at = found.end()
        sizes = range(found.start(), at, MOST)
        blocks += [block(found[1], RUN, size=min(MOST, at - i)) for i in sizes]
    blocks += [block(data[i : i + MOST]) for i in range(at, len(data), MOST)]
    blocks[-1] = bytes([blocks[-1][0] | 1]) + blocks[-1][1:]
    return sealable((frame(len(data), *blocks), len(data)))


MOST = 131072  # bytes of a block


@case(
    "catalog failure",
    "attack 44: a row group that says to have a row more than it has",
    found="list",
)
def catalog_row_count_too_large() -> Made:
    more = len(ROWS) + 1
    return archive(plain=content(parquet.write([ROWS], counted=more, total=more)))


@case("catalog failure", "the statistics say another least path than there is", found="list")
def catalog_statistics_lie() -> Made:
    return archive(statistics=lambda rows: (b"c", rows[-1].path))


@case("catalog failure", "statistics of the second row group that hide a path", found="list")
def catalog_statistics_hide_a_path() -> Made:
    def claim(rows: Sequence[Row]) -> tuple[bytes, bytes]:
        return (b"d/aa" if rows[0].path == b"d/b" else rows[0].path), rows[-1].path

    return archive(groups=[ROWS[:2], ROWS[2:]], statistics=claim), LINES[:2]


# -- catalog failure: rows ------------------------------------------------------------------


def bad_path(path: bytes, kind: str = "f") -> Files:
    """An empty file of this path behind the good rows, or before them."""
    row = Row(path, kind, digest=DIGESTS["blake3"](b"") if kind == "f" else None)
    return with_rows(*sorted([*ROWS, row]))


@case("catalog failure", "attack 26: a path that begins with ..", found="list")
def catalog_dotdot_path() -> Made:
    return bad_path(b"../etc")


@case("catalog failure", "attack 26: .. within a path", found="list")
def catalog_dotdot_within_path() -> Made:
    return bad_path(b"d/../../etc")


@case("catalog failure", "attack 26: a path that ends with ..", found="list")
def catalog_dotdot_at_the_end() -> Made:
    return bad_path(b"d/..")


@case("catalog failure", "attack 26: the path ..", found="list")
def catalog_path_dotdot() -> Made:
    return bad_path(b"..", "d")


@case("catalog failure", "attack 26: the path .", found="list")
def catalog_path_dot() -> Made:
    return bad_path(b".", "d")


@case("catalog failure", "attack 26: a component .", found="list")
def catalog_dot_within_path() -> Made:
    return bad_path(b"d/./x")


@case("catalog failure", "attack 26: a path from the root", found="list")
def catalog_path_from_the_root() -> Made:
    return bad_path(b"/etc")


@case("catalog failure", "attack 26: the path /", found="list")
def catalog_path_slash() -> Made:
    return bad_path(b"/", "d")


@case("catalog failure", "an empty component", found="list")
def catalog_empty_component() -> Made:
    return bad_path(b"d//x")


@case("catalog failure", "a path that ends with a slash", found="list")
def catalog_path_ends_with_slash() -> Made:
    return bad_path(b"d/")


@case("catalog failure", "a path of no bytes", found="list")
def catalog_path_empty() -> Made:
    return bad_path(b"", "d")


@case("catalog failure", "attack 26: a NUL in a path", found="list")
def catalog_path_with_nul() -> Made:
    return bad_path(b"d/x\0y")


@case("catalog failure", "attack 26: .. behind an LF, where a pattern's line ends", found="list")
def catalog_dotdot_behind_lf() -> Made:
    return bad_path(b"d/x\n/../y")


@case("catalog failure", "a component of 256 bytes", found="list")
def catalog_component_of_256_bytes() -> Made:
    return bad_path(b"d/" + b"n" * 256)


@case("catalog failure", "a component of 256 bytes that are not UTF-8", found="list")
def catalog_component_of_256_bytes_beyond_ascii() -> Made:
    return bad_path(b"d/" + b"\xff" * 256)


@case("catalog failure", "a path of 65,536 bytes", found="list")
def catalog_path_of_65536_bytes() -> Made:
    path = b"/".join([b"n" * 254] * 255 + [b"n" * 255] * 2)
    assert len(path) == 65536
    return long_path(path)


def long_path(path: bytes) -> Files:
    """A catalog of one path that is too long for statistics; a tombstone needs no folders."""
    rows = [Row(path, "x", mode=0)]
    data = parquet.write([rows], statistics=lambda rows: None)
    return archive(rows, objects={}, plain=squeezed(data))


@case("success", "a path of 65,535 bytes: a tombstone, which needs no folders around it")
def catalog_path_of_65535_bytes() -> Made:
    path = b"/".join([b"n" * 254] * 256 + [b"n" * 255])
    assert len(path) == 65535
    return long_path(path), []


@case("catalog failure", "two rows in another order", found="list")
def catalog_not_sorted() -> Made:
    return with_rows(ROWS[0], ROWS[2], ROWS[1])


@case("catalog failure", "two row groups in another order", found="list")
def catalog_row_groups_not_sorted() -> Made:
    return archive(groups=[[file(b"b", b"")], [file(b"a", b"")]], objects={})


@case("catalog failure", "attack 15: a path twice", found="list")
def catalog_path_twice() -> Made:
    return with_rows(ROWS[0], ROWS[1], ROWS[1], ROWS[2])


@case("catalog failure", "attack 15: a path twice, in two row groups", found="list")
def catalog_path_twice_in_two_row_groups() -> Made:
    return archive(groups=[ROWS[:2], ROWS[1:]]), LINES[:2]


@case("catalog failure", "a folder that a path is in is missing", found="list")
def catalog_folder_missing() -> Made:
    return with_rows(*ROWS[1:])


@case("catalog failure", "a folder on the way to a path is missing", found="list")
def catalog_middle_folder_missing() -> Made:
    return with_rows(ROWS[0], file(b"d/e/f", b""))


@case("catalog failure", "attack 27: a path below a file", found="list")
def catalog_path_below_a_file() -> Made:
    return with_rows(ROWS[0], ROWS[1], file(b"d/a/x", b""))


@case("catalog failure", "attack 27: a path below a symbolic link", found="list")
def catalog_path_below_a_link() -> Made:
    return with_rows(Row(b"to", "l", link=b"/etc"), file(b"to/passwd", b""))


@case("catalog failure", "a path below a tombstone", found="list")
def catalog_path_below_a_tombstone() -> Made:
    return with_rows(Row(b"gone", "x", mode=0), file(b"gone/x", b""))


@case("catalog failure", "a kind that is not known", found="list")
def catalog_unknown_kind() -> Made:
    return with_rows(ROWS[0], Row(b"fifo", "p"))


@case("catalog failure", "attack 44: a size below zero", found="list")
def catalog_size_negative() -> Made:
    return with_rows(ROWS[0], file(b"d/a", b"", size=-1))


@case("catalog failure", "a mode with the bits of a kind", found="list")
def catalog_mode_over_permissions() -> Made:
    return with_rows(file(b"a", b"", mode=0o100644))


@case("catalog failure", "a symbolic link to nowhere: no target", found="list")
def catalog_link_without_target() -> Made:
    return with_rows(Row(b"to", "l"))


@case("catalog failure", "a symbolic link whose target has no bytes", found="list")
def catalog_link_to_no_bytes() -> Made:
    return with_rows(Row(b"to", "l", link=b""))


@case("catalog failure", "a NUL in a target", found="list")
def catalog_link_with_nul() -> Made:
    return with_rows(Row(b"to", "l", link=b"a\0b"))


@case("catalog failure", "a target of 65,536 bytes", found="list")
def catalog_link_of_65536_bytes() -> Made:
    rows = [Row(b"to", "l", link=b"\0" * 65536)]
    return archive(rows, plain=squeezed(parquet.write([rows])))


@case("catalog failure", "a file with a target", found="list")
def catalog_target_of_a_file() -> Made:
    return with_rows(file(b"a", b"", link=b"b"))


@case("catalog failure", "attack 26: a hard link out of the archive", found="list")
def catalog_hard_link_dotdot() -> Made:
    return with_rows(Row(b"same", "h", len(A), link=b"../a", extents=ROWS[1].extents))


def hard_link(target: bytes, **changes: Any) -> Files:
    """The two files and a hard link; what it says of itself is the first file's."""
    row = Row(b"d/same", "h", len(A), link=target, digest=ROWS[1].digest, extents=ROWS[1].extents)
    return with_rows(*ROWS, row._replace(**changes))


HARD = {"found": "verify"}


def linked(**changes: Any) -> list[str]:
    """All four entries: each of them is authentic and can be read by itself."""
    row = Row(b"d/same", "h", len(A), link=b"d/a")._replace(**changes)
    return [*LINES, line(row, A)]


@case("catalog failure", "a hard link to a name that is not in the catalog", **HARD)
def catalog_hard_link_to_nothing() -> Made:
    return hard_link(b"d/none"), linked(link=b"d/none")


@case("catalog failure", "a hard link to a folder", **HARD)
def catalog_hard_link_to_a_folder() -> Made:
    return hard_link(b"d"), linked(link=b"d")


@case("catalog failure", "a hard link to itself", **HARD)
def catalog_hard_link_to_itself() -> Made:
    return hard_link(b"d/same"), linked(link=b"d/same")


@case("catalog failure", "a hard link to a file with other content", **HARD)
def catalog_hard_link_to_other_content() -> Made:
    return hard_link(b"d/b"), linked(link=b"d/b")


@case("catalog failure", "a hard link with another digest than its first name", **HARD)
def catalog_hard_link_with_other_digest() -> Made:
    return hard_link(b"d/a", digest=None), linked()


@case("catalog failure", "a hard link with another mode than its first name", **HARD)
def catalog_hard_link_with_other_mode() -> Made:
    return hard_link(b"d/a", mode=0o755), linked(mode=0o755)


@case("catalog failure", "a hard link with another time than its first name", **HARD)
def catalog_hard_link_with_other_time() -> Made:
    return hard_link(b"d/a", mtime_ns=5), linked(mtime_ns=5)


@case("catalog failure", "extents shorter than the file", found="list")
def catalog_extents_too_short() -> Made:
    return with_rows(file(b"a", A, size=len(A) + 1))


@case("catalog failure", "extents longer than the file", found="list")
def catalog_extents_too_long() -> Made:
    return with_rows(file(b"a", A, size=len(A) - 1))


@case("catalog failure", "a file of bytes and no extents", found="list")
def catalog_extents_missing() -> Made:
    return with_rows(file(b"a", A, extents=()))


@case("catalog failure", "too much in one file is too little in the next", found="list")
def catalog_extents_shifted() -> Made:
    return with_rows(file(b"a", A, size=len(A) + 1), file(b"b", A, size=len(A) - 1))


@case("catalog failure", "an extent of no bytes", found="list")
def catalog_extent_of_no_bytes() -> Made:
    return with_rows(file(b"a", A, extents=((0, 0, len(A)), (0, 0, 0))))


@case("catalog failure", "attack 44: an extent of fewer than no bytes", found="list")
def catalog_extent_negative() -> Made:
    return with_rows(file(b"a", A, extents=((0, 0, len(A) + 5), (0, 0, -5))))


@case("catalog failure", "attack 44: an extent before its object", found="list")
def catalog_extent_before_its_object() -> Made:
    return with_rows(file(b"a", A, extents=((0, -1, len(A)),)))


@case("catalog failure", "an extent of an object that the commit does not list", found="list")
def catalog_extent_of_unknown_object() -> Made:
    return with_rows(file(b"a", A, number=1))


@case("catalog failure", "an extent of object -2", found="list")
def catalog_extent_of_object_minus_2() -> Made:
    return with_rows(file(b"a", A, number=-2))


@case("catalog failure", "a hole that is somewhere", found="list")
def catalog_hole_with_offset() -> Made:
    return with_rows(file(b"a", bytes(9), extents=((-1, 4, 9),)))


@case("catalog failure", "attack 44: lengths whose sum is right modulo 2^64", found="list")
def catalog_extents_overflow() -> Made:
    most = 2**63 - 1
    extents = ((-1, 0, most), (-1, 0, most), (-1, 0, 2 + len(A)))
    return with_rows(file(b"a", A, extents=extents))


@case("catalog failure", "attack 44: an offset and a length beyond 2^63", found="list")
def catalog_extent_end_overflows() -> Made:
    return with_rows(file(b"a", A, extents=((0, 2**63 - 5, len(A)),)))


@case("catalog failure", "attack 44: an extent that ends behind its object", found="read")
def catalog_extent_behind_its_object() -> Made:
    row = file(b"a", B, offset=len(A) + 1)
    return with_rows(row), []


@case(
    "catalog failure",
    "attack 44: an extent far behind its object, of a file of 8 EiB",
    found="read",
)
def catalog_extent_of_8_eib() -> Made:
    size = 2**63 - 1
    row = Row(b"huge", "f", size, extents=((0, 0, size),))
    return with_rows(row), []


@case("catalog failure", "a folder with content", found="list")
def catalog_folder_with_content() -> Made:
    return with_rows(folder_row(b"d", size=len(A), extents=((0, 0, len(A)),)))


@case("catalog failure", "a folder with a digest", found="list")
def catalog_folder_with_digest() -> Made:
    return with_rows(folder_row(b"d", digest=bytes(32)))


@case("catalog failure", "a symbolic link with a size", found="list")
def catalog_link_with_size() -> Made:
    return with_rows(Row(b"to", "l", 3, link=b"abc"))


@case("catalog failure", "a tombstone in a part of the kind append", found="list")
def catalog_tombstone_in_appended_part() -> Made:
    return archive([ROWS[0], Row(b"d/a", "x", mode=0)], kind="append")


@case("catalog failure", "the digest of a file is of other content", found="read")
def catalog_digest_wrong() -> Made:
    rows = [ROWS[0], ROWS[1]._replace(digest=bytes(32)), ROWS[2]]
    return archive(rows), [LINES[0], LINES[2]]


@case("catalog failure", "the digest of a file has another length than its name says", found="list")
def catalog_digest_of_other_length() -> Made:
    rows = [ROWS[0], ROWS[1]._replace(digest=DIGESTS["sha384"](A)), ROWS[2]]
    return archive(rows)


@case("catalog failure", "the digest of a file of no bytes is another one", found="read")
def catalog_digest_of_no_bytes_wrong() -> Made:
    row = file(b"a", b"", digest=bytes(32))
    return with_rows(row), []


# -- catalog failure: tables ----------------------------------------------------------------

A_TABLE = Row(b"t", "t", table=tables.description().encode())


def with_tables(*rows: Row, files: Sequence[str] = (tables.MAIN,)) -> Files:
    """A part of these rows that lists these table files, each the good one."""
    made = part(rows, root=tables.PART, objects={}, columns=[*CATALOG, TABLE])
    made.objects |= {name: tables.known()["both"] for name in files}
    return folder(made)


@case("success", "a table in one file")
def archive_with_a_table() -> Made:
    return with_tables(A_TABLE), [line(A_TABLE)]


@case("success", "a column for tables, and none is there")
def archive_with_a_column_for_tables() -> Made:
    return archive(columns=[*CATALOG, TABLE]), LINES


@case("catalog failure", "a table that is not described", found="list")
def catalog_table_without_description() -> Made:
    return with_tables(A_TABLE._replace(table=None))


@case("catalog failure", "a table, and no column for tables", found="list")
def catalog_table_without_its_column() -> Made:
    return with_rows(Row(b"t", "t"))


@case("catalog failure", "a file with the description of a table", found="list")
def catalog_description_of_a_file() -> Made:
    return with_tables(file(b"a", b"", table=A_TABLE.table), A_TABLE)


@case("catalog failure", "a table described in over 4 MiB", found="list")
def catalog_description_over_4_mib() -> Made:
    rows = [A_TABLE._replace(table=b" " * ((4 << 20) + 1))]
    plain = squeezed(parquet.write([rows], [*CATALOG, TABLE]))
    return archive(rows, objects={}, plain=plain)


@case("catalog failure", "a path below a table", found="list")
def catalog_path_below_a_table() -> Made:
    return with_tables(A_TABLE, file(b"t/x", b""))


@case("catalog failure", "a table with a target", found="list")
def catalog_target_of_a_table() -> Made:
    return with_tables(A_TABLE._replace(link=b"a"))


@case("catalog failure", "a hard link to a table", found="verify")
def catalog_hard_link_to_a_table() -> Made:
    link = Row(b"h", "h", link=b"t")
    return with_tables(link, A_TABLE), [line(link, b""), line(A_TABLE)]


@case("catalog failure", "a table file that two tables name", found="verify")
def catalog_table_file_of_two_tables() -> Made:
    other = A_TABLE._replace(path=b"u")
    return with_tables(A_TABLE, other), [line(A_TABLE), line(other)]


@case("catalog failure", "a table file that no table names", found="verify")
def catalog_table_file_of_no_table() -> Made:
    return with_tables(A_TABLE, files=[tables.MAIN, tables.ASIDE]), [line(A_TABLE)]


@case("catalog failure", "a table whose file the commit does not list", found="verify")
def catalog_table_file_not_listed() -> Made:
    return with_tables(A_TABLE, files=[]), [line(A_TABLE)]
