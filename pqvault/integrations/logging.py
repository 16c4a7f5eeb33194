"""Python's logging into an inference log.

In a file for `logging.config.dictConfig`, such as the one that VLLM_LOGGING_CONFIG_PATH names::

    {"version": 1, "disable_existing_loggers": false,
     "handlers": {"sealed": {"class": "pqvault.integrations.logging.InferenceLogHandler",
                             "archive": "/var/log/vllm.pqv", "recipients": ["@/etc/ops.pub"]}},
     "loggers": {"vllm": {"handlers": ["sealed"], "level": "INFO"}}}
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import Any, Final

from pqvault.errors import PQVaultError
from pqvault.logs import InferenceLog
from pqvault.logs.environment import log_from_environment

__all__ = ["InferenceLogHandler"]

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class InferenceLogHandler(logging.Handler):
    """Seals what is logged. It has the queue and the thread of an InferenceLog behind it, so it
    needs no QueueHandler before it; one may be there.

    ``log``: an InferenceLog; else ``archive``, ``recipients`` and its other arguments make one,
    and without them the environment does. A record's ``extra`` and a message that is a mapping
    are fields; the text of others is ``message``. An exception is ``error_type`` and
    ``error_message``, a stack that was asked for ``stack_info``.
    """

    def __init__(
        self,
        archive: str | None = None,
        *,
        log: InferenceLog | None = None,
        level: int | str = logging.NOTSET,
        **options: Any,
    ) -> None:
        super().__init__(level)
        if log is None:
            log = InferenceLog(archive, **options) if archive else log_from_environment()
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Take one record: it is formatted now, and written by another thread."""
        if record.name.split(".")[0] == "pqvault":
            return  # what a log says of itself must not feed it
        try:
            self.log.log(self.fields(record))
        except Exception:  # noqa: BLE001  as handlers do: an argument may raise anything
            self.handleError(record)

    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        """What is logged of a record."""
        found: dict[str, object] = {
            "time": record.created,
            "event": record.name,
            "level": record.levelname,
        }
        found.update({k: v for k, v in vars(record).items() if _is_extra(k)})
        if isinstance(record.msg, Mapping) and not record.args:
            found.update(record.msg)
        else:
            found["message"] = self.format(record) if self.formatter else record.getMessage()
        if record.exc_info and record.exc_info[0] is not None:
            found["error_type"] = record.exc_info[0].__qualname__
            found["error_message"] = logging.Formatter().formatException(record.exc_info)
        elif record.exc_text:  # of another process: a SocketHandler sends the text alone
            found["error_message"] = record.exc_text
        if record.stack_info:
            found["stack_info"] = record.stack_info
        return found

    def flush(self) -> None:
        """Until all that was logged is safe, as the log's fsync policy says."""
        self._try(self.log.flush)

    def close(self) -> None:
        """Close the log: what is logged after is counted and dropped."""
        self._try(self.log.close)
        super().close()

    def _try(self, do: Any) -> None:
        try:
            do()
        except PQVaultError as error:  # logging.shutdown would show a traceback, if anything
            warnings.warn(str(error), RuntimeWarning, stacklevel=3)


def _is_extra(name: str) -> bool:
    """Whether an attribute of a record was given with ``extra``. Libraries mark records with names
    of their own, which begin with an underscore (``_ray_timestamp_ns``)."""
    return name not in _STANDARD and not name.startswith("_")
