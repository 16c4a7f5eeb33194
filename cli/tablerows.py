"""Rows on the terminal, or as JSON lines, CSV or Parquet, to a file or standard output."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import click

from pqvault.errors import UsageError
from pqvault.names import printable

from .output import Output, number
from .streams import standard_output

__all__ = ["rows_options", "show_rows"]

_PAGE = 1000  # rows of which the widths of columns are taken
_WIDEST = 60  # characters of a value that are shown
_ENDINGS = {".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet", ".arrow": "arrow"}


def rows_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``-o``, ``--format``, ``--force``; to be handed to :func:`show_rows`."""
    out = click.option("-o", "out", type=click.Path(), metavar="FILE", help="Write a file.")
    kind = click.option(
        "--format",
        "kind",
        type=click.Choice(["table", "jsonl", "csv", "parquet", "arrow"]),
        help="[default: by the end of FILE, else table]",
    )
    force = click.option("--force", is_flag=True, help="Replace FILE.")
    return out(kind(force(command)))


def show_rows(output: Output, reader: Any, out: str | None, kind: str | None, force: bool) -> None:
    """Write the rows of a stream."""
    from pqvault.tables.rows import write_rows
    from pqvault.wholefile import whole_file

    if kind is None:
        ending = os.path.splitext(out or "")[1].lower()
        kind = _ENDINGS.get(ending, "jsonl" if output.json else "table")
    if out is not None:
        if kind == "table":
            raise UsageError(
                f"{out} does not say how its rows are to be written",
                hint=f"end it with {', '.join(_ENDINGS)}, or give --format",
            )
        with whole_file(out, force=force) as file:
            count = write_rows(reader, kind, file)
        output.document({"output": out, "rows": count})
        output.line(f"wrote {number(count, 'row')} to {out}")
    elif kind == "table":
        _print_table(reader)
    else:
        target = standard_output()
        if kind in ("parquet", "arrow") and target.isatty():
            raise UsageError(f"{kind} is not for a terminal", hint="name a file with -o")
        write_rows(reader, kind, target)
        target.flush()


def _print_table(reader: Any) -> None:
    from pqvault.tables.rows import plain

    names = [_cell(name) for name in reader.schema.names]
    widths: list[int] | None = None
    for batch in reader:
        for at in range(0, len(batch), _PAGE):
            columns = [plain(column) for column in batch.slice(at, _PAGE).columns]
            rows = [[_cell(value) for value in row] for row in zip(*columns, strict=True)]
            if widths is None:
                widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
                _print_row(names, widths)
                _print_row(["-" * width for width in widths], widths)
            for row in rows:
                _print_row(row, widths)
    if widths is None:
        _print_row(names, [len(name) for name in names])


def _print_row(row: list[str], widths: list[int]) -> None:
    cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
    click.echo("  ".join(cells).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False)
    text = printable(value[: 4 * _WIDEST].encode("utf-8", "surrogatepass"))
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"
