"""The units of work of a verification: for a thread here, and for a worker elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence, Set
from typing import NamedTuple

from pqvault.archive.entryfile import EntryFile, Objects, named
from pqvault.archive.handedobjects import Handed, HandedObjects
from pqvault.archive.layout import part_file
from pqvault.archive.sealedfiles import sealed_pieces
from pqvault.crypto.cobblestone import MessageReader
from pqvault.errors import PQVaultError
from pqvault.format.commit import PartFile
from pqvault.format.entries import Entry, Extent, Kind
from pqvault.storage import Storage

__all__ = [
    "Checked",
    "check_contents",
    "check_handed",
    "check_handed_frames",
    "check_sealed",
    "entries_in",
    "entries_to_text",
]


class Checked(NamedTuple):
    """What became of the content of entries. ``sound``: the numbers of objects whose files were
    read whole on the way, and are what the commit says."""

    problems: list[PQVaultError]
    sound: list[int]


def check_sealed(
    storage: Storage,
    part: str,
    file: PartFile,
    digest: str,
    key: tuple[bytes, bytes] | None,
    on_bytes: Callable[[int], object],
) -> None:
    """Digest and size of a file against the commit; with its key and context, every chunk too.

    ``digest``: its name. ``on_bytes`` may raise to end it. Raises IntegrityError.
    """
    name = part_file(part, file.name)
    message = MessageReader(*key, name) if key is not None else None
    for data in sealed_pieces(storage, name, file, digest):
        on_bytes(len(data))
        if message is not None:
            message.update(data)
    if message is not None:
        message.finalize()


def check_contents(
    part: Objects, entries: Iterable[Entry], check: Callable[[], object]
) -> list[PQVaultError]:
    """What is wrong with the content of entries, read against their digests. ``check`` may raise
    to end it."""
    problems = []
    for entry in entries:
        file = EntryFile(part, entry)
        try:
            file.check(file.digest(check))
        except PQVaultError as error:
            problems.append(named(error, file.name))
    return problems


def check_handed(
    handed: Handed, entries: Sequence[Entry], whole: Set[int], on_bytes: Callable[[int], object]
) -> Checked:
    """:func:`check_contents`, for who was handed objects. ``whole``: the numbers of those of which
    all else is to be looked at too, so that a file is read once for everything; ``on_bytes`` hears
    of those bytes, and may raise to end it.

    A file that is not sound, or of which an entry is not, is for :func:`check_sealed` to name.
    """

    def check() -> None:
        on_bytes(0)

    with handed.open(on_bytes if whole else None) as objects:
        problems = check_contents(objects, entries, check)
        found = (n for n in sorted(whole) if not problems and _is_sound(objects, n, entries, check))
        return Checked(problems, list(found))


def _is_sound(
    objects: HandedObjects, number: int, entries: Sequence[Entry], check: Callable[[], object]
) -> bool:
    """Whether what no entry reaches into decodes too, and the file has its digest."""
    extents = (extent for entry in entries for extent in entry.extents)
    done = sorted((e.offset, e.offset + e.length) for e in extents if e.object == number)
    try:
        objects.reader(number).check_frames(done, check)
        return objects.has_digest(number)
    except PQVaultError:
        return False


def check_handed_frames(
    handed: Handed, number: int, done: Sequence[tuple[int, int]], check: Callable[[], object]
) -> None:
    """`SealedReader.check_frames`, for a process that was handed objects."""
    with handed.open() as objects:
        objects.reader(number).check_frames(done, check)


def entries_to_text(entries: Iterable[Entry]) -> bytes:
    """What a worker needs of entries to check or to extract their content."""
    rows = [
        [
            entry.path.hex(),
            entry.size,
            entry.mode,
            entry.mtime_ns,
            entry.digest and entry.digest.hex(),
            [[e.object, e.offset, e.length] for e in entry.extents],
        ]
        for entry in entries
    ]
    return json.dumps(rows, separators=(",", ":")).encode("ascii")


def entries_in(text: bytes) -> list[Entry]:
    """What :func:`entries_to_text` wrote."""
    return [
        Entry(
            bytes.fromhex(path),
            Kind.FILE,
            size,
            mode,
            mtime_ns,
            digest=None if digest is None else bytes.fromhex(digest),
            extents=tuple(Extent(*extent) for extent in extents),
        )
        for path, size, mode, mtime_ns, digest, extents in json.loads(text)
    ]
