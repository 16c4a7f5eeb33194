"""``--group NAME=COLUMN,…``: columns for other recipients, those that are named behind it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from pqvault.errors import UsageError

from .options import load_recipients

if TYPE_CHECKING:
    from pqvault.archive.columngroups import ColumnGroup

__all__ = ["GroupedCommand", "group_option"]

_ORDER = "pqvault.order"


class GroupedCommand(click.Command):
    """A command that knows in which order ``--group``, ``-r`` and ``-R`` were given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        values, _, order = self.make_parser(ctx).parse_args(list(args))
        left = {name: iter(found) for name, found in values.items() if isinstance(found, list)}
        ctx.meta[_ORDER] = [
            (parameter.name, next(left[parameter.name]))
            for parameter in order
            if parameter.name in left and isinstance(parameter, click.Option)
        ]
        return super().parse_args(ctx, args)


def group_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option; the command gets ``groups``, and of recipients those before the first one."""

    @click.option(
        "--group",
        multiple=True,
        metavar="NAME=COLUMN,…",
        help="Seal these columns of tables only to the recipients named behind it. Repeatable.",
    )
    @wraps(command)
    def wrapped(*args: Any, group: tuple[str, ...], **kwargs: Any) -> Any:
        order = click.get_current_context().meta[_ORDER]
        kwargs["recipient"], kwargs["recipients_file"] = _before(order)
        return command(*args, groups=_groups(order) if group else [], **kwargs)

    return wrapped


def _before(order: list[tuple[str, str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    at = next((i for i, (name, _) in enumerate(order) if name == "group"), len(order))
    return _of("recipient", order[:at]), _of("recipients_file", order[:at])


def _of(option: str, order: list[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(value for name, value in order if name == option)


def _groups(order: list[tuple[str, str]]) -> list[ColumnGroup]:
    from pqvault.archive.columngroups import ColumnGroup

    starts = [i for i, (name, _) in enumerate(order) if name == "group"]
    found = []
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        name, equals, columns = order[start][1].partition("=")
        if not equals or not all(columns.split(",")):
            raise UsageError(
                f"--group {order[start][1]} is no group", hint="write it like pii=prompt,response"
            )
        own = order[start:end]
        texts, files = _of("recipient", own), _of("recipients_file", own)
        if not texts and not files:
            raise UsageError(
                f"nobody is to open the column group {name!r}",
                hint="name who may behind it: --group pii=prompt -R privacy-team.txt",
            )
        recipients = tuple(load_recipients(texts, files))
        found.append(ColumnGroup(name, tuple(columns.split(",")), recipients))
    return found
