"""What `rotate` and `reencrypt` have in common: all but what they do to one target."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from . import completing, unlocking
from .main import fail_with
from .options import identity_option, load_identities, load_recipients
from .output import Output, number, size, when
from .progress import shown
from .signing import load_signing_keys

if TYPE_CHECKING:
    from pqvault.errors import PQVaultError
    from pqvault.keystore import Keystore
    from pqvault.rotation.change import Change
    from pqvault.rotation.runs import Kind, Run

__all__ = ["Verb", "change_options", "open_keystore", "run_verb"]

Command = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Verb:
    """What differs between `rotate` and `reencrypt`.

    ``done``: happened to a target; ``what``: is counted. ``begin``: the library's run, not yet
    begun. ``plan``: of one target. ``show``: a line or more about a report.
    """

    name: str
    kind: Kind
    done: str
    what: str
    begin: Callable[..., AbstractContextManager[Any]]
    plan: Callable[..., Any]
    show: Callable[[Output, Any], None]
    new_keys: bool = False


_OPTIONS = (
    click.option(
        "--to",
        metavar="KEY",
        shell_complete=completing.recipients,
        help="Who takes the place of our key, as for seal -r.",
    ),
    click.option(
        "--add",
        multiple=True,
        metavar="R",
        shell_complete=completing.recipients,
        help="Who may open it too. Repeatable.",
    ),
    click.option(
        "--remove",
        multiple=True,
        metavar="R",
        shell_complete=completing.recipients,
        help="Who is taken off, as for -r or a key id; retired in the archive. Repeatable.",
    ),
    identity_option,
    click.option("--recursive", is_flag=True, help="All archives and .pqv files below folders."),
    click.option("--plan", is_flag=True, help="Say what would be done. Needs no private key."),
    click.option("--resume", is_flag=True, help="Carry on with what is unfinished."),
    click.option(
        "--status", is_flag=True, help="Say what is unfinished; exit code 3 if anything is."
    ),
    click.option("--abandon", is_flag=True, help="Forget what is unfinished."),
    click.option(
        "--allow-retired", is_flag=True, help="Wrap to a key that is retired; it no longer is."
    ),
    click.option(
        "--allow-rollback", is_flag=True, help="Accept an archive that lacks what was seen."
    ),
)


def change_options(command: Command) -> Command:
    """The options that say what is to change, and what is to be done about unfinished runs."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def run_verb(
    verb: Verb, archives: tuple[str, ...], output: Output, options: dict[str, Any]
) -> None:
    """The whole command: begin, carry on, look or forget, as the options say."""
    mode = _chosen_mode(archives, options)
    if mode == "status":
        _show_status(output, verb.kind)
    elif mode == "abandon":
        _abandon(output, verb)
    elif mode == "resume":
        _resume(verb, output, options)
    elif options["plan"]:
        _plan(verb, archives, output, options)
    else:
        _begin(verb, archives, output, options)


def _begin(verb: Verb, archives: tuple[str, ...], output: Output, options: dict[str, Any]) -> None:
    from pqvault.rotation.runs import Run

    keystore = open_keystore()
    change = _read_change(options, keystore, verb.new_keys)
    identities = load_identities(options["identity"])
    targets = _targets(archives, output, recursive=options["recursive"])
    sign = load_signing_keys(options["sign"])
    run = None
    if verb.new_keys:
        run = Run.again(
            targets,
            change,
            verb.kind,
            allow_retired=options["allow_retired"],
            policy=options["policy"],
        )
    if run is not None:
        output.line(f"carrying on with {run.id}, which was begun for the same")
    else:
        run = Run.create(
            targets,
            change,
            allow_retired=options["allow_retired"],
            signers=[key.signer.signer_id for key in sign],
            policy=options["policy"],
            kind=verb.kind,
        )
    with run:
        code = _work(verb, run, identities, sign, keystore, output, options)
    if code:
        fail_with(code)


def _targets(archives: tuple[str, ...], output: Output, *, recursive: bool) -> list[str]:
    from pqvault.rotation.run import left_out, targets_of

    targets = list(targets_of(archives, recursive=recursive))
    for warning in left_out(archives, targets, recursive=recursive):
        output.warning(warning)
    return targets


def _resume(verb: Verb, output: Output, options: dict[str, Any]) -> None:
    from pqvault.errors import Incomplete, PQVaultError
    from pqvault.rotation.runs import Run, unfinished

    paths, codes = unfinished(verb.kind), list[int]()
    if not paths:
        output.line("nothing is unfinished")
        return
    keystore, identities = open_keystore(), load_identities(options["identity"])
    sign = load_signing_keys(options["sign"])
    for path in paths:
        try:
            with Run.open(path) as run:
                # What was refused is allowed by carrying on with this.
                run.allow_retired |= options["allow_retired"]
                codes.append(_work(verb, run, identities, sign, keystore, output, options))
        except PQVaultError as error:
            # One that is locked, or wants other keys to sign, keeps none of the others.
            output.failure(error)
            codes.append(error.exit_code)
    if any(codes):
        fail_with(codes[0] if len(set(codes)) == 1 else Incomplete.exit_code)


