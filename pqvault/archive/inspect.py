"""What can be read of an archive or a sealed stream without a key. None of it is verified."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Final

from pqvault.archive.archive import Archive
from pqvault.archive.layout import envelope_names
from pqvault.archive.publicpart import PublicPart, read_envelope
from pqvault.archive.publicstate import PublicState
from pqvault.archive.replacement import replaced_ids
from pqvault.errors import IntegrityError, NotFound, PQVaultError
from pqvault.format.envelope import Envelope
from pqvault.memory import Memory
from pqvault.policy import ANYBODY, Policy
from pqvault.storage import Storage, is_url, storage_at
from pqvault.streams import read_stream_envelope

__all__ = ["EnvelopeFacts", "Inspection", "PartFacts", "inspect", "list_parts"]

_STEP: Final = 1024 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class EnvelopeFacts:
    """An envelope as it reads. ``created``: Unix time in ms. ``signers``: ids that its signatures
    name, unverified; ``signed_by``: the trusted signers whose signatures were verified."""

    part: str
    generation: int
    created: int
    profile: str
    recipients: tuple[tuple[str, str], ...]  # (KEM name, key id)
    signers: tuple[str, ...] = ()
    signed_by: tuple[str, ...] = ()
    group: str = ""

    @classmethod
    def of(cls, envelope: Envelope, signed_by: tuple[str, ...] = ()) -> EnvelopeFacts:
        """From a parsed envelope."""
        recipients = tuple((r.kem, r.key_id) for r in envelope.recipients)
        return cls(
            envelope.part,
            envelope.generation,
            envelope.created,
            envelope.profile,
            recipients,
            tuple(signature.signer for signature in envelope.signatures),
            signed_by,
            envelope.group,
        )


@dataclass(frozen=True, slots=True)
class PartFacts:
    """A part as its commit and envelope read. ``size``: sealed bytes; ``created``: ms.

    ``level``: ``unverified`` (no key used, or none that opens it), ``sealed`` (opened with a key),
    ``replaced`` (by a part that was opened with a key) or ``damaged``.
    ``entries``: None without a key. ``signers``: ids that its signatures name, unverified;
    ``signed_by``: the trusted signers whose signatures were verified. ``groups``: the envelopes
    of its column groups, unverified.
    """

    part: str
    seq: int
    created: int
    kind: str
    digest: str
    size: int
    objects: int
    parents: tuple[str, ...]
    envelope: EnvelopeFacts | None
    level: str = "unverified"
    entries: int | None = None
    signers: tuple[str, ...] = ()
    signed_by: tuple[str, ...] = ()
    groups: tuple[EnvelopeFacts, ...] = ()


@dataclass(slots=True)
class Inspection:
    """``what``: ``archive`` or ``stream``. Everything here is unverified."""

    what: str
    path: str
    size: int
    archive: str | None = None
    envelope: EnvelopeFacts | None = None
    parts: list[PartFacts] = field(default_factory=list)
    problems: list[PQVaultError] = field(default_factory=list)


@dataclass(slots=True)
class _Counted:
    """A file that is read in order. A pipe's size is known at its end only."""

    file: BinaryIO
    count: int = 0

    def read(self, size: int, /) -> bytes:
        data = self.file.read(size)
        self.count += len(data)
        return data

    def count_all(self) -> int:
        """How many bytes it has."""
        while self.read(_STEP):
            pass
        return self.count


def inspect(path: str | os.PathLike[str]) -> Inspection:
    """Read what is public of an archive (a folder or a URL) or a sealed stream. Raises NotFound."""
    target = Path(path)
    if is_url(path) or target.is_dir():
        storage = storage_at(path)
        state = PublicState(storage)
        parts = _with_groups(state, [_facts(part) for part in state.ordered()])
        size = sum(part.size for part in parts)
        where = storage.where("") if is_url(path) else str(target)
        return Inspection("archive", where, size, state.archive, None, parts, state.problems)
    try:
        with target.open("rb") as file:
            source = _Counted(file)
            envelope = read_stream_envelope(source, str(target))
            info = os.fstat(file.fileno())
            size = info.st_size if stat.S_ISREG(info.st_mode) else source.count_all()
    except OSError as error:
        raise NotFound(
            f"{target} cannot be opened: {error.strerror}", hint="check the path"
        ) from None
    return Inspection("stream", str(target), size, envelope=EnvelopeFacts.of(envelope))


def list_parts(
    storage: Storage,
    archive: Archive | None,
    memory: Memory | None = None,
    policy: Policy = ANYBODY,
) -> tuple[list[PartFacts], list[PQVaultError]]:
    """The parts in their order; with an opened archive also entries and level of proof, which
    its own policy is part of. Without one ``policy`` is checked, which needs no key."""
    state = PublicState(storage, memory)
    opened = {part.id: part for part in archive.parts} if archive is not None else {}
    replaced = {one for part in opened.values() for one in replaced_ids(part.public)}
    facts = []
    for part in state.ordered():
        if archive is None:
            facts.append(_signed(state, part, policy))
        elif part.id in opened:
            open_part = opened[part.id]
            found = _facts(part, "sealed", open_part.catalog.rows, open_part.wrapped_by)
            facts.append(replace(found, signed_by=open_part.signed_by))
        else:
            damaged = isinstance(archive.unopened.get(part.id), IntegrityError)
            level = "damaged" if damaged else "unverified"
            facts.append(_facts(part, "replaced" if part.id in replaced else level))
    facts = _with_groups(state, facts)
    return facts, state.problems if archive is None else archive.problems


def _signed(state: PublicState, part: PublicPart, policy: Policy) -> PartFacts:
    """A part by its public documents; what the policy refuses is a problem."""
    signed_by: tuple[str, ...] = ()
    wrapped_by: tuple[str, ...] = ()
    try:
        signed_by = policy.check(part.commit, f"part {part.id}")
        if part.envelope is not None:
            wrapped_by = policy.check_envelope(part.envelope, f"the envelope of part {part.id}")
    except PQVaultError as error:
        state.problems.append(error)
    return replace(_facts(part, wrapped_by=wrapped_by), signed_by=signed_by)


def _with_groups(state: PublicState, facts: list[PartFacts]) -> list[PartFacts]:
    """The same with the envelopes of column groups; what is wrong with one is a problem."""
    if not any(part.commit.has_tables for part in state.parts.values()):
        return facts
    names = envelope_names(state.storage)
    found = []
    for part in facts:
        groups = []
        for name in names.get(part.part, ()):
            group = name.partition(".")[2]
            try:
                if group:
                    envelope = read_envelope(state.storage, state.archive, part.part, group)
                    groups.append(EnvelopeFacts.of(envelope))
            except PQVaultError as error:
                state.problems.append(error)
        found.append(replace(part, groups=tuple(groups)))
    return found


def _facts(
    part: PublicPart,
    level: str = "unverified",
    entries: int | None = None,
    wrapped_by: tuple[str, ...] = (),
) -> PartFacts:
    commit = part.commit
    return PartFacts(
        part.id,
        commit.seq,
        commit.created,
        commit.kind,
        commit.digest,
        part.size,
        len(commit.files) - 1,
        commit.parent_ids,
        EnvelopeFacts.of(part.envelope, wrapped_by) if part.envelope else None,
        level,
        entries,
        tuple(signature.signer for signature in commit.signatures),
    )
