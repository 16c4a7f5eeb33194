"""pqvault scan"""

from __future__ import annotations

import click

from .main import fail_for
from .options import output_options
from .output import Output, number


@click.command(epilog="Example: pqvault scan .")
@click.argument("folder", type=click.Path())
@output_options
def command(folder: str, output: Output) -> None:
    """Note in the keystore which keys open the archives and sealed streams below FOLDER.

    `pqvault key destroy` then refuses while one still depends on the key. Sealing notes it too.
    """
    from pqvault import scan

    report = scan.scan(folder)
    for path, keys in report.found:
        output.document({"path": path, "key_ids": keys})
        output.detail(f"{path}  {', '.join(keys)}")
    for warning in report.warnings:
        output.warning(warning)
    output.failures(report.problems)
    gone = f"; {report.gone:,} no longer there" if report.gone else ""
    output.line(f"{number(len(report.found), 'archive or stream', 'archives and streams')}{gone}")
    if report.problems:
        fail_for(report.problems)
