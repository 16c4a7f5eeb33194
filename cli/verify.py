"""pqvault verify"""

from __future__ import annotations

from typing import Any

import click

from .main import fail_for
from .options import (
    Percent,
    engine_options,
    identity_option,
    jobs_option,
    load_identities,
    memory_option,
    output_options,
)
from .output import Output, number, size
from .progress import shown
from .signing import policy_options


@click.command(epilog="Example: pqvault verify datasets.pqv -i key.txt")
@click.argument("archive", type=click.Path())
@identity_option
@click.option(
    "--sample", type=Percent(), default="100%", metavar="5%", help="Look at a share of the objects."
)
@jobs_option
@memory_option
@policy_options
@engine_options
@output_options
def command(
    archive: str,
    identity: tuple[str, ...],
    sample: float,
    jobs: int | None,
    memory: Any,
    policy: Any,
    engine: Any,
    output: Output,
) -> None:
    """Check an archive and list every bad object.

    Without an identity: every file against its commit (intact: no accident happened, but an
    attacker could have written new digests). With one: every byte (sealed: nothing changed
    since somebody who knew the recipients sealed it). With --signer or --policy, and no need of an
    identity: every part and every file that its signed commit lists (signed by).
    """
    from pqvault import api

    identities = load_identities(identity, needed=False)
    with shown(output, "verify") as progress:
        report = api.verify(
            archive,
            identities=identities,
            sample=sample,
            jobs=jobs,
            memory=memory,
            policy=policy,
            **({} if engine is None else {"engine": engine}),
            progress=progress,
        )
    output.failures(report.problems)
    output.document(report)
    share = "" if report.sample >= 1 else f" (a sample of {100 * report.sample:g} %)"
    found = f"{number(report.parts, 'part')}, {number(report.objects, 'object')}"
    if report.level == "sealed":
        found += f", {number(report.entries, 'entry', 'entries')}, {size(report.size)} of content"
    if report.tables:
        found += f", {number(report.tables, 'table file')}"
    for unread in report.unread:
        output.warning(f"{unread}: no identity fits, so only its digest was checked")
    level = report.level
    if report.signed_by:
        by = f"signed by {', '.join(report.signed_by)}"
        level = by if level == "intact" else f"{level}, {by}"
    if report.problems:
        output.line(f"bad: {number(len(report.problems), 'problem')} in {found}{share}")
        fail_for(report.problems)
    output.line(f"{level}: {found}{share}")
    if report.wrapped_by:
        output.line(f"envelopes signed by {', '.join(report.wrapped_by)}")
