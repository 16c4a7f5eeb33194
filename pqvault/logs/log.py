"""InferenceLog: what a serving host calls. It holds public keys only."""

from __future__ import annotations

import atexit
import dataclasses
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

from pqvault.archive import layout, retired
from pqvault.archive.columngroups import ColumnGroup, everybody
from pqvault.archive.committing import refuse_digests, refuse_unsigned
from pqvault.archive.publicstate import PublicState
from pqvault.archive.tablepart import table_path
from pqvault.arguments import to_recipients
from pqvault.closing import Closing
from pqvault.errors import Incomplete, PQVaultError, UsageError
from pqvault.keys import Recipient, one_profile
from pqvault.logs.closer import Closer
from pqvault.logs.closing import TABLE
from pqvault.logs.encoder import ESCAPED, Encoder, Row
from pqvault.logs.part import LogPart
from pqvault.logs.places import local
from pqvault.logs.queue import RowQueue
from pqvault.logs.schema import CONTENT, DEFAULT
from pqvault.logs.settings import LogSettings, LogStats
from pqvault.logs.writer import Spill, Writer
from pqvault.signing import SigningKey, check_suites
from pqvault.storage import LocalStorage

__all__ = ["InferenceLog", "Recipients"]

OneOrSeveral: TypeAlias = Recipient | str | Sequence[Recipient | str]
Recipients: TypeAlias = OneOrSeveral | Callable[[], OneOrSeveral]
_logger = logging.getLogger("pqvault.logs")


