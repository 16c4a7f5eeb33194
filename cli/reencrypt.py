"""pqvault reencrypt"""

from __future__ import annotations

from typing import Any

import click

from . import unlocking
from .main import fail_with
from .options import engine_options, jobs_option, load_identities, output_options
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


@click.command(epilog="Example: pqvault reencrypt datasets.pqv -i key.txt --to @team.pub")
@click.argument("archives", nargs=-1, metavar="[ARCHIVE]...", type=click.Path())
@change_options
@policy_options
@click.option(
    "--sign",
    multiple=True,
    metavar="KEY",
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
    mode = chosen_mode(archives, options)
    if mode == "status":
        show_status(output, "reencryptions")
    elif mode == "abandon":
        abandon(output, "reencryptions", "encrypted again")
    elif mode == "resume":
        _resume(output, options)
    elif options["plan"]:
        _plan(archives, output, options)
    else:
        _reencrypt(archives, output, options)


def _reencrypt(archives: tuple[str, ...], output: Output, options: dict[str, Any]) -> None:
    from pqvault.rotation.run import targets_of
    from pqvault.rotation.runs import Run

    keystore = open_keystore()
    change = read_change(options, keystore, new_keys=True)
    identities = load_identities(options["identity"])
    targets = list(targets_of(archives, recursive=options["recursive"]))
    sign = load_signing_keys(options["sign"])
    run = Run.again(targets, change, "reencryptions")
    if run is not None:
        output.line(f"carrying on with {run.id}, which was begun for the same")
    else:
        run = Run.create(
            targets,
            change,
            allow_retired=options["allow_retired"],
            signers=[key.signer.signer_id for key in sign],
            policy=options["policy"],
            kind="reencryptions",
        )
    with run:
        _work(run, identities, sign, keystore, output, options)


def _resume(output: Output, options: dict[str, Any]) -> None:
    from pqvault.rotation.runs import Run, unfinished

    paths = unfinished("reencryptions")
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
    from pqvault.reencrypting import reencrypting

    failure = None
    with shown(output, "reencrypt") as progress:
        opened = reencrypting(
            run,
            identities,
            keystore=keystore,
            allow_rollback=options["allow_rollback"],
            sign=sign,
            warn=unlocking.warn,
            jobs=options["jobs"],
            engine=options["engine"],
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
    if not report.finished and not report.parts:
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


def _plan(archives: tuple[str, ...], output: Output, options: dict[str, Any]) -> None:
    from pqvault.rotation.reencrypt import plan, public_keys
    from pqvault.rotation.run import targets_of

    keystore = open_keystore()
    change = read_change(options, keystore, new_keys=True)
    find = public_keys(load_identities(options["identity"], needed=False), keystore)
    memory = None if options["allow_rollback"] else unlocking.memory()
    problems = 0
    for target in targets_of(archives, recursive=options["recursive"]):
        planned = plan(target, change, find, signs=bool(options["sign"]), memory=memory)
        output.document(planned)
        output.result(plan_line(planned, "part", "encrypted again"))
        if planned.problem is not None:
            problems += 1
            output.failure(planned.problem)
    if problems:
        fail_with(3)
