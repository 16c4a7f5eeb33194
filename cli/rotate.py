"""pqvault rotate"""

from __future__ import annotations

from typing import Any

import click

from . import unlocking
from .main import fail_with
from .options import jobs_option, load_identities, output_options
from .output import Output, number, size
from .progress import shown
from .runs import (
    abandon,
    change_options,
    chosen_mode,
    open_keystore,
    plan_line,
    read_change,
    show_status,
)
from .signing import load_signing_keys, policy_options


@click.command(epilog="Example: pqvault rotate datasets.pqv -i key.txt --to @team.pub --plan")
@click.argument("archives", nargs=-1, metavar="[ARCHIVE]...", type=click.Path())
@change_options
@policy_options
@click.option(
    "--sign",
    multiple=True,
    metavar="KEY",
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
    modes = {"resume": _resume, "status": _status, "abandon": _abandon}
    mode = chosen_mode(archives, options)
    if mode:
        modes[mode](output, options)
    elif options["plan"]:
        _plan(archives, output, options)
    else:
        _rotate(archives, output, options)


def _status(output: Output, _: dict[str, Any]) -> None:
    show_status(output, "rotations")


def _abandon(output: Output, _: dict[str, Any]) -> None:
    abandon(output, "rotations", "rotated")


# -- doing it


def _rotate(archives: tuple[str, ...], output: Output, options: dict[str, Any]) -> None:
    from pqvault.rotation.run import targets_of
    from pqvault.rotation.runs import Run

    keystore = open_keystore()
    change = read_change(options, keystore)
    identities = load_identities(options["identity"])
    targets = targets_of(archives, recursive=options["recursive"])
    sign = load_signing_keys(options["sign"])
    created = Run.create(
        targets,
        change,
        allow_retired=options["allow_retired"],
        signers=[key.signer.signer_id for key in sign],
        policy=options["policy"],
    )
    with created as run:
        _work(run, identities, sign, keystore, output, options)


def _resume(output: Output, options: dict[str, Any]) -> None:
    from pqvault.rotation.runs import Run, unfinished

    paths = unfinished()
    if not paths:
        output.line("nothing is unfinished")
        return
    keystore, identities = open_keystore(), load_identities(options["identity"])
    sign = load_signing_keys(options["sign"])
    for path in paths:
        with Run.open(path) as run:
            _work(run, identities, sign, keystore, output, options)


def _work(
    run: Any, identities: Any, sign: Any, keystore: Any, output: Output, options: Any
) -> None:
    from pqvault.errors import PQVaultError
    from pqvault.rotating import rotating

    failure = None
    with shown(output, "rotate", pieces=True) as progress:
        opened = rotating(
            run,
            identities,
            sign=sign,
            keystore=keystore,
            allow_rollback=options["allow_rollback"],
            warn=unlocking.warn,
            jobs=options["jobs"],
            progress=progress,
        )
        with opened as work:
            try:
                work.run()
            except PQVaultError as error:
                failure = error
    report = work.report
    for warning in report.warnings:
        output.warning(warning)
    output.document(report)
    if report.targets > 1:
        output.failures(problem for _, problem in report.failed)
    _show(output, report)
    if failure is not None:
        output.failure(failure)
        fail_with(failure.exit_code)


def _show(output: Output, report: Any) -> None:
    if not (report.finished or report.rewrapped or report.signed):
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


# -- looking


def _plan(archives: tuple[str, ...], output: Output, options: dict[str, Any]) -> None:
    from pqvault.rotation.run import plan, targets_of

    change = read_change(options, open_keystore())
    sign = load_signing_keys(options["sign"])
    memory = None if options["allow_rollback"] else unlocking.memory()
    problems = 0
    for target in targets_of(archives, recursive=options["recursive"]):
        planned = plan(target, change, memory, sign=sign, policy=options["policy"])
        output.document(planned)
        output.result(plan_line(planned))
        if planned.problem is not None:
            problems += 1
            output.failure(planned.problem)
    if problems:
        fail_with(3)
