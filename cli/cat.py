"""pqvault cat"""

from __future__ import annotations

import os
import re
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


def _open(archive: str, **options: Any) -> Any:
    """The archive; when a part of it cannot be read, without that: the file may be in another."""
    from pqvault import api
    from pqvault.errors import IntegrityError, NoKeyFits

    try:
        return api.open(archive, **options)
    except (IntegrityError, NoKeyFits):
        return api.open(archive, **options, strict=False)


def _open_file(opened: Any, path: str) -> Any:
    """The file of that name, or else the one that `pqvault ls` prints so. Raises what keeps back
    the part that may hold it, or a newer version of it."""
    from pqvault.errors import NotFound
    from pqvault.names import spellings

    errors = [*opened.problems]
    for name in spellings(os.fsencode(path)):
        try:
            opened.check_newest(name)
            return opened.open_file(name)
        except NotFound as error:
            errors.append(error)
    raise errors[0]


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
    exit code says so. A part that cannot be read keeps back what is in those before it, because
    it may hold something newer; --as-of with one of those gives the file as it was then.
    """
    identities = load_identities(identity)
    with _open(archive, identities=identities, as_of=as_of, memory=memory, policy=policy) as opened:
        target = standard_output()
        file = _open_file(opened, path)
        start, stop = span or (0, None)
        end = file.size if stop is None else min(stop, file.size)
        for offset in range(start, end, _STEP):
            target.write(file.pread(offset, min(_STEP, end - offset)))
        target.flush()
