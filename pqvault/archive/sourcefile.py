"""A file that is sealed: how it is opened, and what tells that it has not changed."""

from __future__ import annotations

import os
import stat
import time
from typing import Final, TypeAlias

__all__ = ["Facts", "facts_of", "file_facts", "file_time", "open_regular", "wait_for_tick"]

Facts: TypeAlias = tuple[int, int, int, int, int]

_LATEST: Final = 2**63 - 1  # ns since 1970: the year 2262
# A file system may stamp files with the kernel's clock of ten milliseconds, or with whole seconds.
_TICK: Final = 20_000_000  # ns
_SECOND: Final = 1_000_000_000


def open_regular(source: bytes) -> tuple[int, Facts]:
    """A descriptor of a regular file, and what ``fstat`` says of it. Raises OSError."""
    # Not through a link. O_NONBLOCK: a FIFO put in the file's place must not hang us.
    fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode):
        os.close(fd)
        raise OSError(0, "it is no regular file any more")
    return fd, facts_of(info)


def facts_of(info: os.stat_result) -> Facts:
    """What compares with :class:`~pqvault.archive.deal.Expected`."""
    return (
        info.st_size,
        file_time(info.st_mtime_ns),
        file_time(info.st_ctime_ns),
        info.st_ino,
        info.st_dev,
    )


def file_facts(source: bytes) -> Facts | None:
    """What ``fstat`` says of a file now, None when it is no regular file any more."""
    try:
        fd, facts = open_regular(source)
    except OSError:
        return None
    os.close(fd)
    return facts


def file_time(ns: int) -> int:
    """A time of a file as catalogs and journals hold it: the nearest that 64 bits can say."""
    return ns if -_LATEST <= ns <= _LATEST else max(-_LATEST, min(ns, _LATEST))


def wait_for_tick(ctime_ns: int) -> None:
    """To be called before a file is read. Who writes to it from now on changes its times.

    Without that, a file that is written, read and written again within one tick of the clock that
    stamps it would look unchanged for ever.
    """
    tick = _TICK if ctime_ns % _SECOND else _SECOND
    left = tick - (time.time_ns() - ctime_ns)
    if 0 < left <= tick:  # a time in the future is of another clock
        time.sleep(left / 1e9)
