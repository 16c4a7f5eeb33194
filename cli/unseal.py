"""pqvault unseal"""

from __future__ import annotations

from typing import Any

import click

from .main import fail_for
from .options import (
    as_of_option,
    engine_options,
    identity_option,
    jobs_option,
    load_identities,
    memory_option,
    output_options,
)
from .output import Output, number, size
from .progress import shown
from .signing import policy_options


@click.command(
    epilog="Example: pqvault unseal datasets.pqv -i key.txt -o restored 'datasets/train/**'"
)
@click.argument("archive", type=click.Path())
@click.argument("globs", nargs=-1, metavar="[GLOB]...")
@click.option(
    "-o", "target", type=click.Path(), metavar="DIR", help="[default: ./NAME, which must not exist]"
)
@identity_option
@as_of_option
@click.option("--force", is_flag=True, help="Replace files that exist in DIR.")
@click.option(
    "--links",
    type=click.Choice(["inside", "as-is"]),
    default="inside",
    show_default=True,
    help="as-is: make symbolic links that leave DIR, too.",
)
@click.option("--preserve-special", is_flag=True, help="Keep setuid, setgid and sticky bits.")
@jobs_option
@engine_options
@memory_option
@policy_options
@output_options
def command(
    archive: str,
    globs: tuple[str, ...],
    target: str | None,
    identity: tuple[str, ...],
    as_of: str | None,
    force: bool,
    links: str,
    preserve_special: bool,
    jobs: int | None,
    engine: Any,
    memory: Any,
    policy: Any,
    output: Output,
) -> None:
    """Extract an archive, or what GLOBs match of it.

    Every file is checked before it appears; nothing is written outside DIR. Globs match whole
    paths as `pqvault ls` prints them, and ** crosses /.
    """
    from pqvault import api
    from pqvault.errors import Incomplete

    identities = load_identities(identity)
    with (
        api.open(
            archive, identities=identities, as_of=as_of, strict=False, memory=memory, policy=policy
        ) as opened,
        shown(output, "unseal") as progress,
    ):
        report = opened.unseal(
            target,
            globs,
            force=force,
            links="as-is" if links == "as-is" else "inside",
            preserve_special=preserve_special,
            jobs=jobs,
            engine=engine,
            progress=progress,
        )
    # Only now: of a catalog that is damaged further on, nothing is known before it is read.
    problems = [*opened.problems, *report.failed]
    for item in report.skipped:
        output.warning(f"skipped {item}")
    output.failures(problems)
    output.document(report)
    if report.tables:
        output.warning(
            f"{number(report.tables, 'table')} written as Parquet, with .parquet behind the name: a"
            " table is values, and the bytes of the file it came from were not kept"
        )
    found = f"{number(report.files, 'file')}, {number(report.folders, 'folder')}"
    found += f", {number(report.links, 'link')}, {size(report.size)}"
    output.line(f"unsealed {found} into {report.target}")
    if problems:
        count = number(len(problems), "problem")
        output.failure(Incomplete(f"{count}, so what was extracted is not all"), 3)
        fail_for(problems)
