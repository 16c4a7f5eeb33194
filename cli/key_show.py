"""pqvault key list, show"""

from __future__ import annotations

import time

import click

from . import completing
from .options import output_options
from .output import Output, number, when


@click.command("list", epilog="Example: pqvault key list")
@click.option("--verify", is_flag=True, help="Unlock the keystore and check every row.")
@output_options
def list_(verify: bool, output: Output) -> None:
    """List all key versions. Needs no passphrase; what it shows is then unverified."""
    from pqvault.keystore import Keystore

    from . import unlocking

    with Keystore() as store:
        if verify:
            store.unlock(unlocking.ask).verify()
        found = store.list()
    width = max((len(f.address) for f in found), default=0)
    lines = []
    for f in found:
        if output.json:
            output.document({**_plain(f), "verified": verify})
            continue
        notes = [f"{key}={value}" for key, value in f.labels.items()]
        notes += [f"{_expiry(f.expires)} {when(f.expires)}"] if f.expires is not None else []
        notes += [] if f.profile == "standard" else [f.profile]
        notes += [] if f.private or f.state == "destroyed" else ["public key only"]
        notes += [f.period] if f.period else []
        line = f"{f.address:<{width}}  {f.state:<11}  {f.key_id}  {when(f.created)}"
        lines.append(_safe("  ".join([line, *notes])))
    if lines:
        output.result("\n".join(lines))
    state = "verified" if verify else "unverified; --verify checks"
    output.line(f"{number(len(found), 'key version')} ({state})")


@click.command(epilog="Example: pqvault key show default")
@click.argument("name", metavar="NAME[@VERSION]", shell_complete=completing.keys)
@output_options
def show(name: str, output: Output) -> None:
    """Show a key: its versions, labels, floors, and the history of each version.

    Needs no passphrase; what it shows is unverified.
    """
    from pqvault.keystore import Keystore
    from pqvault.keystore.store import history

    with Keystore() as store:
        histories = history(store, name)
    for f, recipient, steps in histories:
        output.document({**_plain(f), "recipient": recipient, "history": steps, "verified": False})
        output.result(_safe(f"{f.address}  {f.state}  (unverified)"))
        output.result(_safe(f"  key id     {f.key_id}, profile {f.profile}"))
        output.result(f"  recipient  {recipient}")
        expires = "never" if f.expires is None else when(f.expires)
        output.result(f"  made {when(f.created)}, expires {expires}")
        output.result(f"  lowest that seals {f.floor_seal}, that opens {f.floor_open}")
        for key, value in f.labels.items():
            output.result(_safe(f"  label {key}={value}"))
        for step in steps:
            reason = f": {step.reason}" if step.reason else ""
            output.result(_safe(f"  {when(step.time)}  {step.old or 'made'} → {step.new}{reason}"))


def _expiry(moment: int) -> str:
    return "expires" if moment > time.time() * 1000 else "expired"


def _plain(facts: object) -> dict[str, object]:
    from .output import plain

    value = plain(facts)
    assert isinstance(value, dict)
    return value


def _safe(text: str) -> str:
    # Nothing of it is verified: an edited row must not drive the terminal (ATTACKS row 28).
    from pqvault.names import printable

    return printable(text.encode("utf-8", "surrogateescape"))
