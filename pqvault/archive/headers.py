"""The small public files without which a part cannot be opened: its envelopes and its commit.

Taken from an archive to be kept elsewhere, and put back where they are missing or damaged
(ATTACKS row 48). Content is not among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pqvault.archive import layout
from pqvault.archive.publicpart import parse_commit, parse_envelope
from pqvault.archive.publicstate import TRIES
from pqvault.archive.removal import FOLDER as REMOVED
from pqvault.archive.tasks import side_by_side
from pqvault.errors import (
    FormatError,
    IntegrityError,
    KeyStateForbids,
    NoKeyFits,
    NotFound,
    PQVaultError,
)
from pqvault.format.commit import Commit
from pqvault.format.envelope import Envelope
from pqvault.format.textdoc import MAX_SIZE
from pqvault.rootkey import Keyring, RootKey
from pqvault.storage import Storage

__all__ = ["Headers", "PutBack", "parts_of", "put_back", "take"]

Headers = dict[str, bytes]  # by name within the archive
_FOLDERS: Final = ("envelopes", "commits")  # a part is there when its commit is: they come last


@dataclass(slots=True)
class PutBack:
    """What was put back of one archive, by name. ``left``: is another one there, and newer;
    ``forced``: was put back in the place of such a one all the same.

    ``same``: how many are there as they were kept.
    """

    archive: str
    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    forced: list[str] = field(default_factory=list)
    same: int = 0
    problems: list[PQVaultError] = field(default_factory=list)


def parts_of(names: Iterable[str]) -> set[str]:
    """The ids of the parts that envelopes and commits of these names belong to."""
    return {name.partition("/")[2].partition(".")[0] for name in names}


def take(storage: Storage, ring: Keyring) -> tuple[str, Headers, list[PQVaultError]]:
    """The archive's id, the envelopes and commits of its parts, and what is wrong with others,
    which are left out. Those that a key of ``ring`` opens are authentic.

    Raises NotFound where no archive is, FormatError for a damaged header.
    """
    archive = layout.read_header(storage)
    for _ in range(TRIES):
        removed = set(layout.listed_ids(storage, REMOVED)[0])
        found, problems = _take(storage, archive, removed, ring)
        # What is missing of a part that was replaced meanwhile is in the one in its place.
        if not problems or removed == set(layout.listed_ids(storage, REMOVED)[0]):
            break
    return archive, found, problems


def _take(
    storage: Storage, archive: str, removed: set[str], ring: Keyring
) -> tuple[Headers, list[PQVaultError]]:
    found: Headers = {}
    problems: list[PQVaultError] = []
    envelopes = layout.envelope_names(storage)
    commits = set(layout.listed_ids(storage, "commits")[0])
    parts = sorted(commits.union(envelopes) - removed)
    of = {part: [*envelopes.get(part, ())] for part in parts}
    for part in commits.intersection(parts):
        of[part].append(layout.commit_name(part))
    read = _read_all(storage, [name for names in of.values() for name in names])
    for names in of.values():
        pool = _Pool(archive, ring)
        for name in names:
            data = read[name]
            try:
                if isinstance(data, PQVaultError):
                    raise data
                pool.add(name, data)
            except PQVaultError as error:
                problems.append(error)
            else:
                found[name] = data
        for name in names:
            if name in found and pool.is_right(name, found[name]) is False:
                problems.append(IntegrityError(f"{storage.where(name)} failed authentication"))
                del found[name]
    return found, problems


def _read_all(storage: Storage, names: list[str]) -> dict[str, bytes | PQVaultError]:
    def read(name: str) -> bytes:
        return storage.read(name, MAX_SIZE)

    return dict(zip(names, side_by_side(storage.requests, read, names), strict=True))


class _Pool:
    """What is at hand of one part: of each envelope and commit what is there and what was kept."""

    def __init__(self, archive: str, ring: Keyring) -> None:
        self._archive = archive
        self._ring = ring
        self._found: dict[str, list[Envelope | Commit]] = {}

    def add(self, name: str, data: bytes) -> Envelope | Commit:
        """Parse a document and keep it. Raises IntegrityError."""
        document = _parse(self._archive, name, data)
        self._found.setdefault(name, []).append(document)
        return document

    def is_right(self, name: str, data: bytes) -> bool | None:
        """Whether a document is what whoever knew the root key wrote; None: no key can say."""
        document = _parse(self._archive, name, data)
        part, is_commit = document.part, isinstance(document, Commit)
        opened: list[RootKey] = []
        fits = False
        for envelope in (
            self._found.get(layout.envelope_name(part), ()) if is_commit else [document]
        ):
            assert isinstance(envelope, Envelope)
            try:
                opened.append(RootKey.unwrap(envelope, self._ring, name))
            except (NoKeyFits, KeyStateForbids):
                continue
            except IntegrityError:
                pass
            fits = True
        if not fits:
            return None
        if isinstance(document, Commit):
            return any(_belongs(key, document) for key in opened)
        # A commit that is damaged elsewhere still says whose envelope it is.
        roots = {c.root for c in self._found.get(layout.commit_name(part), ()) if type(c) is Commit}
        if document.group or not roots:
            return bool(opened)
        return any(key.commit_id in roots for key in opened)


def _belongs(key: RootKey, commit: Commit) -> bool:
    try:
        key.check_commit(commit, f"part {commit.part}")
    except IntegrityError:
        return False
    return True


def _parse(archive: str, name: str, data: bytes) -> Envelope | Commit:
    folder, _, rest = name.partition("/")
    part, _, group = rest.partition(".")
    if folder == "commits":
        return parse_commit(data, archive, part)
    return parse_envelope(data, archive, part, group)


def put_back(
    storage: Storage, archive: str, kept: Mapping[str, bytes], ring: Keyring, *, force: bool = False
) -> PutBack:
    """Put what was kept of an archive where it is missing or damaged.

    What is there and differs gives way when a key of ``ring`` says that it is damaged, or when its
    generation is lower, and stays when its generation is higher; ``force``: it gives way whatever
    it is. Parts that were removed since stay removed.
    """
    report = PutBack(storage.where("").rstrip("/"))
    removed = set(layout.listed_ids(storage, REMOVED)[0])
    _put_header(storage, archive, report)
    for folder in _FOLDERS:
        storage.make_folder(folder)
        names = sorted(
            name
            for name in kept
            if name.startswith(f"{folder}/") and not parts_of([name]) <= removed
        )
        read = _read_all(storage, names)
        for name in names:
            there = read[name]
            try:
                _put(storage, archive, name, there, kept, ring, report, force)
            except PQVaultError as error:
                report.problems.append(error)
    return report


def _put_header(storage: Storage, archive: str, report: PutBack) -> None:
    try:
        layout.read_header(storage)
    except (NotFound, FormatError) as error:
        (report.missing if isinstance(error, NotFound) else report.damaged).append(layout.HEADER)
        storage.put(layout.HEADER, layout.header(archive))
    else:
        report.same += 1


def _put(
    storage: Storage,
    archive: str,
    name: str,
    there: bytes | PQVaultError,
    kept: Mapping[str, bytes],
    ring: Keyring,
    report: PutBack,
    force: bool,
) -> None:
    _parse(archive, name, kept[name])  # what was kept may be damaged by now too
    if isinstance(there, PQVaultError) and not isinstance(there, NotFound):
        raise there
    if there == kept[name]:
        report.same += 1
    elif isinstance(there, PQVaultError):
        storage.put_new(name, kept[name])
        report.missing.append(name)
    else:
        try:
            worse = _is_worse(storage, archive, name, there, kept, ring)
        except IntegrityError:
            if not force:
                raise
            worse = True
        if not (worse or force):
            report.left.append(name)
        elif storage.replace(name, there, kept[name]):
            (report.damaged if worse else report.forced).append(name)
        else:
            raise IntegrityError(
                f"{storage.where(name)} was replaced by somebody else just now", hint="look again"
            )


def _is_worse(
    storage: Storage,
    archive: str,
    name: str,
    there: bytes,
    kept: Mapping[str, bytes],
    ring: Keyring,
) -> bool:
    """Whether what is there is damaged, or older than what was kept. Raises IntegrityError when
    nothing says which of the two is right."""
    pool = _Pool(archive, ring)
    try:
        now = pool.add(name, there)
    except IntegrityError:
        return True
    before = pool.add(name, kept[name])
    for other in (layout.envelope_name(now.part), layout.commit_name(now.part)):
        for data in (kept.get(other), _read_all(storage, [other])[other]) if other != name else ():
            _add(pool, other, data)
    if now.unsigned() == before.unsigned():  # they differ in who signed them
        if set(now.signatures) >= set(before.signatures):
            return False
    else:
        right, was_right = pool.is_right(name, there), pool.is_right(name, kept[name])
        step = _generation(now) - _generation(before)
        if right is False:
            if was_right:
                return True
        elif was_right is False:
            return False
        elif right or was_right or step:
            return step < 0 or (step == 0 and not right)
    raise IntegrityError(
        f"{storage.where(name)} is not what was kept of it, and no key says which is right",
        hint="--force puts back what was kept",
    )


def _add(pool: _Pool, name: str, data: bytes | PQVaultError | None) -> None:
    try:
        if isinstance(data, bytes):
            pool.add(name, data)
    except IntegrityError:
        pass  # it is looked at in its own turn


def _generation(document: Envelope | Commit) -> int:
    return document.generation if isinstance(document, Envelope) else 0
