"""Modules that this process does without, though they are installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["hide", "seen"]


class _Hidden:
    """A finder that says of some modules that they are not there."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in self.names:
            raise ModuleNotFoundError(f"{name} is hidden in this process", name=name)


_hidden = _Hidden()


def hide(*names: str) -> None:
    """Let nobody import them from now on."""
    _hidden.names.update(names)
    if _hidden not in sys.meta_path:
        sys.meta_path.insert(0, _hidden)


@contextmanager
def seen() -> Iterator[None]:
    """In the block, and to those who run side by side with it, nothing is hidden."""
    names, _hidden.names = _hidden.names, set()
    try:
        yield
    finally:
        _hidden.names = names
