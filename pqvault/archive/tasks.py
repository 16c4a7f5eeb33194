"""Run many tasks on a few threads, with no more than a few of them waiting."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from threading import Event
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from pqvault.archive.handedobjects import objects_of
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
    "object_tasks",
    "run_tasks",
    "side_by_side",
]

TASK_SIZE: Final = 8 * 1024 * 1024  # bytes of content
TASK_FILES: Final = 1024
_RUN_FILES: Final = 8192  # of one object, as we write them: half as many
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


def object_tasks(
    entries: Iterator[Located], *, spread: bool
) -> Iterator[tuple[list[Located], frozenset[int]]]:
    """Files as :func:`content_tasks` has them, but those in one object together, with its number,
    where they stand together and no task before had it. Other tasks have no number.

    ``spread``: a file in several objects is such a task too, with all of them.
    """
    taken, run, numbers = set[int](), list[Located](), set[int]()
    others, size = list[Located](), 0
    for part, entry in entries:
        mine = objects_of([entry])
        if run and mine <= numbers and len(run) < _RUN_FILES:
            run.append((part, entry))
        elif mine and mine.isdisjoint(taken) and (spread or len(mine) == 1):
            if run:
                yield run, frozenset(numbers)
            run, numbers = [(part, entry)], mine
            taken |= mine
        else:
            others.append((part, entry))
            size += entry.size
            if size > TASK_SIZE or len(others) == TASK_FILES:
                yield others, frozenset()
                others, size = [], 0
    if run:
        yield run, frozenset(numbers)
    if others:
        yield others, frozenset()
