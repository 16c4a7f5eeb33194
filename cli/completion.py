"""pqvault completion"""

from __future__ import annotations

import click


@click.command(epilog='Example: eval "$(pqvault completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that completes commands and options in your shell."""
    from click.shell_completion import get_completion_class

    from .main import cli

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "pqvault", "_PQVAULT_COMPLETE").source())
