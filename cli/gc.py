"""pqvault gc"""

from __future__ import annotations

import click

from .main import fail_with
from .options import Duration, output_options
from .output import Output, number, size


@click.command(epilog="Example: pqvault gc datasets.pqv --dry-run")
@click.argument("archive", type=click.Path())
@click.option(
    "--older-than",
    type=Duration(),
    default="7d",
    show_default=True,
    metavar="7d",
    help="Only what nothing changed for so long.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be removed.")
@output_options
def command(archive: str, older_than: float, dry_run: bool, output: Output) -> None:
    """Remove leftovers of interrupted seals, and parts that were removed.

    Nothing that a commit names is touched. Needs no key.
    """
    from pqvault import api

    report = api.gc(archive, older_than=older_than, dry_run=dry_run)
    output.document(report)
    for item in report.removed:
        output.detail(item)
    verb = "would remove" if dry_run else "removed"
    output.failures(report.problems)
    kept = f"; {number(len(report.kept), 'file')} too young" if report.kept else ""
    output.line(f"{verb} {number(len(report.removed), 'file')}, {size(report.size)}{kept}")
    if report.problems:
        fail_with(3)
