"""The names within an archive and its one unsealed header. docs/format.md section 5."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Container, Iterator
from typing import Final

from pqvault.errors import FormatError, IntegrityError, NotFound
from pqvault.format.commit import Commit
from pqvault.format.entries import Kind
from pqvault.format.table import is_group
from pqvault.format.textdoc import MAX_SIZE
from pqvault.format.wal import WAL
from pqvault.ids import new_id
from pqvault.storage import Storage

__all__ = [
    "HEADER",
    "check_header",
    "commit_name",
    "create_archive",
    "envelope_name",
    "envelope_names",
    "header",
    "is_id",
    "listed_ids",
    "new_object_name",
    "new_table_name",
    "open_logs",
    "part_file",
    "read_header",
    "removed_name",
    "retired_name",
]

HEADER: Final = "pqvault.json"
_FORMAT: Final = "pqvault.dev/archive@v1"
_ID: Final = re.compile(r"[0-9a-f]{32}")
_HEADER_LIMIT: Final = 4096  # bytes


def is_id(name: str) -> bool:
    """Whether a name is 32 lower-case hex characters."""
    return _ID.fullmatch(name) is not None


def commit_name(part: str) -> str:
    """Where the commit of a part is."""
    return f"commits/{part}"


def envelope_name(part: str, group: str = "") -> str:
    """Where the envelope of a part is, or of a column group of it."""
    return f"envelopes/{part}.{group}" if group else f"envelopes/{part}"


def envelope_names(storage: Storage) -> dict[str, list[str]]:
    """Where the envelopes of each part are, its column groups' among them, by part id."""
    found: dict[str, list[str]] = {}
    for name in storage.list("envelopes"):
        part, _, group = name.partition(".")
        if is_id(part) and (name == part or is_group(group)):
            found.setdefault(part, []).append(f"envelopes/{name}")
    return found


def open_logs(storage: Storage, known: Container[str]) -> Iterator[str]:
    """The envelopes of parts that logs have begun and not ended, which have no commit yet.

    ``known``: parts that are there or removed, which these are none of. Format section 12.
    """
    for part, names in envelope_names(storage).items():
        if part not in known and WAL in storage.list(f"parts/{part}"):
            yield from names


def removed_name(part: str) -> str:
    """Where the record of a part's removal is."""
    return f"removed/{part}"


def retired_name(key_id: str) -> str:
    """Where the record of a retired key is."""
    return f"retired/{key_id}"


def part_file(part: str, name: str) -> str:
    """Where a file that a commit lists is."""
    return f"parts/{part}/{name}"


def new_table_name() -> str:
    """A name of its own for every table file."""
    return f"tables/{new_id()}.parquet"


def new_object_name(number: int) -> str:
    """A name of its own for every try, so that losers never meet winners."""
    return f"objects/{number:06d}-{secrets.token_hex(4)}"


def listed_ids(storage: Storage, folder: str) -> tuple[list[str], list[str]]:
    """The ids in a folder, and the names in it that are none (ATTACKS row 45)."""
    names = storage.list(folder)
    return [n for n in names if is_id(n)], [n for n in names if not is_id(n)]


def header(archive: str) -> bytes:
    """What the header of an archive is."""
    value = {"format": _FORMAT, "archive": archive}
    return json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n"


def read_header(storage: Storage) -> str:
    """The archive id. Raises NotFound where no archive is, FormatError for another version."""
    try:
        data = storage.read(HEADER, _HEADER_LIMIT)
    except NotFound:
        _refuse_lost_header(storage)
        raise NotFound(
            f"{storage.where('')} is not an archive: it has no {HEADER}",
            hint="name the folder that `pqvault seal` made, usually NAME.pqv; `pqvault decrypt`"
            " opens a sealed stream, which is one file",
        ) from None
    try:
        archive = json.loads(data)["archive"]
    except (ValueError, KeyError, TypeError, RecursionError):
        archive = ""
    if not isinstance(archive, str) or not is_id(archive) or data != header(archive):
        raise FormatError(
            f"{storage.where(HEADER)} is damaged or of a version that this pqvault does not know",
            hint="update pqvault, or restore the file from a copy",
        )
    return archive


def create_archive(storage: Storage) -> str:
    """The archive id of a new archive; of the existing one when another writer was first.

    Raises NotFound where there are parts and no header: under a new id nothing would open them.
    """
    for folder in ("", "commits", "envelopes", "parts"):
        storage.make_folder(folder)
    if not storage.exists(HEADER):
        _refuse_lost_header(storage)
        storage.put_new(HEADER, header(new_id()))
    return read_header(storage)


def check_header(storage: Storage, archive: str) -> None:
    """Raise where another archive is by now, or none: parts of this one would open for nobody."""
    found = read_header(storage)
    if found != archive:
        raise IntegrityError(
            f"{storage.where('')} is another archive now than the one that was being written",
            hint="put that one back, or begin to write anew",
        )


def _refuse_lost_header(storage: Storage) -> None:
    parts = listed_ids(storage, "commits")[0]
    if not parts or storage.exists(HEADER):  # another writer has made it just now
        return
    commit = Commit.parse(storage.read(commit_name(parts[0]), MAX_SIZE), commit_name(parts[0]))
    raise NotFound(
        f"{storage.where('')} has parts, but its {HEADER} is lost",
        hint="put it back from a copy, or with `pqvault key restore --archive`; by its parts, it is"
        f" the line {header(commit.archive).decode().strip()}",
    )


# Kinds that have content in objects.
WITH_CONTENT: Final = frozenset({Kind.FILE, Kind.HARDLINK, Kind.TABLE})
