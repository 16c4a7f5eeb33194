"""pqvault key unlock-with"""

from __future__ import annotations

import click

from .options import output_options
from .output import Output


@click.command("unlock-with", epilog="Example: pqvault key unlock-with keyring --remove")
@click.argument("way", type=click.Choice(["keyring", "pkcs11"]))
@click.option("--token", metavar="LABEL", help="The token (pkcs11).")
@click.option(
    "--key", default="pqvault", show_default=True, metavar="LABEL", help="Its key, made if needed."
)
@click.option("--remove", is_flag=True, help="Unlock with it no more.")
@output_options
def unlock_with(way: str, token: str | None, key: str, remove: bool, output: Output) -> None:
    """Unlock the keystore with the system's keyring or a PKCS#11 token, besides the passphrase.

    PQVAULT_PKCS11_MODULE names the token's library; its PIN is asked for, or comes from
    PQVAULT_PKCS11_PIN_FILE, _FD or _COMMAND. The passphrase goes on working: keep it.
    """
    from pqvault.errors import UsageError
    from pqvault.keystore import edits

    from . import unlocking

    if way == "pkcs11" and token is None and not remove:
        raise UsageError("which token?", hint="name its label with --token")
    with unlocking.unlocked() as store:
        if remove:
            edits.remove_unlock(store, way)
        elif way == "keyring":
            edits.add_keyring(store)
        else:
            edits.add_token(store, str(token), key)
    output.document({"way": way, "removed": remove})
    output.line(f"the keystore {'no longer unlocks' if remove else 'unlocks'} with the {way}")
