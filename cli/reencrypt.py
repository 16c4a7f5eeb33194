"""pqvault reencrypt"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from . import completing, unlocking
from .options import engine_options, jobs_option, load_identities, output_options
from .output import Output, number, size
from .runs import Verb, change_options, run_verb
from .signing import policy_options


@click.command(epilog="Example: pqvault reencrypt datasets.pqv -i key.txt --to @team.pub")
@click.argument("archives", nargs=-1, metavar="[ARCHIVE]...", type=click.Path())
@change_options
@policy_options
@click.option(
    "--sign",
    multiple=True,
    metavar="KEY",
    shell_complete=completing.keys_or_files,
    help="Sign the new parts and their envelopes: a signing key file, or a key of the keystore."
    " Repeatable.",
)
@jobs_option
@engine_options
@output_options
def command(archives: tuple[str, ...], output: Output, **options: Any) -> None:
    """Give archives and sealed streams new root keys, for when others may know a private key.

    All content is decrypted and encrypted again, but not decompressed. Part by part: a new one is
    written and read back, then the old one is removed, and `pqvault gc` frees its space after 7
    days. May be interrupted at any time; --resume carries on. Without --to, --add and --remove the
    same recipients stay, and keys of the keystore give way to their newest version. Copies and
    backups made before still open with the old keys.
    """
    from pqvault.reencrypting import reencrypting

    run_verb(
        Verb(
            "reencrypt",
            "reencryptions",
            "encrypted again",
            "part",
            reencrypting,
            _plan,
            _show,
            new_keys=True,
        ),
        archives,
        output,
        options,
    )


def _show(output: Output, report: Any) -> None:
    if not (report.finished or report.parts or report.retired):
        return
    targets = number(report.targets, "archive or stream", "archives and streams")
    output.line(
        f"encrypted {number(report.parts, 'part')} again, {size(report.size)}, in"
        f" {report.seconds:.1f} s; {report.finished:,} of {targets} done"
    )
    if report.parts:
        output.line(f"sealed to {', '.join(report.new)}")
        output.line(
            "the old parts are removed: `pqvault gc` frees their space after 7 days; copies and"
            " backups made before still open with the old keys"
        )
    for key_id in report.retired:
        output.line(f"retired {key_id}: `pqvault seal` refuses it here from now on")


def _plan(change: Any, keystore: Any, options: dict[str, Any]) -> Callable[[str], Any]:
    from pqvault.rotation.reencrypt import plan, public_keys

    find = public_keys(load_identities(options["identity"], needed=False), keystore)
    memory = None if options["allow_rollback"] else unlocking.memory()
    more = {"signs": bool(options["sign"]), "policy": options["policy"], "memory": memory}
    return lambda target: plan(target, change, find, **more)
