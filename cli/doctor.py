"""pqvault doctor"""

from __future__ import annotations

import click

from .main import fail_with
from .options import output_options
from .output import Output, number, size


@click.command(epilog="Example: pqvault doctor --json")
@click.option(
    "--leaks",
    is_flag=True,
    help="Look where host libraries and the system leave plaintext, and say what to set. Exit code"
    " 1 when some lies on a disk that is not encrypted.",
)
@output_options
def command(leaks: bool, output: Output) -> None:
    """Show versions, CPU features and KEM providers, and run a self-test."""
    if leaks:
        show_leaks(output)
        return
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


def show_leaks(output: Output) -> None:
    """Places where plaintext may lie, those that hold some first."""
    from pqvault.leaks import find

    found = find()
    output.document({"leaks": found})
    for leak in found:
        there = (
            f"{number(leak.files, 'file')}, {size(leak.size)}" if leak.files else "nothing there"
        )
        state = "LEAK" if leak.leaking else "open" if leak.open else "ok"
        output.result(f"{state:<4} {leak.place}: {leak.path} ({leak.on or 'none'}, {there})")
        if leak.open:
            output.result(f"     set: {leak.set}")
    if any(leak.leaking for leak in found):
        fail_with(1)
