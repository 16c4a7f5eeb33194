"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pqvault.errors import UsageError

from . import completing
from .hidden import seen
from .output import Output

if TYPE_CHECKING:
    from pqvault.keys import Identity, Recipient

__all__ = [
    "Duration",
    "Percent",
    "Size",
    "as_of_option",
    "engine_options",
    "identity_option",
    "jobs_option",
    "keep_options",
    "load_identities",
    "load_recipients",
    "memory_option",
    "output_options",
    "profile_option",
    "recipient_options",
    "use_kem_provider",
    "without_keystore",
]

Command = TypeVar("Command", bound=Callable[..., Any])


class Size(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """``4MiB``, ``256K``, ``65536``; K, M, G without i are powers of 1,024 too, as in dd."""

    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d{1,18})\s*([kmg]?)(i?b?)", str(value).strip(), re.IGNORECASE)
        if match is None:
            self.fail(f"{value!r} is no size; write it like 4MiB or 256K", param, ctx)
        power = " kmg".index(match[2].lower() or " ")
        return int(match[1]) << 10 * power


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """``7d``, ``12h``, ``30m``, ``45s``; seconds without a unit."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw]?)", str(value).strip())
        if match is None:
            self.fail(f"{value!r} is no duration; write it like 7d or 12h", param, ctx)
        seconds = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
        return float(match[1]) * seconds[match[2]]


class Percent(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """``5%`` as 0.05."""

    name = "percent"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)%", str(value).strip())
        if match is None or not 0 < float(match[1]) <= 100:
            self.fail(f"{value!r} is no share; write it like 5%", param, ctx)
        return float(match[1]) / 100


def use_kem_provider(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """The callback of ``--kem-provider``: chooses before anything is done."""
    if value is not None:
        from pqvault.providers import use_kem_provider

        use_kem_provider(value)


def output_options(command: Command) -> Command:
    """``--json``, ``-q``, ``-v``; the command gets an :class:`Output` as ``output``."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
    @click.option("-q", "--quiet", is_flag=True, help="Print nothing but results and problems.")
    @click.option("-v", "--verbose", is_flag=True, help="Say more.")
    @click.option(
        "--kem-provider",
        expose_value=False,
        hidden=True,  # `pqvault --help` has it; here it stands for who writes it at the end
        callback=use_kem_provider,
        help="Who does ML-KEM.",
    )
    @wraps(command)
    def wrapped(*args: Any, as_json: bool, quiet: bool, verbose: bool, **kwargs: Any) -> Any:
        output = Output(json=as_json, verbosity=-1 if quiet else int(verbose))
        return command(*args, output=output, **kwargs)

    return wrapped  # type: ignore[return-value]


def identity_option(command: Command) -> Command:
    """``-i FILE``, several times; the command gets paths as ``identity``."""
    decorate = click.option(
        "-i",
        "--identity",
        multiple=True,
        type=click.Path(),
        shell_complete=completing.keys_or_files,
        metavar="FILE",
        help="Identity file or key of the keystore that opens it. When left out: PQVAULT_IDENTITY,"
        " else the keystore. Repeatable.",
    )
    return decorate(command)


def recipient_options(command: Command) -> Command:
    """``-r``, ``-R``; the command gets ``recipient`` and ``recipients_file``."""
    text = click.option(
        "-r",
        "--recipient",
        multiple=True,
        metavar="RECIPIENT",
        shell_complete=completing.recipients,
        help="Who may open it: age1pq1… text, @FILE with one a line, or a key of the keystore"
        " (prod, prod@2). Repeatable.",
    )
    file = click.option(
        "-R",
        "--recipients-file",
        multiple=True,
        type=click.Path(),
        metavar="FILE",
        help="File of recipients, one a line. Repeatable.",
    )
    return text(file(command))


def profile_option(command: Command) -> Command:
    """``--profile``, of a new key; the command gets its name as ``profile``."""
    decorate = click.option(
        "--profile",
        type=click.Choice(["standard", "high", "cnsa2"]),
        default="standard",
        show_default=True,
        help="ML-KEM-768 with X25519; ML-KEM-1024 with P-384; or ML-KEM-1024 alone, of the"
        " algorithms of CNSA 2.0. What is sealed to the key has its profile.",
    )
    return decorate(command)


def memory_option(command: Command) -> Command:
    """``--allow-rollback``; the command gets what the keystore remembers as ``memory``."""

    @click.option(
        "--allow-rollback",
        is_flag=True,
        help="Accept that the archive lacks what the keystore has seen of it, and forget that.",
    )
    @wraps(command)
    def wrapped(*args: Any, allow_rollback: bool, **kwargs: Any) -> Any:
        from . import unlocking

        return command(*args, memory=unlocking.memory(allow_rollback), **kwargs)

    return wrapped  # type: ignore[return-value]


