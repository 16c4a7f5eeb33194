"""An archive as many processes open it: the same parts, each with handles of its own.

What is handed to workers is an :class:`Opening`: a place, references to keys, and the ids of the
parts that were there. A worker opens the archive when it first reads, and keeps it open as long as
there is the opening.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final
from weakref import WeakKeyDictionary

from pqvault.archive.archive import Archive
from pqvault.errors import NotFound
from pqvault.integrations import places, references
from pqvault.keys import Identity
from pqvault.sealed import FrameCache

__all__ = ["Opening"]

# Of this process; a child of fork opens its own. A dataset that is gone takes its archive along:
# one is made anew again and again where parts are added.
_opened: WeakKeyDictionary[Opening, Archive] = WeakKeyDictionary()
_latest: deque[Opening] = deque(maxlen=4)  # kept: tasks that follow each other have one each
os.register_at_fork(after_in_child=_opened.clear)

Identities = str | os.PathLike[str] | Identity | Iterable[str | os.PathLike[str] | Identity]

_CACHE: Final = 64 * 1024 * 1024  # bytes of decoded frames a process keeps


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Opening:
    """Where an archive is, how it is opened, and which parts of it are meant. No secret."""

    place: str
    identities: tuple[str, ...]
    signers: tuple[str, ...] = ()
    snapshot: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls,
        archive: str | os.PathLike[str],
        identities: Identities | None,
        signers: references.References | None = None,
        options: dict[str, Any] | None = None,
        as_of: str | None = None,
    ) -> Opening:
        """Open it here and note its parts. An :class:`Identity` is kept in this process alone.

        ``options``: of the file system that it is on; stores take none. Raises UsageError,
        NotFound, NoKeyFits, IntegrityError, PolicyRefused, RolledBack.
        """
        place = os.fspath(archive)
        opening = cls(
            place if "://" in place else os.path.abspath(place),
            _by_reference(identities),
            references.normal(signers),
        )
        opened = opening._open(as_of, options)
        opening = replace(opening, snapshot=tuple(part.id for part in opened.parts))
        _opened[opening] = opened
        return opening

    def archive(self) -> Archive:
        """The archive, opened once a process."""
        archive = _opened.get(self)
        if archive is None:
            archive = _opened[self] = self._open(None)
            _latest.append(self)
        return archive

    def _open(self, as_of: str | None, options: dict[str, Any] | None = None) -> Archive:
        fs, path = places.inner(self.place, None, options)
        storage = places.storage_at(fs, path, options)
        if not places.is_archive(fs, path):
            raise NotFound(
                f"{self.place} is not an archive",
                hint="name the folder that `pqvault seal` made, usually NAME.pqv",
            )
        return Archive(
            storage,
            references.identities(self.identities),
            as_of=as_of,
            snapshot=self.snapshot,
            policy=references.policy(self.signers),
            cache=FrameCache(_CACHE),
        )


def _by_reference(identities: Identities | None) -> tuple[str, ...]:
    if identities is None:
        return ()
    single = isinstance(identities, str | os.PathLike | Identity)
    items: Iterable[Any] = [identities] if single else identities  # type: ignore[assignment]
    return tuple(
        references.hand_over(one) if isinstance(one, Identity) else references.normal(one)[0]
        for one in items
    )
