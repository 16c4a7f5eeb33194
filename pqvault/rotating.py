"""`pqvault.rotate` as a function: archives, sealed streams and the keystore together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

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
from pqvault.rotation.run import JOBS, RotateReport, RotateRun, left_out, targets_of
from pqvault.rotation.runs import Run
from pqvault.signing import SigningKey

__all__ = ["rotate", "rotating"]


def rotate(
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
    progress: Progress = ignore,
) -> RotateReport:
    """Wrap the root keys of archives and sealed streams anew; their content is not touched.

    ``identities`` open the envelopes, and ``to`` takes their place in them; ``add`` and
    ``remove`` (key ids) change who else may open. ``keystore``: consulted for compromised keys
    and told what was done. ``recursive``: all archives and ``.pqv`` files below folders.
    ``sign``: signing keys, objects or paths of their files, that sign the envelopes; an envelope
    that is right already is signed as it is. ``policy``: whose signatures commits and envelopes
    must have before they are touched. ``jobs``: threads. May be interrupted at any time: each
    envelope is the old or the new one, and the same call, or `pqvault rotate --resume`, carries on.

    Raises Incomplete when some failed (a single one: its own error), NoKeyFits, IntegrityError,
    KeyStateForbids for compromised keys, PolicyRefused for retired ones and for an envelope that
    is signed when ``sign`` is empty, Locked.
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
        signing=bool(keys),
    )
    targets = list(targets_of(named, recursive=recursive))
    with (
        Run.create(
            targets,
            change,
            allow_retired=allow_retired,
            signers=[key.signer.signer_id for key in keys],
            policy=policy,
        ) as run,
        rotating(run, mine, sign=keys, keystore=keystore, jobs=jobs, progress=progress) as work,
    ):
        work.report.warnings += left_out(named, targets, recursive=recursive)
        return work.run()


@contextmanager
def rotating(
    run: Run,
    identities: Sequence[Identity],
    *,
    sign: Sequence[SigningKey] = (),
    keystore: Keystore | None = None,
    allow_rollback: bool = False,
    warn: Callable[[str], None] = lambda _: None,
    jobs: int | None = None,
    progress: Progress = ignore,
) -> Iterator[RotateRun]:
    """A run of :func:`rotate`, not yet begun: its ``report`` can be read after an error."""
    if keystore is not None:
        run.change = run.change.today(keystore.list())
    with open_ledger(keystore, allow_rollback=allow_rollback, warn=warn) as ledger:
        yield RotateRun(
            run, identities, sign=sign, ledger=ledger, jobs=jobs or JOBS, progress=progress
        )
