"""What can be read of a part without a key: its commit and its envelope."""

from __future__ import annotations

from dataclasses import dataclass

from pqvault.archive.layout import commit_name, envelope_name
from pqvault.crypto import digest as digests
from pqvault.errors import IntegrityError, NotFound, RolledBack
from pqvault.format.commit import Commit
from pqvault.format.envelope import Envelope
from pqvault.format.textdoc import MAX_SIZE
from pqvault.memory import Sight
from pqvault.storage import Storage

__all__ = [
    "PublicPart",
    "check_parents",
    "parse_commit",
    "parse_envelope",
    "public_of",
    "read_envelope",
    "read_public",
]


@dataclass(frozen=True, slots=True)
class PublicPart:
    """What can be read of a part without a key, none of it verified."""

    commit: Commit
    commit_digest: str
    envelope: Envelope | None  # None when it is missing
    size: int  # bytes of all its files as the commit says

    @property
    def id(self) -> str:
        """The part id."""
        return self.commit.part

    @property
    def own_envelope(self) -> Envelope:
        """Its envelope. Raises IntegrityError when it is missing."""
        if self.envelope is None:
            raise IntegrityError(f"the envelope of part {self.id} is missing")
        return self.envelope

    @property
    def sight(self) -> Sight:
        """What is worth remembering of it once it is verified."""
        generations = {self.id: self.envelope.generation} if self.envelope else {}
        return Sight(self.id, self.commit.parent_ids, generations)


def public_of(commit: Commit, envelope: Envelope | None) -> PublicPart:
    """What was read, or is about to be put."""
    digest = digests.of(commit.marshal(), commit.digest)
    return PublicPart(commit, digest.hex(), envelope, sum(file.size for file in commit.files))


def read_public(storage: Storage, archive: str, part: str) -> PublicPart:
    """Parse commit and envelope of a part. Raises IntegrityError naming what is damaged."""
    commit = parse_commit(storage.read(commit_name(part), MAX_SIZE), archive, part)
    try:
        envelope = read_envelope(storage, archive, part)
    except NotFound:
        envelope = None
    return public_of(commit, envelope)


def read_envelope(storage: Storage, archive: str, part: str, group: str = "") -> Envelope:
    """Parse the envelope of a part, or of a column group of it. Raises NotFound, IntegrityError."""
    name = envelope_name(part, group)
    return parse_envelope(storage.read(name, MAX_SIZE), archive, part, group)


def parse_commit(data: bytes, archive: str, part: str) -> Commit:
    """The commit of a part and of no other. Raises IntegrityError."""
    name = commit_name(part)
    commit = Commit.parse(data, name)
    if (commit.archive, commit.part) != (archive, part):
        raise _copied(name)
    return commit


def parse_envelope(data: bytes, archive: str, part: str, group: str) -> Envelope:
    """The same for an envelope of a part, or of a column group of it."""
    name = envelope_name(part, group)
    envelope = Envelope.parse(data, name)
    if (envelope.archive, envelope.part, envelope.group) != (archive, part, group):
        raise _copied(name)
    return envelope


def _copied(name: str) -> IntegrityError:
    return IntegrityError(f"{name} belongs to another archive or part, and was copied here")


def check_parents(parts: dict[str, PublicPart], removed: set[str]) -> list[RolledBack]:
    """What is missing or exchanged among the parents that parts name. Format section 5.3."""
    found: dict[str, RolledBack] = {}
    for part in parts.values():
        for parent, digest in part.commit.parents:
            other = parts.get(parent)
            if other is None and parent not in removed:
                found[parent] = RolledBack(
                    f"part {parent} is missing, which part {part.id} names as its parent",
                    hint="an older state of the archive was put back, or a commit was deleted:"
                    " restore commits/ from a copy",
                )
            elif other is not None and other.commit_digest != digest:
                found[parent] = RolledBack(
                    f"the commit of part {parent} is not the one that part {part.id} followed",
                    hint="restore commits/ from a copy",
                )
    return list(found.values())
