"""Vectors by the names of the functions that make them, and their files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

__all__ = ["Registry", "json_files", "write_files"]

Made = TypeVar("Made")


class Registry(Generic[Made]):
    """Vectors of one kind. As a decorator with a comment it takes in the function below it."""

    def __init__(self) -> None:
        self.cases: dict[str, tuple[str, Callable[[], Made]]] = {}

    def __call__(self, comment: str) -> Callable[[Callable[[], Made]], Callable[[], Made]]:
        """Register a vector; its name is the function's."""

        def register(make: Callable[[], Made]) -> Callable[[], Made]:
            assert make.__name__ not in self.cases, f"two vectors are named {make.__name__}"
            self.cases[make.__name__] = (comment, make)
            return make

        return register


def json_files(folder: Path, case: Registry[dict[str, Any]]) -> dict[Path, bytes]:
    """Every vector that is an object: the path of its file, and the bytes that belong there."""
    return {
        folder / f"{name}.json": json.dumps({"comment": comment, **make()}, indent=1).encode()
        + b"\n"
        for name, (comment, make) in case.cases.items()
    }


def write_files(folder: Path, made: Mapping[Path, bytes]) -> None:
    """Write them, and remove what else is in the folder."""
    folder.mkdir(exist_ok=True)
    for stale in set(folder.iterdir()) - set(made):
        stale.unlink()
    for path, data in made.items():
        path.write_bytes(data)
    print(f"{len(made)} vectors")
