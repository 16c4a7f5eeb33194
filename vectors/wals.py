"""Write-ahead files of logs, docs/format.md section 12: what a reader gets out of each.

``python -m vectors.wals`` writes them again, the same each time. Each is a JSON file with the
root key, so that nothing is wrapped; see README.md. Like all vectors they are made by hand from
the page, with nothing of pqvault. The Arrow IPC streams in them were written once, by pyarrow
26, and stand here as they are: another version may write other bytes.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Final

from vectors.registry import Registry, write_files
from vectors.testkit import ARCHIVE, HERE, Root, bind, cobblestone, expand, flip

FOLDER: Final = HERE / "wals"
ONE: Final = Root("a log", ARCHIVE)
OTHER: Final = Root("another log", ARCHIVE)

# Arrow IPC streams of one column `n`, int64, or what their names say.
_STREAMS: Final = {
    "ROWS_0": (
        "/////3gAAAAQAAAAAAAKAAwABgAFAAgACgAAAAABBAAMAAAACAAIAAAABAAIAAAABAAAAAEAAAAUAAAAEAAUAAgA"
        "BgAHAAwAAAAQABAAAAAAAAECEAAAABwAAAAEAAAAAAAAAAEAAABuAAAACAAMAAgABwAIAAAAAAAAAUAAAAD/////"
        "iAAAABQAAAAAAAAADAAWAAYABQAIAAwADAAAAAADBAAYAAAAEAAAAAAAAAAAAAoAGAAMAAQACAAKAAAAPAAAABAA"
        "AAACAAAAAAAAAAAAAAACAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAEAAAAAAAAAAAAAAAAQAAAAIAAAAAAAAA"
        "AAAAAAAAAAAAAAAAAAAAAAEAAAAAAAAA"
    ),
    "ROWS_1": (
        "/////3gAAAAQAAAAAAAKAAwABgAFAAgACgAAAAABBAAMAAAACAAIAAAABAAIAAAABAAAAAEAAAAUAAAAEAAUAAgA"
        "BgAHAAwAAAAQABAAAAAAAAECEAAAABwAAAAEAAAAAAAAAAEAAABuAAAACAAMAAgABwAIAAAAAAAAAUAAAAD/////"
        "iAAAABQAAAAAAAAADAAWAAYABQAIAAwADAAAAAADBAAYAAAAEAAAAAAAAAAAAAoAGAAMAAQACAAKAAAAPAAAABAA"
        "AAACAAAAAAAAAAAAAAACAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAEAAAAAAAAAAAAAAAAQAAAAIAAAAAAAAA"
        "AAAAAAAAAAACAAAAAAAAAAMAAAAAAAAA"
    ),
    "ROWS_2": (
        "/////3gAAAAQAAAAAAAKAAwABgAFAAgACgAAAAABBAAMAAAACAAIAAAABAAIAAAABAAAAAEAAAAUAAAAEAAUAAgA"
        "BgAHAAwAAAAQABAAAAAAAAECEAAAABwAAAAEAAAAAAAAAAEAAABuAAAACAAMAAgABwAIAAAAAAAAAUAAAAD/////"
        "iAAAABQAAAAAAAAADAAWAAYABQAIAAwADAAAAAADBAAYAAAAEAAAAAAAAAAAAAoAGAAMAAQACAAKAAAAPAAAABAA"
        "AAACAAAAAAAAAAAAAAACAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAEAAAAAAAAAAAAAAAAQAAAAIAAAAAAAAA"
        "AAAAAAAAAAAEAAAAAAAAAAUAAAAAAAAA"
    ),
    "WITH_MARK": (
        "/////3gAAAAQAAAAAAAKAAwABgAFAAgACgAAAAABBAAMAAAACAAIAAAABAAIAAAABAAAAAEAAAAUAAAAEAAUAAgA"
        "BgAHAAwAAAAQABAAAAAAAAECEAAAABwAAAAEAAAAAAAAAAEAAABuAAAACAAMAAgABwAIAAAAAAAAAUAAAAD/////"
        "iAAAABQAAAAAAAAADAAWAAYABQAIAAwADAAAAAADBAAYAAAAEAAAAAAAAAAAAAoAGAAMAAQACAAKAAAAPAAAABAA"
        "AAACAAAAAAAAAAAAAAACAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAEAAAAAAAAAAAAAAAAQAAAAIAAAAAAAAA"
        "AAAAAAAAAAAAAAAAAAAAAAEAAAAAAAAA/////wAAAAA="
    ),
    "TWICE": (
        "/////3gAAAAQAAAAAAAKAAwABgAFAAgACgAAAAABBAAMAAAACAAIAAAABAAIAAAABAAAAAEAAAAUAAAAEAAUAAgA"
        "BgAHAAwAAAAQABAAAAAAAAECEAAAABwAAAAEAAAAAAAAAAEAAABuAAAACAAMAAgABwAIAAAAAAAAAUAAAAD/////"
        "iAAAABQAAAAAAAAADAAWAAYABQAIAAwADAAAAAADBAAYAAAAEAAAAAAAAAAAAAoAGAAMAAQACAAKAAAAPAAAABAA"
        "AAACAAAAAAAAAAAAAAACAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAEAAAAAAAAAAAAAAAAQAAAAIAAAAAAAAA"
        "AAAAAAAAAAAAAAAAAAAAAAEAAAAAAAAA/////4gAAAAUAAAAAAAAAAwAFgAGAAUACAAMAAwAAAAAAwQAGAAAABAA"
        "AAAAAAAAAAAKABgADAAEAAgACgAAADwAAAAQAAAAAgAAAAAAAAAAAAAAAgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
        "AAAAABAAAAAAAAAAAAAAAAEAAAACAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABAAAAAAAAAP////8AAAAA"
    ),
    "NONE": (
        "/////3gAAAAQAAAAAAAKAAwABgAFAAgACgAAAAABBAAMAAAACAAIAAAABAAIAAAABAAAAAEAAAAUAAAAEAAUAAgA"
        "BgAHAAwAAAAQABAAAAAAAAECEAAAABwAAAAEAAAAAAAAAAEAAABuAAAACAAMAAgABwAIAAAAAAAAAUAAAAD/////"
        "AAAAAA=="
    ),
    "PACKED": (
        "/////3gAAAAQAAAAAAAKAAwABgAFAAgACgAAAAABBAAMAAAACAAIAAAABAAIAAAABAAAAAEAAAAUAAAAEAAUAAgA"
        "BgAHAAwAAAAQABAAAAAAAAECEAAAABwAAAAEAAAAAAAAAAEAAABuAAAACAAMAAgABwAIAAAAAAAAAUAAAAD/////"
        "oAAAABQAAAAAAAAADAAYAAYABQAIAAwADAAAAAADBAAcAAAAEAMAAAAAAAAAAAAADAAeABAABAAIAAwADAAAAFAA"
        "AAAkAAAAGAAAAPQBAAAAAAAAAAAAAAAABgAIAAcABgAAAAAAAAECAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
        "DQMAAAAAAAAAAAAAAQAAAPQBAAAAAAAAAAAAAAAAAACgDwAAAAAAACi1L/1goA7dFwDGb5kKEPhsB///P1oyBXcA"
        "dwCVAF1yuaWWWWJ5pZVVUjmllFFC+aSTTTK5pJJJInmkkUUSOaSQQQL5o4898rijjjnieKONNdI4o4wxwviiiy2y"
        "uKKKKaJ4ooklkjiiiCGC+KGHHXK4oYYZYnihhRVSOKGEEUL4oIMNMrigggkieKCBBRI4oIABAvh3ed1V11xxvdXW"
        "WmmdVdZYYX3V1VZZXVXVVFE91dRSSR1V1FBB/dTTTjndVNNMMb3U0kopnVTSSCF91NFGGV1U0UQRPdTQQgkdVNBA"
        "Af3Tzz753FPPPPG808466ZxTzjjhfNPNNtlcU8000TzTzDLJHFPMMMH80ss5cNywUYPGDBkxYLxw0YLFChUpUJww"
        "UYLECBEhQHzw0IHDBg0ZMFywUIHCBAkRIDxw0IDBAgUJEBwwUIDAAAEBAPz92y+/++qbL7732lsvvfPKGy+877rb"
        "LrvrqpsuuueaWy6544obLrjfetstt9tqmy2211pbLbXTShsttM862yyzyyqbLLLHGlssscMKGyywv/raK/9fPHjv"
        "3LVjt05dOnTnzJUjN05cOHDfvHXjtk1bNmzXrFWjNk1aNGjPnDVjtkxZMmTHjBUjNkxYMGC/fPXitUtXLly3bNWi"
        "NUtWLFivXLVitUpVKlSnTJUiNUpUKFCfPHXitElTJkyXLFWiNElSJEiPHDVitEhRIkSHDBUiNEhQIEB//PThs0dP"
        "Hjx37NShM0dOHDhv3LRhs0ZNGjRnzJQhM0ZMGDBfvHThskVLFixXrFShMkVKFChPnDRhskRJEiRHjBQhMkRIECA/"
        "fPTgsUNHgfOoEfD94a8BESSEP+V73/e+733f+753+973ve973/e+7329933v+973ve973+d93/u+933v+973Xd/3"
        "vu993/u+933v9r3ve9/3vu9FX6QTAAAAEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
        "AAAAAAAAAAAAAAAAAAAAAAAACB4eAAAA/////wAAAAA="
    ),
    "DICTIONARY": (
        "/////5AAAAAQAAAAAAAKAAwABgAFAAgACgAAAAABBAAEAAAAvP///wQAAAABAAAAFAAAABAAGAAIAAYABwAMABAA"
        "FAAQAAAAAAABBRQAAABAAAAAHAAAAAQAAAAAAAAAAQAAAGQAAAAIAAgAAAAEAAgAAAAMAAAACAAMAAgABwAIAAAA"
        "AAAAASAAAAAEAAQABAAAAAAAAAD/////qAAAABQAAAAAAAAADAAUAAYABQAIAAwADAAAAAACBAAUAAAAGAAAAAAA"
        "AAAIAAoAAAAEAAgAAAAQAAAAAAAKABgADAAEAAgACgAAAEwAAAAQAAAAAgAAAAAAAAAAAAAAAwAAAAAAAAAAAAAA"
        "AAAAAAAAAAAAAAAAAAAAAAwAAAAAAAAAEAAAAAAAAAACAAAAAAAAAAAAAAABAAAAAgAAAAAAAAAAAAAAAAAAAAAA"
        "AAABAAAAAgAAAAAAAABhYgAAAAAAAP////+IAAAAFAAAAAAAAAAMABYABgAFAAgADAAMAAAAAAMEABgAAAAIAAAA"
        "AAAAAAAACgAYAAwABAAIAAoAAAA8AAAAEAAAAAIAAAAAAAAAAAAAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
        "AAAIAAAAAAAAAAAAAAABAAAAAgAAAAAAAAAAAAAAAAAAAAAAAAABAAAA/////wAAAAA="
    ),
    "TEXT": (
        "/////3AAAAAQAAAAAAAKAAwABgAFAAgACgAAAAABBAAMAAAACAAIAAAABAAIAAAABAAAAAEAAAAUAAAAEAAUAAgA"
        "BgAHAAwAAAAQABAAAAAAAAEFEAAAABgAAAAEAAAAAAAAAAEAAAB0AAAABAAEAAQAAAAAAAAA/////5gAAAAUAAAA"
        "AAAAAAwAFgAGAAUACAAMAAwAAAAAAwQAGAAAABgAAAAAAAAAAAAKABgADAAEAAgACgAAAEwAAAAQAAAAAgAAAAAA"
        "AAAAAAAAAwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAwAAAAAAAAAEAAAAAAAAAAHAAAAAAAAAAAAAAABAAAA"
        "AgAAAAAAAAAAAAAAAAAAAAAAAAADAAAABwAAAAAAAABhYmNkZWZnAP////8AAAAA"
    ),
}
IPC: Final = {name: base64.b64decode(text) for name, text in _STREAMS.items()}
ROWS: Final = tuple(b"B" + IPC[f"ROWS_{n}"] for n in range(3))


def end(rows: int, lost: int = 0) -> bytes:
    """The content of a closing record."""
    return b"E" + rows.to_bytes(8, "big") + lost.to_bytes(8, "big")


def record(
    content: bytes,
    sequence: int,
    before: bytes,
    *,
    root: Root = ONE,
    name: bytes = b"wal",
    said: int = -1,
    length: int = -1,
) -> bytes:
    """Section 12.1. Faults: ``said``, ``length``: what the header says instead."""
    bound = bind("wal", root.archive, root.part, name)
    context = bound + sequence.to_bytes(8, "big") + before
    sealed = cobblestone(expand(root.secret, bound, 32), context, content, salt=f"wal {sequence}")
    message = bytes(sealed)
    length = len(message) if length < 0 else length
    said = sequence if said < 0 else said
    return length.to_bytes(4, "big") + said.to_bytes(8, "big") + message


def records(*contents: bytes, first: int = 0, **faults: Any) -> list[bytes]:
    """A chain of them."""
    found: list[bytes] = []
    before = bytes(32)
    for sequence, content in enumerate(contents, first):
        found.append(record(content, sequence, before, **faults))
        before = found[-1][-32:]
    return found


# What a reader gets out: rows, bytes torn off, records damaged, the end; or the error.
Case = tuple[bytes, dict[str, Any]]
case: Final = Registry[Case]()


def gives(
    data: bytes, rows: int = 6, *, torn: int = 0, damaged: int = 0, end: list[int] | None = None,
    numbers: list[int] | None = None,
) -> Case:  # fmt: skip
    """What comes out of a file that is read to its end."""
    numbers = list(range(rows)) if numbers is None else numbers
    return data, {"rows": numbers, "torn": torn, "damaged": damaged, "end": end}


def fails(*contents: bytes) -> Case:
    """A file that is authentic and that a reader refuses."""
    return b"".join(records(*contents)), {"error": 13}


WHOLE: Final = b"".join(records(*ROWS, end(6)))
OPEN: Final = b"".join(records(*ROWS))
PARTS: Final = records(*ROWS, end(6))


@case("complete: three batches and the closing record")
def whole() -> Case:
    return gives(WHOLE, end=[6, 0])


@case("complete: 7 records were lost before")
def lost_records() -> Case:
    return gives(b"".join(records(*ROWS, end(6, 7))), end=[6, 7])


@case("open or cut: no closing record")
def open_or_cut() -> Case:
    return gives(OPEN)


@case("no record at all: a log that was killed before its first")
def empty() -> Case:
    return gives(b"", 0)


@case("an Arrow stream with its end-of-stream mark")
def with_mark() -> Case:
    return gives(b"".join(records(b"B" + IPC["WITH_MARK"])), 2)


@case("attack 13: torn within the header of a record")
def torn_header() -> Case:
    return gives(OPEN + PARTS[3][:5], torn=5)


@case("attack 13: torn within a message")
def torn_message() -> Case:
    return gives(OPEN[:-20], 4, torn=len(PARTS[2]) - 20)


@case("attack 13: zeros behind the last record, as a lost power supply leaves them")
def zeros() -> Case:
    return gives(OPEN + bytes(4096), torn=4096)


@case("a length of zero, with a right sequence")
def length_of_zero() -> Case:
    data = records(*ROWS[:1])[0] + record(ROWS[1], 1, bytes(32), length=0)
    return gives(data, 2, torn=len(data) - len(PARTS[0]))


@case("a length of 4 GiB less one: refused before anything is allocated")
def length_of_4_gib() -> Case:
    data = PARTS[0] + record(ROWS[1], 1, PARTS[0][-32:], length=0xFFFFFFFF)
    return gives(data, 2, torn=len(data) - len(PARTS[0]))


@case("attack 12: a bit of the second message is flipped: damage, and the third is read")
def flipped_message() -> Case:
    data = flip(WHOLE, len(PARTS[0]) + 100)
    return gives(data, damaged=1, end=[6, 0], numbers=[0, 1, 4, 5])


@case("attack 12: a bit of the second length is flipped: the third is found by its number")
def flipped_length() -> Case:
    data = flip(WHOLE, len(PARTS[0]) + 2)
    return gives(data, damaged=1, end=[6, 0], numbers=[0, 1, 4, 5])


@case("attack 12: a bit of the last 32 bytes of the second message: it and the third do not open")
def flipped_link() -> Case:
    data = flip(WHOLE, len(PARTS[0]) + len(PARTS[1]) - 3)
    return gives(data, damaged=2, end=[6, 0], numbers=[0, 1])


@case("attack 15: the second record is left out: the third is bound to it")
def left_out() -> Case:
    return gives(PARTS[0] + PARTS[2] + PARTS[3], damaged=2, end=[6, 0], numbers=[0, 1])


@case("attack 15: the second record stands twice: the second time it is damage, of no record")
def repeated() -> Case:
    data = b"".join((*PARTS[:2], PARTS[1], *PARTS[2:]))
    return gives(data, end=[6, 0])


@case("attack 14: sealed for another part, with its root key")
def another_part() -> Case:
    data = b"".join(records(*ROWS, root=OTHER))
    return gives(data, 0, torn=len(data))


@case("attack 14: the file of the group `content` under the name `wal`")
def another_group() -> Case:
    data = b"".join(records(*ROWS, name=b"wal.content"))
    return gives(data, 0, torn=len(data))


@case("the first record has the sequence 1 and is bound to zeros: it and the one before are damage")
def begins_with_1() -> Case:
    data = b"".join(records(*ROWS, first=1))
    return gives(data, damaged=2, numbers=[2, 3, 4, 5])


def many_damaged(count: int) -> bytes:
    """The first record, bytes of none, and a record with the number behind ``count`` others."""
    noise = b"of no record, and more than 32 bytes of it"
    return PARTS[0] + noise + record(ROWS[1], 1 + count, noise[-32:])


@case("attack 12: 64 records in a row are damage: the one behind them is still found")
def damaged_64() -> Case:
    return gives(many_damaged(64), damaged=64, numbers=[0, 1, 2, 3])


@case("65 records in a row do not open: nothing behind them is looked for, which is a torn tail")
def damaged_65() -> Case:
    data = many_damaged(65)
    return gives(data, 2, torn=len(data) - len(PARTS[0]))


@case("the second header says sequence 7, its message is sealed as 1")
def wrong_sequence() -> Case:
    second = record(ROWS[1], 1, PARTS[0][-32:], said=7)
    third = record(ROWS[2], 2, second[-32:])
    data = PARTS[0] + second + third
    return gives(data, damaged=1, numbers=[0, 1, 4, 5])


@case("attack 15: a closing record that counts a row more than there are")
def rows_too_many() -> Case:
    return fails(*ROWS, end(7))


@case("attack 15: a closing record that counts a row less than there are")
def rows_too_few() -> Case:
    return fails(*ROWS, end(5))


@case("bytes behind the closing record")
def after_the_end() -> Case:
    return WHOLE + b"more", {"error": 13}


@case("an authentic record of rows behind the closing record, which counts them")
def record_after_the_end() -> Case:
    return fails(ROWS[0], end(6), *ROWS[1:])


@case("a second closing record")
def two_ends() -> Case:
    return fails(*ROWS, end(6), end(6))


@case("a closing record of 15 bytes")
def short_end() -> Case:
    return fails(*ROWS, b"E" + bytes(14))


@case("attack 32: a kind that no record has")
def unknown_kind() -> Case:
    return fails(b"Z" + IPC["ROWS_0"])


@case("attack 32: no Arrow IPC stream")
def not_arrow() -> Case:
    return fails(b"B" + bytes(200))


@case("attack 32: a schema and no batch")
def no_batch() -> Case:
    return fails(b"B" + IPC["NONE"])


@case("attack 32: two batches in one record")
def two_batches() -> Case:
    return fails(b"B" + IPC["TWICE"])


@case("attack 30: compressed buffers")
def compressed() -> Case:
    return fails(b"B" + IPC["PACKED"])


@case("attack 32: a dictionary")
def dictionary() -> Case:
    return fails(b"B" + IPC["DICTIONARY"])


@case("attack 32: offsets of text that reach beyond its buffer")
def lying_offsets() -> Case:
    body = bytearray(IPC["TEXT"])
    place = body.rindex((7).to_bytes(4, "little"))
    body[place : place + 4] = (0x7FFFFFF0).to_bytes(4, "little")
    return fails(b"B" + bytes(body))


@case("attack 32: text that is no UTF-8")
def not_utf8() -> Case:
    return fails(b"B" + IPC["TEXT"].replace(b"abcdefg", b"\xff\xfe\xfdefgh"))


def make_all() -> dict[Path, bytes]:
    """Every vector: the path of its file, and the bytes that belong there."""
    files = {}
    for name, (comment, make) in case.cases.items():
        data, expected = make()
        value = {
            "comment": comment,
            "archive": ONE.archive.hex(),
            "part": ONE.part.hex(),
            "root_key": ONE.secret.hex(),
            "name": "wal",
            **expected,
            "file": base64.b64encode(data).decode(),
        }
        files[FOLDER / f"{name}.json"] = json.dumps(value, indent=1).encode() + b"\n"
    return files


if __name__ == "__main__":
    write_files(FOLDER, make_all())
