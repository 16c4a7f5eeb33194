"""What an inference log is told once, and what it counts."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Literal

from pqvault.errors import UsageError

__all__ = ["Fsync", "LogSettings", "LogStats", "Period", "WhenFull"]

Fsync = Literal["none", "interval", "flush"]
WhenFull = Literal["block", "drop", "spill"]
Period = Literal["hour", "day"]

_SECONDS: Final = {"hour": 3600.0, "day": 86400.0}


@dataclass(frozen=True, slots=True)
class LogSettings:
    """All of it has defaults; see docs/logs.md. Sizes in bytes, times in seconds.

    ``fsync``: ``none``, ``interval`` (at most ``fsync_interval`` apart) or ``flush`` (before a
    record counts as acknowledged). ``flush_size`` bounds what waits to be made durable, and twice
    that what waits to be written. ``linger``: how long a record may wait for others.
    ``when_full``: ``block`` (up to ``block_seconds``), ``drop`` or ``spill``.
    """

    fsync: Fsync = "interval"
    fsync_interval: float = 1.0
    flush_size: int = 8 * 1024 * 1024
    linger: float = 0.05
    part_size: int = 1024**3
    period: Period = "hour"
    when_full: WhenFull = "block"
    block_seconds: float = 10.0
    spill_size: int = 1024**3
    max_record: int = 256 * 1024 * 1024

    def __post_init__(self) -> None:
        for name, allowed in (
            ("fsync", ("none", "interval", "flush")),
            ("when_full", ("block", "drop", "spill")),
            ("period", tuple(_SECONDS)),
        ):
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"{name}={getattr(self, name)!r} is no choice of a log",
                    hint=f"write one of {', '.join(allowed)}",
                )
        for name in ("flush_size", "part_size", "spill_size", "max_record"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise UsageError(f"{name}={value!r} is no size", hint="write a whole number: bytes")
        for name in ("fsync_interval", "linger", "block_seconds"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
                raise UsageError(f"{name}={value!r} is no time", hint="write seconds, 0 or more")
        sizes = (self.flush_size, self.part_size, self.max_record)
        if min(sizes) < 1 or self.max_record > 2**30 - 2**21:
            raise UsageError(
                "flush_size, part_size and max_record are at least 1 byte, and max_record at most"
                " 1 GiB less 2 MiB"
            )

    @property
    def queue_size(self) -> int:
        """Bytes that may wait to be written."""
        return 2 * self.flush_size

    def seconds_left(self) -> float:
        """How long a part that begins now may stay open: to the end of the hour or day, UTC.

        Asked once when it begins, then the monotonic clock counts: the other one may jump.
        """
        length = _SECONDS[self.period]
        return length - time.time() % length


@dataclass
class LogStats:
    """What became of the records of a log. All counts only grow.

    ``logged``: records taken. ``acknowledged``: safe as the fsync policy says. ``dropped``: by
    reason. ``spilled``: of those taken, written to the spill folder. ``trimmed``: records in which
    something was nested too deep. ``problems``: sentences, the newest last, at most 20.
    """

    logged: int = 0
    acknowledged: int = 0
    spilled: int = 0
    trimmed: int = 0
    parts: list[str] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    _untold: Counter[str] = field(default_factory=Counter, repr=False)
    # One that a signal's handler may take once more.
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def acknowledge(self, count: int, *, spilled: bool) -> None:
        """Count records that are safe."""
        with self._lock:
            self.acknowledged += count
            self.spilled += count if spilled else 0

    def trim(self) -> None:
        """Count a record that is kept, but for what was nested too deep in it."""
        with self._lock:
            self.trimmed += 1

    def drop(self, reason: str, count: int = 1) -> None:
        """Count records that are lost; they are written into the log too."""
        with self._lock:
            self.dropped[reason] += count
            self._untold[reason] += count

    def untold(self) -> dict[str, int]:
        """What was lost and is not in the log yet: the caller writes it, or gives it back."""
        if not self._untold:
            return {}
        with self._lock:
            found, self._untold = self._untold, Counter()
        return dict(found)

    def tell_later(self, untold: dict[str, int]) -> None:
        """Give back what :meth:`untold` gave and could not be written."""
        with self._lock:
            self._untold.update(untold)

    def problem(self, sentence: str) -> None:
        """Note what went wrong."""
        with self._lock:
            if self.problems[-1:] != [sentence]:
                self.problems.append(sentence)
                del self.problems[:-20]
