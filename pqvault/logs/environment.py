"""A log as the environment describes it: for hooks that others construct without arguments."""

from __future__ import annotations

import os
import threading
from typing import Any

from pqvault.errors import UsageError
from pqvault.logs.log import InferenceLog

__all__ = ["log_from_environment"]

_lock = threading.Lock()
_log: InferenceLog | None = None


def log_from_environment() -> InferenceLog:
    """The log of this process: made once, shared by whoever asks.

    ``PQVAULT_LOG_ARCHIVE`` and ``PQVAULT_LOG_RECIPIENTS`` (texts or ``@FILE``, separated by
    spaces) are needed; ``PQVAULT_LOG_CONTENT_RECIPIENTS``, ``PQVAULT_LOG_NAME``,
    ``PQVAULT_LOG_FSYNC``, ``PQVAULT_LOG_WHEN_FULL``, ``PQVAULT_LOG_SPILL`` and
    ``PQVAULT_LOG_PERIOD`` may be set. Raises UsageError naming what is missing.
    """
    global _log
    with _lock:
        if _log is None:
            _log = _make()
        return _log


def _make() -> InferenceLog:
    archive, recipients = _get("ARCHIVE"), _get("RECIPIENTS").split()
    if not archive or not recipients:
        missing = "PQVAULT_LOG_ARCHIVE" if not archive else "PQVAULT_LOG_RECIPIENTS"
        raise UsageError(
            f"{missing} is not set, so there is no log to write to",
            hint="set PQVAULT_LOG_ARCHIVE to a folder and PQVAULT_LOG_RECIPIENTS to @FILE",
        )
    options: dict[str, Any] = {}
    if content := _get("CONTENT_RECIPIENTS").split():
        options["groups"] = {"content": content}
    for name in ("NAME", "FSYNC", "WHEN_FULL", "SPILL", "PERIOD"):
        if value := _get(name):
            options[name.lower()] = value
    return InferenceLog(archive, recipients=recipients, **options)


def _get(name: str) -> str:
    return os.environ.get(f"PQVAULT_LOG_{name}", "")
