"""pqvault prune"""

from __future__ import annotations

from typing import Any

import click

from .options import (
    identity_option,
    keep_options,
    load_identities,
    memory_option,
    output_options,
)
from .output import Output, number, size
from .signing import policy_options


@click.command(epilog="Example: pqvault prune datasets.pqv -i key.txt --keep-last 10 --dry-run")
@click.argument("archive", type=click.Path())
@keep_options
@click.option("--dry-run", is_flag=True, help="Say what would be removed.")
@identity_option
@memory_option
@policy_options
@output_options
def command(
    archive: str,
    keep_last: int | None,
    keep_within: float | None,
    dry_run: bool,
    identity: tuple[str, ...],
    memory: Any,
    policy: Any,
    output: Output,
) -> None:
    """Forget old states of an archive: parts that no state that is kept needs are removed.

    The newest state, and every other one that is kept, stays just what it is. With both options,
    what either keeps is kept. `pqvault gc` frees the space after 7 days; `pqvault compact` gets at
    what older parts hold besides what is still needed. Logs have `pqvault log expire`.
    """
    from pqvault.maintaining import prune

    report = prune(
        archive,
        identities=load_identities(identity),
        keep_last=keep_last,
        keep_within=keep_within,
        dry_run=dry_run,
        memory=memory,
        policy=policy,
    )
    output.document(report)
    verb = "would remove" if dry_run else "removed"
    for part in report.removed:
        output.detail(f"{verb} {part}")
    needed = f"; {number(len(report.needed), 'older part')} still needed" if report.needed else ""
    output.line(
        f"{verb} {number(len(report.removed), 'part')}, {size(report.size)}; kept"
        f" {number(len(report.kept), 'state')}{needed}"
    )
    if report.removed:
        output.line(_reach(report.opened_by))


def _reach(key_ids: list[str]) -> str:
    """Whether copies and backups are reached: they are when every key that opens them is gone."""
    from pqvault.keystore import Keystore, State

    left = list(key_ids)
    if Keystore.exists():
        with Keystore() as store:
            gone = {facts.key_id for facts in store.list() if facts.state == State.DESTROYED}
        left = [key_id for key_id in key_ids if key_id not in gone]
    if not left:
        return "backups are reached: every key that opens copies of it is destroyed here"
    return (
        f"backups are not reached: copies still open with {', '.join(left)}; only `pqvault key"
        " destroy` of such a key reaches them"
    )
