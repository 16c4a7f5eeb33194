"""pqvault init"""

from __future__ import annotations

import click

from .options import output_options, profile_option
from .output import Output


@click.command(epilog="Example: pqvault init")
@click.option(
    "--kdf-profile",
    type=click.Choice(["standard", "high"]),
    default="standard",
    show_default=True,
    help="Argon2id: 64 MiB and 3 passes, or 2 GiB and 1 pass (RFC 9106).",
)
@profile_option
@click.option("--empty", is_flag=True, help="Make no key `default`.")
@output_options
def command(kdf_profile: str, profile: str, empty: bool, output: Output) -> None:
    """Make the keystore of this user, with one key `default`.

    After that -i may be left out, and -r takes a key's name. The passphrase is asked for on the
    terminal, or comes from PQVAULT_PASSPHRASE_FILE, _FD or _COMMAND. Nobody can recover it.
    """
    from pqvault import home, passphrases
    from pqvault.errors import UsageError
    from pqvault.keystore import COSTS, Keystore, lifecycle

    from . import unlocking

    if Keystore.exists():
        raise UsageError(
            f"there is a keystore already: {home.keystore()}",
            hint="`pqvault key list` shows it; PQVAULT_HOME names another folder",
        )
    words = unlocking.ask_new("passphrase of the new keystore: ", passphrases.KEYSTORE)
    with Keystore.create(words, cost=COSTS[kdf_profile]) as store:
        made = None if empty else lifecycle.new_key(store, "default", profile=profile)
        facts = {"path": str(store.store.path), "keystore": store.store.meta().keystore}
    if made is not None:
        facts |= {"key": made.address, "key_id": made.version.key_id}
    output.document(facts)
    output.line(f"keystore {facts['path']}")
    if made is not None:
        output.line(f"key {made.address}, id {made.version.key_id}")
    output.line("back it up: `pqvault key backup FILE`; without it or its passphrase all is lost")
