"""pqvault log recover, expire"""

from __future__ import annotations

from typing import Any

import click

from .main import end_with, fail_with
from .options import Duration, identity_option, load_identities, output_options
from .output import Output, number, size
from .progress import shown
from .signing import sign_option


@click.command(epilog="Example: pqvault log recover serving.pqv -i key.txt")
@click.argument("archive", type=click.Path())
@identity_option
@click.option(
    "--into", type=click.Path(), metavar="ARCHIVE", help="When ARCHIVE is a spill folder."
)
@click.option("--name", metavar="NAME", help="Another table than that of the log.")
@click.option("--damaged", is_flag=True, help="Keep what opens where records in the middle do not.")
@sign_option
@output_options
def recover(
    archive: str,
    identity: tuple[str, ...],
    into: str | None,
    name: str | None,
    damaged: bool,
    sign: Any,
    output: Output,
) -> None:
    """Commit what processes that were killed left of a log.

    Needs an identity that opens all column groups. Parts that a process still writes are left
    alone. What was torn off at the end is counted; it was never acknowledged by a log with
    fsync `flush`.
    """
    from pqvault.logs import recover as run

    identities = load_identities(identity)
    with shown(output, "recover") as progress:
        report = run(
            archive, identities, into=into, table=name, sign=sign, accept_damage=damaged,
            progress=progress,
        )  # fmt: skip
    output.document(report)
    for part in (*report.recovered, *report.empty):
        said = ["complete" if part.complete else "open or cut"]
        said += [f"torn tail of {number(part.torn, 'byte')}"] if part.torn else []
        said += [f"{number(part.unmatched, 'row')} without other columns"] if part.unmatched else []
        said += [f"{number(part.damaged, 'record')} damaged"] if part.damaged else []
        said += [f"{number(part.lost, 'record')} lost by the writer"] if part.lost else []
        output.line(f"{part.part}  {number(part.rows, 'row')}, {', '.join(said)}")
    output.line(
        f"{number(len(report.recovered), 'part')} recovered, {number(report.rows, 'row')};"
        f" {len(report.live)} live, {len(report.empty)} empty"
    )
    end_with(output, report.problems)


@click.command(epilog="Example: pqvault log expire serving.pqv --older-than 90d --dry-run")
@click.argument("archive", type=click.Path())
@click.option(
    "--older-than", type=Duration(), required=True, metavar="90d", help="Parts older than this go."
)
@click.option(
    "--destroy-keys",
    is_flag=True,
    help="Destroy the key versions of months that are over for as long, which reaches backups.",
)
@click.option("--dry-run", is_flag=True, help="Say what would go.")
@output_options
def expire(
    archive: str, older_than: float, destroy_keys: bool, dry_run: bool, output: Output
) -> None:
    """Remove the parts of a log in which everything is older than a time, keys first.

    Needs no key. Copies of the archive keep their envelopes: what reaches those is
    --destroy-keys, where the log was sealed to a key of the month (`key rotate --period month`).
    Parts that hold anything but tables stay.
    """
    from contextlib import ExitStack

    from pqvault.logs import expire as run

    from . import unlocking

    with ExitStack() as stack:
        keystore = stack.enter_context(unlocking.unlocked()) if destroy_keys else None
        report = run(archive, older_than, dry_run=dry_run, keystore=keystore)
    output.document(report)
    verb = "would expire" if dry_run else "expired"
    for part in report.expired:
        output.detail(part)
    for part in report.kept:
        output.warning(
            f"part {part} is as old, and stays: it is no log's, or holds more than tables"
        )
    for part in report.ahead:
        output.warning(f"part {part} is dated in the future, and will not expire before that")
    for part in report.live:
        output.warning(f"part {part} is as old, and a process still writes it")
    for address in report.destroyed:
        output.line(f"{'would destroy' if dry_run else 'destroyed'} {address}")
    output.line(f"{verb} {number(len(report.expired), 'part')}, {size(report.size)}")
    output.failures(report.problems)
    if report.problems:
        fail_with(3)
