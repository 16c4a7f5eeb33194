"""pqvault cat"""

from __future__ import annotations

import os
import re
from contextlib import suppress
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
from .streams import standard_output

_STEP = 16 * 1024 * 1024  # bytes


def _open(opened: Any, path: str) -> Any:
    """The file of that name, or else the one that `pqvault ls` prints so."""
    from pqvault.errors import NotFound
    from pqvault.names import spellings

    given, *shown = spellings(os.fsencode(path))
    try:
        return opened.open_file(given)
    except NotFound:
        for other in shown:
            with suppress(NotFound):
                return opened.open_file(other)
        raise


class Range(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """``A:B``, B exclusive, either may be empty."""

    name = "range"

    def convert(self, value: object, param: object, ctx: object) -> tuple[int, int | None]:
        match = re.fullmatch(r"(\d{0,18}):(\d{0,18})", str(value))
        if match is None:
            raise click.BadParameter(f"{value!r} is no range; write it like 0:1024, 100: or :100")
        return int(match[1] or 0), int(match[2]) if match[2] else None


@click.command(
    epilog="Example: pqvault cat datasets.pqv datasets/train.jsonl -i key.txt --range :1000"
)
@click.argument("archive", type=click.Path())
@click.argument("path")
@identity_option
@click.option("--range", "span", type=Range(), metavar="A:B", help="Bytes A to B, B exclusive.")
@as_of_option
@memory_option
@policy_options
@output_options
def command(
    archive: str,
    path: str,
    identity: tuple[str, ...],
    span: tuple[int, int | None] | None,
    as_of: str | None,
    memory: Any,
    policy: Any,
    output: Output,
) -> None:
    """Write one file of an archive to standard output, or a range of its bytes.

    Only what is needed is read and decrypted. After an error the output is not all, and the
    exit code says so.
    """
    from pqvault import api

    with api.open(
        archive, identities=load_identities(identity), as_of=as_of, memory=memory, policy=policy
    ) as opened:
        target = standard_output()
        file = _open(opened, path)
        start, stop = span or (0, None)
        end = file.size if stop is None else min(stop, file.size)
        for offset in range(start, end, _STEP):
            target.write(file.pread(offset, min(_STEP, end - offset)))
        target.flush()
