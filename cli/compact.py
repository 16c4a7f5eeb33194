"""pqvault compact"""

from __future__ import annotations

from typing import Any

import click

from .options import (
    Size,
    identity_option,
    jobs_option,
    keep_options,
    load_identities,
    load_recipients,
    memory_option,
    output_options,
    recipient_options,
)
from .output import Output, number, size
from .progress import shown
from .runs import open_keystore
from .signing import policy_options, sign_option


@click.command(epilog="Example: pqvault compact datasets.pqv -i key.txt --keep-last 1 --dry-run")
@click.argument("archive", type=click.Path())
@keep_options
@click.option(
    "--large",
    type=Size(),
    default="1GiB",
    show_default=True,
    metavar="SIZE",
    help="Parts of so much stay as they are, and none is made that is much larger.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be merged.")
@recipient_options
@identity_option
@sign_option
@memory_option
@policy_options
@jobs_option
@output_options
def command(archive: str, output: Output, **options: Any) -> None:
    """Merge parts that follow each other into few; what the archive holds stays the same.

    Of their history only the last state is left: say with --keep-last or --keep-within which states
    are to stay. Content is copied without being decompressed where all of a frame is needed; what
    no entry names any more is left behind. Parts that hold tables, or others can open, stay as they
    are. Who could open the parts can open the new one, and their public keys have to be known: -r
    and -R name those that are neither ours nor in the keystore.
    """
    from pqvault.errors import UsageError
    from pqvault.maintaining import compact

    if options["keep_last"] is None and options["keep_within"] is None:
        raise UsageError(
            "nothing says which states are to be kept",
            hint="--keep-last 1 keeps the newest only; `pqvault parts` lists them",
        )
    given = options.pop("recipient"), options.pop("recipients_file")
    with shown(output, "compact") as progress:
        report = compact(
            archive,
            identities=load_identities(options.pop("identity")),
            recipients=load_recipients(*given) if any(given) else (),
            keystore=open_keystore(),
            progress=progress,
            **options,
        )
    output.document(report)
    for ids in report.merged:
        output.detail(f"{ids[0]} to {ids[-1]}: {number(len(ids), 'part')} into one")
    for part in report.tables:
        output.detail(f"{part}: holds tables")
    if report.tables:
        output.line(f"{number(len(report.tables), 'part')} with tables left as they are")
    if not report.merged:
        output.line("nothing to merge")
    elif report.dry_run:
        output.line(f"would merge {report.parts:,} parts into {report.left:,}")
    else:
        output.line(
            f"merged {report.parts:,} parts into {report.left:,}: {size(report.before)} became"
            f" {size(report.after)}; {size(report.copied)} of content was copied as it was,"
            f" {size(report.recompressed)} compressed anew"
        )
        output.line("`pqvault gc` frees the space of the old parts after 7 days")
