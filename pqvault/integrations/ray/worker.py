"""What runs on a worker of Ray: one unit of work at a time, with the keys of its objects only."""

from __future__ import annotations

import os
from functools import cache

from pqvault.archive.deal import DigestJob, ObjectJob
from pqvault.archive.objects import Sealed, SealOptions, seal_object, take_digest
from pqvault.crypto.profiles import PROFILES
from pqvault.handover import HandedKey
from pqvault.keys import Identity
from pqvault.storage import Storage

__all__ = ["Worker", "own_identity"]


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


@cache
def own_identity(profile: str) -> Identity:
    """The key pair of this process. Its private half never leaves."""
    return Identity.generate(PROFILES[profile])
