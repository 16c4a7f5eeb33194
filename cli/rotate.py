"""pqvault rotate"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from . import completing, unlocking
from .options import jobs_option, output_options
from .output import Output, number, size
from .runs import Verb, change_options, run_verb
from .signing import load_signing_keys, policy_options


@click.command(epilog="Example: pqvault rotate datasets.pqv -i key.txt --to @team.pub --plan")
@click.argument("archives", nargs=-1, metavar="[ARCHIVE]...", type=click.Path())
@change_options
@policy_options
@click.option(
    "--sign",
    multiple=True,
    metavar="KEY",
    shell_complete=completing.keys_or_files,
    help="Sign the envelopes: a signing key file, or a key of the keystore. Repeatable.",
)
@jobs_option
@output_options
def command(archives: tuple[str, ...], output: Output, **options: Any) -> None:
    """Wrap the root keys of archives and sealed streams anew. Content is not touched.

    Without --to, --add and --remove each key of the keystore gives way to its newest version.
    May be interrupted at any time; --resume carries on. Of an archive only small envelopes are
    written; a sealed stream is copied whole. With --sign each envelope says who wrapped it, and
    one that needs no change is signed as it is. Who had a key that goes may have kept what it
    opened: only `pqvault reencrypt` makes new root keys.
    """
    from pqvault.rotating import rotating

    verb = Verb("rotate", "rotations", "rotated", "envelope", rotating, _plan, _show)
    run_verb(verb, archives, output, options)


def _show(output: Output, report: Any) -> None:
    if not (report.finished or report.rewrapped or report.signed or report.retired):
        return
    targets = number(report.finished, "archive or stream", "archives and streams")
    output.line(
        f"rotated {number(report.rewrapped, 'envelope')} ({report.unchanged:,} unchanged) of"
        f" {targets}: wrote {size(report.written)} in {report.seconds:.1f} s"
    )
    if report.copied:
        output.line(f"copied {size(report.copied)}: a sealed stream is written whole")
    if report.rewrapped and report.new:
        output.line(f"wrapped to {', '.join(report.new)}")
    if report.signed:
        output.line(f"signed {number(report.signed, 'envelope')} by {', '.join(report.signers)}")
    for key_id in report.retired:
        output.line(f"retired {key_id}: `pqvault seal` refuses it here from now on")


def _plan(change: Any, _: Any, options: dict[str, Any]) -> Callable[[str], Any]:
    from pqvault.rotation.run import plan

    sign = load_signing_keys(options["sign"])
    memory = None if options["allow_rollback"] else unlocking.memory()
    return lambda target: plan(target, change, memory, sign=sign, policy=options["policy"])
