"""pqvault encrypt"""

from __future__ import annotations

import click

from . import unlocking
from .options import Size, jobs_option, load_recipients, output_options, recipient_options
from .output import Output
from .progress import shown
from .streams import copy


@click.command(
    epilog="Example: pqvault encrypt model.safetensors -o model.safetensors.pqv -R team.pub"
)
@click.argument("source", default="-", metavar="[IN]", type=click.Path())
@click.option(
    "-o", "target", default="-", type=click.Path(), metavar="OUT", help="[default: stdout]"
)
@recipient_options
@click.option(
    "--level", type=click.IntRange(0, 22), default=3, show_default=True, help="zstd; 0 stores."
)
@click.option("--frame", type=Size(), default="4MiB", show_default=True, help="Content of a frame.")
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@jobs_option
@output_options
def command(
    source: str,
    target: str,
    recipient: tuple[str, ...],
    recipients_file: tuple[str, ...],
    level: int,
    frame: int,
    force: bool,
    jobs: int | None,
    output: Output,
) -> None:
    """Seal one file or standard input into a sealed stream, readable at random."""
    from pqvault.streams import encrypt

    recipients = load_recipients(recipient, recipients_file)
    with shown(output, "encrypt") as progress:
        done = copy(
            source,
            target,
            lambda reader, writer: encrypt(
                reader,
                writer,
                recipients,
                level=level,
                frame_size=frame,
                jobs=jobs,
                progress=progress,
            ),
            force=force,
            binary=True,
        )
    if target != "-":
        unlocking.remember(unlocking.STREAM, target, [r.key_id for r in recipients])
        output.document(
            {"output": target, "size": done, "recipients": [r.key_id for r in recipients]}
        )
