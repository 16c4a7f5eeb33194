"""`pqvault.prune` and `pqvault.compact` as functions."""

from __future__ import annotations

from pqvault.archive import prune as pruning
from pqvault.archive.compact import LARGE, Compaction, CompactReport
from pqvault.archive.prune import PruneReport
from pqvault.archive.tasks import jobs_of
from pqvault.arguments import (
    Identities,
    Recipients,
    SigningKeys,
    StrPath,
    to_identities,
    to_recipients,
    to_signing_keys,
)
from pqvault.keys import Recipient
from pqvault.keystore import Keystore
from pqvault.memory import Memory
from pqvault.policy import ANYBODY, Policy
from pqvault.progress import Progress, ignore
from pqvault.rotation.reencrypt import public_keys
from pqvault.storage import storage_at

__all__ = ["compact", "prune"]


def prune(
    archive: StrPath,
    *,
    identities: Identities,
    keep_last: int | None = None,
    keep_within: float | None = None,
    dry_run: bool = False,
    memory: Memory | None = None,
    policy: Policy = ANYBODY,
) -> PruneReport:
    """Forget old states of an archive: remove the parts that no kept state needs.

    Kept are the newest ``keep_last`` states, and those of the last ``keep_within`` seconds with the
    one that was the newest then; the newest always. `gc` frees the space after its grace. Raises
    UsageError when neither is given, what `open` raises, and Locked.
    """
    return pruning.prune(
        storage_at(archive),
        to_identities(identities),
        keep_last=keep_last,
        keep_within=keep_within,
        dry_run=dry_run,
        memory=memory,
        policy=policy,
    )


def compact(
    archive: StrPath,
    *,
    identities: Identities,
    recipients: Recipients = (),
    keystore: Keystore | None = None,
    keep_last: int | None = None,
    keep_within: float | None = None,
    large: int = LARGE,
    sign: SigningKeys = (),
    dry_run: bool = False,
    memory: Memory | None = None,
    policy: Policy = ANYBODY,
    jobs: int | None = None,
    progress: Progress = ignore,
) -> CompactReport:
    """Merge parts that follow each other; what the archive holds stays the same.

    The states that ``keep_last`` and ``keep_within`` (seconds) keep stay; by default the newest.
    ``recipients``, ``keystore``: where the public keys of who can open it are looked up, besides
    ``identities``. ``large``: sealed bytes; parts of so much stay. ``sign``: needed for parts that
    are signed. Raises UsageError when a public key is not known, PolicyRefused, Locked.
    """
    mine = to_identities(identities)
    given = {recipient.key_id: recipient for recipient in to_recipients(recipients)}
    find = public_keys(mine, keystore)

    def known(key_id: str) -> Recipient | None:
        return given.get(key_id) or find(key_id)

    storage = storage_at(archive)
    return Compaction(
        storage,
        mine,
        known,
        keep_last=keep_last,
        keep_within=keep_within,
        large=large,
        sign=to_signing_keys(sign),
        policy=policy,
        memory=memory,
        jobs=jobs_of(jobs, storage.requests),
        dry_run=dry_run,
        progress=progress,
    ).run()
