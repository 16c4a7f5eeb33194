"""Envelopes and commits of archives, kept in a backup of the keystore and put back from there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from pqvault.archive import headers, layout
from pqvault.archive.finding import find, unfollowed
from pqvault.archive.headers import PutBack
from pqvault.errors import FormatError, NotFound, PQVaultError, UsageError
from pqvault.keys import Identity
from pqvault.keystore import Keystore
from pqvault.keystore.backup import Kept, kept_names, kept_of
from pqvault.rootkey import keyring
from pqvault.storage import Storage, is_url, storage_at

__all__ = ["archives_at", "left_out", "put_back", "taken"]


def archives_at(places: Iterable[str | os.PathLike[str]]) -> Iterator[str]:
    """Archives, and those below folders that are none; URLs as they are.

    Raises NotFound for a place where none is. A folder without a header, which may be lost, is an
    archive when it has the folders of one.
    """
    for place in places:
        if is_url(place):
            yield str(place)
            continue
        path = Path(place)
        if not (path / layout.HEADER).exists() and (path / "parts").is_dir():
            yield str(path)
            continue
        found = [str(one) for one in find(path) if one.is_dir()]
        if not found:
            raise NotFound(
                f"{path} is no archive, and there is none below it",
                hint=next(unfollowed([path], ()), "check the path"),
            )
        yield from found


def left_out(places: Iterable[str | os.PathLike[str]], archives: Iterable[str]) -> Iterator[str]:
    """Warnings of what :func:`archives_at` does not go into."""
    known = {os.path.realpath(archive) for archive in archives if not is_url(archive)}
    return unfollowed((Path(place) for place in places if not is_url(place)), known)


def taken(
    archives: Iterable[str], identities: Sequence[Identity], problems: list[PQVaultError]
) -> Iterator[Kept]:
    """What a backup is to keep of ``archives``; what is wrong is added to ``problems``.

    Of several copies of one archive the first is kept.
    """
    ring, seen = keyring(identities), set[str]()
    for place in archives:
        try:
            archive, found, wrong = headers.take(storage_at(place), ring)
        except PQVaultError as error:
            problems.append(error)
            continue
        if archive in seen:
            problems.append(
                UsageError(f"{place} is another copy of an archive that is kept already")
            )
            continue
        seen.add(archive)
        problems += wrong
        yield from ((archive, name, data) for name, data in found.items())


def put_back(
    store: Keystore, archive: str, identities: Sequence[Identity], *, force: bool = False
) -> PutBack:
    """Put back what the backup ``store`` keeps of an archive: see `headers.put_back`.

    Raises NotFound when it keeps nothing of it.
    """
    storage = storage_at(archive)
    known = _archive_id(storage, store)
    return headers.put_back(storage, known, kept_of(store, known), keyring(identities), force=force)


def _archive_id(storage: Storage, store: Keystore) -> str:
    """By the header; where that is lost by the parts, of which no two archives share one."""
    with suppress(NotFound, FormatError):
        return layout.read_header(storage)
    names = [*storage.list("parts"), *storage.list("envelopes"), *storage.list("commits")]
    there = {name.partition(".")[0] for name in names}
    count = Counter(
        archive for archive, name in kept_names(store) if headers.parts_of([name]) & there
    )
    if not count:
        raise NotFound(
            f"{storage.where('')} has no header, and the backup keeps none of its parts",
            hint="restore it from a copy",
        )
    return count.most_common(1)[0][0]
