"""Views as of a part or time (docs/format.md 5.3, 5.6, 5.7) and policies over whole archives (9.3,
9.4). `python -m vectors.generate` writes them.

Each is a JSON file of what is asked and what the answer is; see README.md. The archives are made
by hand from the page, with nothing of pqvault, and share their files: ``files.json`` holds each
once, under the beginning of its SHA-256. ML-DSA signatures stand in ``views.json``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from vectors import archives, signers
from vectors.archives import ONE, THREE, TWO, folder_row, signature_lines
from vectors.parquet import Row
from vectors.people import ALICE, BOB, Person, made
from vectors.registry import Registry, json_files
from vectors.signers import CNSA2, Signer
from vectors.testkit import (
    ARCHIVE,
    CREATED,
    DIGESTS,
    HERE,
    Bytes,
    Files,
    Kept,
    Part,
    Root,
    b64,
    content,
    document,
    flip,
    folder,
    line,
)

FOLDER: Final = HERE / "views"
STORE: Final = "files.json"
KNOWN: Final = Kept(HERE / "views.json", "--new-wraps")
FOUR: Final = Root("four", ARCHIVE)  # its id comes before those of TWO and THREE
LAST: Final = Root("eight", ARCHIVE)  # its id comes after all of theirs
FRIDA: Final = replace(signers.FRIDA, known=KNOWN)
GRETA: Final = replace(signers.GRETA, known=KNOWN)
HEDI: Final = replace(signers.HEDI, known=KNOWN)
SECOND: Final = 1000  # ms
NOWHERE: Final = made("a part that nobody made", 16).hex()

Said = Row | tuple[bytes, bytes]  # a row; or the path and the content of a file
Case = dict[str, Any]
case: Final = Registry[Case]()
_store: dict[str, str] = {}


# -- parts ----------------------------------------------------------------------------------

D: Final = folder_row(b"d")
GONE_B: Final = Row(b"d/b", "x", mode=0)


def signing(kind: str, root: Root, right: Sequence[Signer], wrong: Sequence[Signer]) -> Bytes:
    """Section 9.1: what puts signature lines behind a document."""

    def after(whole: bytes) -> bytes:
        found = {}
        for signer in (*right, *wrong):
            signature = signer.sign(whole, kind, part=root.part)
            found[signer.id] = signer.line(signature if signer in right else flip(signature, 5))
        return whole + b"".join(found[id] for id in sorted(found))

    return after


def part(
    root: Root,
    seq: int,
    *said: Said,
    by: Sequence[Signer] = (),
    wrongly_by: Sequence[Signer] = (),
    wrapped_by: Sequence[Signer] = (),
    wrapped_wrongly_by: Sequence[Signer] = (),
    **options: Any,
) -> Part:
    """A part that says this, a second after the one before it. ``by``: who has signed its commit;
    ``wrapped_by``: who its envelope."""
    rows, held = [], b""
    for one in said:
        if isinstance(one, Row):
            rows.append(one)
            continue
        rows.append(archives.file(one[0], one[1], len(held)))
        held += one[1]
    objects = {archives.OBJECT: content(held)} if held else {}
    if by or wrongly_by:
        options["commit"] = {"after": signing("commit", root, by, wrongly_by)}
    if wrapped_by or wrapped_wrongly_by:
        after = signing("envelope", root, wrapped_by, wrapped_wrongly_by)
        options["envelope"] = {"after": after}
    options = {"created": CREATED + (seq - 1) * SECOND} | options
    return archives.part(rows, root=root, seq=seq, objects=objects, **options)


def record(gone: Part, *by: Part, **changes: Any) -> Files:
    """Section 5.7: a part is removed, and these hold what it held."""
    fields = {
        "archive": gone.root.archive.hex(),
        "part": by[0].id,
        "removed": gone.id,
        "seq": gone.seq,
        "committed": gone.created,
        "commit": DIGESTS[gone.digest](gone.commit_file()).hex(),
        "reason": "replaced",
        "by": sorted(one.id for one in by),
        "created": CREATED + 60 * SECOND,
    }
    mac_key = by[0].root.derive(64, "removed mac")
    return {f"removed/{gone.id}": document("pqvault.dev/removed@v1", fields | changes, mac_key)}


# -- what is asked --------------------------------------------------------------------------


def stored(data: bytes) -> str:
    """Where a file stands in ``files.json``."""
    key = hashlib.sha256(data).hexdigest()[:16]
    _store[key] = b64(data)
    return key


def asked(
    files: Files,
    *view: Said,
    exit: int = 0,
    as_of: str | int | None = None,
    policy: str = "",
    allow_unsigned: bool = False,
    sealed: int = 0,
    intact: int = 0,
    identity: Person = ALICE,
) -> Case:
    """An archive, the question, and the answer: an exit code, and the view where that is 0.

    ``sealed`` and ``intact``: what a verification of the whole archive comes to, with and without
    the identity.
    """
    value: Case = {"identity": identity.text}
    if as_of is not None:
        value["as_of"] = as_of
    if policy:
        value["policy"] = stored(policy.encode())
    if allow_unsigned:
        value["allow_unsigned"] = True
    value |= {"exit": exit, "sealed": sealed, "intact": intact}
    if not exit:
        rows = [
            (one, None) if isinstance(one, Row) else (archives.file(*one), one[1]) for one in view
        ]
        value["view"] = [line(row, data).rstrip("\n") for row, data in rows]
    value["files"] = {name: stored(data) for name, data in sorted(files.items())}
    return value


def trusting(*signers: Signer, head: str = "") -> str:
    """A policy file."""
    tables = [f'[[signer]]\nname = "{one.name}"\nkey = "{one.text}"\n' for one in signers]
    return "\n".join([head, *tables] if head else tables)


BOTH_OF: Final = trusting(FRIDA, GRETA, head="threshold = 2\n")
ONE_OF: Final = trusting(FRIDA, GRETA, head="threshold = 1\n")
ENVELOPES: Final = "envelopes = true\n"


# -- 5.3: views as of a part or time --------------------------------------------------------

P1: Final = part(ONE, 1, D, (b"d/a", b"one"), (b"d/b", b"other"))
P2: Final = part(TWO, 2, D, (b"d/a", b"two"), GONE_B, parents=[P1])
P3: Final = part(THREE, 3, D, (b"d/c", b"three"), kind="append", parents=[P2])
VIEW1: Final[list[Said]] = [D, (b"d/a", b"one"), (b"d/b", b"other")]
VIEW2: Final[list[Said]] = [D, (b"d/a", b"two")]
VIEW3: Final[list[Said]] = [*VIEW2, (b"d/c", b"three")]


def chain() -> Files:
    """Three parts that follow each other."""
    return folder(P1, P2, P3)


@case("the whole: what the other vectors of these three parts ask an earlier state of")
def whole() -> Case:
    return asked(chain(), *VIEW3)


@case("as of the first part: the file is there that the second one removes")
def as_of_the_first_part() -> Case:
    return asked(chain(), *VIEW1, as_of=P1.id)


@case("as of the second of three parts")
def as_of_a_part_between() -> Case:
    return asked(chain(), *VIEW2, as_of=P2.id)


@case("as of the last part")
def as_of_the_last_part() -> Case:
    return asked(chain(), *VIEW3, as_of=P3.id)


@case("as of the time of the second part, which belongs to it")
def as_of_the_time_of_a_part() -> Case:
    return asked(chain(), *VIEW2, as_of=P2.created)


@case("as of a millisecond before the second part")
def as_of_a_millisecond_before_a_part() -> Case:
    return asked(chain(), *VIEW1, as_of=P2.created - 1)


@case("as of a time after the last part")
def as_of_a_time_after_all() -> Case:
    return asked(chain(), *VIEW3, as_of=P3.created + 3600 * SECOND)


@case("as of a millisecond before the first part: there is no such view")
def as_of_a_time_before_all() -> Case:
    return asked(chain(), as_of=P1.created - 1, exit=10)


@case("as of a part that nobody names and nobody made")
def as_of_a_part_that_is_not_there() -> Case:
    return asked(chain(), as_of=NOWHERE, exit=10)


BEHIND: Final = replace(P2, created=CREATED - SECOND)  # by a clock that was behind


@case("as of the second part, whose clock was behind: the first comes before it by seq")
def as_of_a_part_of_a_late_clock() -> Case:
    return asked(folder(P1, BEHIND), *VIEW2, as_of=BEHIND.id)


@case("as of the time of the second part, whose clock was behind: the first is later by time")
def as_of_the_time_of_a_late_clock() -> Case:
    return asked(folder(P1, BEHIND), *VIEW2, as_of=BEHIND.created)


@case("by time two parts of three, of which the third comes last by seq though not by time")
def as_of_a_time_without_a_part_between() -> Case:
    third = part(THREE, 3, D, (b"d/a", b"last"), created=P2.created - 1, parents=[P2])
    view = [D, (b"d/a", b"last"), (b"d/b", b"other")]
    return asked(folder(P1, P2, third), *view, as_of=third.created)


ALIKE: Final = part(FOUR, 2, D, (b"d/a", b"four"), parents=[P1])  # before P2, by its id


@case("two parts of one seq and time, as of the one with the lower id: the other comes after it")
def as_of_the_first_of_two_alike() -> Case:
    view = [D, (b"d/a", b"four"), (b"d/b", b"other")]
    return asked(folder(P1, P2, ALIKE), *view, as_of=ALIKE.id)


@case("two parts of one seq and time, as of the one with the higher id: both, and it wins")
def as_of_the_second_of_two_alike() -> Case:
    return asked(folder(P1, P2, ALIKE), *VIEW2, as_of=P2.id)


@case("two parts of one seq and time, as of that time: both")
def as_of_the_time_of_two_alike() -> Case:
    return asked(folder(P1, P2, ALIKE), *VIEW2, as_of=P2.created)


@case("attack 14: as of the first part, but a third one names a second that is gone")
def as_of_a_part_before_one_that_is_gone() -> Case:
    return asked(folder(P1, P3), as_of=P1.id, exit=15, sealed=15, intact=15)


@case("attack 14: as of the very part that is gone, which a third one names")
def as_of_a_part_that_is_gone() -> Case:
    return asked(folder(P1, P3), as_of=P2.id, exit=15, sealed=15, intact=15)


@case("attack 14: as of the first part, but the second is another one than the third names")
def as_of_a_part_before_one_that_was_exchanged() -> Case:
    other = part(TWO, 2, D, parents=[P1])
    return asked(folder(P1, other, P3), as_of=P1.id, exit=15, sealed=15, intact=15)


@case("as of the second part; the third, which is sealed to somebody else, is not read")
def as_of_a_part_before_one_of_somebody_else() -> Case:
    third = part(TWO, 2, D, (b"d/a", b"two"), parents=[P1], people=(BOB,))
    return asked(folder(P1, third), *VIEW1, as_of=P1.id, sealed=12)


@case("as of the second part; the third, whose commit has another MAC, is not read")
def as_of_a_part_before_a_damaged_one() -> Case:
    files = folder(P1, P2, P3)
    name = f"commits/{P3.id}"
    files[name] = archives.flip_mac(files[name])
    return asked(files, *VIEW2, as_of=P2.id, sealed=13)


@case("as of the second part, beside a commit of no form, which may have any place in the order")
def as_of_a_part_beside_no_commit() -> Case:
    files = chain() | {f"commits/{P3.id}": b"no commit"}
    return asked(files, as_of=P2.id, exit=13, sealed=13, intact=13)


@case("as of the second part, beside an envelope of no form, whose part is as good as none")
def as_of_a_part_beside_no_envelope() -> Case:
    files = chain() | {f"envelopes/{P3.id}": b"no envelope"}
    return asked(files, as_of=P2.id, exit=13, sealed=13, intact=13)


@case("as of the second part; the third, whose envelope is gone, is not read")
def as_of_a_part_before_one_without_envelope() -> Case:
    files = archives.without(chain(), f"envelopes/{P3.id}")
    return asked(files, *VIEW2, as_of=P2.id, sealed=13, intact=13)


# -- 5.6: parts that replace others ---------------------------------------------------------


def both(root: Root, **options: Any) -> Part:
    """A part in the place of the first two, with a content of its own to tell it by."""
    said = (D, (b"d/a", b"both"))
    return part(root, 2, *said, **{"replaces": [P1, P2], "parents": [P1, P2]} | options)


AFTER, BEFORE = both(THREE), both(FOUR)  # by its id, the place after P2 or before it
VIEW_BOTH: Final[list[Said]] = [D, (b"d/a", b"both")]
# The second time, with what the first one had replaced, and after it by its id.
AGAIN_BOTH: Final = part(
    THREE, 2, D, (b"d/a", b"twice"), replaces=[P1, P2, BEFORE], parents=[P1, P2]
)


@case("as of the first of two parts that are there, and a part that replaces both is too")
def as_of_a_part_before_the_replacing_one() -> Case:
    return asked(folder(P1, P2, AFTER), *VIEW1, as_of=P1.id)


@case("as of the last of two replaced parts: the replacing one has a higher id and comes after")
def as_of_a_replaced_part() -> Case:
    return asked(folder(P1, P2, AFTER), *VIEW2, as_of=P2.id)


@case("as of the last of two replaced parts: the replacing one has a lower id and comes before")
def as_of_a_replaced_part_behind_the_replacing_one() -> Case:
    return asked(folder(P1, P2, BEFORE), *VIEW_BOTH, as_of=P2.id)


@case("as of the time of a part that replaces two others, which are there")
def as_of_the_time_of_the_replacing_part() -> Case:
    return asked(folder(P1, P2, BEFORE), *VIEW_BOTH, as_of=P2.created)


@case("as of a millisecond before the part that replaces two others, which are there")
def as_of_a_millisecond_before_the_replacing_part() -> Case:
    return asked(folder(P1, P2, BEFORE), *VIEW1, as_of=P2.created - 1)


@case("as of the part that replaces two others, which are removed")
def as_of_the_replacing_part() -> Case:
    files = folder(AFTER) | record(P1, AFTER) | record(P2, AFTER)
    return asked(files, *VIEW_BOTH, as_of=AFTER.id)


@case("as of a time between two removed parts, which one has replaced that came later")
def as_of_a_time_between_replaced_parts() -> Case:
    first = part(FOUR, 1, D, (b"d/z", b"still there"), created=CREATED - SECOND)
    files = folder(first, AFTER) | record(P1, AFTER) | record(P2, AFTER)
    return asked(files, as_of=P2.created - 1, exit=10)


@case("as of a part that is there, though a later one replaced it with one that is removed")
def as_of_a_part_of_which_the_one_before_is_removed() -> Case:
    files = folder(P2, AFTER) | record(P1, AFTER)
    return asked(files, as_of=P2.id, exit=10)


@case("as of a part that is there, behind the one that replaced it and one that is removed")
def as_of_a_part_behind_the_replacing_one_and_one_removed() -> Case:
    files = folder(P2, BEFORE) | record(P1, BEFORE)
    return asked(files, *VIEW_BOTH, as_of=P2.id)


@case("as of the replacing part, of whose two replaced ones the first is removed")
def as_of_the_replacing_part_with_the_first_removed() -> Case:
    files = folder(P2, AFTER) | record(P1, AFTER)
    return asked(files, *VIEW_BOTH, as_of=AFTER.id)


@case("as of the first replaced part, which is there; the second, which came after it, is removed")
def as_of_the_first_with_the_second_removed() -> Case:
    files = folder(P1, AFTER) | record(P2, AFTER)
    return asked(files, *VIEW1, as_of=P1.id)


@case("as of the time of the replacing part, of whose two replaced ones the second is removed")
def as_of_the_time_with_the_second_removed() -> Case:
    files = folder(P1, AFTER) | record(P2, AFTER)
    return asked(files, *VIEW_BOTH, as_of=P2.created)


# Three parts of which one holds all now, and the second is removed. ALL_AFTER comes after P3, by
# its id, ALL_BEFORE before it.
THREE_OF_ALL: Final = {"replaces": [P1, P2, P3], "parents": [P1, P2, P3]}
ALL_BEFORE: Final = part(FOUR, 3, D, (b"d/a", b"all"), **THREE_OF_ALL)
ALL_AFTER: Final = part(LAST, 3, D, (b"d/a", b"all"), **THREE_OF_ALL)
VIEW_ALL: Final[list[Said]] = [D, (b"d/a", b"all")]


def without_second() -> Files:
    """All three are replaced, and the second is removed."""
    return folder(P1, P3, ALL_AFTER) | record(P2, ALL_AFTER)


@case("three parts are replaced, the second is removed: the whole")
def one_of_three_removed() -> Case:
    return asked(without_second(), *VIEW_ALL)


@case("three parts are replaced, the second is removed: as of the first, which is whole")
def one_of_three_removed_as_of_the_first() -> Case:
    return asked(without_second(), *VIEW1, as_of=P1.id)


@case("three parts are replaced, the second is removed: as of that one, which is not there")
def one_of_three_removed_as_of_the_second() -> Case:
    return asked(without_second(), as_of=P2.id, exit=10)


@case("three parts are replaced, the second is removed: as of its time, at which it was there")
def one_of_three_removed_as_of_the_time_of_the_second() -> Case:
    return asked(without_second(), as_of=P2.created, exit=10)


@case("three parts are replaced, the second is removed: as of the third, before the replacing one")
def one_of_three_removed_as_of_the_third() -> Case:
    return asked(without_second(), as_of=P3.id, exit=10)


@case("three parts are replaced, the second is removed: as of the third, behind the replacing one")
def one_of_three_removed_as_of_the_third_behind_the_replacing_one() -> Case:
    files = folder(P1, P3, ALL_BEFORE) | record(P2, ALL_BEFORE)
    return asked(files, *VIEW_ALL, as_of=P3.id)


@case("three parts are replaced, the second is removed: as of the replacing one")
def one_of_three_removed_as_of_the_replacing_one() -> Case:
    return asked(without_second(), *VIEW_ALL, as_of=ALL_AFTER.id)


@case("three parts are replaced, the second is removed: as of the time of the replacing one")
def one_of_three_removed_as_of_the_time_of_the_replacing_one() -> Case:
    return asked(without_second(), *VIEW_ALL, as_of=P3.created)


@case("the first two of three are replaced, the first is removed: as of the third")
def two_of_three_replaced_as_of_the_third() -> Case:
    files = folder(P2, P3, BEFORE) | record(P1, BEFORE)
    return asked(files, *VIEW_BOTH, (b"d/c", b"three"), as_of=P3.id)


@case("replaced twice, and all are there: as of the part that was replaced first")
def replaced_twice_as_of_the_first() -> Case:
    return asked(folder(P1, P2, BEFORE, AGAIN_BOTH), *VIEW1, as_of=P1.id)


@case(
    "replaced twice, and all are there: as of the first replacing one, by its id the first of all"
)
def replaced_twice_as_of_the_first_replacing_one() -> Case:
    return asked(folder(P1, P2, BEFORE, AGAIN_BOTH), *VIEW_BOTH, as_of=BEFORE.id)


@case("replaced twice, and the first replacing one is removed: as of the last of the others")
def replaced_twice_as_of_a_part_with_the_first_replacing_one_removed() -> Case:
    files = folder(P1, P2, AGAIN_BOTH) | record(BEFORE, AGAIN_BOTH)
    return asked(files, as_of=P2.id, exit=10)


@case("replaced twice, and the first replacing one is removed: as of the first of the others")
def replaced_twice_as_of_the_first_with_the_first_replacing_one_removed() -> Case:
    files = folder(P1, P2, AGAIN_BOTH) | record(BEFORE, AGAIN_BOTH)
    return asked(files, *VIEW1, as_of=P1.id)


@case("two parts replace as much, the later one also the other: that one replaces nothing")
def replaced_by_a_replaced_part() -> Case:
    first = part(TWO, 1, D, (b"d/a", b"again"), replaces=[P1], created=CREATED)
    second = part(THREE, 1, D, (b"d/c", b"three"), replaces=[first], created=CREATED)
    view = [*VIEW1, (b"d/c", b"three")]
    return asked(folder(P1, first, second), *view)


@case(
    "a part that replaces one that comes after it, as of a time before that one",
)
def as_of_a_time_before_what_is_replaced() -> Case:
    early = part(FOUR, 1, D, replaces=[P2])
    return asked(folder(P1, P2, early), as_of=CREATED, exit=13, sealed=13)


@case("as of a part that is removed: one is there in its place, and of no other")
def as_of_a_removed_part() -> Case:
    new = part(FOUR, 1, D, (b"d/a", b"again"), replaces=[P1], created=P1.created)
    return asked(folder(new, P2) | record(P1, new), D, (b"d/a", b"again"), as_of=P1.id)


@case("as of a part that is gone without a record: one is there in its place, and of no other")
def as_of_a_removed_part_without_record() -> Case:
    new = part(FOUR, 1, D, (b"d/a", b"again"), replaces=[P1], created=P1.created)
    files = folder(new, P2) | {f"removed/{P1.id}": b""}
    return asked(files, D, (b"d/a", b"again"), as_of=P1.id)


@case("as of a part that is removed: it was replaced twice, and had the place of the last")
def as_of_a_removed_part_that_was_replaced_twice() -> Case:
    new = part(FOUR, 1, D, (b"d/a", b"again"), replaces=[P1], created=P1.created)
    last = part(THREE, 1, D, (b"d/a", b"twice"), replaces=[P1, new], created=P1.created)
    files = folder(last) | record(P1, new) | record(new, last)
    return asked(files, D, (b"d/a", b"twice"), as_of=P1.id)


@case("as of the second of two removed parts, whose place the one has that replaced both")
def as_of_the_last_removed_part() -> Case:
    files = folder(AFTER) | record(P1, AFTER) | record(P2, AFTER)
    return asked(files, *VIEW_BOTH, as_of=P2.id)


@case("as of the first of two removed parts, which the one that replaced both has not the place of")
def as_of_the_first_removed_part() -> Case:
    files = folder(AFTER) | record(P1, AFTER) | record(P2, AFTER)
    return asked(files, as_of=P1.id, exit=10)


@case("as of the second of two removed parts, of which no record says what place it had")
def as_of_the_last_removed_part_without_record() -> Case:
    files = folder(AFTER) | record(P1, AFTER) | {f"removed/{P2.id}": b""}
    return asked(files, as_of=P2.id, exit=10)


@case("as of a part that was pruned")
def as_of_a_pruned_part() -> Case:
    return asked(without_pruned(), as_of=P2.id, exit=10)


# -- 5.7: parts that are removed ------------------------------------------------------------


def without_pruned() -> Files:
    """The second of three parts was pruned."""
    return folder(P1, P3) | record(P2, P3, reason="pruned")


@case("the second of three parts was pruned: the whole is what it was")
def pruned() -> Case:
    return asked(without_pruned(), *VIEW1, (b"d/c", b"three"))


@case("as of the part from whose state on a pruned one is not needed")
def as_of_the_part_after_a_pruned_one() -> Case:
    return asked(without_pruned(), *VIEW1, (b"d/c", b"three"), as_of=P3.id)


@case("as of the part before a pruned one, which did not belong to it")
def as_of_the_part_before_a_pruned_one() -> Case:
    return asked(without_pruned(), *VIEW1, as_of=P1.id)


@case("as of the time of a pruned part, which belonged to that view")
def as_of_the_time_of_a_pruned_part() -> Case:
    return asked(without_pruned(), as_of=P2.created, exit=10)


@case("as of a millisecond before a pruned part")
def as_of_a_millisecond_before_a_pruned_part() -> Case:
    return asked(without_pruned(), *VIEW1, as_of=P2.created - 1)


@case("as of a part, and one was pruned whose seq is higher though its time is earlier")
def as_of_a_part_before_a_pruned_one_of_a_late_clock() -> Case:
    files = folder(P1, P3) | record(BEHIND, P3, reason="pruned")
    files |= folder(replace(P3, parents=[BEHIND]))
    return asked(files, *VIEW1, as_of=P1.id)


@case("as of the time of a part, and one was pruned whose time is earlier though its seq is higher")
def as_of_a_time_after_a_pruned_one_of_a_late_clock() -> Case:
    third = replace(P3, parents=[BEHIND])
    files = folder(P1, third) | record(BEHIND, third, reason="pruned")
    return asked(files, as_of=P1.created, exit=10)


@case("as of a part that has the seq and the time of a pruned one: it belonged to that view")
def as_of_a_part_alike_to_a_pruned_one() -> Case:
    files = folder(P1, ALIKE, P3) | record(P2, P3, reason="pruned")
    return asked(files, as_of=ALIKE.id, exit=10)


def pruned_two(*records: Files) -> Files:
    """An archive of which the last part is left."""
    files = folder(P3)
    for one in records:
        files |= one
    return files


ALONE: Final[list[Said]] = [D, (b"d/c", b"three")]


@case("as of the last part: the first gave way to the second and that one to the last")
def as_of_a_part_at_the_end_of_two_records() -> Case:
    files = pruned_two(record(P1, P2, reason="pruned"), record(P2, P3, reason="pruned"))
    return asked(files, *ALONE, as_of=P3.id)


@case("as of the last part: the first gave way to the second, of which no record says anything")
def as_of_a_part_behind_a_record_of_nothing() -> Case:
    files = pruned_two(record(P1, P2, reason="pruned"), {f"removed/{P2.id}": b""})
    return asked(files, as_of=P3.id, exit=10)


@case("as of the last part, though two removed ones say to have given way to each other")
def as_of_a_part_beside_records_in_a_circle() -> Case:
    files = pruned_two(record(P1, P2), record(P2, P1))
    return asked(files, as_of=P3.id, exit=10)


@case("as of the last part, though a removed one says to have given way to itself")
def as_of_a_part_beside_a_record_of_itself() -> Case:
    files = folder(replace(P3, parents=[P1])) | record(P1, P1)
    return asked(files, as_of=P3.id, exit=10)


@case("as of the second of three parts: a removed one gave way to it and to the third")
def as_of_a_part_that_holds_half_of_a_removed_one() -> Case:
    first = part(FOUR, 1, D, (b"d/z", b"gone"))
    files = chain() | record(first, P2, P3)
    return asked(files, as_of=P2.id, exit=10)


@case("as of the third of three parts: a removed one gave way to it and to the second")
def as_of_a_part_that_holds_all_of_a_removed_one() -> Case:
    first = part(FOUR, 1, D, (b"d/z", b"gone"))
    return asked(chain() | record(first, P2, P3), *VIEW3, as_of=P3.id)


@case("attack 14: as of a part, and a removed one gave way to one that is gone")
def as_of_a_part_beside_a_record_of_one_that_is_gone() -> Case:
    first = part(FOUR, 1, D, (b"d/z", b"gone"))
    files = folder(P1, P2) | record(first, P3)
    return asked(files, as_of=P2.id, exit=15, sealed=15, intact=15)


def told(**changes: Any) -> Files:
    """A record of a part that belonged to the view of the first, with a fault."""
    gone = part(FOUR, 1, D, (b"d/z", b"gone"))
    return chain() | record(gone, P3, **changes)


@case("as of a part that has the seq and the time of a removed one, which a later one holds")
def as_of_a_part_beside_a_record() -> Case:
    return asked(told(), as_of=P1.id, exit=10)


@case("the same with a record of another archive, which says nothing")
def as_of_a_part_beside_a_record_of_another_archive() -> Case:
    return asked(told(archive=made("another archive", 16).hex()), *VIEW1, as_of=P1.id)


@case("the same with a record of another part, which says nothing")
def as_of_a_part_beside_a_record_of_another_part() -> Case:
    return asked(told(removed=NOWHERE), *VIEW1, as_of=P1.id)


@case("the same with a reason that is not known, which says nothing")
def as_of_a_part_beside_a_record_of_an_unknown_reason() -> Case:
    return asked(told(reason="lost"), *VIEW1, as_of=P1.id)


@case("the same with a record that names nobody, which says nothing")
def as_of_a_part_beside_a_record_that_names_nobody() -> Case:
    return asked(told(by=[]), *VIEW1, as_of=P1.id)


@case("the same with a part that was pruned, and two that it gave way to, which says nothing")
def as_of_a_part_beside_a_record_of_two_that_pruned_one() -> Case:
    return asked(told(reason="pruned", by=sorted([P2.id, P3.id])), *VIEW1, as_of=P1.id)


@case("the same with a byte behind the record, which says nothing")
def as_of_a_part_beside_a_record_and_a_byte() -> Case:
    files = told()
    name = next(name for name in files if name.startswith("removed/"))
    return asked(files | {name: files[name] + b"\n"}, *VIEW1, as_of=P1.id)


@case("the same with what a host without keys writes of a log's part, which says nothing")
def as_of_a_part_beside_an_expired_one() -> Case:
    expired = b'{"reason": "expired", "time": 1700000060000}\n'
    return asked(chain() | {f"removed/{FOUR.part.hex()}": expired}, *VIEW1, as_of=P1.id)


# -- 9.3: policies --------------------------------------------------------------------------


def first(**options: Any) -> Part:
    """The first part, signed as is said."""
    return part(ONE, 1, D, (b"d/a", b"one"), (b"d/b", b"other"), **options)


def more(*said: Said, parent: Part, **options: Any) -> Part:
    """A second part that follows it."""
    return part(TWO, 2, *(said or (D, (b"d/c", b"more"))), parents=[parent], **options)


S1: Final = first(by=(FRIDA,))
SS1: Final = first(by=(FRIDA, GRETA))
U2: Final = more(parent=S1)
VIEW_MORE: Final[list[Said]] = [*VIEW1, (b"d/c", b"more")]
NO: Final = {"exit": 14, "sealed": 14, "intact": 14}


@case("signed by one of two who are trusted, and one is asked for")
def signed_by_one_of_two() -> Case:
    return asked(folder(S1), *VIEW1, policy=ONE_OF)


@case("signed by both, and both are asked for")
def signed_by_both() -> Case:
    return asked(folder(SS1), *VIEW1, policy=BOTH_OF)


@case("signed by one, and both are asked for")
def signed_by_too_few() -> Case:
    return asked(folder(S1), policy=BOTH_OF, **NO)


@case("signed by one, and the other is trusted")
def signed_by_somebody_else() -> Case:
    return asked(folder(S1), policy=trusting(GRETA), **NO)


@case("signed with ML-DSA-87, a suite of the other profile: a reader goes by the policy alone")
def signed_with_ml_dsa_87() -> Case:
    assert HEDI.suite == CNSA2
    return asked(folder(first(by=(HEDI,))), *VIEW1, policy=trusting(HEDI))


@case("attack 7: nobody has signed")
def signed_by_nobody() -> Case:
    return asked(folder(P1), policy=ONE_OF, **NO)


@case("nobody has signed, and the reader accepts that")
def signed_by_nobody_and_accepted() -> Case:
    return asked(folder(P1), *VIEW1, policy=ONE_OF, allow_unsigned=True)


@case("attack 8: a wrong signature in the name of one, beside the right one that is asked for")
def signed_wrongly_beside_a_right_one() -> Case:
    return asked(folder(first(by=(FRIDA,), wrongly_by=(GRETA,))), policy=ONE_OF, **NO)


@case("attack 8: a wrong signature, and the reader accepts what is unsigned: this is not")
def signed_wrongly_and_unsigned_accepted() -> Case:
    files = folder(first(wrongly_by=(FRIDA,)))
    return asked(files, policy=ONE_OF, allow_unsigned=True, **NO)


@case("a wrong signature in the name of one who is not trusted")
def signed_wrongly_by_somebody_else() -> Case:
    files = folder(first(by=(FRIDA,), wrongly_by=(GRETA,)))
    return asked(files, *VIEW1, policy=trusting(FRIDA))


@case("a wrong signature, and no signer is given: nobody can tell")
def signed_wrongly_and_nobody_asks() -> Case:
    return asked(folder(first(wrongly_by=(FRIDA,))), *VIEW1)


@case("the second of two parts is not signed")
def second_part_unsigned() -> Case:
    return asked(folder(S1, U2), policy=ONE_OF, **NO)


@case("the second of two parts is not signed, and the reader accepts that")
def second_part_unsigned_and_accepted() -> Case:
    return asked(folder(S1, U2), *VIEW_MORE, policy=ONE_OF, allow_unsigned=True)


@case("the first of two parts is not signed")
def first_part_unsigned() -> Case:
    return asked(folder(P1, more(parent=P1, by=(FRIDA,))), policy=ONE_OF, **NO)


@case("the second of two parts is signed by too few")
def second_part_signed_by_too_few() -> Case:
    return asked(folder(SS1, more(parent=SS1, by=(GRETA,))), policy=BOTH_OF, **NO)


@case("the second of two parts is signed by too few, which counts as unsigned and is accepted")
def second_part_signed_by_too_few_and_accepted() -> Case:
    files = folder(SS1, more(parent=SS1, by=(GRETA,)))
    return asked(files, *VIEW_MORE, policy=BOTH_OF, allow_unsigned=True)


@case("the envelope is signed, and that is asked for")
def envelope_signed() -> Case:
    files = folder(first(by=(FRIDA,), wrapped_by=(GRETA,)))
    return asked(files, *VIEW1, policy=ENVELOPES + ONE_OF)


@case("the envelope is not signed, and that is asked for")
def envelope_unsigned() -> Case:
    return asked(folder(S1), policy=ENVELOPES + ONE_OF, **NO)


@case("the envelope is not signed, and the reader accepts what is unsigned")
def envelope_unsigned_and_accepted() -> Case:
    return asked(folder(S1), *VIEW1, policy=ENVELOPES + ONE_OF, allow_unsigned=True)


@case("the envelope is signed by one, and both are asked for")
def envelope_signed_by_too_few() -> Case:
    files = folder(first(by=(FRIDA, GRETA), wrapped_by=(GRETA,)))
    return asked(files, policy=ENVELOPES + BOTH_OF, **NO)


@case("the envelope is signed by one of two, and its signatures are not asked for")
def envelope_signed_by_one_and_not_asked_for() -> Case:
    files = folder(first(by=(FRIDA, GRETA), wrapped_by=(GRETA,)))
    return asked(files, *VIEW1, policy=BOTH_OF)


@case("a wrong signature over the envelope, whose signatures are not asked for")
def envelope_signed_wrongly() -> Case:
    files = folder(first(by=(FRIDA,), wrapped_wrongly_by=(GRETA,)))
    return asked(files, policy=ONE_OF, **NO)


@case("the unsigned part is sealed to somebody else: without a key nothing is said of signatures")
def unsigned_and_of_somebody_else() -> Case:
    files = folder(S1, more(parent=S1, people=(BOB,)))
    return asked(files, policy=ONE_OF, exit=12, sealed=14, intact=14)


@case("the envelope of the unsigned part has another MAC: damage is met before signatures")
def unsigned_and_damaged() -> Case:
    files = folder(S1, U2)
    name = f"envelopes/{U2.id}"
    files[name] = archives.flip_mac(files[name])
    return asked(files, policy=ONE_OF, exit=13, sealed=13, intact=14)


# -- 9.3: readers who are given no signer ---------------------------------------------------


@case("attack 7: no signer is given, and an unsigned part comes after a signed one")
def nobody_asks_and_unsigned_after_signed() -> Case:
    return asked(folder(S1, U2), **NO)


@case("no signer is given, and an unsigned part comes after a signed one, which is accepted")
def nobody_asks_and_unsigned_is_accepted() -> Case:
    return asked(folder(S1, U2), *VIEW_MORE, allow_unsigned=True)


@case("no signer is given, and an unsigned part comes before a signed one")
def nobody_asks_and_unsigned_before_signed() -> Case:
    return asked(folder(P1, more(parent=P1, by=(FRIDA,))), *VIEW_MORE)


@case("no signer is given, and a signature of an unknown suite is one: what comes after has none")
def nobody_asks_and_an_unknown_suite() -> Case:
    unknown = first(commit={"after": signature_lines(61)})
    return asked(folder(unknown, more(parent=unknown)), **NO)


@case("no signer is given: as of the signed part, before the unsigned one, which is not read")
def nobody_asks_as_of_the_signed_part() -> Case:
    return asked(folder(S1, U2), *VIEW1, as_of=S1.id, sealed=14, intact=14)


@case("no signer is given: as of the unsigned part")
def nobody_asks_as_of_the_unsigned_part() -> Case:
    return asked(folder(S1, U2), as_of=U2.id, **NO)


@case("no signer is given: as of a time at which only the unsigned part was, by its clock")
def nobody_asks_as_of_a_time_without_the_signed_part() -> Case:
    late = more(parent=S1, created=CREATED - SECOND)
    return asked(folder(S1, late), as_of=late.created, **NO)


@case("no signer is given: an unsigned part that a signed one replaces is not read")
def nobody_asks_and_unsigned_is_replaced() -> Case:
    new = part(THREE, 2, D, (b"d/c", b"more"), parents=[S1], replaces=[U2], by=(FRIDA,))
    return asked(folder(S1, U2, new), *VIEW_MORE, sealed=14, intact=14)


@case("no signer is given: as of a part before an unsigned one that a signed one replaces")
def nobody_asks_as_of_a_part_before_what_is_replaced() -> Case:
    new = part(THREE, 2, D, (b"d/c", b"more"), parents=[S1], replaces=[U2], by=(FRIDA,))
    return asked(folder(S1, U2, new), *VIEW1, as_of=S1.id, sealed=14, intact=14)


@case("as of the signed part, before the unsigned one, which is not read")
def policy_as_of_the_signed_part() -> Case:
    return asked(folder(S1, U2), *VIEW1, as_of=S1.id, policy=ONE_OF, sealed=14, intact=14)


@case("as of the unsigned part, after the signed one")
def policy_as_of_the_unsigned_part() -> Case:
    return asked(folder(S1, U2), as_of=U2.id, policy=ONE_OF, **NO)


# -- 9.4: unsigned parts beside signed ones -------------------------------------------------

ALLOW: Final[dict[str, Any]] = {"policy": ONE_OF, "allow_unsigned": True}


def beside(*said: Said, signed: Part = S1, **options: Any) -> Files:
    """A signed part, and an unsigned one after it that says this."""
    return folder(signed, more(*said, parent=signed, **options))


@case("attack 7: an unsigned part has another file in the place of a signed one")
def unsigned_file_over_a_file() -> Case:
    return asked(beside(D, (b"d/a", b"mine")), **ALLOW, exit=14)


@case("attack 7: an unsigned part has the very file of a signed one")
def unsigned_file_that_is_the_same() -> Case:
    return asked(beside(D, (b"d/a", b"one")), **ALLOW, exit=14)


@case("attack 7: an unsigned part removes a file of a signed one")
def unsigned_tombstone_of_a_file() -> Case:
    return asked(beside(GONE_B), **ALLOW, exit=14)


@case("attack 7: an unsigned part removes a folder of a signed one")
def unsigned_tombstone_of_a_folder() -> Case:
    return asked(beside(Row(b"d", "x", mode=0)), **ALLOW, exit=14)


@case("attack 7: an unsigned part has a file where a signed one has a folder")
def unsigned_file_over_a_folder() -> Case:
    return asked(beside((b"d", b"mine")), **ALLOW, exit=14)


@case("attack 7: an unsigned part has a link where a signed one has a folder")
def unsigned_link_over_a_folder() -> Case:
    return asked(beside(Row(b"d", "l", mode=0o777, link=b"elsewhere")), **ALLOW, exit=14)


@case("an unsigned part has a folder of a signed one with another mode: that of the signed stands")
def unsigned_folder_over_a_folder() -> Case:
    files = beside(folder_row(b"d", mode=0o777), (b"d/c", b"more"))
    return asked(files, *VIEW_MORE, **ALLOW)


@case("an unsigned part removes what no part has")
def unsigned_tombstone_of_nothing() -> Case:
    return asked(beside(Row(b"d/none", "x", mode=0)), *VIEW1, **ALLOW)


@case("an unsigned part brings back a file that a signed one had removed")
def unsigned_file_over_a_tombstone() -> Case:
    signed = part(ONE, 1, D, (b"d/a", b"one"), GONE_B, by=(FRIDA,))
    return asked(beside(D, (b"d/b", b"back"), signed=signed), **ALLOW, exit=14)


@case("a signed file, a signed folder after it, and an unsigned folder after that")
def unsigned_folder_over_a_folder_that_was_a_file() -> Case:
    file = part(ONE, 1, (b"d", b"one"), by=(FRIDA,))
    signed = part(TWO, 2, D, (b"d/a", b"two"), parents=[file], by=(FRIDA,))
    unsigned = part(THREE, 3, D, (b"d/c", b"more"), parents=[signed])
    return asked(folder(file, signed, unsigned), **ALLOW, exit=14)


@case("a signed part after the unsigned one says the same path: it was hidden in between")
def unsigned_file_between_signed_ones() -> Case:
    unsigned = more(D, (b"d/a", b"mine"), parent=S1)
    last = part(THREE, 3, D, (b"d/a", b"last"), parents=[unsigned], by=(FRIDA,))
    return asked(folder(S1, unsigned, last), **ALLOW, exit=14)


@case("a signed part hides what an unsigned one has that came before it")
def signed_file_over_an_unsigned_one() -> Case:
    signed = part(TWO, 2, D, (b"d/a", b"two"), GONE_B, parents=[P1], by=(FRIDA,))
    return asked(folder(P1, signed), *VIEW2, **ALLOW)


@case("attack 7: signed by one of two that are asked for, it hides what both have signed")
def signed_by_too_few_over_a_file() -> Case:
    files = folder(SS1, more(D, (b"d/a", b"mine"), parent=SS1, by=(GRETA,)))
    return asked(files, policy=BOTH_OF, allow_unsigned=True, exit=14)


@case("both are asked for, and a file of a part that one has signed gives way as an unsigned one")
def unsigned_file_over_one_of_too_few() -> Case:
    files = beside(D, (b"d/a", b"two"), GONE_B)
    return asked(files, *VIEW2, policy=BOTH_OF, allow_unsigned=True)


@case("attack 7: no signer is given; what bears any signature is not hidden")
def nobody_asks_and_unsigned_file_over_a_file() -> Case:
    return asked(beside(D, (b"d/a", b"mine")), allow_unsigned=True, exit=14)


@case("as of the signed part: what an unsigned one hides later does not matter")
def unsigned_file_over_a_file_as_of_the_signed_part() -> Case:
    return asked(beside(D, (b"d/a", b"mine")), *VIEW1, **ALLOW, as_of=S1.id)


# -- 5.6, rule 4 ----------------------------------------------------------------------------


def instead(old: Part, **options: Any) -> Files:
    """A part, and one in its place that has a content of its own."""
    new = part(TWO, 1, D, (b"d/a", b"again"), replaces=[old], **options)
    return folder(old, new)


AGAIN: Final[list[Said]] = [D, (b"d/a", b"again")]


@case("attack 7: an unsigned part in the place of a signed one, where unsigned ones are accepted")
def unsigned_in_the_place_of_signed() -> Case:
    return asked(instead(S1), **ALLOW, exit=14, sealed=14)


@case("attack 7: no signer is given, and an unsigned part is in the place of a signed one")
def nobody_asks_and_unsigned_in_the_place_of_signed() -> Case:
    return asked(instead(S1), exit=14, sealed=14, intact=14)


@case("no signer is given, unsigned is accepted, and such a part is in the place of a signed one")
def nobody_asks_and_unsigned_in_the_place_is_accepted() -> Case:
    return asked(instead(S1), allow_unsigned=True, exit=14, sealed=14)


@case("a part signed by one in the place of one signed by both, who are asked for")
def signed_by_too_few_in_the_place_of_signed() -> Case:
    files = instead(SS1, by=(FRIDA,))
    return asked(files, policy=BOTH_OF, allow_unsigned=True, exit=14, sealed=14)


@case("attack 8: an unsigned part in the place of one that a wrong signature was put to")
def unsigned_in_the_place_of_wrongly_signed() -> Case:
    files = instead(first(by=(FRIDA,), wrongly_by=(GRETA,)))
    return asked(files, **ALLOW, **NO)


@case("an unsigned part in the place of an unsigned one, where that is accepted")
def unsigned_in_the_place_of_unsigned() -> Case:
    return asked(instead(P1), *AGAIN, **ALLOW)


@case("a signed part in the place of an unsigned one, which is still there and not read")
def signed_in_the_place_of_unsigned() -> Case:
    return asked(instead(P1, by=(FRIDA,)), *AGAIN, policy=ONE_OF, sealed=14, intact=14)


@case("a signed part in the place of an unsigned one, which is removed")
def signed_in_the_place_of_removed() -> Case:
    new = part(TWO, 1, D, (b"d/a", b"again"), replaces=[P1], by=(FRIDA,))
    return asked(folder(new) | record(P1, new), *AGAIN, policy=ONE_OF)


@case("a part that is refused replaces nothing: what it names would stand")
def refused_in_the_place_of_signed() -> Case:
    return asked(instead(S1, wrongly_by=(FRIDA,)), policy=ONE_OF, **NO)


# -- 9.3: policy files ----------------------------------------------------------------------


def with_policy(text: str) -> Case:
    """A policy file that a reader must refuse."""
    return asked(folder(SS1), policy=text, exit=2, sealed=2, intact=2)


@case("a threshold of 0")
def policy_threshold_of_0() -> Case:
    return with_policy(trusting(FRIDA, GRETA, head="threshold = 0\n"))


@case("a threshold of 3 with two signers")
def policy_threshold_over_signers() -> Case:
    return with_policy(trusting(FRIDA, GRETA, head="threshold = 3\n"))


@case("a threshold that is true")
def policy_threshold_of_true() -> Case:
    return with_policy(trusting(FRIDA, head="threshold = true\n"))


@case("a threshold of 1.0")
def policy_threshold_with_a_fraction() -> Case:
    return with_policy(trusting(FRIDA, head="threshold = 1.0\n"))


@case("envelopes = 1")
def policy_envelopes_of_1() -> Case:
    return with_policy(trusting(FRIDA, head="envelopes = 1\n"))


@case("no signer")
def policy_without_signers() -> Case:
    return with_policy("threshold = 1\n")


@case("one key under two names, which would count twice")
def policy_with_a_key_twice() -> Case:
    other = trusting(FRIDA).replace('"frida"', '"fritz"')
    return with_policy("threshold = 2\n\n" + trusting(FRIDA) + other)


@case("two signers of one name")
def policy_with_a_name_twice() -> Case:
    return with_policy(trusting(FRIDA) + trusting(GRETA).replace('"greta"', '"frida"'))


@case("a key that no policy has")
def policy_with_an_unknown_key() -> Case:
    return with_policy(trusting(FRIDA, head="treshold = 2\n"))


@case("the key of a signer with one letter changed")
def policy_with_a_damaged_key() -> Case:
    return with_policy(trusting(FRIDA).replace("pqvsign1", "pqvsign1q"))


def make_all() -> dict[Path, bytes]:
    """Every vector and ``files.json``: the path of a file, and the bytes that belong there."""
    _store.clear()
    made_files = json_files(FOLDER, case)
    text = json.dumps(dict(sorted(_store.items())), indent=0)
    return {**made_files, FOLDER / STORE: text.encode() + b"\n"}