class InferenceLog(Closing):
    """A log in an archive that its host cannot read back.

    ``archive``: a folder, made when it is not there. ``recipients``: who opens it: objects,
    ``age1pq1…`` texts, ``@FILE`` (read anew for each part), or a function that gives them, called
    for each part; one alone will do. ``groups``: columns for other recipients: ``{"content": […]}``
    of the default schema, or any name with its columns in ``group_columns``. ``name``: of the
    table. ``sign``: keys that sign each part. ``spill``: a folder for the policy of that name.
    ``settings``: see
    :class:`LogSettings`, whose fields may be given by name instead.

    :meth:`log` may be called from any thread, does no I/O and never raises. Raises UsageError,
    PolicyRefused, PQVaultError when the archive cannot be written.
    """

    def __init__(
        self,
        archive: str | os.PathLike[str],
        *,
        recipients: Recipients,
        schema: pa.Schema | None = None,
        groups: Mapping[str, Recipients] | None = None,
        group_columns: Mapping[str, Sequence[str]] | None = None,
        name: str = TABLE,
        sign: Sequence[SigningKey] = (),
        spill: str | os.PathLike[str] | None = None,
        settings: LogSettings | None = None,
        **fields: Any,
    ) -> None:
        if settings is not None and fields:
            raise UsageError("give a log its settings in one object or by name, not both")
        self.settings = settings or _settings(fields)
        self._storage = local(archive)
        self._encoder = Encoder(DEFAULT if schema is None else schema)
        self._recipients = recipients
        self._groups = dict(groups or {})
        self._columns = {"content": CONTENT, **(group_columns or {})}
        self._sign = tuple(sign)
        self._name = os.fsdecode(table_path(name))
        if (spill is not None) != (self.settings.when_full == "spill"):
            raise UsageError(
                "the policy `spill` and a folder to spill to go together",
                hint="give both (when_full='spill' and spill=FOLDER; --when-full spill and --spill"
                " FOLDER), the folder on another disk than the archive",
            )
        self._spill = local(spill) if spill is not None else None
        self._archive_id = self._prepare()
        self._reset()
        _OPEN.add(self)

    def _prepare(self) -> str:
        """Find out now, and not when the first record comes, what would refuse it."""
        archive = layout.create_archive(self._storage)
        for folder in ("envelopes", "parts", "commits"):
            self._storage.check_writable(folder)
        if self._spill is not None:
            for folder in ("", "envelopes", "parts"):
                self._spill.make_folder(folder)
            self._spill.put_new(layout.HEADER, self._storage.read(layout.HEADER, 4096))
            if layout.read_header(self._spill) != archive:
                raise UsageError(f"{self._spill.where('')} is the spill folder of another archive")
        state = PublicState(self._storage)
        if not self._sign:
            refuse_unsigned(state)
        recipients, groups = self._sealed_to()
        members = everybody(recipients, groups)
        profile = one_profile(members)
        refuse_digests(state, profile)
        check_suites(profile, self._sign)
        known = set(self._encoder.schema.names)
        for group in groups:
            missing = [name for name in group.columns if name not in known]
            if missing:
                raise UsageError(
                    f"the group {group.name!r} names {missing[0]!r}, which is no column",
                    hint=f"the log has {', '.join(self._encoder.schema.names)}",
                )
        retired.check(self._storage, [r.key_id for r in members])
        return archive

    def _reset(self) -> None:
        """Begin with nothing: at first, and in a forked child, whose parent goes on by itself."""
        self._pid = os.getpid()
        self._start_lock = threading.RLock()  # a thread of the parent may have held it
        self._closed = False
        self._stats = LogStats()
        settings = self.settings
        self._queue: RowQueue[Row] = RowQueue(settings.queue_size, settings.flush_size // 4)
        self._closer = Closer(self._storage, self._name, self._sign, self._stats)
        self._writers: list[Writer] = []

    def _start(self) -> None:
        with self._start_lock:
            if self._writers:
                return
            common = (self._queue, self._encoder, self.settings, self._stats)
            submit = self._closer.submit
            folder = self._spill
            spill = Spill(lambda: self._spill_room(folder)) if folder is not None else None
            writers = [Writer(*common, lambda: self._open_part(self._storage), submit, spill=spill)]
            if folder is not None:
                writers.append(
                    Writer(
                        *common,
                        lambda: self._open_part(folder),
                        submit,
                        spill=spill,
                        spills=True,
                    )
                )
            if self._writers:  # of a signal's handler that logged meanwhile
                return
            self._writers = writers
            for writer in writers:
                writer.start()
            _at_childs_exit()

    def _open_part(self, storage: LocalStorage) -> LogPart:
        layout.check_header(storage, self._archive_id)
        recipients, groups = self._sealed_to()
        retired.check(self._storage, [r.key_id for r in everybody(recipients, groups)])
        return LogPart(storage, self._archive_id, recipients, groups, self._sign, self._name)

    def _sealed_to(self) -> tuple[list[Recipient], list[ColumnGroup]]:
        groups = []
        for name, recipients in self._groups.items():
            columns = self._columns.get(name)
            if columns is None:
                raise UsageError(
                    f"the group {name!r} of a log has no columns",
                    hint="`content` has those of prompts and responses; group_columns gives others"
                    " theirs, in Python",
                )
            groups.append(ColumnGroup(name, tuple(columns), tuple(_resolve(recipients))))
        return _resolve(self._recipients), groups

    def _spill_room(self, spill: LocalStorage | None) -> bool:
        if spill is None:
            return False
        used = self._closer.size(spill) + sum(w.part_size for w in self._writers[1:])
        return used < self.settings.spill_size

    # -- what is called ----------------------------------------------------------------------

    def log(self, record: Mapping[str, object], *, wait: float | None = None) -> bool:
        """Take a record; False when it was dropped, which is counted and written to the log.

        The record is copied: what is done to it afterwards does not reach the log. Waits only for
        room, ``wait`` seconds; by default ``block_seconds``, or not at all under `drop`.
        """
        if wait is None:
            wait = 0.0 if self.settings.when_full == "drop" else self.settings.block_seconds
        return self._log(record, lambda row, size: self._queue.put(row, size, wait))

    @property
    def has_room(self) -> bool:
        """Whether a record of ordinary size would not wait: for who must not, an event loop."""
        return self._queue.full_share < 0.75

    def log_waiting(self, record: Mapping[str, object], stop: Callable[[], bool]) -> bool:
        """As :meth:`log`, but under `block` for as long as it takes, or until ``stop()``."""
        if self.settings.when_full == "drop":
            return self.log(record)

        def put(row: Row, size: int) -> bool:
            while not self._queue.put(row, size, 0.5):
                if self._queue.closed or stop():
                    return False
            return True

        return self._log(record, put)

    def _log(self, record: Mapping[str, object], put: Callable[[Row, int], bool]) -> bool:
        if not self._writers:
            self._start()
        try:
            row, size, whole = self._encoder.encode(record)
            if size > self.settings.max_record // ESCAPED:
                size = self._encoder.settled_size(row)
        except Exception:  # noqa: BLE001  an object of the caller may raise anything
            self._stats.drop("not encodable")
            return False
        if size > self.settings.max_record:
            self._stats.drop("over max_record")
            return False
        if not whole:
            self._stats.trim()
        if not put(row, size):
            self._stats.drop("closed" if self._queue.closed else "queue full")
            return False
        return True

    def flush(self, timeout: float | None = 60.0) -> None:
        """Return when all that was logged before is safe as the fsync policy says.

        Raises Incomplete after ``timeout`` seconds, with the last problem.
        """
        if not self._queue.flush(timeout):
            raise Incomplete(
                f"the log could not be flushed in {timeout:g} s{self._why()}",
                hint="free some space or mend the disk; what is logged waits meanwhile",
            )

    def _why(self) -> str:
        return f": {self._stats.problems[-1]}" if self._stats.problems else ""

    @property
    def stats(self) -> LogStats:
        """What became of the records; read it whenever you like."""
        self._stats.logged = self._queue.put_count
        return self._stats

    @property
    def archive_id(self) -> str:
        """Of the archive."""
        return self._archive_id

    @property
    def acknowledged(self) -> int:
        """How many records, of those logged first, are safe as the fsync policy says."""
        return self._queue.settled

    def close(self, timeout: float | None = 60.0) -> None:
        """Write what waits, end the part and commit it as a table.

        Raises Incomplete when records were lost on the way or a part could not be committed; its
        write-ahead file stays then, and whoever holds the key can `pqvault log recover` it.
        """
        if self._closed or self._pid != os.getpid():
            return
        self._closed = True
        self._queue.close()
        with self._start_lock:  # another thread may be about to start them
            writers = self._writers
        for writer in writers:
            writer.stop(timeout)
        while (batch := self._queue.take(1024, 1 << 30)) is not None:
            self._stats.drop("not written", len(batch.rows))
            self._queue.done([batch])  # or whoever flushes would wait for it
        if left := self._queue.put_count - self._queue.settled:
            self._stats.drop("not written", left)  # a writer is stuck with them, or ended by a bug
        failed = self._closer.stop()
        lost = self._stats.dropped["not written"] + self._stats.dropped["part was removed"]
        if lost or failed:
            stays = f"{len(failed)} parts stay write-ahead files" if failed else ""
            said = " and ".join(
                filter(None, (f"{lost:,} records were lost" if lost else "", stays))
            )
            raise Incomplete(
                f"the log in {self._storage.where('')} was closed, but {said}{self._why()}",
                hint="`pqvault log recover` commits write-ahead files, with the private key",
            )


def _settings(fields: Mapping[str, Any]) -> LogSettings:
    known = [field.name for field in dataclasses.fields(LogSettings)]
    for name in fields:
        if name not in known:
            raise UsageError(
                f"a log has no such setting: {name!r}", hint=f"it has {', '.join(known)}"
            )
    return LogSettings(**fields)


def _resolve(recipients: Recipients) -> list[Recipient]:
    found: list[Recipient] = []
    for item in _asked(recipients) if callable(recipients) else _several(recipients):
        if isinstance(item, str) and item.startswith("@"):
            found += Recipient.load_file(item[1:])
        else:
            found += to_recipients([item])
    if not found:
        raise UsageError("a log needs recipients, or nobody could read it")
    return list(dict.fromkeys(found))


def _several(given: OneOrSeveral) -> list[Recipient | str]:
    """One alone is as good as a list of one; what is no recipient is refused by name later."""
    if isinstance(given, Recipient | str) or not isinstance(given, Iterable):
        return [given]
    return list(given)


def _asked(recipients: Callable[[], OneOrSeveral]) -> list[Recipient | str]:
    """What the caller's function gives. Whatever it raises is a reason to ask it again later."""
    try:
        return _several(recipients())
    except PQVaultError:
        raise
    except Exception as error:
        raise PQVaultError(
            f"the function that gives a log its recipients raised {type(error).__name__}: {error}"
        ) from error


# -- the end of the process, and forks -----------------------------------------------------

_OPEN: weakref.WeakSet[InferenceLog] = weakref.WeakSet()


def _close_all() -> None:
    for log in list(_OPEN):
        try:
            log.close(timeout=10.0)
        except PQVaultError as error:
            _logger.error("%s", error)


def _at_childs_exit() -> None:
    """Close all logs at the end of a child of multiprocessing: one that was forked ends without
    `atexit`, which one that was spawned comes to later."""
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None and processes.parent_process() is not None:
        util = sys.modules["multiprocessing.util"]
        util.Finalize(None, _close_and_begin_anew, exitpriority=0)


def _close_and_begin_anew() -> None:
    logs = [log for log in _OPEN if not log._closed]
    _close_all()
    for log in logs:
        log._reset()


def _after_fork() -> None:
    for log in list(_OPEN):
        log._closer.forget()
        for writer in log._writers:
            writer.forget()
        log._reset()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_after_fork)
