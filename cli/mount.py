"""pqvault mount"""

from __future__ import annotations

import signal
from typing import Any

import click

from .options import (
    as_of_option,
    identity_option,
    load_identities,
    memory_option,
    output_options,
)
from .output import Output
from .signing import policy_options


@click.command(epilog="Example: mkdir view && pqvault mount datasets.pqv view -i key.txt")
@click.argument("archive", type=click.Path())
@click.argument("folder", type=click.Path())
@identity_option
@as_of_option
@click.option("--allow-other", is_flag=True, help="Other users may read it too.")
@memory_option
@policy_options
@output_options
def command(
    archive: str,
    folder: str,
    identity: tuple[str, ...],
    as_of: str | None,
    allow_other: bool,
    memory: Any,
    policy: Any,
    output: Output,
) -> None:
    """Show an archive as a read-only folder (FUSE), for programs that know only paths.

    Runs until FOLDER is unmounted (`umount FOLDER`, or Ctrl-C here). Nothing is extracted: what a
    program reads is decrypted and checked when it reads it. Tables are not shown.
    """
    from pqvault import api
    from pqvault.integrations import mount

    mount.check(folder)  # before a passphrase is asked for
    with api.open(
        archive,
        identities=load_identities(identity),
        as_of=as_of,
        memory=memory,
        policy=policy,
    ) as opened:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.default_int_handler:
                signal.signal(number, signal.SIG_DFL)  # else libfuse would not hear of it
        output.line(f"{archive} is in {folder} until it is unmounted: umount {folder}")
        mount.mount(opened, folder, allow_other=allow_other, warn=output.warning)
