"""Parts that are no parts yet: found by their write-ahead files, opened with a private key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

from pqvault.archive import layout
from pqvault.archive.columngroups import PartKeys
from pqvault.archive.layout import envelope_name, group_envelope_name, part_file
from pqvault.errors import FormatError, IntegrityError, Locked, NoKeyFits, NotFound
from pqvault.format.envelope import Envelope
from pqvault.format.textdoc import MAX_SIZE
from pqvault.format.wal import WAL, is_wal
from pqvault.rootkey import Keyring, RootKey
from pqvault.storage import LocalStorage

__all__ = [
    "FoundPart",
    "Opened",
    "envelope_names",
    "find_parts",
    "is_gone",
    "locked",
    "open_keys",
    "state_of",
]

State = Literal["live", "open or cut", "committed"]


@dataclass(frozen=True, slots=True)
class FoundPart:
    """Write-ahead files of one part. ``groups``: names of column groups; ``size``: bytes.

    ``began``: Unix time in ms, as the envelope says, unverified; None without one.
    """

    id: str
    groups: tuple[str, ...]
    size: int
    began: int | None

    @property
    def names(self) -> list[str]:
        """Its files, the main one first."""
        return [part_file(self.id, n) for n in (WAL, *(f"{WAL}.{g}" for g in self.groups))]


@dataclass(frozen=True, slots=True)
class Opened:
    """The keys of a part, and the key ids that its envelopes name."""

    keys: PartKeys
    sealed_to: tuple[str, ...]


def find_parts(storage: LocalStorage) -> list[FoundPart]:
    """All parts with a write-ahead file, removed ones left out, in the order they began."""
    removed = set(layout.listed_ids(storage, "removed")[0])
    found = []
    for part in layout.listed_ids(storage, "parts")[0]:
        names = [name for name in storage.list(f"parts/{part}") if is_wal(name)]
        if WAL in names and part not in removed:
            groups = tuple(sorted(name.partition(".")[2] for name in names if name != WAL))
            size = sum(_size(storage, part_file(part, name)) for name in names)
            found.append(FoundPart(part, groups, size, _began(storage, part)))
    return sorted(found, key=lambda part: (part.began or 0, part.id))


def _size(storage: LocalStorage, name: str) -> int:
    try:
        with storage.open(name) as file:
            return file.size
    except (NotFound, FormatError):
        return 0


def _began(storage: LocalStorage, part: str) -> int | None:
    try:
        return _envelope(storage, part, "").created
    except (NotFound, IntegrityError):
        return None


def state_of(storage: LocalStorage, part: FoundPart) -> State:
    """``live``: a process on this host writes it. ``open or cut``: none does, or one elsewhere.
    ``committed``: only its write-ahead files were not removed yet."""
    if storage.exists(layout.commit_name(part.id)):
        return "committed"
    try:
        with locked(storage, part):
            return "open or cut"
    except Locked:
        return "live"


def is_gone(storage: LocalStorage, part: FoundPart) -> bool:
    """Whether it was committed or removed since it was found: its writer does that any time."""
    return not storage.exists(part_file(part.id, WAL))


@contextmanager
def locked(storage: LocalStorage, part: FoundPart) -> Iterator[None]:
    """Hold the locks of all its files. Raises Locked while its writer lives."""
    with ExitStack() as stack:
        for name in part.names:
            stack.enter_context(storage.lock(name))
        yield


def open_keys(
    storage: LocalStorage, archive: str, part: FoundPart, keys: Keyring, *, partly: bool = False
) -> Opened:
    """The root keys, from the envelopes. ``partly``: leave out groups that no key opens.

    Raises NoKeyFits, IntegrityError naming the envelope.
    """
    groups = {}
    sealed_to: dict[str, None] = {}
    for group in ("", *part.groups):
        envelope = _envelope(storage, part.id, group)
        what = f"the envelope of part {part.id}"
        if group:
            what = f"the envelope of the column group {group!r} of part {part.id}"
        if (envelope.archive, envelope.part, envelope.group) != (archive, part.id, group):
            raise IntegrityError(f"{what} belongs to another archive or part, and was copied here")
        try:
            groups[group] = RootKey.unwrap(envelope, keys, what)
            groups[group].check_same_profile(groups[""], what)
        except NoKeyFits as error:
            if group and partly:
                continue
            raise NoKeyFits(
                error.message,
                hint="a log is recovered by who opens all of its column groups; pass more"
                " identities with -i",
            ) from None
        sealed_to.update(dict.fromkeys(wrapped.key_id for wrapped in envelope.recipients))
    return Opened(PartKeys(groups.pop(""), groups), tuple(sealed_to))


def envelope_names(part: FoundPart) -> list[str]:
    """Its envelopes, the part's own first."""
    return [envelope_name(part.id), *(group_envelope_name(part.id, g) for g in part.groups)]


def _envelope(storage: LocalStorage, part: str, group: str) -> Envelope:
    name = group_envelope_name(part, group) if group else envelope_name(part)
    try:
        return Envelope.parse(storage.read(name, MAX_SIZE), name)
    except NotFound:
        raise IntegrityError(
            f"{name} is missing, without which nobody can open that part"
        ) from None
