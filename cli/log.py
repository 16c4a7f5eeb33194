"""pqvault log"""

from __future__ import annotations

import click

from . import log_keep, log_read, log_write
from .main import InOrder


@click.group(cls=InOrder, epilog="Example: pqvault log ls serving.pqv -i key.txt")
def command() -> None:
    """Inference logs: write, read, recover, expire.

    A serving host writes them with public keys only and cannot read them back.
    """


for _command in (
    log_write.pipe,
    log_read.ls,
    log_read.cat,
    log_read.tail,
    log_keep.recover,
    log_keep.expire,
):
    command.add_command(_command)
