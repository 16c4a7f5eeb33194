"""pqvault keyset"""

from __future__ import annotations

import re

import click

from . import unlocking
from .main import InOrder
from .options import (
    identity_option,
    load_identities,
    load_recipients,
    output_options,
    recipient_options,
)
from .output import Output, number, when

_FILE = click.argument("keyset", metavar="KEYSET", type=click.Path())


@click.group(cls=InOrder, epilog="Example: pqvault keyset show lake-keys.pqv -i key.txt")
def command() -> None:
    """Master keys for Parquet's own encryption, sealed to recipients.

    For data sets that are written with pyarrow's CryptoFactory or Spark: pqvault.tables.kms is
    the KMS, and a keyset is all that it needs. `pqvault rotate KEYSET` changes its recipients.
    """


@command.command(epilog="Example: pqvault keyset new keys.pqv lake pii -r @team.pub")
@_FILE
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@recipient_options
@click.option("--force", is_flag=True, help="Replace KEYSET: what it wrapped is lost then.")
@output_options
def new(
    keyset: str,
    names: tuple[str, ...],
    recipient: tuple[str, ...],
    recipients_file: tuple[str, ...],
    force: bool,
    output: Output,
) -> None:
    """Make a keyset with a random master key for each NAME. Needs no private key."""
    from pqvault.keyset import Keyset

    recipients = load_recipients(recipient, recipients_file)
    with Keyset.create(keyset, recipients, names, force=force) as made:
        output.document({"path": keyset, "id": made.id, "keys": made.keys})
        output.line(f"{keyset}: keyset {made.id} with {number(len(made.names), 'master key')}")
    unlocking.remember(unlocking.STREAM, keyset, [r.key_id for r in recipients])


@command.command(epilog="Example: pqvault keyset show lake-keys.pqv -i key.txt")
@_FILE
@identity_option
@output_options
def show(keyset: str, identity: tuple[str, ...], output: Output) -> None:
    """List master keys and their versions; never the keys themselves."""
    from pqvault.keyset import Keyset

    with Keyset.open(keyset, load_identities(identity)) as opened:
        output.document({"path": keyset, "id": opened.id, "keys": opened.keys})
        output.line(f"keyset {opened.id}")
        for key in opened.keys:
            state = "  destroyed" if key.destroyed else ""
            output.result(f"{key.name}@{key.version}  {when(key.created)}{state}")


@command.command(epilog="Example: pqvault keyset add lake-keys.pqv logs -i key.txt")
@_FILE
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@identity_option
@output_options
def add(keyset: str, names: tuple[str, ...], identity: tuple[str, ...], output: Output) -> None:
    """Make more master keys. Whoever opens the keyset has them too."""
    from pqvault.keyset import Keyset

    with Keyset.open(keyset, load_identities(identity)) as opened:
        opened.add(*names)
        output.document({"path": keyset, "id": opened.id, "keys": opened.keys})
        output.line(f"{keyset}: made {', '.join(names)}")


@command.command(epilog="Example: pqvault keyset renew lake-keys.pqv pii -i key.txt")
@_FILE
@click.argument("name")
@identity_option
@output_options
def renew(keyset: str, name: str, identity: tuple[str, ...], output: Output) -> None:
    """Make a new version of a master key, which wraps from now on; older ones still open."""
    from pqvault.keyset import Keyset

    with Keyset.open(keyset, load_identities(identity)) as opened:
        version = opened.renew(name)
        output.document({"path": keyset, "name": name, "version": version})
        output.line(f"{keyset}: {name}@{version} wraps from now on")


@command.command(epilog="Example: pqvault keyset rewrap lake-keys.pqv users.parquet -i key.txt")
@_FILE
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path())
@identity_option
@output_options
def rewrap(keyset: str, files: tuple[str, ...], identity: tuple[str, ...], output: Output) -> None:
    """Wrap the keys of Parquet FILEs under the newest versions; the files are not touched.

    For files with external key material (_KEY_MATERIAL_FOR_…), which is replaced whole.
    """
    from pqvault.keyset import Keyset
    from pqvault.tables.kms import Kms

    with Keyset.open(keyset, load_identities(identity)) as opened:
        kms = Kms(opened)
        for file in files:
            count = kms.rotate_material(file)
            output.document({"path": file, "rewrapped": count})
            output.line(f"{file}: {number(count, 'key')} wrapped anew")


@command.command(epilog="Example: pqvault keyset destroy lake-keys.pqv lake@1 --yes -i key.txt")
@_FILE
@click.argument("key", metavar="NAME@VERSION")
@click.option("--yes", is_flag=True, help="Do it: what is wrapped under it is lost.")
@identity_option
@output_options
def destroy(keyset: str, key: str, yes: bool, identity: tuple[str, ...], output: Output) -> None:
    """Forget one version of a master key. Older copies of the keyset still have it."""
    from pqvault.errors import UsageError
    from pqvault.keyset import Keyset

    match = re.fullmatch(r"(.+)@([1-9][0-9]{0,8})", key)
    if match is None:
        raise UsageError(f"{key!r} names no version", hint="write it like pii@1")
    if not yes:
        raise UsageError(
            f"every file whose keys are wrapped under {key} would be lost",
            hint="wrap them anew with `pqvault keyset rewrap`, then add --yes",
        )
    with Keyset.open(keyset, load_identities(identity)) as opened:
        opened.destroy(match[1], int(match[2]))
        output.document({"path": keyset, "destroyed": key})
        output.line(f"{keyset}: {key} is destroyed")
