"""``python -m pqvault_cli``, and the command `pqvault`."""

from __future__ import annotations

import signal
from typing import NoReturn


def program() -> NoReturn:
    """The command, which Ctrl-C ends without a word while there is nothing to put in order."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .main import program as run  # some 60 ms

    run()


if __name__ == "__main__":
    program()
