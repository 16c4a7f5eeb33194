"""pqvault audit-log"""

from __future__ import annotations

import json

import click

from .options import output_options
from .output import Output, number, safe, when


@click.group(epilog="Example: pqvault audit-log verify")
def command() -> None:
    """The keystore's audit log: who changed which key when, chained and authenticated."""


@command.command(epilog="Example: pqvault audit-log show --last 10")
@click.option("--last", type=click.IntRange(1), metavar="N", help="Only the newest N entries.")
@output_options
def show(last: int | None, output: Output) -> None:
    """Show the log, oldest entry first. Needs no passphrase; unverified."""
    from pqvault.keystore import Keystore, audit

    with Keystore() as store:
        found = audit.entries(store, last)
    for entry in found:
        output.document(
            {
                "seq": entry.seq,
                "time": entry.time,
                "action": entry.action,
                "subject": entry.subject,
                "detail": json.loads(entry.detail),
                "hash": entry.hash.hex(),
            }
        )
        # Unverified, so it must not drive the terminal.
        text = f"{when(entry.time)}  {entry.action} {entry.subject}  {entry.detail}"
        output.result(f"{entry.seq:>5}  {safe(text)}")


@command.command(epilog="Example: pqvault audit-log head > head.txt")
@output_options
def head(output: Output) -> None:
    """Export the end of the log, vouched for by the keystore. Keep it on another machine.

    `pqvault audit-log verify --head FILE` then notices a log whose end was cut.
    """
    from pqvault.keystore import audit

    from . import unlocking

    with unlocking.unlocked() as store:
        found = audit.export_head(store)
    facts = {"keystore": found.keystore, "seq": found.seq, "hash": found.hash, "time": found.time}
    output.document({**facts, "document": found.marshal().decode()})
    output.result(found.marshal().decode().rstrip("\n"))


@command.command(
    epilog="Example: pqvault audit-log head > head.txt && pqvault audit-log verify --head head.txt"
)
@click.option("--head", "head_file", type=click.Path(), metavar="FILE", help="An exported head.")
@click.option("--no-unlock", is_flag=True, help="Only the chain; an attacker could have made it.")
@output_options
def verify(head_file: str | None, no_unlock: bool, output: Output) -> None:
    """Check that no entry of the log was changed, and none since HEAD is missing."""
    from pqvault.errors import UsageError
    from pqvault.keystore import Keystore, audit

    from . import unlocking

    kept = None
    if head_file is not None:
        try:
            with open(head_file, "rb") as file:
                kept = audit.Head.parse(file.read(1 << 16), f"the audit head {head_file}")
        except OSError as error:
            raise UsageError(
                f"{head_file} cannot be read: {error.strerror}", hint="check the path"
            ) from None
    with Keystore() as store:
        key = None if no_unlock else store.unlock(unlocking.ask).key
        report = audit.verify(store, key, kept)
    output.document(report)
    since = "" if report.since_head is None else f", {report.since_head} since the head"
    output.line(f"{report.level}: {number(report.entries, 'entry', 'entries')}{since}")
