"""pqvault decrypt"""

from __future__ import annotations

import click

from .options import identity_option, load_identities, output_options
from .output import Output
from .progress import shown
from .streams import copy


@click.command(
    epilog="Example: pqvault decrypt model.safetensors.pqv -o model.safetensors -i key.txt"
)
@click.argument("source", default="-", metavar="[IN]", type=click.Path())
@click.option(
    "-o", "target", default="-", type=click.Path(), metavar="OUT", help="[default: stdout]"
)
@identity_option
@click.option("--raw", is_flag=True, help="zstd frames as they are, for `zstd -d`.")
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@output_options
def command(
    source: str, target: str, identity: tuple[str, ...], raw: bool, force: bool, output: Output
) -> None:
    """Open a sealed stream.

    OUT appears whole or not at all. On standard output an error may come after some bytes:
    what was written is authentic then, but not all, and the exit code is not 0.
    """
    from pqvault.streams import decrypt

    identities = load_identities(identity)
    what = "standard input" if source == "-" else source
    with shown(output, "decrypt", content=target == "-") as progress:
        done = copy(
            source,
            target,
            lambda reader, writer: decrypt(
                reader, writer, identities, raw=raw, progress=progress, what=what
            ),
            force=force,
            binary=raw,
        )
    if target != "-":
        output.document({"output": target, "size": done})
