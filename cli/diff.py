"""pqvault diff"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import click

from .main import end_with
from .options import identity_option, load_identities, memory_option, output_options
from .output import Output, safe
from .signing import policy_options

_SIGNS = {"added": "+", "removed": "-", "modified": "M", "metadata": "U", "type": "T"}


@click.command(epilog="Example: pqvault diff datasets.pqv -i key.txt 2999-01-01")
@click.argument("archive", type=click.Path())
@click.argument("old", metavar="PART|TIME")
@click.argument("new", metavar="[PART|TIME]", required=False)
@identity_option
@memory_option
@policy_options
@output_options
def command(
    archive: str,
    old: str,
    new: str | None,
    identity: tuple[str, ...],
    memory: Any,
    policy: Any,
    output: Output,
) -> None:
    """List what changed from one state of an archive to another, by default the newest.

    A state is a part of `pqvault parts` and all before it, or a time. A line for each path:
    + added, - removed, M content changed, U mode or time changed, T another type. Reads no content.
    """
    from pqvault import api
    from pqvault.archive.differences import differences

    identities = load_identities(identity)
    with ExitStack() as stack:
        before, after = (
            stack.enter_context(
                api.open(
                    archive, identities=identities, as_of=as_of, strict=False, memory=memory,
                    policy=policy,
                )
            )
            for as_of in (old, new)
        )  # fmt: skip
        counts = dict.fromkeys(_SIGNS, 0)
        for found in differences(before, after):
            counts[found.change] += 1
            output.document(_facts(found))
            output.result(f"{_SIGNS[found.change]}  {safe(found.path)}")
        said = ", ".join(f"{count:,} {change}" for change, count in counts.items() if count)
        output.line(said or "no difference")
        problems = {error.message: error for error in (*before.problems, *after.problems)}
        end_with(output, [*problems.values()])


def _facts(found: Any) -> dict[str, Any]:
    def of(entry: Any) -> dict[str, Any] | None:
        if entry is None:
            return None
        digest = entry.digest.hex() if entry.digest is not None else None
        facts = {"kind": entry.kind.letter, "size": entry.size, "mode": entry.mode}
        return {**facts, "mtime_ns": entry.mtime_ns, "link": entry.link, "digest": digest}

    sides = {"before": of(found.before), "after": of(found.after)}
    return {"path": found.path, "change": found.change, **sides}
