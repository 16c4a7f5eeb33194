"""The verbs of pqvault as functions. The command line calls these and nothing below them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypedDict, Unpack

from pqvault.archive.archive import Archive
from pqvault.archive.columngroups import ColumnGroup
from pqvault.archive.engine import THREADS, Engine
from pqvault.archive.gc import GRACE, GcReport, collect
from pqvault.archive.globs import several
from pqvault.archive.inspect import PartFacts, list_parts
from pqvault.archive.seal import SealRun
from pqvault.archive.sealreport import SealReport
from pqvault.archive.sealtable import TableOptions
from pqvault.archive.tasks import jobs_of
from pqvault.archive.verify import VerifyReport
from pqvault.archive.verify import verify as _verify
from pqvault.archive.walk import name_sources
from pqvault.arguments import (
    Identities,
    Recipients,
    SigningKeys,
    StrPath,
    to_identities,
    to_recipients,
    to_signing_keys,
)
from pqvault.errors import PQVaultError, UsageError
from pqvault.memory import Memory
from pqvault.policy import ANYBODY, Policy
from pqvault.progress import Progress, ignore
from pqvault.sealed.writer import DEFAULT_FRAME, DEFAULT_LEVEL
from pqvault.storage import storage_at

if TYPE_CHECKING:
    from pqvault.sources import BadLines

Listed: TypeAlias = Iterable[str | bytes | os.PathLike[str]]

__all__ = ["SealKeywords", "default_archive", "gc", "open", "parts", "seal", "sealing", "verify"]


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
    **options: Unpack[SealKeywords],
) -> SealReport:
    """Seal files and folders into an archive; only what changed since the last time.

    ``archive``: a folder, by default ``SRC.pqv`` beside the one source. ``recipients``: who may
    open it, ``age1pq1…`` texts or objects. ``identities`` (objects or paths of identity files)
    are needed for ``checksum`` and ``delete`` alone. For ``options`` see :class:`SealKeywords`.

    Raises Incomplete when some files failed (all others are sealed), UsageError,
    PolicyRefused when ``delete`` would remove more than half and ``yes`` is not given,
    RolledBack when the archive lost a part.
    """
    return sealing(sources, archive, recipients=recipients, identities=identities, **options).run()


class SealKeywords(TypedDict, total=False):
    """The options of :func:`seal`, all of which may be left out.

    ``prefix``: put entries below it. ``level``: zstd 0 (store) to 22, default 3.
    ``frame_size``: bytes of content a frame, 64 KiB to 8 MiB, default 4 MiB; 64 KiB suits random
    access. ``jobs``: threads. ``exclude``: a glob or several. ``files_from``: paths to seal, and
    no others. ``one_file_system``: stay on it. ``checksum``: compare content, not times.
    ``delete``: remove what is gone from the sources, up to half unless ``yes``. ``append``: add
    everything without looking at what is there. ``dry_run``: only report. ``allow_changed``: keep
    files that change while they are read. ``allow_retired``: seal to a key that is retired in the
    archive. ``sign``: signing keys, objects or paths of their files, that sign what is added.
    ``policy``: whose signatures what is read of the archive must have.
    ``expect_key_ids``: refuse other recipients. ``memory``: of what was seen of the archive before.
    ``engine``: where objects are sealed, threads of this process if nothing is said;
    `pqvault.integrations.ray.RayEngine` is another.
    ``progress``: called with a :class:`pqvault.progress.Report`, from several threads.
    ``tables``: files of Parquet, JSON lines, CSV and Arrow become tables, values and not bytes;
    ``keep_files``: and are sealed as they are, too. ``groups``: columns of them for other
    recipients, which goes without ``keep_files``. ``bad_lines``: takes the lines that do not parse,
    which otherwise are errors.
    """

    prefix: str
    level: int
    frame_size: int
    jobs: int | None
    exclude: str | Sequence[str]
    files_from: Listed | None
    one_file_system: bool
    checksum: bool
    delete: bool
    yes: bool
    append: bool
    dry_run: bool
    allow_changed: bool
    allow_retired: bool
    sign: SigningKeys
    policy: Policy
    expect_key_ids: str | Sequence[str]
    memory: Memory | None
    engine: Engine
    progress: Progress
    tables: bool
    keep_files: bool
    groups: Sequence[ColumnGroup]
    bad_lines: BadLines | None


def sealing(
    sources: StrPath | Sequence[StrPath],
    archive: StrPath | None = None,
    *,
    recipients: Recipients,
    identities: Identities = (),
    **options: Unpack[SealKeywords],
) -> SealRun:
    """The run that :func:`seal` does, not yet begun: its ``report`` can be read after an error."""
    unknown = sorted(options.keys() - SealKeywords.__annotations__.keys())
    if unknown:  # one that is misspelt would be without effect, and what it keeps out sealed
        raise UsageError(
            f"seal has no option {unknown[0]!r}",
            hint=f"it has {', '.join(SealKeywords.__annotations__)}",
        )
    named = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    if archive is None:
        if len(named) != 1:
            raise UsageError("several sources need the archive named", hint="give it with -o")
        archive = default_archive(named[0])
    storage = storage_at(archive)
    return SealRun(
        storage,
        name_sources(named, options.get("prefix", "")),
        to_recipients(recipients),
        to_identities(identities),
        level=options.get("level", DEFAULT_LEVEL),
        frame_size=options.get("frame_size", DEFAULT_FRAME),
        jobs=jobs_of(options.get("jobs"), storage.requests),
        exclude=several(options.get("exclude")),
        listed=_listed(options.get("files_from")),
        one_file_system=options.get("one_file_system", False),
        checksum=options.get("checksum", False),
        delete=options.get("delete", False),
        yes=options.get("yes", False),
        append=options.get("append", False),
        dry_run=options.get("dry_run", False),
        allow_changed=options.get("allow_changed", False),
        allow_retired=options.get("allow_retired", False),
        sign=to_signing_keys(options.get("sign", ())),
        policy=options.get("policy", ANYBODY),
        expect_key_ids=several(options.get("expect_key_ids")),
        memory=options.get("memory"),
        engine=options.get("engine", THREADS),
        progress=options.get("progress", ignore),
        tables=_table_options(options),
    )


def _listed(paths: Listed | None) -> Listed | None:
    if isinstance(paths, str | bytes | os.PathLike):
        raise UsageError(
            "files_from is one path, and takes all paths that are to be sealed",
            hint="give a list of them; of a file of paths, its lines",
        )
    return paths


def _table_options(options: SealKeywords) -> TableOptions | None:
    if options.get("tables"):
        if options.get("keep_files") and options.get("groups"):
            raise UsageError(
                "files that are kept hold the columns of groups too, and every recipient of the"
                " archive would read them there",
                hint="leave out the one or the other; or keep the files in an archive of their own,"
                " sealed to those who may read all of them",
            )
        return TableOptions(
            options.get("groups", ()), options.get("keep_files", False), options.get("bad_lines")
        )
    if any(options.get(name) for name in ("keep_files", "groups", "bad_lines")):
        raise UsageError(
            "keeping files, column groups and bad lines are for tables", hint="add --tables"
        )
    return None


def open(
    archive: StrPath,
    *,
    identities: Identities,
    as_of: str | datetime | None = None,
    strict: bool = True,
    memory: Memory | None = None,
    policy: Policy = ANYBODY,
) -> Archive:
    """Open an archive for reading.

    ``as_of``: a part id (or at least 4 characters of one) or a time (as text
    UTC unless it says otherwise, as a naive ``datetime`` local); later parts are not seen.
    ``memory``: of what was seen of it before, as `pqvault.keystore.seen.Seen` keeps it.
    ``policy``: whose signatures it must have. Raises NotFound, NoKeyFits, IntegrityError,
    PolicyRefused, RolledBack. With ``strict=False`` parts that
    cannot be read are left out and listed in ``problems``.
    """
    return Archive(
        storage_at(archive),
        to_identities(identities),
        as_of=as_of,
        strict=strict,
        memory=memory,
        policy=policy,
    )


def verify(
    archive: StrPath,
    *,
    identities: Identities = (),
    sample: float = 1.0,
    jobs: int | None = None,
    memory: Memory | None = None,
    policy: Policy = ANYBODY,
    engine: Engine = THREADS,
    progress: Progress = ignore,
) -> VerifyReport:
    """Check an archive: without identities every file against its commit (*intact*), with them
    every byte (*sealed*). ``policy``: signers that must have signed every part, which needs no
    identity (*signed by*). ``sample``: the share of objects looked at, 0 to 1. ``engine``: where
    files and contents are checked, as for :func:`seal`."""
    storage = storage_at(archive)
    opened = None
    if identities:
        opened = Archive(
            storage, to_identities(identities), strict=False, memory=memory, policy=policy
        )
    try:
        return _verify(
            storage, opened, sample=sample, jobs=jobs, memory=memory, policy=policy,
            engine=engine, progress=progress,
        )  # fmt: skip
    finally:
        if opened is not None:
            opened.close()


def gc(archive: StrPath, *, older_than: float = GRACE, dry_run: bool = False) -> GcReport:
    """Remove leftovers of interrupted seals that nothing changed for ``older_than`` seconds."""
    return collect(storage_at(archive), older_than=older_than, dry_run=dry_run)


def parts(
    archive: StrPath,
    *,
    identities: Identities = (),
    memory: Memory | None = None,
    policy: Policy = ANYBODY,
) -> tuple[list[PartFacts], list[PQVaultError]]:
    """The parts in their order, and what is wrong with others. Without identities only what
    ``policy`` asks for is verified: signatures."""
    storage = storage_at(archive)
    if not identities:
        return list_parts(storage, None, memory, policy)
    with Archive(
        storage, to_identities(identities), strict=False, memory=memory, policy=policy
    ) as opened:
        return list_parts(storage, opened)
