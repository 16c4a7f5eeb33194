"""Modules that are imported when they are first used: commands start sooner without them."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["LazyModule"]


class LazyModule:
    """Stands for a module until the first of its names is asked for.

    ``pc = LazyModule("pyarrow.compute")``: that import alone takes 40 ms, and a seal needs it
    only for its catalog, at the end.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        module = importlib.import_module(self._name)
        value = getattr(module, attribute)
        setattr(self, attribute, value)
        return value

    def load(self) -> None:
        """Import it now."""
        importlib.import_module(self._name)