def _work(
    verb: Verb,
    run: Run,
    identities: Any,
    sign: Any,
    keystore: Keystore | None,
    output: Output,
    options: dict[str, Any],
) -> int:
    """The exit code; what failed was said."""
    from pqvault.errors import Incomplete, PQVaultError

    failure = None
    more = {"engine": options["engine"]} if "engine" in options else {}
    with shown(output, verb.name, pieces=not verb.new_keys) as progress:
        opened = verb.begin(
            run,
            identities,
            sign=sign,
            keystore=keystore,
            allow_rollback=options["allow_rollback"],
            warn=unlocking.warn,
            jobs=options["jobs"],
            progress=progress,
            **more,
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
    groups = _grouped(error for _, error in report.failed)
    if report.targets > 1 and (len(groups) > 1 or isinstance(failure, Incomplete)):
        output.failures(groups)
    verb.show(output, report)
    if failure is None:
        return 0
    output.failure(failure)
    return failure.exit_code


def _plan(verb: Verb, archives: tuple[str, ...], output: Output, options: dict[str, Any]) -> None:
    keystore = open_keystore()
    change = _read_change(options, keystore, verb.new_keys)
    look = verb.plan(change, keystore, options)
    problems: list[PQVaultError] = []
    warnings: dict[str, None] = {}
    targets = _targets(archives, output, recursive=options["recursive"])
    for target in targets:
        planned = look(target)
        output.document(planned)
        output.result(_plan_line(planned, verb))
        problems += [planned.problem] if planned.problem is not None else []
        warnings |= dict.fromkeys(planned.warnings)
    for warning in warnings:
        output.warning(warning)
    output.failures(_grouped(problems))
    codes = {problem.exit_code for problem in problems}
    if problems:
        fail_with(codes.pop() if len(problems) == len(targets) and len(codes) == 1 else 3)


def _grouped(errors: Iterable[PQVaultError]) -> list[PQVaultError]:
    """What is not about one target, but a key's state or a passphrase, once for all."""
    from pqvault.errors import KeyStateForbids

    groups: dict[str, list[PQVaultError]] = {}
    for error in errors:
        key = error.key if isinstance(error, KeyStateForbids) else ""
        groups.setdefault(key or error.message, []).append(error)
    return [
        type(first)(f"{first.message} (so it is with {len(others):,} more)", hint=first.hint)
        if others
        else first
        for first, *others in groups.values()
    ]


def _chosen_mode(archives: tuple[str, ...], options: dict[str, Any]) -> str:
    """``resume``, ``status``, ``abandon``, or "" where archives are named. Raises UsageError."""
    from pqvault.errors import UsageError
    from pqvault.policy import ANYBODY

    modes = [name for name in ("resume", "status", "abandon") if options[name]]
    given = [name for name in ("to", "add", "remove", "plan") if options[name]]
    given += ["policy"] if options["policy"] != ANYBODY else []
    if modes and (archives or given or len(modes) > 1):
        raise UsageError(f"--{modes[0]} is about what is unfinished, and goes with no other")
    if not modes and not archives:
        raise UsageError("no archive is named", hint="name archives, or folders with --recursive")
    return modes[0] if modes else ""


def open_keystore() -> Keystore | None:
    """The keystore, locked; None when there is none."""
    from pqvault.keystore import Keystore

    return Keystore() if Keystore.exists() else None


def _read_change(options: dict[str, Any], keystore: Keystore | None, new_keys: bool) -> Change:
    """Of ``--to``, ``--add``, ``--remove`` and ``-i``. ``new_keys``: root keys are made anew."""
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
        new_keys=new_keys,
    )


def _key_ids(text: str, keystore: Keystore | None) -> list[str]:
    """Of ``--remove``: a key of the keystore (all versions, or one), a key id, or as ``-r``."""
    from pqvault.keystore import is_address

    if keystore is not None and is_address(text) and keystore.has(text):
        return keystore.key_ids(text)
    if re.fullmatch(r"[0-9a-f]{32}", text.lower()):
        return [text.lower()]
    return [recipient.key_id for recipient in load_recipients((text,), ())]


def _plan_line(planned: Any, verb: Verb) -> str:
    path = planned.path
    if planned.problem is not None:
        return f"{path}: cannot be {verb.done}"
    if not planned.rewrap:
        return f"{path}: nothing to do"
    count = number(planned.rewrap, verb.what)
    copy = f", {size(planned.copy)} to copy" if planned.copy else ""
    if planned.now == planned.then and not verb.new_keys:
        return f"{path}: {count} to sign (unverified)"
    change = f"from {', '.join(planned.now)} to {', '.join(planned.then)}"
    return f"{path}: {count}{copy}, {change} (unverified)"


def _show_status(output: Output, kind: Kind) -> None:
    """Say what is unfinished; ends with 3 if anything is."""
    from pqvault.rotation.runs import statuses

    found, damaged = statuses(kind)
    output.failures(damaged)
    for status in found:
        output.document(status)
        state = "running" if status.running else "interrupted"
        output.result(
            f"{status.run}  started {when(status.started)}, {state}: {status.done:,} of"
            f" {status.total:,} done, {len(status.failed):,} failed"
        )
        for path, problem in status.failed:
            output.detail(f"  {path}: {problem}")
    if found or damaged:
        fail_with(3 if found else damaged[0].exit_code)
    output.line("nothing is unfinished")


def _abandon(output: Output, verb: Verb) -> None:
    from pqvault.errors import PQVaultError
    from pqvault.rotation.runs import Run, unfinished

    codes = []
    for path in unfinished(verb.kind):
        try:
            with Run.open(path) as run:
                output.line(f"{run.id} is forgotten; what it has {verb.done} stays {verb.done}")
                run.finish()
        except PQVaultError as error:
            # One that is locked, or damaged, keeps none of the others.
            output.failure(error)
            codes.append(error.exit_code)
    if codes:
        fail_with(codes[0])