def keep_options(command: Command) -> Command:
    """``--keep-last N``, ``--keep-within 90d``: which states of an archive stay."""
    last = click.option(
        "--keep-last", type=click.IntRange(1), metavar="N", help="Keep the newest N states."
    )
    within = click.option(
        "--keep-within",
        type=Duration(),
        metavar="90d",
        help="Keep the states of so long, and the one that was the newest before.",
    )
    return last(within(command))


def as_of_option(command: Command) -> Command:
    """``--as-of PART|TIME``."""
    decorate = click.option(
        "--as-of",
        metavar="PART|TIME",
        help="As the archive was then; a time is UTC unless it says otherwise.",
    )
    return decorate(command)


def jobs_option(command: Command) -> Command:
    """``--jobs N``."""
    decorate = click.option(
        "--jobs",
        type=click.IntRange(1, 256),
        metavar="N",
        help="Threads to work with [default: the processors, at most 4; at a URL twice that].",
    )
    return decorate(command)


def engine_options(command: Command) -> Command:
    """``--engine``, ``--ray-address``; the command gets an `Engine` as ``engine``, or None."""

    @click.option(
        "--engine",
        type=click.Choice(["threads", "ray"]),
        default="threads",
        show_default=True,
        help="Where the work is done: here, or by workers of Ray that reach the same files.",
    )
    @click.option("--ray-address", metavar="ADDRESS", help="Of the cluster [default: RAY_ADDRESS].")
    @wraps(command)
    def wrapped(*args: Any, engine: str, ray_address: str | None, **kwargs: Any) -> Any:
        here = engine == "threads"
        if here and ray_address is not None:
            raise UsageError("--ray-address goes with --engine ray")
        if here or kwargs.get("status") or kwargs.get("abandon"):  # which start no work
            return command(*args, engine=None, **kwargs)
        with seen():
            from pqvault.integrations.ray import RayEngine

            with RayEngine(kwargs.get("jobs"), ray_address) as ray:
                kwargs["jobs"] = ray.jobs
                return command(*args, engine=ray, **kwargs)

    return wrapped  # type: ignore[return-value]


def load_identities(paths: tuple[str, ...], *, needed: bool = True) -> list[Identity]:
    """From ``-i`` (files, or keys of the keystore), else PQVAULT_IDENTITY, else the keystore.

    Raises UsageError when one is needed and there is none. The keystore is asked only when one
    is needed: its keys are unlocked when they fit an envelope, and not before.
    """
    from . import unlocking

    given = list(paths)
    if not given and os.environ.get("PQVAULT_IDENTITY"):
        given = [os.environ["PQVAULT_IDENTITY"]]
    if not given and needed:
        stored = unlocking.stored_identities()
        if stored is None:
            raise UsageError(
                "no identity is given, and this cannot be opened without one",
                hint="pass the identity file with -i FILE or PQVAULT_IDENTITY; there is no"
                " keystore: `pqvault init` makes one, `pqvault key restore FILE` brings one back",
            )
        return stored
    return [identity for item in given for identity in unlocking.identities_at(item)]


def load_recipients(texts: tuple[str, ...], files: tuple[str, ...]) -> list[Recipient]:
    """From ``-r`` (text, @FILE, or a key of the keystore) and ``-R``, each key once.

    Raises UsageError when there is none, KeyStateForbids for a key that may not seal.
    """
    from pqvault.keys import Recipient

    found: list[Recipient] = []
    for text in texts:
        found += Recipient.load_file(text[1:]) if text.startswith("@") else [_recipient(text)]
    for file in files:
        found += Recipient.load_file(file)
    if not found:
        raise UsageError(
            "no recipient is given, so nobody could open the result",
            hint="name one with -r age1pq1… or -R FILE; `pqvault keygen` makes a key",
        )
    return list(dict.fromkeys(found))


@contextmanager
def without_keystore(text: str) -> Iterator[None]:
    """Say so of what looks like the name of a key, where there is no keystore to look it up."""
    try:
        yield
    except UsageError as error:
        from pqvault import home
        from pqvault.keystore import is_address

        if not is_address(text) or home.has_keystore():
            raise
        raise UsageError(
            error.message,
            hint=f"{error.hint}; there is no keystore {home.keystore()} to have a key named {text}",
        ) from None


def _recipient(text: str) -> Recipient:
    from pqvault import home
    from pqvault.keys import Recipient

    if home.has_keystore():  # else its 50 ms are not spent
        from pqvault.keystore import Keystore, is_address

        if is_address(text):
            with Keystore() as store:
                if not os.path.exists(text) or store.has(text):
                    return store.recipient(text)
    if os.path.exists(text):
        raise UsageError(
            f"-r {text} is the name of a file, and -r takes a recipient's text",
            hint=f"write -r @{text} or -R {text}",
        )
    with without_keystore(text):
        return Recipient.parse(text)
