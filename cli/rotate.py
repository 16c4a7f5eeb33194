"""pqvault rotate"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import click

from . import unlocking
from .main import fail_with
from .options import (
    identity_option,
    jobs_option,
    load_identities,
    load_recipients,
    output_options,
)
from .output import Output, number, size, when
from .progress import shown
from .signing import load_signing_keys, policy_options

if TYPE_CHECKING:
    from pqvault.keystore import Keystore
    from pqvault.rotation.change import Change


@click.command(epilog="Example: pqvault rotate datasets.pqv -i key.txt --to @team.pub --plan")
@click.argument("archives", nargs=-1, metavar="[ARCHIVE]...", type=click.Path())
@click.option("--to", metavar="KEY", help="Who takes the place of our key, as for seal -r.")
@click.option("--add", multiple=True, metavar="R", help="Who may open it too. Repeatable.")
@click.option(
    "--remove",
    multiple=True,
    metavar="R",
    help="Who is taken off, as for -r or a key id; retired in the archive. Repeatable.",
)
@identity_option
@click.option("--recursive", is_flag=True, help="All archives and .pqv files below folders.")
@click.option("--plan", is_flag=True, help="Say what would be done. Needs no private key.")
@click.option("--resume", is_flag=True, help="Carry on with what is unfinished.")
@click.option("--status", is_flag=True, help="Say what is unfinished; exit code 3 if anything is.")
@click.option("--abandon", is_flag=True, help="Forget what is unfinished.")
@click.option(
    "--allow-retired", is_flag=True, help="Wrap to a key that is retired; it no longer is."
)
@click.option("--allow-rollback", is_flag=True, help="Accept an archive that lacks what was seen.")
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
    from pqvault.errors import UsageError
    from pqvault.policy import ANYBODY

    modes = [name for name in ("resume", "status", "abandon") if options[name]]
    if modes:
        given = [name for name in ("to", "add", "remove", "plan") if options[name]]
        given += ["policy"] if options["policy"] != ANYBODY else []
        if archives or given or len(modes) > 1:
            raise UsageError(f"--{modes[0]} is about what is unfinished, and goes with no other")
        {"resume": _resume, "status": _status, "abandon": _abandon}[modes[0]](output, options)
    elif not archives:
        raise UsageError("no archive is named", hint="name archives, or folders with --recursive")
    elif options["plan"]:
        _plan(archives, output, options)
    else:
        _rotate(archives, output, options)


# -- what is meant


def _keystore() -> Keystore | None:
    from pqvault.keystore import Keystore

    return Keystore() if Keystore.exists() else None


def _change(options: dict[str, Any], keystore: Keystore | None) -> Change:
    from pqvault.errors import UsageError
    from pqvault.rotation.change import resolve

    to = load_recipients((options["to"],), ()) if options["to"] else [None]
    if len(to) > 1:
        raise UsageError(f"--to {options['to']} names {len(to)} recipients", hint="use --add")
    named = options["identity"] or os.environ.get("PQVAULT_IDENTITY")
    return resolve(
        to=to[0],
        add=load_recipients(options["add"], ()) if options["add"] else (),
        remove=[key_id for text in options["remove"] for key_id in _key_ids(text, keystore)],
        mine=load_identities(options["identity"]) if named else None,
        keystore=keystore,
        signing=bool(options["sign"]),
    )


def _key_ids(text: str, keystore: Keystore | None) -> list[str]:
    """Of ``--remove``: a key of the keystore (all versions, or one), a key id, or as ``-r``."""
    from pqvault.keystore import is_address

    if keystore is not None and is_address(text) and keystore.has(text):
        return keystore.key_ids(text)
    if re.fullmatch(r"[0-9a-f]{32}", text.lower()):
        return [text.lower()]
    return [recipient.key_id for recipient in load_recipients((text,), ())]


# -- doing it


def _rotate(archives: tuple[str, ...], output: Output, options: dict[str, Any]) -> None:
    from pqvault.rotation.run import targets_of
    from pqvault.rotation.runs import Run

    keystore = _keystore()
    change = _change(options, keystore)
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
    keystore, identities = _keystore(), load_identities(options["identity"])
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

    change = _change(options, _keystore())
    sign = load_signing_keys(options["sign"])
    memory = None if options["allow_rollback"] else unlocking.memory()
    problems = 0
    for target in targets_of(archives, recursive=options["recursive"]):
        planned = plan(target, change, memory, sign=sign, policy=options["policy"])
        output.document(planned)
        output.result(_planned(planned))
        if planned.problem is not None:
            problems += 1
            output.failure(planned.problem)
    if problems:
        fail_with(3)


def _planned(planned: Any) -> str:
    path = planned.path
    if planned.problem is not None:
        return f"{path}: cannot be rotated"
    if not planned.rewrap:
        return f"{path}: nothing to do"
    copy = f", {size(planned.copy)} to copy" if planned.copy else ""
    if planned.now == planned.then:
        return f"{path}: {number(planned.rewrap, 'envelope')} to sign (unverified)"
    change = f"from {', '.join(planned.now)} to {', '.join(planned.then)}"
    return f"{path}: {number(planned.rewrap, 'envelope')}{copy}, {change} (unverified)"


def _status(output: Output, options: dict[str, Any]) -> None:
    from pqvault.rotation.runs import look, unfinished

    found = [look(path) for path in unfinished()]
    for status in found:
        output.document(status)
        state = "running" if status.running else "interrupted"
        output.result(
            f"{status.run}  started {when(status.started)}, {state}: {status.done:,} of"
            f" {status.total:,} done, {len(status.failed):,} failed"
        )
        for path, problem in status.failed:
            output.detail(f"  {path}: {problem}")
    if found:
        fail_with(3)
    output.line("nothing is unfinished")


def _abandon(output: Output, options: dict[str, Any]) -> None:
    from pqvault.rotation.runs import Run, unfinished

    for path in unfinished():
        with Run.open(path) as run:
            output.line(f"{run.id} is forgotten; what it has rotated stays rotated")
            run.finish()
