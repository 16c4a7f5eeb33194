"""pqvault keygen"""

from __future__ import annotations

import click

from .options import output_options
from .output import Output


@click.command(epilog="Example: pqvault keygen -o key.txt")
@click.option(
    "-o",
    "--output-file",
    type=click.Path(),
    metavar="FILE",
    help="Where the identity goes, mode 0600.",
)
@click.option("-y", "--recipient-of", type=click.Path(), metavar="FILE", help="Show its recipient.")
@output_options
def command(output_file: str | None, recipient_of: str | None, output: Output) -> None:
    """Make an identity (a private key) in age's form and print its recipient.

    The file is never overwritten. Without -o the identity itself goes to standard output.
    A key of `age-keygen -pq` works too.
    """
    from pqvault.errors import UsageError
    from pqvault.keys import Identity

    if recipient_of is not None:
        if output_file is not None:
            raise UsageError("-y shows a recipient and takes no -o")
        for identity in Identity.load_file(recipient_of):
            _show(output, identity)
        return
    identity = Identity.generate()
    if output_file is None:
        output.document({**_facts(identity), "identity": identity.text})
        output.result(identity.file_text().rstrip("\n"))
        return
    identity.save_file(output_file)
    _show(output, identity)
    output.detail(f"written to {output_file}, readable by you alone; keep a copy in a safe place")


def _facts(identity: object) -> dict[str, str]:
    from pqvault.keys import Identity

    assert isinstance(identity, Identity)
    recipient = identity.recipient
    return {"recipient": recipient.text, "key_id": recipient.key_id}


def _show(output: Output, identity: object) -> None:
    facts = _facts(identity)
    output.document(facts)
    output.result(facts["recipient"])
