"""pqvault doctor"""

from __future__ import annotations

import click

from .main import fail_with
from .options import output_options
from .output import Output


@click.command(epilog="Example: pqvault doctor --json")
@output_options
def command(output: Output) -> None:
    """Show versions, CPU features and KEM providers, and run a self-test."""
    from pqvault.doctor import examine

    report = examine()
    output.document(report)
    for title, facts in (
        ("versions", report.versions),
        ("cpu", report.cpu),
        ("kem providers", report.providers),
        ("places", report.places),
        ("self-test", report.checks),
    ):
        output.result(title)
        for key, value in facts.items():
            output.result(f"  {key:<28} {value}")
    if not report.healthy:
        fail_with(1)
