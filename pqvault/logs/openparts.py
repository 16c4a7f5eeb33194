"""Parts that are no parts yet: found by their write-ahead files, opened with a private key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

from pqvault.archive import layout
from pqvault.archive.columngroups import PartKeys
from pqvault.archive.layout import envelope_name, part_file
from pqvault.errors import FormatError, IntegrityError, Locked, NoKeyFits, NotFound
from pqvault.format.envelope import Envelope
from pqvault.format.textdoc import MAX_SIZE
from pqvault.format.wal import WAL, is_wal, wal_name
from pqvault.rootkey import Keyring, RootKey
from pqvault.storage import LocalStorage, Storage

__all__ = ["FoundPart", "find_parts"]

State = Literal["live", "open or cut", "committed"]


@dataclass(frozen=True, slots=True)
class FoundPart:
    """Write-ahead files of one part. ``groups``: names of column groups; ``size``: bytes.

    ``began``: Unix time in ms, as the envelope says, unverified; None without one.
    """

    storage: LocalStorage
    id: str
    groups: tuple[str, ...]
    size: int
    began: int | None

    @property
    def names(self) -> list[str]:
        """Its files, the main one first."""
        return [part_file(self.id, wal_name(group)) for group in ("", *self.groups)]

    @property
    def envelope_names(self) -> list[str]:
        """Its envelopes, the part's own first."""
        return [envelope_name(self.id, group) for group in ("", *self.groups)]

    @property
    def is_gone(self) -> bool:
        """Whether it was committed or removed since it was found: its writer does that any time."""
        return not self.storage.exists(self.names[0])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the locks of all its files. Raises Locked while its writer lives."""
        with ExitStack() as stack:
            for name in self.names:
                stack.enter_context(self.storage.lock(name))
            yield

    def state(self) -> State:
        """``live``: a process on this host writes it. ``open or cut``: none does, or one elsewhere.
        ``committed``: only its write-ahead files were not removed yet."""
        if self.storage.exists(layout.commit_name(self.id)):
            return "committed"
        try:
            with self.locked():
                return "open or cut"
        except Locked:
            return "live"

    def open_keys(
        self, archive: str, keys: Keyring, *, partly: bool = False
    ) -> tuple[PartKeys, tuple[str, ...]]:
        """The root keys, from the envelopes, and the key ids that those name. ``partly``: leave
        out groups that no key opens.

        Raises NoKeyFits, IntegrityError naming the envelope.
        """
        groups = {}
        sealed_to: dict[str, None] = {}
        for group in ("", *self.groups):
            envelope = _envelope(self.storage, self.id, group)
            what = f"the envelope of part {self.id}"
            if group:
                what = f"the envelope of the column group {group!r} of part {self.id}"
            if (envelope.archive, envelope.part, envelope.group) != (archive, self.id, group):
                raise IntegrityError(
                    f"{what} belongs to another archive or part, and was copied here"
                )
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
            sealed_to.update(dict.fromkeys(envelope.key_ids))
        return PartKeys(groups.pop(""), groups), tuple(sealed_to)


def find_parts(storage: Storage) -> list[FoundPart]:
    """All parts with a write-ahead file, removed ones left out, in the order they began; none
    where the archive is no folder, for logs are written into folders."""
    if not isinstance(storage, LocalStorage):
        return []
    removed = set(layout.listed_ids(storage, "removed")[0])
    found = []
    for part in layout.listed_ids(storage, "parts")[0]:
        names = [name for name in storage.list(f"parts/{part}") if is_wal(name)]
        if WAL in names and part not in removed:
            groups = tuple(sorted(name.partition(".")[2] for name in names if name != WAL))
            size = sum(_size(storage, part_file(part, name)) for name in names)
            found.append(FoundPart(storage, part, groups, size, _began(storage, part)))
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


def _envelope(storage: LocalStorage, part: str, group: str) -> Envelope:
    name = envelope_name(part, group)
    try:
        return Envelope.parse(storage.read(name, MAX_SIZE), name)
    except NotFound:
        raise IntegrityError(
            f"{name} is missing, without which nobody can open that part"
        ) from None
