"""pqvault key export, import"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from . import completing
from .key_life import reason_option, told
from .options import output_options
from .output import Output

if TYPE_CHECKING:
    from pqvault.keystore.halves import AnyKey

_OPEN = "open one for the command: pqvault key export NAME --fd 3 3> >(…), or use -o FILE"


@click.command(epilog="Example: pqvault key export default --public > default.pub")
@click.argument("key", metavar="NAME[@VERSION]", shell_complete=completing.keys)
@click.option("--public", is_flag=True, help="Its recipient, or signer.")
@click.option(
    "-o",
    "--output-file",
    type=click.Path(),
    metavar="FILE",
    help="The private key, as an identity file sealed under a passphrase.",
)
@click.option(
    "--fd", type=click.IntRange(0, 1 << 20), metavar="N", help="The private key, in clear, there."
)
@output_options
def export(key: str, public: bool, output_file: str | None, fd: int | None, output: Output) -> None:
    """Export a key: its recipient or signer, or its private key under a passphrase of its own.

    The passphrase of FILE is asked for, or comes from PQVAULT_IDENTITY_PASSPHRASE_FILE, _FD or
    _COMMAND, else from those of PQVAULT_PASSPHRASE. `-i FILE` takes FILE as it is.
    """
    from pqvault.errors import UsageError
    from pqvault.keystore import Keystore, transfer
    from pqvault.keystore.halves import public_half

    from . import unlocking

    if public + (output_file is not None) + (fd is not None) != 1:
        raise UsageError("give one of --public, -o FILE and --fd N")
    if public:
        with Keystore() as locked:
            half = locked.exported(key)
        output.document({half.kind: half.text, "key_id": half.key_id})
        output.result(half.text)
        return
    if fd is not None:
        _check_open(fd)  # before the audit log says that the key left
    where = f"descriptor {fd}" if fd is not None else os.path.abspath(str(output_file))
    with unlocking.unlocked() as store:
        private = transfer.export_private(store, key, where)
    if fd is not None:
        with open(fd, "wb", closefd=False) as file:
            file.write(private.file_text().encode())
    elif output_file is not None:
        private.save_file(output_file, unlocking.ask_new_for(output_file))
    output.document({"key": key, "key_id": public_half(private).key_id, "written": where})
    if fd is None:
        output.line(f"{key} is in {where}, under its passphrase")


def _check_open(fd: int) -> None:
    from pqvault.errors import UsageError

    try:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise UsageError(f"descriptor {fd} is not open for writing", hint=_OPEN)
    except OSError as error:
        raise UsageError(f"descriptor {fd} cannot be used: {error.strerror}", hint=_OPEN) from None


@click.command("import", epilog="Example: pqvault key import imported -i key.txt")
@click.argument("name")
@click.option(
    "-i",
    "--identity",
    type=click.Path(),
    metavar="FILE",
    help="Private keys: an identity file of pqvault or `age-keygen -pq`.",
)
@click.option(
    "-R", "--recipients-file", type=click.Path(), metavar="FILE", help="Public keys, one a line."
)
@reason_option
@output_options
def import_(
    name: str, identity: str | None, recipients_file: str | None, reason: str, output: Output
) -> None:
    """Import private keys, or public keys of others to seal to by name.

    Classical keys are refused: a quantum computer opens what is sealed to them.
    """
    from pqvault.errors import UsageError
    from pqvault.keys import Recipient
    from pqvault.keystore import transfer

    from . import unlocking

    if (identity is None) == (recipients_file is None):
        raise UsageError("give one of -i FILE and -R FILE")
    keys: Sequence[AnyKey]
    if identity is not None:
        keys = unlocking.private_keys_in(identity)
    else:
        keys = Recipient.load_file(str(recipients_file))
    with unlocking.unlocked() as store:
        for made in transfer.import_keys(store, name, keys, reason):
            told(output, made, f"is {made.version.state}")
