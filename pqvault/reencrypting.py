"""`pqvault.reencrypt` as a function: archives, sealed streams and the keystore together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pqvault.archive.engine import Engine
from pqvault.arguments import (
    Identities,
    Recipients,
    SigningKeys,
    StrPath,
    to_identities,
    to_recipients,
    to_signing_keys,
)
from pqvault.keys import Identity, Recipient
from pqvault.keystore import Keystore
from pqvault.policy import ANYBODY, Policy
from pqvault.progress import Progress, ignore
from pqvault.rotation.change import resolve
from pqvault.rotation.ledger import open_ledger
from pqvault.rotation.reencrypt import JOBS, ReencryptReport, ReencryptRun, public_keys
from pqvault.rotation.run import left_out, targets_of
from pqvault.rotation.runs import Run
from pqvault.signing import SigningKey

__all__ = ["reencrypt", "reencrypting"]


def reencrypt(
    archives: StrPath | Sequence[StrPath],
    *,
    identities: Identities,
    to: Recipient | str | None = None,
    add: Recipients = (),
    remove: Sequence[str] = (),
    keystore: Keystore | None = None,
    recursive: bool = False,
    allow_retired: bool = False,
    sign: SigningKeys = (),
    policy: Policy = ANYBODY,
    jobs: int | None = None,
    engine: Engine | None = None,
    progress: Progress = ignore,
) -> ReencryptReport:
    """Give every part of archives, and sealed streams, a new root key: their content is decrypted
    and encrypted again, without being decompressed.

    ``identities`` open them. Without ``to``, ``add`` and ``remove`` (key ids) the same recipients
    stay, but for older versions of keys of ``keystore``, which give way to the newest. Public keys
    are looked up in ``identities``, ``to``, ``add`` and ``keystore``. ``sign``: signing keys,
    objects or paths of their files, needed for archives that are signed. ``policy``: who must have
    signed what is there. ``jobs``: threads. ``engine``: where parts are encrypted, by default
    worker processes when they are large; `pqvault.integrations.ray.RayEngine` is another.

    May be interrupted at any time: each part is the old or the new one, and the same call, or
    `pqvault reencrypt --resume`, carries on. Raises Incomplete when some failed (a single one of
    which nothing was done: its own error), NoKeyFits, IntegrityError, KeyStateForbids when a new
    root key would go to a compromised key, PolicyRefused for signed archives without ``sign`` and
    for retired keys, UsageError when a public key is not known, Locked.
    """
    named = [archives] if isinstance(archives, str | os.PathLike) else list(archives)
    mine = to_identities(identities)
    keys = to_signing_keys(sign)
    change = resolve(
        to=None if to is None else to_recipients([to])[0],
        add=to_recipients(add),
        remove=remove,
        mine=mine,
        keystore=keystore,
        new_keys=True,
    )
    targets = list(targets_of(named, recursive=recursive))
    run = Run.again(
        targets, change, "reencryptions", allow_retired=allow_retired, policy=policy
    ) or Run.create(
        targets,
        change,
        allow_retired=allow_retired,
        signers=[key.signer.signer_id for key in keys],
        policy=policy,
        kind="reencryptions",
    )
    opened = reencrypting(
        run, mine, sign=keys, keystore=keystore, jobs=jobs, engine=engine, progress=progress
    )
    with run, opened as work:
        work.report.warnings += left_out(named, targets, recursive=recursive)
        return work.run()


@contextmanager
def reencrypting(
    run: Run,
    identities: Sequence[Identity],
    *,
    keystore: Keystore | None = None,
    allow_rollback: bool = False,
    sign: Sequence[SigningKey] = (),
    warn: Callable[[str], None] = lambda _: None,
    jobs: int | None = None,
    engine: Engine | None = None,
    progress: Progress = ignore,
) -> Iterator[ReencryptRun]:
    """A run of :func:`reencrypt`, not yet begun: its ``report`` can be read after an error."""
    if keystore is not None:
        run.change = run.change.today(keystore.list())
    with open_ledger(keystore, allow_rollback=allow_rollback, warn=warn) as ledger:
        yield ReencryptRun(
            run,
            identities,
            public_keys(identities, keystore),
            ledger=ledger,
            sign=sign,
            jobs=jobs or JOBS,
            engine=engine,
            progress=progress,
        )
