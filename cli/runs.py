"""What `rotate` and `reencrypt` have in common: who opens it after, and unfinished runs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from .main import fail_with
from .options import identity_option, load_identities, load_recipients
from .output import Output, number, size, when

if TYPE_CHECKING:
    from pqvault.keystore import Keystore
    from pqvault.rotation.change import Change
    from pqvault.rotation.runs import Kind

__all__ = [
    "abandon",
    "change_options",
    "chosen_mode",
    "open_keystore",
    "plan_line",
    "read_change",
    "show_status",
]

Command = Callable[..., Any]
_OPTIONS = (
    click.option("--to", metavar="KEY", help="Who takes the place of our key, as for seal -r."),
    click.option("--add", multiple=True, metavar="R", help="Who may open it too. Repeatable."),
    click.option(
        "--remove",
        multiple=True,
        metavar="R",
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


def chosen_mode(archives: tuple[str, ...], options: dict[str, Any]) -> str:
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


def read_change(
    options: dict[str, Any], keystore: Keystore | None, *, new_keys: bool = False
) -> Change:
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


def plan_line(planned: Any, what: str = "envelope", verb: str = "rotated") -> str:
    """What would be done with one target. ``what``: is counted; ``verb``: happens to it."""
    path = planned.path
    if planned.problem is not None:
        return f"{path}: cannot be {verb}"
    if not planned.rewrap:
        return f"{path}: nothing to do"
    copy = f", {size(planned.copy)} to copy" if planned.copy else ""
    if planned.now == planned.then and what == "envelope":
        return f"{path}: {number(planned.rewrap, what)} to sign (unverified)"
    change = f"from {', '.join(planned.now)} to {', '.join(planned.then)}"
    return f"{path}: {number(planned.rewrap, what)}{copy}, {change} (unverified)"


def show_status(output: Output, kind: Kind) -> None:
    """Say what is unfinished; ends with 3 if anything is."""
    from pqvault.rotation.runs import look, unfinished

    found = [look(path) for path in unfinished(kind)]
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


def abandon(output: Output, kind: Kind, done: str) -> None:
    """Forget what is unfinished. ``done``: what happened to its targets so far."""
    from pqvault.rotation.runs import Run, unfinished

    for path in unfinished(kind):
        with Run.open(path) as run:
            output.line(f"{run.id} is forgotten; what it has {done} stays {done}")
            run.finish()
