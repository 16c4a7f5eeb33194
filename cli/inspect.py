"""pqvault inspect"""

from __future__ import annotations

from typing import Any

import click

from .main import end_with
from .options import output_options
from .output import Output, number, size, when


@click.command(epilog="Example: pqvault inspect datasets.pqv")
@click.argument("path", type=click.Path())
@output_options
def command(path: str, output: Output) -> None:
    """Show what can be read of an archive or a sealed stream without a key.

    Nothing of it is verified: whoever can write the files can write these values too.
    """
    from pqvault.archive.inspect import inspect

    found = inspect(path)
    output.document(found)
    output.result(f"{found.path}: {found.what}, {size(found.size)} sealed (all values unverified)")
    if found.archive is not None:
        output.result(f"archive id  {found.archive}  (unverified)")
    if found.envelope is not None:
        _envelope(output, found.envelope, "")
    for part in found.parts:
        output.result(f"part {part.part}  (unverified)")
        output.result(
            f"  seq {part.seq}, created {when(part.created)}, kind {part.kind}  (unverified)"
        )
        objects = number(part.objects, "object")
        output.result(f"  {size(part.size)} in {objects}, digest {part.digest}  (unverified)")
        for parent in part.parents:
            output.result(f"  follows {parent}  (unverified)")
        if part.envelope is not None:
            _envelope(output, part.envelope, "  ")
        for envelope in part.groups:
            output.result(f"  column group {envelope.group}  (unverified)")
            _envelope(output, envelope, "    ")
    end_with(output, found.problems)


def _envelope(output: Output, envelope: Any, indent: str) -> None:
    head = f"profile {envelope.profile}, generation {envelope.generation}"
    output.result(f"{indent}{head}, wrapped {when(envelope.created)}  (unverified)")
    for kem, key_id in envelope.recipients:
        output.result(f"{indent}recipient {key_id}, {kem}  (unverified)")
    for signer in envelope.signers:
        output.result(f"{indent}envelope signature of {signer}  (unverified)")
