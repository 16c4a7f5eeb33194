"""How long work tells where it stands: one callback, one small value."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Progress", "Report", "ignore"]


class Report(NamedTuple):
    """``stage``: what is being done. Bytes of content done and, when it is known, in all."""

    stage: str
    done: int = 0
    total: int | None = None
    files: int = 0


Progress = Callable[[Report], object]


def ignore(report: Report) -> None:
    """The default: nothing is shown."""
