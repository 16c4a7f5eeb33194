"""pqvault attest"""

from __future__ import annotations

import json
from typing import Any

import click

from .options import output_options
from .output import Output
from .progress import shown
from .signing import policy_options, sign_option


@click.command(epilog="Example: pqvault attest release.pqv --signer @sign.pub > release.intoto")
@click.argument("archive", type=click.Path())
@policy_options
@sign_option
@output_options
def command(archive: str, policy: Any, sign: list[Any], output: Output) -> None:
    """Write the signed list of files as an in-toto Statement, for supply-chain tools.

    Every signature and every file is checked first; no identity is needed. With --sign the
    Statement is wrapped in a signed DSSE envelope.
    """
    from pqvault import attestation

    with shown(output, "attest") as progress:
        found = attestation.statement(archive, policy, progress=progress)
    document = attestation.envelope(found, sign) if sign else found
    click.echo(json.dumps(document, indent=None if output.json else 2))
