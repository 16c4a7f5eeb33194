"""pqvault table"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import click

from pqvault.errors import PQVaultError

from . import unlocking
from .groups import GroupedCommand, group_option
from .main import InOrder, end_with
from .options import (
    as_of_option,
    identity_option,
    load_identities,
    load_recipients,
    memory_option,
    output_options,
    recipient_options,
)
from .output import Output, number, safe, size
from .signing import policy_options, sign_option
from .tablerows import rows_options, show_rows

_ARCHIVE = click.argument("archive", type=click.Path())
_NAME = click.argument("table", metavar="NAME")
_COLUMNS = click.option("--columns", metavar="A,B", help="Only these columns.")


@click.group(cls=InOrder, epilog="Example: pqvault table ls tables.pqv -i key.txt")
def command() -> None:
    """Tables of an archive: encrypted Parquet, read without being extracted.

    NAME is the path of a table, or the last component of it without its ending where only one
    table has that. `pqvault seal --tables` makes tables of the files of a folder.
    """


def _reading(command: Callable[..., Any]) -> Callable[..., Any]:
    """What all commands that read take; they get the open archive as ``opened``."""

    @identity_option
    @as_of_option
    @memory_option
    @policy_options
    @output_options
    def wrapped(
        archive: str,
        identity: tuple[str, ...],
        as_of: str | None,
        memory: Any,
        policy: Any,
        output: Output,
        **rest: Any,
    ) -> Any:
        from pqvault import api

        identities = load_identities(identity)
        with api.open(
            archive, identities=identities, as_of=as_of, memory=memory, policy=policy
        ) as opened:
            return command(opened=opened, output=output, **rest)

    wrapped.__doc__ = command.__doc__
    return wrapped


def _columns(text: str | None) -> list[str] | None:
    return text.split(",") if text else None


@command.command("ls", epilog="Example: pqvault table ls tables.pqv -i key.txt")
@_ARCHIVE
@_reading
def ls(opened: Any, output: Output) -> None:
    """List the tables: rows, columns, size, parts, column groups."""
    from pqvault.tables.facts import list_tables

    problems: list[PQVaultError] = []
    for facts in list_tables(opened, problems):
        output.document(facts)
        notes = [f"group {group}" for group in facts.groups]
        notes += [f"without {', '.join(facts.hidden)}"] if facts.hidden else []
        line = (
            f"{number(facts.rows, 'row'):>16}  {number(facts.columns, 'column'):>11}"
            f"  {size(facts.size):>8}  {number(len(facts.parts), 'part'):>8}  {safe(facts.path)}"
        )
        output.result("  ".join([line, *map(safe, notes)]))
    end_with(output, problems)


@command.command("schema", epilog="Example: pqvault table schema tables.pqv train -i key.txt")
@_ARCHIVE
@_NAME
@_reading
def schema(opened: Any, table: str, output: Output) -> None:
    """Show the columns of a table: type, column group, and whether an identity opens it."""
    from pqvault.tables.facts import columns

    found = columns(opened, table)
    width = max(len(safe(column.name)) for column in found)
    for column in found:
        output.document(column)
        notes = [] if column.nullable else ["not null"]
        notes += [f"group {column.group}"] if column.group else []
        notes += [] if column.open else ["no identity opens it"]
        notes += [f"{key}={value}" for key, value in column.metadata.items()]
        words = [f"{safe(column.name):<{width}}", safe(column.type), *map(safe, notes)]
        output.result("  ".join(words))


@command.command("head", epilog="Example: pqvault table head tables.pqv train -n 5 -i key.txt")
@_ARCHIVE
@_NAME
@click.option(
    "-n", "count", type=click.IntRange(0), default=10, show_default=True, help="How many rows."
)
@_COLUMNS
@rows_options
@_reading
def head(
    opened: Any,
    table: str,
    count: int,
    columns: str | None,
    out: str | None,
    kind: str | None,
    force: bool,
    output: Output,
) -> None:
    """Show the first rows of a table."""
    from pqvault import tables

    found = tables.head(opened, table, count, columns=_columns(columns))
    show_rows(output, found.to_reader(), out, kind, force)


@command.command(
    "export", epilog="Example: pqvault table export tables.pqv train -o train.csv -i key.txt"
)
@_ARCHIVE
@_NAME
@_COLUMNS
@rows_options
@_reading
def export(
    opened: Any,
    table: str,
    columns: str | None,
    out: str | None,
    kind: str | None,
    force: bool,
    output: Output,
) -> None:
    """Write all rows of a table as Parquet, Arrow, JSON lines or CSV.

    Columns that no identity opens are left out, and named. In JSON lines and CSV times are
    texts, bytes base64 and decimals texts; Parquet and Arrow keep all types.
    """
    from pqvault import tables

    dataset = tables.dataset(opened, table)
    if dataset.hidden and columns is None:
        output.warning(f"without {safe(', '.join(sorted(dataset.hidden)))}: no identity fits")
    reader = dataset.reader(_columns(columns))
    show_rows(output, reader, out, kind or (None if out else "jsonl"), force)


@command.command(
    "import",
    cls=GroupedCommand,
    epilog="Example: pqvault table import events.jsonl tables.pqv -r @team.pub",
)
@click.argument("file", type=click.Path())
@_ARCHIVE
@click.option("--name", "table", metavar="NAME", help="Of the table [default: that of FILE].")
@recipient_options
@group_option
@click.option("--append", is_flag=True, help="Add to the rows that the table has.")
@click.option(
    "--level", type=click.IntRange(0, 22), default=3, show_default=True, help="zstd; 0 stores."
)
@click.option(
    "--bad-lines", type=click.Path(), metavar="LINES", help="Put lines there that do not parse."
)
@click.option("--allow-retired", is_flag=True, help="Seal to a key that is retired here.")
@memory_option
@policy_options
@sign_option
@output_options
def import_(
    file: str,
    archive: str,
    table: str | None,
    recipient: tuple[str, ...],
    recipients_file: tuple[str, ...],
    groups: Any,
    append: bool,
    level: int,
    bad_lines: str | None,
    allow_retired: bool,
    memory: Any,
    policy: Any,
    sign: Any,
    output: Output,
) -> None:
    """Write a file of Parquet, JSON lines, CSV or Arrow as a table. Needs no private key.

    The table takes the place of one of that name, or with --append is added to it. Recipients
    behind a --group open its columns; those before it do not.
    """
    from pqvault import tables
    from pqvault.archive import layout
    from pqvault.archive.columngroups import everybody
    from pqvault.sources import BadLines
    from pqvault.tables.places import storage_of

    recipients = load_recipients(recipient, recipients_file)
    bad = BadLines(bad_lines) if bad_lines is not None else None
    with bad or nullcontext():
        part, rows, notes = tables.import_table(
            file,
            archive,
            table or "",
            recipients=recipients,
            bad_lines=bad,
            groups=groups,
            mode="append" if append else "replace",
            level=level,
            sign=sign,
            policy=policy,
            allow_retired=allow_retired,
            memory=memory,
        )
    sealed_to = [r.key_id for r in everybody(recipients, groups)]
    unlocking.remember(layout.read_header(storage_of(archive)), archive, sealed_to)
    for note in notes:
        output.warning(safe(note))
    if bad is not None and bad.count:
        output.warning(f"{number(bad.count, 'line')} did not parse and went to {bad.path}")
    output.document({"part": part, "rows": rows, "bad_lines": bad.count if bad else 0})
    output.line(f"wrote {number(rows, 'row')} into {archive}, part {part}")


@command.command("key", epilog="Example: pqvault table key tables.pqv train -i key.txt")
@_ARCHIVE
@_NAME
@_reading
def key(opened: Any, table: str, output: Output) -> None:
    """Print the key and the AAD prefix of each file of a table, in hex.

    With them pyarrow and Polars open the file. They are secret, and for these files they stay
    valid for ever: rotating keys does not take them back.
    """
    from pqvault.tables.facts import file_keys

    for facts in file_keys(opened, table):
        output.document(facts)
        group = f"  group {facts.group}" if facts.group else ""
        output.result(f"{opened.storage.where(facts.file)}{group}")
        output.result(f"  key         {facts.key}")
        output.result(f"  aad prefix  {facts.aad_prefix}")
