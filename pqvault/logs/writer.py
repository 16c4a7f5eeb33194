"""The thread that writes a log: rows from the queue into the write-ahead files of a part."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from pqvault.errors import PQVaultError
from pqvault.logs.encoder import Encoder, Row
from pqvault.logs.part import LogPart
from pqvault.logs.queue import Batch, RowQueue
from pqvault.logs.settings import LogSettings, LogStats

__all__ = ["Spill", "Writer"]

_ROWS: Final = 256  # rows of one record: what Arrow converts at once holds the interpreter's lock
_SIZE: Final = 1024 * 1024  # bytes of one record
_TURN: Final = 8  # rows made texts of at once
_IDLE: Final = 1.0  # seconds
_RETRY: Final = (0.05, 5.0)  # seconds between tries, the first and the longest


@dataclass(slots=True)
class Spill:
    """What two writers share. ``room()``: whether the spill folder takes more. ``handed``: what the
    one could not write and left to the other. ``struggling``: its last write failed."""

    room: Callable[[], bool]
    handed: deque[Batch[Row]] = field(default_factory=deque)
    struggling: bool = False
    main_ended: bool = False


class Writer:
    """Takes rows until the queue is closed and empty, then ends its part.

    ``open_part`` makes a part, ``part_is_over`` takes it when it is full or its time has come.
    ``spill``: what two writers share, of which one writes into the archive and the other one
    takes what that cannot write: what it hands over, and what waits while the queue stays nearly
    full. ``spills``: this is the other one.
    """

    def __init__(
        self,
        queue: RowQueue[Row],
        encoder: Encoder,
        settings: LogSettings,
        stats: LogStats,
        open_part: Callable[[], LogPart],
        part_is_over: Callable[[LogPart], object],
        *,
        spill: Spill | None = None,
        spills: bool = False,
    ) -> None:
        self._queue = queue
        self._encoder = encoder
        self._settings = settings
        self._stats = stats
        self._open_part = open_part
        self._part_is_over = part_is_over
        self._eager = not spills
        self._spill = spill
        self._part: LogPart | None = None
        self._deadline = 0.0  # of the part, by the monotonic clock
        self._pending: list[Batch[Row]] = []  # appended, not durable
        self._pending_size = 0
        self._sync_at = 0.0
        self._give_up = threading.Event()
        self._until = math.inf  # by the monotonic clock, where nobody is there to say it
        self._thread = threading.Thread(target=self._run, name="pqvault-log", daemon=True)

    def start(self) -> None:
        """Begin. While the interpreter ends there are no more threads: `stop` does it then."""
        with suppress(RuntimeError):
            self._thread.start()

    def stop(self, timeout: float | None) -> bool:
        """Wait for it to end, the queue being closed; after that it gives up what it holds."""
        if self._thread.ident is None:
            self._until = math.inf if timeout is None else time.monotonic() + timeout
            self._run()
            return True
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._give_up.set()
            self._thread.join(_RETRY[1])
        return not self._thread.is_alive()

    def _gives_up(self, wait: float = 0) -> bool:
        return self._give_up.wait(wait) or time.monotonic() >= self._until

    def forget(self) -> None:
        """In a forked child: give back the files of the part, whose lock is its parent's."""
        if self._part is not None:
            self._part.close()

    @property
    def part_size(self) -> int:
        """Bytes of the part that is open."""
        part = self._part
        return part.size if part is not None else 0

    # -- the loop --------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._gives_up():
                if self._has_work():
                    self._drain()
                self._tick()
                if self._queue.closed and self._settled():
                    break
            self._tell_lost()
            self._roll()
        except BaseException as error:
            # A bug. The rows that wait are counted by whoever closes the log.
            self._stats.problem(f"the writer of the log ended: {type(error).__name__}")
            self._queue.close()
            raise
        finally:
            self._drop_pending()
            if self._eager and self._spill is not None:
                self._spill.main_ended = True

    def _settled(self) -> bool:
        if self._eager:
            return not self._queue.size
        return self._spill is None or (not self._spill.handed and self._spill.main_ended)

    def _has_work(self) -> bool:
        if self._eager:
            return self._queue.wait(self._patience(), self._settings.linger)
        # Not the first to take: only what the other cannot keep up with.
        spill = self._spill
        if (
            spill is None
            or not spill.room()
            or not (
                spill.handed
                or (spill.struggling and self._queue.size)
                or self._queue.full_share >= 0.75
            )
        ):
            time.sleep(min(0.02, self._patience()))
            return False
        return True

    def _patience(self) -> float:
        now = time.monotonic()
        waits = [_IDLE]
        if self._part is not None:
            waits.append(self._deadline - now)
        if self._pending:
            waits.append(self._sync_at - now)
        return max(0.0, min(waits))

    def _drain(self) -> None:
        """Write what waits, up to the flush size; then it is made durable, if so agreed."""
        self._tell_lost()
        written = 0
        while written < self._settings.flush_size and not self._gives_up():
            batch = self._next_batch()
            if batch is None:
                break
            self._write(batch)
            written += batch.size
            self._yield()
        if self._settings.fsync != "interval":
            self._sync()

    def _next_batch(self) -> Batch[Row] | None:
        spill = self._spill
        if not self._eager and spill is not None:
            if not spill.room():
                return None
            if spill.handed:
                return spill.handed.popleft()
        return self._queue.take(_ROWS, _SIZE)

    def _tick(self) -> None:
        now = time.monotonic()
        if self._pending and (
            now >= self._sync_at
            or self._pending_size >= self._settings.flush_size
            or self._queue.hurried(self._pending[0].first)
        ):
            self._sync()
        part = self._part
        if part is not None and (now >= self._deadline or part.size >= self._settings.part_size):
            self._roll()

    # -- writing ---------------------------------------------------------------------------

    def _write(self, batch: Batch[Row]) -> None:
        """Append rows to the part. Tries again until that works or nobody waits any more."""
        try:
            self._settle(batch.rows)
            rows = self._encoder.batch(batch.rows)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            rows = self._one_by_one(batch)
        if not self._pending:
            self._sync_at = time.monotonic() + self._settings.fsync_interval
        if self._appended(rows):
            self._pending.append(batch)
            self._pending_size += batch.size
        elif not self._handed_over([batch]):
            self._stats.drop("not written", len(batch.rows))
            self._queue.done([batch])

    def _settle(self, rows: list[Row]) -> None:
        """Make texts of what rows hold, some at a time: see :meth:`_yield`."""
        for start in range(0, len(rows), _TURN):
            self._encoder.settle(rows[start : start + _TURN])
            self._yield()

    def _yield(self) -> None:
        # Whoever logs waits for the interpreter's lock, and gets it only when we sleep. When much
        # waits, they wait for room and not for the lock.
        if self._queue.full_share < 0.5:
            time.sleep(0.00005)

    def _one_by_one(self, batch: Batch[Row]) -> pa.RecordBatch:
        """All rows but those that Arrow does not take, which are counted."""
        good = []
        for row in batch.rows:
            try:
                self._encoder.batch([row])
            except (pa.ArrowException, ValueError, TypeError, OverflowError):
                self._stats.drop("not encodable")
            else:
                good.append(row)
        return self._encoder.batch(good)

    def _appended(self, rows: pa.RecordBatch) -> bool:
        if not len(rows):
            return True
        delay = _RETRY[0]
        while True:
            try:
                self._current_part().append(rows)
                self._struggles(False)
                return True
            except PQVaultError as error:
                self._stats.problem(error.message)
                self._struggles(True)
            if self._gives_up(delay) or self._may_hand_over():
                return False
            delay = min(2 * delay, _RETRY[1])

    def _struggles(self, now: bool) -> None:
        if self._eager and self._spill is not None:
            self._spill.struggling = now

    def _may_hand_over(self) -> bool:
        return self._eager and self._spill is not None and self._spill.room()

    def _handed_over(self, batches: list[Batch[Row]]) -> bool:
        """Leave rows to the other writer, if there is one that has room."""
        if not self._may_hand_over() or self._spill is None:
            return False
        self._spill.handed.extend(batches)
        return True

    def _current_part(self) -> LogPart:
        if self._part is None:
            left = self._settings.seconds_left()
            self._part = self._open_part()
            self._deadline = time.monotonic() + left
        return self._part

    def _sync(self) -> None:
        """Make durable what was appended, if that is agreed, and say that it is safe.

        After a failed fsync nobody knows what is on the disk: what was not durable yet is taken
        back and written again, into a new part.
        """
        delay = _RETRY[0]
        while self._pending and self._part is not None:
            try:
                self._part.sync(durable=self._settings.fsync != "none")
                break
            except PQVaultError as error:
                self._stats.problem(error.message)
            self._struggles(True)
            again = self._take_back()
            given_up = self._gives_up(delay)
            if self._handed_over(again):
                return
            if given_up:
                self._pending = again
                self._drop_pending()
                return
            delay = min(2 * delay, _RETRY[1])
            for batch in again:
                self._write(batch)
        done, self._pending, self._pending_size = self._pending, [], 0
        if done:
            count = sum(len(batch.rows) for batch in done)
            self._stats.acknowledge(count, spilled=not self._eager)
            self._queue.done(done)

    def _take_back(self) -> list[Batch[Row]]:
        part, self._part = self._part, None
        again, self._pending, self._pending_size = self._pending, [], 0
        if part is not None:
            try:
                part.revert()
            except PQVaultError as error:
                self._stats.problem(error.message)  # then its last rows may be there twice
            self._is_over(part)
        return again

    def _is_over(self, part: LogPart) -> None:
        if part.removed:  # with what was safe in it
            self._stats.drop("part was removed", part.rows)
            part.close()
        else:
            self._part_is_over(part)

    def _drop_pending(self) -> None:
        lost, self._pending, self._pending_size = self._pending, [], 0
        for batch in lost:
            self._stats.drop("not written", len(batch.rows))
        self._queue.done(lost)

    def _tell_lost(self) -> None:
        """Write how many records were lost, as rows of the log itself."""
        untold = self._stats.untold() if self._eager else {}
        if untold:
            rows = [self._encoder.dropped(count, reason) for reason, count in untold.items()]
            if self._appended(self._encoder.batch(rows)) and self._part is not None:
                self._part.lost += sum(untold.values())
            else:
                self._stats.tell_later(untold)

    def _roll(self) -> None:
        """End the part, and open another when there is something to write."""
        self._sync()
        part, self._part = self._part, None
        if part is None:
            return
        if not part.rows:
            part.discard()
            return
        try:
            part.end()
        except PQVaultError as error:
            self._stats.problem(error.message)  # it closes all the same, from what is there
        self._is_over(part)
