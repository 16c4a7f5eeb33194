"""pqvault log pipe"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from . import unlocking
from .log_read import name_option
from .main import fail_with
from .options import Size, load_recipients, output_options, recipient_options
from .output import Output, number
from .signing import sign_option
from .streams import standard_input, standard_output

if TYPE_CHECKING:
    from pqvault.keys import Recipient

_LINE = 512 * 1024 * 1024  # bytes: a line over this is not read as one


class _Group(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    name = "group"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, str]:
        group, equals, file = str(value).partition("=")
        if not equals or not group or not file:
            self.fail(f"{value!r} is no group; write content=FILE", param, ctx)
        return group, file


@click.command(
    epilog='Example: echo \'{"model": "llama", "prompt": "hi"}\' |'
    " pqvault log pipe new-log.pqv -r @key.pub"
)
@click.argument("archive", type=click.Path())
@recipient_options
@click.option(
    "--group",
    "groups",
    multiple=True,
    type=_Group(),
    metavar="content=FILE",
    help="Prompts, responses and what has no column go to the recipients in FILE too, and are"
    " closed to the others.",
)
@name_option
@click.option(
    "--fsync",
    type=click.Choice(["none", "interval", "flush"]),
    default="interval",
    show_default=True,
    help="When lines are safe: when the kernel has them, within a second, before more are read.",
)
@click.option(
    "--when-full",
    type=click.Choice(["block", "drop", "spill"]),
    default="block",
    show_default=True,
    help="What happens when the disk is full or slow: the pipe waits, or lines are dropped and"
    " counted, or they go to --spill.",
)
@click.option("--spill", type=click.Path(), metavar="DIR", help="Folder for --when-full spill.")
@click.option("--part-size", type=Size(), default="1GiB", show_default=True, help="Of one part.")
@click.option(
    "--period",
    type=click.Choice(["hour", "day"]),
    default="hour",
    show_default=True,
    help="A part ends with it, or when it has its size.",
)
@click.option("--tee", is_flag=True, help="Write every line to standard output too.")
@sign_option
@output_options
def pipe(
    archive: str,
    recipient: tuple[str, ...],
    recipients_file: tuple[str, ...],
    groups: tuple[tuple[str, str], ...],
    name: str,
    fsync: str,
    when_full: str,
    spill: str | None,
    part_size: int,
    period: str,
    tee: bool,
    sign: Any,
    output: Output,
) -> None:
    """Seal JSON lines from standard input into a log, until they end or SIGTERM comes.

    Needs no private key. A line that is no JSON object is kept too, as text in `extra`, and
    counted. Recipients that are files are read anew for each part.
    """
    from pqvault.logs import InferenceLog, pipe_lines

    lines = standard_input().fileno()
    if tee:
        standard_output()
    begun: list[InferenceLog] = []

    def sealed_to(texts: tuple[str, ...], files: tuple[str, ...]) -> list[Recipient]:
        found = load_recipients(texts, files)
        for log in begun:  # asked anew for each part: it may be the key of another month by now
            unlocking.remember(log.archive_id, archive, [r.key_id for r in found])
        return found

    log = InferenceLog(
        archive,
        recipients=partial(sealed_to, recipient, recipients_file),
        groups={group: partial(sealed_to, (), (file,)) for group, file in groups},
        name=name,
        sign=sign,
        spill=spill,
        fsync=fsync,
        when_full=when_full,
        block_seconds=1e9,  # whoever writes to the pipe waits, as with every pipe
        part_size=part_size,
        period=period,
    )
    begun.append(log)
    report = pipe_lines(log, lines, longest=_LINE, tee=tee)
    output.document(report)
    output.line(
        f"{number(report.logged, 'record')} sealed in {number(len(report.parts), 'part')},"
        f" {number(report.bad_lines, 'bad line')}, {report.dropped:,} dropped"
    )
    if report.tee_lost:
        output.warning("standard output took no more lines; all of them are in the log")
    if report.bad_lines or report.dropped:
        fail_with(3)
