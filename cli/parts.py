"""pqvault parts"""

from __future__ import annotations

from typing import Any

import click

from .main import end_with
from .options import identity_option, load_identities, memory_option, output_options
from .output import Output, number, size, when
from .signing import policy_options


@click.command(epilog="Example: pqvault parts datasets.pqv")
@click.argument("archive", type=click.Path())
@identity_option
@memory_option
@policy_options
@output_options
def command(
    archive: str, identity: tuple[str, ...], memory: Any, policy: Any, output: Output
) -> None:
    """List the parts of an archive: seq, time, size, entries, level of proof, recipients.

    Without an identity everything shown is unverified, but for signatures of --signer or --policy.
    """
    from pqvault import api

    identities = load_identities(identity, needed=False)
    facts, problems = api.parts(archive, identities=identities, memory=memory, policy=policy)
    for part in facts:
        output.document(part)
        entries = "-" if part.entries is None else number(part.entries, "entry", "entries")
        profile = part.envelope.profile if part.envelope else "-"
        output.result(
            f"{part.seq:>4}  {when(part.created)}  {size(part.size):>8}  {entries:>14}"
            f"  {part.level:<10}  {profile:<8}  {part.part}"
        )
        for kem, key_id in part.envelope.recipients if part.envelope else ():
            output.result(f"      to {key_id}  {kem}")
        for envelope in part.groups:
            for kem, key_id in envelope.recipients:
                output.result(f"      column group {envelope.group} to {key_id}  {kem}")
        if part.envelope:
            _signatures(output, "envelope ", part.envelope)
        _signatures(output, "", part)
    end_with(output, problems)


def _signatures(output: Output, what: str, document: Any) -> None:
    if document.signed_by:
        output.result(f"      {what}signed by {', '.join(document.signed_by)}")
        return
    for signer in document.signers:
        output.result(f"      {what}signature of {signer}, not checked")
