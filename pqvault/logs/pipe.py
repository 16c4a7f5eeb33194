"""JSON lines from a pipe into a log, whatever they are."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from pqvault.logs.log import InferenceLog

__all__ = ["PipeReport", "pipe_lines"]

_READ: Final = 1024 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class PipeReport:
    """``logged``: records taken, bad lines among them. ``bad_lines``: lines that were no JSON
    object, kept as text. ``dropped``: lost. ``parts``: ids of what was committed. ``tee_lost``:
    standard output took no more, its reader gone or its disk full; the log went on."""

    logged: int
    bad_lines: int
    dropped: int
    parts: tuple[str, ...]
    tee_lost: bool = False


def pipe_lines(
    log: InferenceLog, source: int | None = None, *, longest: int, tee: bool = False
) -> PipeReport:
    """Log every line of a file descriptor (standard input) until it ends or SIGTERM or SIGINT
    comes, then close the log. ``longest``: bytes of a line; a longer one is cut there.

    Raises Incomplete when records were lost at the end.
    """
    bad = 0
    out = _Tee(tee)
    with _until_told() as told:  # to the end of closing: `timeout` tells everybody twice
        try:
            fd = sys.stdin.fileno() if source is None else source
            for line in _lines(fd, told, longest):
                out.write(line)
                if line.strip():
                    record, good = _record(line)
                    bad += not good
                    log.log_waiting(record, told.is_set)
        finally:
            log.close()
    stats = log.stats
    dropped = sum(stats.dropped.values())
    return PipeReport(stats.logged, bad, dropped, tuple(stats.parts), out.lost)


def _record(line: bytes) -> tuple[dict[str, Any], bool]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return value, True
    return {"event": "pqvault.bad_line", "line": line.decode("utf-8", "replace")}, False


class _Tee:
    """Lines to standard output, for as long as it takes them."""

    def __init__(self, wanted: bool) -> None:
        self._open = wanted
        self.lost = False

    def write(self, line: bytes) -> None:
        if not self._open:
            return
        try:
            sys.stdout.buffer.write(line + b"\n")
            sys.stdout.buffer.flush()
        except OSError:
            self._open, self.lost = False, True
            # Python would try again, and complain, when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Told:
    """Whether a signal came; a descriptor becomes readable then, so that a read ends too."""

    def __init__(self) -> None:
        self.fd, self._write = os.pipe()
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def tell(self, number: int, frame: object) -> None:
        """A signal's handler."""
        if not self._set:
            self._set = True
            os.write(self._write, b"x")

    def close(self) -> None:
        os.close(self.fd)
        os.close(self._write)


@contextmanager
def _until_told() -> Iterator[_Told]:
    told = _Told()
    before: dict[int, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():  # signals are its own
            for number in (signal.SIGTERM, signal.SIGINT):
                before[number] = signal.signal(number, told.tell)
        yield told
    finally:
        for told_of, handler in before.items():
            signal.signal(told_of, handler)
        told.close()


def _lines(fd: int, told: _Told, longest: int) -> Iterator[bytes]:
    pieces: list[bytes] = []
    size = 0
    while True:
        ready, _, _ = select.select([fd, told.fd], [], [])
        if told.fd in ready and fd not in ready:
            break
        data = os.read(fd, _READ)
        if not data:
            break
        *whole, rest = data.split(b"\n")
        for line in whole:
            yield b"".join((*pieces, line))
            pieces, size = [], 0
        if rest:
            pieces.append(rest)
            size += len(rest)
        if size > longest:
            yield b"".join(pieces)
            pieces, size = [], 0
        if told.fd in ready:
            break
    if pieces:
        yield b"".join(pieces)
