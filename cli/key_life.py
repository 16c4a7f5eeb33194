"""pqvault key new, rotate, suspend, activate, deactivate, compromise, destroy"""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from . import completing
from .options import output_options, profile_option
from .output import Output

if TYPE_CHECKING:
    from pqvault.keystore.lifecycle import Made


def _as_text(ctx: click.Context, param: click.Parameter, value: str) -> str:
    # SQLite takes text; what the locale could not read is in UTF-8, or else shown as such.
    return os.fsencode(value).decode("utf-8", "replace")


reason_option = click.option(
    "--reason",
    default="",
    metavar="TEXT",
    callback=_as_text,
    help="Why, kept in the history and the audit log.",
)


class Moment(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A date, a time (UTC), or a duration from now like 365d; ``never`` is -1. As Unix ms."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        if value == "never":
            return -1
        days = re.fullmatch(r"(\d{1,5})d", str(value))
        if days is not None:
            return int((time.time() + 86_400 * int(days[1])) * 1000)
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time; write 2027-11-30, 365d or never", param, ctx)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


expires_option = click.option(
    "--expires", type=Moment(), metavar="TIME", help="Nothing is sealed to it from then on."
)
pre_active_option = click.option(
    "--pre-active", is_flag=True, help="Not in use until `pqvault key activate`."
)


def told(output: Output, made: Made, did: str) -> None:
    """What became of a version."""
    v = made.version
    output.document(
        {
            "key": made.address,
            "state": str(v.state),
            "key_id": v.key_id,
            "profile": v.profile,
            "changed": made.changed,
            "expires": v.expires,
        }
    )
    output.line(f"{made.address} {did}, id {v.key_id}")


def _expiry(value: int | None) -> int | None:
    return None if value == -1 else value


def _state(pre_active: bool) -> Any:
    from pqvault.keystore import State

    return State.PRE_ACTIVE if pre_active else State.ACTIVE


@click.command(epilog="Example: pqvault key new prod --label team=ml --expires 365d")
@click.argument("name")
@click.option("--sign", is_flag=True, help="A key that signs, and neither seals nor opens.")
@profile_option
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Repeatable.")
@expires_option
@pre_active_option
@reason_option
@output_options
def new(
    name: str,
    sign: bool,
    profile: str,
    labels: tuple[str, ...],
    expires: int | None,
    pre_active: bool,
    reason: str,
    output: Output,
) -> None:
    """Make a key, version 1. All versions of a key have one profile."""
    from pqvault.keystore import lifecycle
    from pqvault.keystore.edits import labels_from
    from pqvault.keystore.halves import kind_of

    from . import unlocking

    with unlocking.unlocked() as store:
        made = lifecycle.new_key(
            store,
            name,
            profile=kind_of(profile, sign=sign),
            state=_state(pre_active),
            labels=labels_from(labels),
            expires=_expiry(expires),
            reason=reason or "new",
        )
    told(output, made, f"is {made.version.state}")


@click.command(epilog="Example: pqvault key rotate default --reason 'once a year'")
@click.argument("name", shell_complete=completing.keys)
@click.option(
    "--period", default="", metavar="month|YYYY-MM", help="A version for a month, made once."
)
@expires_option
@pre_active_option
@reason_option
@output_options
def rotate(
    name: str, period: str, expires: int | None, pre_active: bool, reason: str, output: Output
) -> None:
    """Make a new version that seals from now on; the one before only opens.

    Labels and floors are the key's and stay; when a version expires is its own, and said with
    --expires. With --period month it may run every day: destroying the version of a month then
    erases what was sealed to it in backups too.
    """
    from pqvault.keystore import lifecycle

    from . import unlocking

    with unlocking.unlocked() as store:
        made = lifecycle.rotate(
            store,
            name,
            period=period,
            state=_state(pre_active),
            expires=_expiry(expires),
            reason=reason,
        )
        before = store.store.versions(made.name)[-2:][0]
    if made.changed and expires is None and before.expires is not None:
        output.warning(
            f"{made.address} never expires, and {name}@{before.version} did: `pqvault key expire"
            f" {made.address} 365d` sets when; --expires says it at once, or never"
        )
    told(output, made, f"is {made.version.state}" if made.changed else "is there already")


def _mover(name: str, target: str, example: str, text: str) -> click.Command:
    @click.command(name, epilog=f"Example: {example}", help=text)
    @click.argument("key", metavar="NAME[@VERSION]", shell_complete=completing.keys)
    @reason_option
    @output_options
    def move(key: str, reason: str, output: Output) -> None:
        from pqvault.keystore import State, lifecycle

        from . import unlocking

        with unlocking.unlocked() as store:
            made = lifecycle.change_state(store, key, State(target), reason)
        told(output, made, f"is {target}")

    return move


suspend = _mover(
    "suspend",
    "suspended",
    "pqvault key suspend default --reason 'laptop missing'",
    "Neither seal to a version nor open with it, until it is activated again.",
)
activate = _mover(
    "activate",
    "active",
    "pqvault key suspend default && pqvault key activate default",
    "Let a pre-active or suspended version seal and open.",
)
deactivate = _mover(
    "deactivate",
    "deactivated",
    "pqvault key deactivate default --reason 'project ended'",
    "Let a version only open from now on. There is no way back: rotate instead.",
)
compromise = _mover(
    "compromise",
    "compromised",
    "pqvault key compromise default --reason 'found in a log'",
    "Mark a version as known to others.\n\nIt still opens, with a warning. What was sealed to it "
    "needs new root keys, not only a new wrapping.",
)


@click.command(
    epilog="Example: pqvault key new old && pqvault key deactivate old && pqvault key destroy old"
)
@click.argument("key", metavar="NAME[@VERSION]", shell_complete=completing.keys)
@click.option("--force", is_flag=True, help="Although archives that are known depend on it.")
@reason_option
@output_options
def destroy(key: str, force: bool, reason: str, output: Output) -> None:
    """Erase the private key of a version for ever; its record stays.

    Refused while an archive is known that it opens. Copies of the keystore made before, such as
    backups, still hold the private key.
    """
    from pqvault.keystore import lifecycle

    from . import unlocking

    with unlocking.unlocked() as store:
        lost = lifecycle.dependants_of(store, key) if force else []
        made = lifecycle.destroy(store, key, reason, force=force)
    for dependant in lost:
        output.warning(f"{made.address} no longer opens {dependant.path}")
    told(output, made, "is destroyed")
