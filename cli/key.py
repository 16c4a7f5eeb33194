"""pqvault key"""

from __future__ import annotations

import click

from . import key_edit, key_escrow, key_life, key_move, key_show, key_unlock
from .main import InOrder

_COMMANDS = (
    key_show.list_,
    key_show.show,
    key_life.new,
    key_life.rotate,
    key_life.suspend,
    key_life.activate,
    key_life.deactivate,
    key_life.compromise,
    key_life.destroy,
    key_edit.rename,
    key_edit.label,
    key_edit.expire,
    key_edit.floor,
    key_edit.passwd,
    key_unlock.unlock_with,
    key_move.export,
    key_move.import_,
    key_escrow.backup,
    key_escrow.restore,
    key_escrow.drill,
    key_escrow.split,
    key_escrow.join,
)


@click.group(cls=InOrder, epilog="Example: pqvault key list")
def command() -> None:
    """The keys of the keystore: make, rotate, retire, destroy, export, back up.

    A key is named prod, its versions prod@1, prod@2; a version of a month is logs@2026-11.
    """


for _command in _COMMANDS:
    command.add_command(_command)
