"""Run many tasks on a few threads, with no more than a few of them waiting."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from threading import Event
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from pqvault.errors import PQVaultError, UsageError

if TYPE_CHECKING:  # it imports pyarrow
    from pqvault.archive.part import OpenPart
    from pqvault.format.entries import Entry

__all__ = [
    "TASK_SIZE",
    "Located",
    "content_tasks",
    "default_jobs",
    "jobs_of",
    "run_tasks",
    "side_by_side",
]

TASK_SIZE: Final = 8 * 1024 * 1024  # bytes of content
TASK_FILES: Final = 1024
# Tasks that are made before they are needed: making one takes the interpreter, and is best done
# while the threads compress.
_AHEAD: Final = 4

Located: TypeAlias = "tuple[OpenPart, Entry]"
Task = TypeVar("Task")
Result = TypeVar("Result")


def default_jobs() -> int:
    """Threads when nothing is said: the processors, but no more than four."""
    return min(4, os.cpu_count() or 1)


def jobs_of(jobs: int | None, requests: int = 1) -> int:
    """How many threads were asked for. Raises UsageError for less than none.

    When nothing is said, and the storage likes several ``requests`` at once, twice the default:
    half of them wait.
    """
    if jobs is not None and jobs < 0:
        raise UsageError(f"{jobs} jobs are not possible", hint="leave it out for one a processor")
    return jobs or default_jobs() * (2 if requests > 1 else 1)


def run_tasks(
    pool: ThreadPoolExecutor,
    jobs: int,
    tasks: Iterator[Task],
    do: Callable[[Task], Result],
    collect: Callable[[Result], object],
    stop: Event,
) -> None:
    """Call ``do`` for each task in ``pool`` and ``collect``, here, for each result.

    The first error ends it: tasks not begun are dropped, ``stop`` is set so that those that run
    can end too, and they are waited for.
    """
    running: set[Future[Result]] = set()
    try:
        for task in tasks:
            while len(running) > jobs + _AHEAD:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    collect(future.result())
            running.add(pool.submit(do, task))
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                collect(future.result())
    except BaseException:
        stop.set()
        for future in running:
            future.cancel()
        wait(running)
        raise


def side_by_side(
    requests: int, do: Callable[[Task], Result], items: Sequence[Task]
) -> Iterator[Result | PQVaultError]:
    """``do`` of each item, in order, with as many under way at once as the storage likes; the error
    in place of a result."""

    def attempt(item: Task) -> Result | PQVaultError:
        try:
            return do(item)
        except PQVaultError as error:
            return error

    if requests == 1 or len(items) < 2:
        yield from map(attempt, items)
        return
    with ThreadPoolExecutor(min(requests, len(items)), "pqvault-look") as pool:
        yield from pool.map(attempt, items)


def content_tasks(entries: Iterator[Located]) -> Iterator[list[Located]]:
    """Files in runs of about 8 MiB, in the order of their objects; a large one stands alone."""
    task: list[Located] = []
    size = 0
    for part, entry in entries:
        if task and (size + entry.size > TASK_SIZE or len(task) == TASK_FILES):
            yield task
            task, size = [], 0
        task.append((part, entry))
        size += entry.size
    if task:
        yield task
