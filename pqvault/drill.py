"""A recovery drill: does this backup open that archive? Nothing is changed to find out."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pqvault import api, streams
from pqvault.errors import PolicyRefused, PQVaultError
from pqvault.keys import Identity
from pqvault.keystore import Keystore, Unlocked
from pqvault.keystore.backup import private_copy
from pqvault.keystore.identities import identities_of
from pqvault.policy import ANYBODY, Policy
from pqvault.storage import is_archive
from pqvault.storage.base import explained

__all__ = ["DrillReport", "drill"]


@dataclass(slots=True)
class DrillReport:
    """``keystore``: id of the backup's; ``generation``: of its last change. ``size``: bytes of
    content that were decrypted and checked."""

    backup: str
    archive: str
    keystore: str
    generation: int
    keys: int
    size: int
    problems: list[PQVaultError] = field(default_factory=list)


def drill(
    backup: str | os.PathLike[str],
    archive: str | os.PathLike[str],
    unlock: Callable[[Keystore], Unlocked],
    *,
    sample: float = 1.0,
    policy: Policy = ANYBODY,
    warn: Callable[[str], None] = lambda _: None,
) -> DrillReport:
    """Open ``archive`` with the private keys of ``backup`` and no others, and check its content.

    ``policy``: who must have signed the archive. Raises NoKeyFits when the passphrase or no key
    fits, IntegrityError for a damaged backup, PolicyRefused for a sealed stream under a policy.
    """
    with private_copy(Path(backup)) as locked:
        store = unlock(locked)
        meta = store.verify()
        keys = identities_of(store, warn)
        report = DrillReport(
            str(backup), str(archive), meta.keystore, meta.generation, len(keys), 0
        )
        if is_archive(os.fspath(archive)):
            verified = api.verify(archive, identities=keys, sample=sample, policy=policy)
            report.size, report.problems = verified.size, verified.problems
        elif policy != ANYBODY:
            raise PolicyRefused(f"{archive} is a sealed stream, which carries no signature")
        else:
            report.size = _read(Path(archive), keys)
    return report


class _Nowhere:
    def write(self, data: bytes | memoryview) -> int:
        return len(data)


def _read(path: Path, keys: list[Identity]) -> int:
    with explained("open", str(path)):
        file = path.open("rb")
    with file:
        return streams.decrypt(file, _Nowhere(), keys, what=str(path))
