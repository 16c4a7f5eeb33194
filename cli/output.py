"""How results and errors are shown: text for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click

from pqvault.errors import PQVaultError
from pqvault.names import printable, quiet

__all__ = ["Output", "number", "safe", "size", "when"]


class Output:
    """One renderer for all commands. ``json``: one document, or a line for each item.

    ``verbosity``: -1 quiet, 0, 1 verbose.
    """

    def __init__(self, *, json: bool = False, verbosity: int = 0) -> None:
        self.json = json
        self.verbosity = verbosity

    def line(self, text: str) -> None:
        """Text on standard output, unless JSON or quiet."""
        if not self.json and self.verbosity >= 0:
            click.echo(text)

    def detail(self, text: str) -> None:
        """Text that only -v shows."""
        if self.verbosity > 0:
            self.line(text)

    def result(self, text: str) -> None:
        """What was asked for: shown when quiet too, but not with JSON."""
        if not self.json:
            click.echo(text)

    def document(self, value: object) -> None:
        """A dataclass or a dict, as one line of JSON; nothing without --json."""
        if self.json:
            click.echo(json.dumps(plain(value)))

    def warning(self, text: str) -> None:
        """A sentence on standard error, shown when quiet too: silence means that all is well."""
        self._say({"message_type": "warning", "message": text}, f"pqvault: warning: {quiet(text)}")

    def failure(self, error: PQVaultError, code: int | None = None) -> None:
        """An error on standard error, with its hint."""
        code = error.exit_code if code is None else code
        document = {
            "message_type": "error",
            "code": code,
            "message": error.message,
            "hint": error.hint,
        }
        hint = f"\nhint: {quiet(error.hint)}" if error.hint else ""
        self._say(document, f"pqvault: {quiet(error.message)}{hint}")

    def failures(self, errors: Iterable[PQVaultError]) -> None:
        """Every one of them."""
        for error in errors:
            self.failure(error)

    def usage(self, error: click.ClickException) -> None:
        """What click found wrong with the call."""
        if self.json:
            self.failure(PQVaultError(error.format_message()), error.exit_code)
        else:
            with _told():
                error.show(file=sys.stderr)

    def _say(self, document: dict[str, Any], text: str) -> None:
        with _told():
            click.echo(json.dumps(document) if self.json else text, err=True)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError:
        # A full disk or a closed pipe behind standard error: the exit code stays what it is. What
        # is left in its buffer must not fail again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def plain(value: Any) -> Any:
    """What JSON can hold: dataclasses as objects, names as text, errors as sentences."""
    if isinstance(value, PQVaultError):
        return {"code": value.exit_code, "message": value.message, "hint": value.hint}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {f.name: plain(getattr(value, f.name)) for f in fields if not f.name.startswith("_")}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        # Whatever the locale; bytes that are not UTF-8 become \udcXX, which JSON escapes.
        return value.decode("utf-8", "surrogateescape")
    return value


def size(count: int) -> str:
    """Bytes for people, in powers of 1,000."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if value < 1000 or unit == "PB":
            break
        value /= 1000
    return f"{count} B" if unit == "B" else f"{value:.{0 if value >= 100 else 1}f} {unit}"


def number(count: int, one: str, many: str = "") -> str:
    """``1 file``, ``2,000 files``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def when(ms: int) -> str:
    """Unix milliseconds as a time in UTC, to the second."""
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{ms} ms"


def safe(text: str | bytes) -> str:
    """A path, or a text of others, so that it cannot drive the terminal."""
    return printable(text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text)
