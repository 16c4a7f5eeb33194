"""pqvault keygen"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import click

from .options import output_options, profile_option
from .output import Output

if TYPE_CHECKING:
    from pqvault.keystore.halves import Private


@click.command(epilog="Example: pqvault keygen -o key.txt")
@click.option(
    "-o",
    "--output-file",
    type=click.Path(),
    metavar="FILE",
    help="Where the identity goes, mode 0600.",
)
@click.option("-y", "--recipient-of", type=click.Path(), metavar="FILE", help="Show its recipient.")
@click.option("--sign", is_flag=True, help="A key that signs, and neither seals nor opens.")
@profile_option
@click.option("-p", "--passphrase", is_flag=True, help="Seal FILE of -o under a passphrase.")
@output_options
def command(
    output_file: str | None,
    recipient_of: str | None,
    sign: bool,
    profile: str,
    passphrase: bool,
    output: Output,
) -> None:
    """Make an identity (a private key) and print its recipient.

    With --sign: a signing key, and its signer is printed. Of the profile `standard` the identity
    has age's form.

    The file is never overwritten. Without -o the identity itself goes to standard output.
    A key of `age-keygen -pq` works too. The passphrase of -p is asked for, or comes from
    PQVAULT_IDENTITY_PASSPHRASE_FILE, _FD or _COMMAND, else from those of PQVAULT_PASSPHRASE.
    """
    from pqvault.errors import UsageError
    from pqvault.keystore.halves import fresh, kind_of

    from . import unlocking

    if recipient_of is not None:
        if output_file is not None:
            raise UsageError("-y shows a recipient and takes no -o")
        if passphrase:
            raise UsageError("-y shows a recipient; -p is for a new identity")
        for key in unlocking.private_keys_in(recipient_of):
            _show(output, key)
        return
    if passphrase and output_file is None:
        raise UsageError("-p seals a file: name it with -o FILE")
    private = fresh(kind_of(profile, sign=sign))
    if output_file == "":
        raise UsageError("FILE of -o has an empty name", hint="is a variable of the shell unset?")
    if output_file is None:
        facts = _facts(private)
        kind = "signing_key" if sign else "identity"
        output.document({**facts, kind: private.text})
        output.result(private.file_text().rstrip("\n"))
        if _is_readable_by_others():
            output.warning(
                "the file behind standard output, which holds the private key now, can be read by"
                " other users: `chmod 600` it, or let -o FILE make it"
            )
        return
    words = None
    if passphrase:
        words = unlocking.ask_new_for(output_file)
    private.save_file(output_file, words)
    _show(output, private)
    output.detail(f"written to {output_file}, readable by you alone; keep a copy in a safe place")


def _is_readable_by_others() -> bool:
    """Whether standard output is a file, and not for its owner alone (ATTACKS row 38)."""
    try:
        mode = os.fstat(1).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & 0o077)


def _facts(key: Private) -> dict[str, str]:
    from pqvault.keys import Identity

    if isinstance(key, Identity):
        return {
            "recipient": key.recipient.text,
            "key_id": key.key_id,
            "profile": key.profile.name,
        }
    return {"signer": key.signer.text, "key_id": key.signer.signer_id, "suite": key.suite}


def _show(output: Output, key: Private) -> None:
    facts = _facts(key)
    output.document(facts)
    output.result(next(iter(facts.values())))
