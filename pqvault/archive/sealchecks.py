"""What speaks against a seal in what stands there: keys that are retired, states that were rolled
back, parts of other writers or to other recipients. What is no more than odd is a warning."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence

from pqvault.archive import retired
from pqvault.archive.committing import refuse_digests, refuse_unsigned
from pqvault.archive.globs import Globs
from pqvault.archive.journal import Journal
from pqvault.archive.layout import HEADER
from pqvault.archive.ownfolder import is_within, own_folder
from pqvault.archive.priors import committed, without_groups
from pqvault.archive.publicstate import PublicState
from pqvault.archive.replacement import replaced_ids
from pqvault.archive.walk import Source
from pqvault.crypto.profiles import Profile
from pqvault.errors import PolicyRefused, UsageError
from pqvault.names import printable
from pqvault.policy import Policy
from pqvault.storage import Storage

__all__ = [
    "check_excludes",
    "check_journal",
    "check_key_ids",
    "check_place",
    "check_retired",
    "check_sources",
    "check_state",
]

# Of an archive that was begun, or lost its header, which is told elsewhere; and of a disk's root.
_FOLDERS = frozenset({"commits", "envelopes", "parts", "removed", "retired", "lost+found"})
_NO_NAMES = frozenset({b"", b".", b".."})  # no component of a path in an archive is one of them


def check_key_ids(ids: Sequence[str], expected: Sequence[str]) -> None:
    """Raise PolicyRefused unless the recipients are those that were expected, if any were."""
    given = set(ids)
    if expected and given != {text.lower() for text in expected}:
        raise PolicyRefused(
            f"the recipients are {', '.join(sorted(given))}, not the key ids expected",
            hint="check who the recipients are before sealing to them",
        )


def check_excludes(sources: Sequence[Source], exclude: Iterable[str | bytes]) -> None:
    """Raise UsageError for a glob that no path of this run can match: what it was to leave out
    would be sealed."""
    tops = sorted({source.name.partition(b"/")[0] for source in sources})
    for glob in map(os.fsencode, exclude):
        parts = glob.rstrip(b"/").split(b"/")
        if (
            not _NO_NAMES.intersection(parts)
            and (
                b"" in tops  # a source `.`: what is in it may have any name
                or b"**" in parts[0]
                or any(Globs(parts[:1]).match(name) for name in tops)
            )
        ):
            continue
        begin = " or ".join(f"{printable(name)}/" if name else "a name" for name in tops)
        raise UsageError(
            f"--exclude {printable(glob)} matches nothing here: all paths begin with {begin}",
            hint=_meant(glob, sources),
        )


def _meant(glob: bytes, sources: Sequence[Source]) -> str:
    """What to write in place of a glob that no path can match."""
    disk = os.path.abspath(glob)
    for source in sources:
        root = os.path.abspath(source.root).rstrip(b"/") + b"/"
        if glob.startswith((b"/", b".")) and disk.startswith(root):
            path = b"/".join(part for part in (source.name, disk[len(root) :]) if part)
            return f"globs match paths as they are in the archive: write {printable(path)}"
    names = b"/".join(part for part in glob.split(b"/") if part not in _NO_NAMES)
    return f"globs match whole paths; **/{printable(names)} leaves it out at any depth"


def check_sources(storage: Storage, sources: Iterable[Source]) -> None:
    """Raise UsageError when a source is the archive, which is left out of what is sealed: it would
    be all of it; or lies in it, among what the seal writes; or when it is neither file nor folder,
    which are skipped."""
    own = own_folder(storage)
    for source in sources:
        if is_within(source.root, own):
            raise UsageError(
                f"{printable(source.root)} cannot be the archive, or lie in it, and be what is"
                " sealed into it",
                hint="name another archive with -o",
            )
        mode = os.stat(source.root).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise UsageError(
                f"{printable(source.root)} is neither a file nor a folder",
                hint="`pqvault encrypt` seals what comes out of a pipe",
            )


def check_place(storage: Storage) -> None:
    """Raise UsageError where a new archive would be made of a folder that holds something else:
    where that lies in a source, it would be left out of what is sealed, as the archive is."""
    if not own_folder(storage):
        return
    # Looked at once: another process may be making an archive of it.
    others = set(storage.list("")) - _FOLDERS
    if others and HEADER not in others:
        raise UsageError(
            f"{storage.where('')} is no archive and holds other things,"
            f" {printable(os.fsencode(min(others)))} among them",
            hint="name a folder of its own for the archive with -o; it is made when it is not"
            " there",
        )


def check_state(
    state: PublicState,
    recipients: Sequence[str],
    profile: Profile,
    policy: Policy,
    *,
    signed: bool,
    allow_retired: bool,
    groups: Sequence[str],
) -> list[str]:
    """Warnings about an archive that is sealed into. ``recipients``: key ids; ``signed``: whether
    this run signs; ``groups``: names of the column groups that it has.

    Raises RolledBack, PolicyRefused, UsageError.
    """
    state.refuse_rolled_back()
    warnings = check_retired(state.storage, recipients, policy, allow=allow_retired)
    refuse_digests(state, profile)
    if not (signed or policy.allow_unsigned):
        refuse_unsigned(state)
    for name in state.strange:
        warnings.append(f"commits/{printable(os.fsencode(name))} is no commit")
    warnings += [problem.message for problem in state.problems]
    ours = set(recipients)
    for part in state.ordered():
        if part.envelope is None:
            continue
        theirs = set(part.envelope.key_ids)
        if theirs != ours:
            warnings.append(_difference(part.id, theirs, ours))
    lacking = [p for p in without_groups(state, groups) if state.parts[p].commit.has_tables]
    if lacking:
        warnings.append(
            f"tables of earlier parts ({len(lacking)}, the last is {lacking[-1]}) are without the"
            " column groups of this run: those parts show their columns to all recipients until"
            " `pqvault prune` removes them"
        )
    return warnings


def check_retired(
    storage: Storage, recipients: Sequence[str], policy: Policy, *, allow: bool
) -> list[str]:
    """Warnings about recipients that are retired; raises PolicyRefused unless ``allow``."""
    found = retired.retired_ids(storage).intersection(recipients)
    if not allow:
        retired.refuse(storage, found, policy)
    whose = {key_id: retired.whose(storage, key_id, policy) for key_id in sorted(found)}
    return [f"{k} is retired here{name}, and sealed to all the same" for k, name in whose.items()]


def check_journal(state: PublicState, journal: Journal) -> list[str]:
    """Warnings about an archive that is compared with by the journal alone; raises UsageError when
    the journal knows none of its parts."""
    if not state.parts:
        return []
    ours = journal.valid_parts(committed(state))
    if not ours:
        raise UsageError(
            f"{state.storage.where('')} holds parts that this host has not sealed,"
            " so what has changed since cannot be known",
            hint="pass an identity with -i to compare with what is there,"
            " or --append to add everything as a new part",
        )
    others = sum(ours.isdisjoint({p.id, *replaced_ids(p)}) for p in state.parts.values())
    if not others:
        return []
    return [
        f"{others} parts are of other writers, who may have replaced or removed what this"
        " host sealed before; pass an identity with -i to compare"
    ]


def _difference(part: str, theirs: set[str], ours: set[str]) -> str:
    more = ", ".join(sorted(ours - theirs)) or "none"
    less = ", ".join(sorted(theirs - ours)) or "none"
    return (
        f"part {part} is sealed to other recipients than this run:"
        f" only this run {more}; only that part {less}"
    )
