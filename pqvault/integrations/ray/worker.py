"""What runs on a worker of Ray: one unit of work at a time, with the keys of its objects only."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from pqvault.archive.checks import (
    Checked,
    check_handed,
    check_handed_frames,
    check_sealed,
    entries_in,
)
from pqvault.archive.deal import DigestJob, ObjectJob
from pqvault.archive.extract import Place
from pqvault.archive.extraction import Extracted, extract_handed
from pqvault.archive.handedobjects import Handed
from pqvault.archive.objects import Sealed, SealOptions, seal_object, take_digest
from pqvault.archive.part import OpenPart
from pqvault.archive.sealedfiles import FileKey, renew_file
from pqvault.crypto.profiles import PROFILES
from pqvault.format.commit import PartFile
from pqvault.handover import HandedKey, HandedText
from pqvault.keys import Identity, Recipient
from pqvault.storage import Storage

__all__ = ["HandedWork", "Worker", "own_identity"]


@dataclass(frozen=True, slots=True)
class HandedWork:
    """Objects of a part, a key for each, and what is to be checked in them: paths and ranges."""

    storage: Storage
    part: str
    digest: str
    files: tuple[PartFile, ...]
    keys: tuple[HandedKey, ...]
    what: HandedText

    @classmethod
    def to(
        cls, worker: Recipient, part: OpenPart, numbers: Iterable[int], what: bytes
    ) -> HandedWork:
        """For one worker."""
        files = tuple(part.file(number) for number in sorted(numbers))
        keys = tuple(HandedKey.to(worker, part.key, file.name) for file in files)
        text = HandedText.to(worker, what)
        return cls(part.storage, part.id, part.digest, files, keys, text)

    def opened(self, mine: Identity) -> Handed:
        """As the worker takes it."""
        keys = tuple(key.open(mine) for key in self.keys)
        return Handed(self.storage, self.part, self.digest, self.files, keys)


class Worker:
    """An actor. Its private keys are made here, one for each profile, and never leave."""

    def process(self) -> int:
        """Its process, for who looks at a cluster."""
        return os.getpid()

    def public_key(self, profile: str) -> bytes:
        """What keys for this worker are sealed to."""
        return own_identity(profile).recipient.public_key

    def seal(
        self,
        job: ObjectJob,
        handed: HandedKey,
        profile: str,
        storage: Storage,
        options: SealOptions,
    ) -> Sealed:
        """Seal an object; see `seal_object`."""
        key, context = handed.open(own_identity(profile))
        return seal_object(
            job, handed.name, key, context, storage, handed.part, options, lambda _: None
        )

    def digest(self, job: DigestJob, digest: str) -> Sealed:
        """Take the digest of a file; see `take_digest`."""
        return take_digest(job, digest, lambda: None)

    def check_file(
        self,
        storage: Storage,
        part: str,
        file: PartFile,
        digest: str,
        handed: HandedKey | None,
        profile: str,
    ) -> None:
        """Check a file as it lies in storage; see `check_sealed`."""
        key = handed.open(own_identity(profile)) if handed is not None else None
        check_sealed(storage, part, file, digest, key, lambda _: None)

    def reencrypt(
        self,
        storage: Storage,
        old: HandedKey,
        new: HandedKey,
        profiles: tuple[str, str],
        file: PartFile,
        digest: str,
    ) -> PartFile:
        """Encrypt a file of a part again; see `renew_file`. ``profiles``: of the two keys."""
        keys = _file_key(old, profiles[0]), _file_key(new, profiles[1])
        return renew_file(storage, *keys, file, digest, lambda _: None)

    def check_contents(self, handed: HandedWork, whole: list[int], profile: str) -> Checked:
        """Check the content of entries; see `check_handed`."""
        mine = own_identity(profile)
        entries = entries_in(handed.what.open(mine))
        return check_handed(handed.opened(mine), entries, {*whole}, lambda _: None)

    def extract(self, handed: HandedWork, place: Place, profile: str) -> Extracted:
        """Write files that are extracted; see `extract_files`."""
        mine = own_identity(profile)
        entries = entries_in(handed.what.open(mine))
        return extract_handed(handed.opened(mine), entries, place, lambda _: None)

    def check_frames(self, handed: HandedWork, number: int, profile: str) -> None:
        """Decode the frames of an object; see `SealedReader.check_frames`."""
        mine = own_identity(profile)
        ranges = json.loads(handed.what.open(mine))
        check_handed_frames(handed.opened(mine), number, ranges, lambda: None)


def _file_key(handed: HandedKey, profile: str) -> FileKey:
    return FileKey(handed.part, handed.name, *handed.open(own_identity(profile)))


@cache
def own_identity(profile: str) -> Identity:
    """The key pair of this process. Its private half never leaves."""
    return Identity.generate(PROFILES[profile])
