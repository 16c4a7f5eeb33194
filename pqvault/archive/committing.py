"""Commit a part: its documents, the moment it begins to exist, and what may not follow what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from pqvault.archive.layout import commit_name, envelope_name, part_file
from pqvault.archive.publicstate import PublicState
from pqvault.crypto.profiles import Profile
from pqvault.errors import IntegrityError, PolicyRefused, PQVaultError, UsageError
from pqvault.format.commit import Commit, PartFile
from pqvault.format.envelope import Envelope
from pqvault.ids import now
from pqvault.keys import Recipient
from pqvault.rootkey import RootKey
from pqvault.signing import SigningKey, sign_document
from pqvault.storage import Storage

__all__ = [
    "discard",
    "give_up",
    "make_commit",
    "make_envelope",
    "put_part",
    "refuse_digests",
    "refuse_unsigned",
    "remove_files",
]


def make_envelope(
    key: RootKey, recipients: Sequence[Recipient], sign: Sequence[SigningKey] = (), group: str = ""
) -> Envelope:
    """The first envelope of a part, or of a column group of it, signed."""
    envelope = key.envelope(recipients, created=now(), group=group)
    return sign_document(envelope, sign)


def make_commit(
    state: PublicState,
    key: RootKey,
    files: Iterable[PartFile],
    *,
    kind: str,
    sealed_to: Iterable[str],
    digest: str,
    sign: Sequence[SigningKey] = (),
) -> Commit:
    """The commit of a part, with its MAC and signatures. ``state``: just refreshed."""
    # A part of another profile that came since we began is no parent: what waits for its commit,
    # a log above all, must not be lost for it.
    heads = [p for p in state.heads() if p.commit.digest in key.profile.digests]
    commit = Commit(
        archive=key.archive,
        part=key.part,
        seq=state.next_seq(),
        created=now(),
        profile=key.profile.name,
        digest=digest,
        kind=kind,
        parents=tuple(sorted((p.id, p.commit_digest) for p in heads)),
        replaces=(),
        root=key.commit_id,
        sealed_to=tuple(sealed_to),
        files=tuple(sorted(files, key=lambda file: file.name)),
    )
    return sign_document(key.sign_off(commit), sign)


def put_part(storage: Storage, envelopes: Sequence[Envelope], commit: Commit) -> None:
    """Make a part exist: folders durable, envelopes, and the commit last.

    All documents are parsed again first: what cannot be read must not be promised.
    """
    data = commit.marshal()
    same = all(Envelope.parse(envelope.marshal()) == envelope for envelope in envelopes)
    if not same or Commit.parse(data) != commit:
        raise IntegrityError(f"the documents of part {commit.part} do not read back")
    for folder in sorted({name.name.rpartition("/")[0] for name in commit.files} - {""}):
        storage.sync_folder(part_file(commit.part, folder))
    storage.sync_folder(f"parts/{commit.part}")
    storage.sync_folder("parts")
    for envelope in envelopes:
        storage.put(envelope_name(commit.part, envelope.group), envelope.marshal())
    if not storage.put_new(commit_name(commit.part), data):
        raise IntegrityError(f"part {commit.part} is committed already")


def refuse_digests(state: PublicState, profile: Profile) -> None:
    """Raise UsageError when a part would have to name its parents by digests that its profile
    does not have: an archive of `cnsa2` has no other parts before."""
    for part in state.heads():
        if part.commit.digest not in profile.digests:
            raise UsageError(
                f"part {part.id} of {state.storage.where('')} has digests of"
                f" {part.commit.digest}, which a part of the profile {profile} cannot follow",
                hint="seal to a new archive",
            )


def refuse_unsigned(state: PublicState) -> None:
    """Raise PolicyRefused when the archive has signed parts: what follows must be signed too."""
    signed = [part.id for part in state.ordered() if part.commit.signatures]
    if signed:
        raise PolicyRefused(
            f"{state.storage.where('')} has signed parts, part {signed[-1]} among them, and this"
            " run would add an unsigned one",
            hint="sign with --sign KEY, or pass --allow-unsigned",
        )


def discard(storage: Storage, part: str) -> None:
    """Remove what was written of a part that will not be committed.

    Nothing when its commit is there: an error may come after the commit got its name.
    """
    if storage.exists(commit_name(part)):
        return
    remove_files(storage, part)
    for name in storage.list("envelopes"):
        if name.partition(".")[0] == part:
            storage.remove(f"envelopes/{name}")


def remove_files(storage: Storage, part: str) -> None:
    """Remove the files of a part, and what a write that was cut off left among them."""
    for name in list(storage.walk(f"parts/{part}", leftovers=True)):
        storage.remove(name)
    storage.remove_folder(f"parts/{part}")


def give_up(storage: Storage, part: str) -> None:
    """The same while an error is on its way, which must stay the one reported: what cannot be
    removed is for gc."""
    with suppress(PQVaultError):
        discard(storage, part)
