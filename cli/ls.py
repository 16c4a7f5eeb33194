"""pqvault ls"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Any

import click

from .main import end_with
from .options import (
    as_of_option,
    identity_option,
    load_identities,
    memory_option,
    output_options,
)
from .output import Output, safe, when
from .signing import policy_options


@click.command(epilog="Example: pqvault ls -l datasets.pqv -i key.txt 'datasets/**/*.jsonl'")
@click.argument("archive", type=click.Path())
@click.argument("globs", nargs=-1, metavar="[GLOB]...")
@identity_option
@click.option("-l", "--long", "long", is_flag=True, help="Type (T: a table) and mode, size, time.")
@as_of_option
@click.option("--versions", is_flag=True, help="Every version of the paths given, oldest first.")
@memory_option
@policy_options
@output_options
def command(
    archive: str,
    globs: tuple[str, ...],
    identity: tuple[str, ...],
    long: bool,
    as_of: str | None,
    versions: bool,
    memory: Any,
    policy: Any,
    output: Output,
) -> None:
    """List what an archive holds, sorted by path.

    Characters that could deceive a terminal are shown as %XX.
    """
    from pqvault import api
    from pqvault.archive.globs import Globs, nothing_matches
    from pqvault.archive.tableentry import TableEntry
    from pqvault.errors import UsageError

    if versions and not globs:
        raise UsageError("--versions needs a path", hint="name the files whose versions to list")
    selected = Globs(globs, listed=True)
    identities = load_identities(identity)
    with api.open(
        archive, identities=identities, as_of=as_of, strict=False, memory=memory, policy=policy
    ) as opened:
        if versions:
            _versions(opened, globs, output)
            return
        for part, entry in opened.located(globs=selected):
            table = TableEntry(part, entry) if entry.kind.letter == "t" else None
            facts = _facts(entry, part.id)
            if table is not None:
                facts["rows"] = table.doc.rows
            output.document(facts)
            if not long:
                output.result(safe(entry.path))
            else:
                output.result(_long(entry, entry.size if table is None else table.size))
        end_with(output, opened.problems)
        if selected.unmatched:
            raise nothing_matches(selected.unmatched)


def _versions(opened: Any, paths: tuple[str, ...], output: Output) -> None:
    """A line for each version; a path that no part has ever had is an error, unless there are
    parts that could not be read."""
    from pqvault.errors import NotFound

    for given in map(os.fsencode, paths):
        path, found = next((item for item in _each_spelling(opened, given) if item[1]), (given, []))
        if not found and not opened.problems:
            raise NotFound(f"{safe(path)} was never in the archive", hint="see `pqvault ls`")
        for version in found:
            facts = {"part": version.part, "created": version.created}
            entry = version.entry
            removed = {"path": path.strip(b"/"), "kind": None}
            output.document({**(_facts(entry, "") if entry else removed), **facts})
            digest = entry.digest.hex()[:16] if entry and entry.digest else "-"
            what = f"{entry.size:>15,}  {digest:<16}" if entry else f"{'removed':>15}  {'':<16}"
            output.result(f"{version.part}  {when(version.created)} {what}  {safe(path)}")
    end_with(output, opened.problems)


def _each_spelling(opened: Any, given: bytes) -> Iterator[tuple[bytes, list[Any]]]:
    from pqvault.archive.differences import versions
    from pqvault.names import spellings

    for path in spellings(given):
        yield path, list(versions(opened, path.strip(b"/")))


def _facts(entry: Any, part: str) -> dict[str, Any]:
    return {
        "path": entry.path,
        "kind": entry.kind.letter,
        "size": entry.size,
        "mode": entry.mode,
        "mtime_ns": entry.mtime_ns,
        "link": entry.link,
        "digest": entry.digest.hex() if entry.digest is not None else None,
        "part": part,
    }


# A table is none of the kinds that a file system has: its letter stands where theirs do.
_TYPES = {"t": 0, "f": stat.S_IFREG, "h": stat.S_IFREG, "d": stat.S_IFDIR, "l": stat.S_IFLNK}


def _long(entry: Any, size: int) -> str:
    mode = stat.filemode(_TYPES[entry.kind.letter] | entry.mode)
    if entry.kind.letter == "t":
        mode = "T" + mode[1:]
    link = f" -> {safe(entry.link)}" if entry.link is not None else ""
    time = when(entry.mtime_ns // 1_000_000)
    return f"{mode} {size:>15,} {time} {safe(entry.path)}{link}"
