"""pqvault key rename, label, expire, floor, passwd"""

from __future__ import annotations

import click

from . import completing
from .key_life import Moment, told
from .options import output_options
from .output import Output


@click.command(epilog="Example: pqvault key rename default prod")
@click.argument("old", shell_complete=completing.keys)
@click.argument("new")
@output_options
def rename(old: str, new: str, output: Output) -> None:
    """Give a key another name."""
    from pqvault.keystore import edits

    from . import unlocking

    with unlocking.unlocked() as store:
        name = edits.rename(store, old, new)
    output.document(name)
    output.line(f"{old} is now {name.name}")


@click.command(epilog="Example: pqvault key label default team=ml env=production")
@click.argument("name", shell_complete=completing.keys)
@click.argument("labels", nargs=-1, metavar="KEY=VALUE...")
@click.option("--remove", multiple=True, metavar="KEY", help="Remove a label. Repeatable.")
@output_options
def label(name: str, labels: tuple[str, ...], remove: tuple[str, ...], output: Output) -> None:
    """Set or remove labels of a key."""
    from pqvault.keystore import edits

    from . import unlocking

    wanted = edits.labels_from(labels)
    with unlocking.unlocked() as store:
        changed = edits.label(store, name, wanted, remove)
    output.document({"name": name, "labels": dict(changed.labels)})
    shown = " ".join(f"{key}={value}" for key, value in changed.labels)
    output.line(f"{name}: {shown or 'no labels'}")


@click.command(epilog="Example: pqvault key expire default 2030-01-01")
@click.argument("key", metavar="NAME[@VERSION]", shell_complete=completing.keys)
@click.argument("moment", type=Moment(), metavar="TIME|never")
@output_options
def expire(key: str, moment: int, output: Output) -> None:
    """Seal nothing to a version from a time on. It still opens."""
    from pqvault.keystore import edits

    from . import unlocking
    from .output import when

    with unlocking.unlocked() as store:
        made = edits.expire(store, key, None if moment == -1 else moment)
    told(output, made, "never expires" if moment == -1 else f"expires {when(moment)}")


@click.command(epilog="Example: pqvault key floor default --seal 1")
@click.argument("name", shell_complete=completing.keys)
@click.option("--seal", type=click.IntRange(1), metavar="N", help="Lowest version that may seal.")
@click.option("--open", "opens", type=click.IntRange(1), metavar="N", help="... that may open.")
@output_options
def floor(name: str, seal: int | None, opens: int | None, output: Output) -> None:
    """Set the lowest versions of a key that may seal and open."""
    from pqvault.errors import UsageError
    from pqvault.keystore import edits

    from . import unlocking

    if seal is None and opens is None:
        raise UsageError("no floor is given", hint="name one with --seal N or --open N")
    with unlocking.unlocked() as store:
        changed = edits.floor(store, name, seal=seal, opens=opens)
    output.document(changed)
    output.line(f"{name}: from {changed.floor_seal} on seals, from {changed.floor_open} on opens")


@click.command(epilog="Example: PQVAULT_NEW_PASSPHRASE_FILE=new.txt pqvault key passwd")
@click.option(
    "--kdf-profile",
    type=click.Choice(["standard", "high"]),
    default="standard",
    show_default=True,
    help="Argon2id: 64 MiB and 3 passes, or 2 GiB and 1 pass (RFC 9106).",
)
@output_options
def passwd(kdf_profile: str, output: Output) -> None:
    """Change the passphrase of the keystore.

    The new one is asked for, or comes from PQVAULT_NEW_PASSPHRASE_FILE, _FD or _COMMAND.
    Whoever has an old copy of the keystore and the old passphrase still opens that copy.
    """
    from pqvault import passphrases
    from pqvault.keystore import COSTS, edits

    from . import unlocking

    with unlocking.unlocked() as store:
        words = unlocking.ask_new("new passphrase: ", passphrases.NEW)
        edits.passwd(store, words, COSTS[kdf_profile])
    output.document({"changed": True, "kdf_profile": kdf_profile})
    output.line("the passphrase is changed")
