"""pqvault query"""

from __future__ import annotations

from typing import Any

import click

from .options import (
    as_of_option,
    identity_option,
    load_identities,
    memory_option,
    output_options,
)
from .output import Output
from .signing import policy_options
from .tablerows import rows_options, show_rows


@click.command(epilog="Example: pqvault query tables.pqv 'select count(*) from train' -i key.txt")
@click.argument("archive", type=click.Path())
@click.argument("sql")
@rows_options
@identity_option
@as_of_option
@memory_option
@policy_options
@output_options
def command(
    archive: str,
    sql: str,
    out: str | None,
    kind: str | None,
    force: bool,
    identity: tuple[str, ...],
    as_of: str | None,
    memory: Any,
    policy: Any,
    output: Output,
) -> None:
    """Answer a SELECT over the tables of an archive (needs pqvault[duckdb]: DuckDB).

    Each table is there under its path in double quotes, and under the last component of it
    without its ending where only one table has that. Only what the query needs is decrypted.
    """
    from pqvault import api, tables

    identities = load_identities(identity)
    with (
        api.open(
            archive, identities=identities, as_of=as_of, memory=memory, policy=policy
        ) as opened,
        tables.query(opened, sql) as reader,
    ):
        show_rows(output, reader, out, kind, force)
