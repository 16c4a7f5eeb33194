"""What the tests of vectors share: the vectors, and inputs that are no regular files."""

from __future__ import annotations

import importlib
import io
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

# The folder of vectors is no part of the package; pytest does not look for it.
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

generate: Any = importlib.import_module("vectors.generate")
kit: Any = importlib.import_module("vectors.testkit")
parquet: Any = importlib.import_module("vectors.parquet")


def load_vectors() -> list[Any]:
    """Every vector in the folder, read from its file."""
    return [
        kit.Vector.parse(path.stem, path.read_bytes())
        for folder in generate.FOLDERS.values()
        for path in sorted(folder.glob("*.vec"))
    ]


class Pipe:
    """A binary input without a file descriptor that gives at most ``step`` bytes at a time."""

    def __init__(self, data: bytes, step: int = 1 << 20) -> None:
        self._file = io.BytesIO(data)
        self._step = step

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, self._step))
