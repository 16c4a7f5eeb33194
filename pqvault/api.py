"""The verbs of pqvault as functions. The command line calls these and nothing below them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from pqvault.archive.archive import Archive
from pqvault.archive.gc import GRACE, GcReport, collect
from pqvault.archive.seal import SealReport, SealRun
from pqvault.archive.tasks import default_jobs
from pqvault.archive.verify import VerifyReport
from pqvault.archive.verify import verify as _verify
from pqvault.archive.walk import name_sources
from pqvault.errors import UsageError
from pqvault.keys import Identity, Recipient
from pqvault.progress import Progress, ignore
from pqvault.sealed.writer import DEFAULT_FRAME, DEFAULT_LEVEL
from pqvault.storage import LocalStorage

__all__ = ["default_archive", "gc", "open", "seal", "verify"]

StrPath = str | os.PathLike[str]
Recipients = Sequence[Recipient | str]
Identities = Sequence[Identity | str | os.PathLike[str]]


def to_recipients(recipients: Recipients) -> list[Recipient]:
    """Recipients, from objects or their ``age1pq1…`` text."""
    return [r if isinstance(r, Recipient) else Recipient.parse(r) for r in recipients]


def to_identities(identities: Identities) -> list[Identity]:
    """Identities, from objects or the paths of identity files."""
    found: list[Identity] = []
    for identity in identities:
        if isinstance(identity, Identity):
            found.append(identity)
        else:
            found += Identity.load_file(identity)
    return found


def default_archive(source: StrPath) -> Path:
    """``SRC.pqv`` beside the source."""
    path = Path(os.path.abspath(source))
    if not path.name:
        raise UsageError("an archive of / needs a name", hint="give it with -o")
    return path.with_name(path.name + ".pqv")


def seal(
    sources: StrPath | Sequence[StrPath],
    archive: StrPath | None = None,
    *,
    recipients: Recipients,
    identities: Identities = (),
    prefix: str = "",
    level: int = DEFAULT_LEVEL,
    frame_size: int = DEFAULT_FRAME,
    jobs: int | None = None,
    exclude: Sequence[str] = (),
    files_from: Iterable[bytes] | None = None,
    one_file_system: bool = False,
    checksum: bool = False,
    delete: bool = False,
    yes: bool = False,
    append: bool = False,
    dry_run: bool = False,
    allow_changed: bool = False,
    expect_key_ids: Sequence[str] = (),
    progress: Progress = ignore,
) -> SealReport:
    """Seal files and folders into an archive; only what changed since the last time.

    ``archive``: a folder, by default ``SRC.pqv`` beside the one source. ``recipients``: who may
    open it, ``age1pq1…`` texts or objects. ``level``: zstd 0 (store) to 22. ``frame_size``: bytes
    of content a frame, 64 KiB to 8 MiB; 256 KiB suits random access. ``jobs``: threads.
    ``identities`` (objects or paths of identity files) are needed for ``checksum`` and
    ``delete`` alone; ``append`` adds everything without looking at what is there.

    Raises Incomplete when some files failed (all others are sealed), UsageError,
    PolicyRefused when ``delete`` would remove more than half and ``yes`` is not given,
    RolledBack when the archive lost a part.
    """
    named = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    if archive is None:
        if len(named) != 1:
            raise UsageError("several sources need the archive named", hint="give it with -o")
        archive = default_archive(named[0])
    run = SealRun(
        LocalStorage(Path(archive)),
        name_sources(named, prefix),
        to_recipients(recipients),
        to_identities(identities),
        level=level,
        frame_size=frame_size,
        jobs=jobs or default_jobs(),
        exclude=exclude,
        listed=files_from,
        one_file_system=one_file_system,
        checksum=checksum,
        delete=delete,
        yes=yes,
        append=append,
        dry_run=dry_run,
        allow_changed=allow_changed,
        expect_key_ids=expect_key_ids,
        progress=progress,
    )
    return run.run()


def open(
    archive: StrPath,
    *,
    identities: Identities,
    as_of: str | datetime | None = None,
    strict: bool = True,
) -> Archive:
    """Open an archive for reading.

    ``as_of``: a part id (or at least 4 characters of one) or a time; later parts are not seen.
    Raises NotFound, NoKeyFits, IntegrityError, RolledBack. With ``strict=False`` parts that
    cannot be read are left out and listed in ``problems``.
    """
    return Archive(
        LocalStorage(Path(archive)), to_identities(identities), as_of=as_of, strict=strict
    )


def verify(
    archive: StrPath,
    *,
    identities: Identities = (),
    sample: float = 1.0,
    jobs: int | None = None,
    progress: Progress = ignore,
) -> VerifyReport:
    """Check an archive: without identities every file against its commit (*intact*), with them
    every byte (*sealed*). ``sample``: the share of objects looked at, 0 to 1."""
    storage = LocalStorage(Path(archive))
    opened = None
    if identities:
        opened = Archive(storage, to_identities(identities), strict=False)
    try:
        return _verify(storage, opened, sample=sample, jobs=jobs, progress=progress)
    finally:
        if opened is not None:
            opened.close()


def gc(archive: StrPath, *, older_than: float = GRACE, dry_run: bool = False) -> GcReport:
    """Remove leftovers of interrupted seals that nothing changed for ``older_than`` seconds."""
    return collect(LocalStorage(Path(archive)), older_than=older_than, dry_run=dry_run)
