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
@click.option("-p", "--passphrase", is_flag=True, help="Seal FILE of -o under a passphrase.")
@output_options
def command(
    output_file: str | None, recipient_of: str | None, passphrase: bool, output: Output
) -> None:
    """Make an identity (a private key) in age's form and print its recipient.

    The file is never overwritten. Without -o the identity itself goes to standard output.
    A key of `age-keygen -pq` works too. The passphrase of -p is asked for, or comes from
    PQVAULT_IDENTITY_PASSPHRASE_FILE, _FD or _COMMAND, else from those of PQVAULT_PASSPHRASE.
    """
    from pqvault import passphrases
    from pqvault.errors import UsageError
    from pqvault.keys import Identity

    from . import unlocking

    if recipient_of is not None:
        if output_file is not None:
            raise UsageError("-y shows a recipient and takes no -o")
        if passphrase:
            raise UsageError("-y shows a recipient; -p is for a new identity")
        for identity in unlocking.identities_in(recipient_of):
            _show(output, identity)
        return
    if passphrase and output_file is None:
        raise UsageError("-p seals a file: name it with -o FILE")
    identity = Identity.generate()
    if output_file is None:
        output.document({**_facts(identity), "identity": identity.text})
        output.result(identity.file_text().rstrip("\n"))
        return
    words = None
    if passphrase:
        prefixes = (passphrases.IDENTITY, passphrases.KEYSTORE)
        words = unlocking.ask_new(f"passphrase of {output_file}: ", *prefixes)
    identity.save_file(output_file, words)
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
