"""pqvault log ls, cat, tail"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import click

from .main import end_with
from .options import identity_option, load_identities, memory_option, output_options
from .output import Output, number, size, when
from .signing import policy_options

name_option = click.option(
    "--name", default="inference", show_default=True, metavar="NAME", help="Table of the log."
)


class Moment(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A date or a time; UTC unless it says otherwise."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime:
        from datetime import UTC

        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time; write 2026-11-23 or 2026-11-23T18:00", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _reading(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        output_options,
        policy_options,
        memory_option,
        name_option,
        identity_option,
        click.argument("archive", type=click.Path()),
    ):
        command = option(command)
    return command


def _view(archive: str, identity: tuple[str, ...], name: str, memory: Any, policy: Any) -> Any:
    from pqvault.logs import LogView

    identities = load_identities(identity)
    return LogView(archive, identities, name=name, memory=memory, policy=policy)


def _finish(output: Output, view: Any, *, empty: bool) -> None:
    if empty and not view.problems and not view.parts():
        output.warning(
            f"{view.archive} holds nothing of a log {view.name!r}; `pqvault table ls` lists tables"
        )
    end_with(output, view.problems)


@click.command(epilog="Example: pqvault log ls serving.pqv -i key.txt")
@_reading
def ls(
    archive: str, identity: tuple[str, ...], name: str, memory: Any, policy: Any, output: Output
) -> None:
    """List the parts of a log, those that are still open too.

    `live`: a process on this host writes it. `open or cut`: none does, and nobody can tell
    whether its end is missing; `pqvault log recover` commits it.
    """
    with _view(archive, identity, name, memory, policy) as view:
        parts = view.parts()
        for part in parts:
            output.document(part)
            rows = "" if part.rows is None else f"{part.rows:,}"
            torn = f"  torn tail of {number(part.torn, 'byte')}" if part.torn else ""
            output.result(
                f"{part.part}  {when(part.time)}  {rows:>12} {size(part.size):>9}  "
                f"{part.state}{torn}"
            )
        _finish(output, view, empty=not parts)


@click.command(epilog="Example: pqvault log cat serving.pqv -i key.txt --since 2026-01-01")
@_reading
@click.option("--open", "open_parts", is_flag=True, help="Also parts that have no commit yet.")
@click.option("--since", type=Moment(), metavar="TIME", help="Only from then on.")
@click.option("--until", type=Moment(), metavar="TIME", help="Only before then.")
@click.option("--columns", metavar="A,B", help="Only these columns.")
def cat(
    archive: str,
    identity: tuple[str, ...],
    name: str,
    memory: Any,
    policy: Any,
    output: Output,
    open_parts: bool,
    since: datetime | None,
    until: datetime | None,
    columns: str | None,
) -> None:
    """Write the rows of a log as JSON lines.

    For SQL, `pqvault query ARCHIVE 'select … from inference'`.
    """
    from pqvault.logs import json_lines

    wanted = [name.strip() for name in columns.split(",")] if columns else None
    with _view(archive, identity, name, memory, policy) as view:
        empty = True
        for table in view.rows(open_parts=open_parts, columns=wanted, since=since, until=until):
            empty = False
            for line in json_lines(table):
                click.echo(line)
        _finish(output, view, empty=empty)


@click.command(epilog="Example: pqvault log tail serving.pqv -i key.txt -n 3")
@_reading
@click.option("-n", "count", type=click.IntRange(0), default=10, show_default=True, help="Rows.")
@click.option("-f", "--follow", is_flag=True, help="Go on as rows come, until interrupted.")
def tail(
    archive: str,
    identity: tuple[str, ...],
    name: str,
    memory: Any,
    policy: Any,
    output: Output,
    count: int,
    follow: bool,
) -> None:
    """Write the last rows of a log as JSON lines, those of open parts included."""
    from pqvault.logs import json_lines

    with _view(archive, identity, name, memory, policy) as view:
        last = view.last(count)
        for table in last:
            for line in json_lines(table):
                click.echo(line)
        if follow:
            for table in view.follow():
                for line in json_lines(table):
                    click.echo(line)
        _finish(output, view, empty=not last and not follow)
