"""Find archives and sealed streams below a folder, by their names. Nothing is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pqvault.archive.layout import HEADER

__all__ = ["SUFFIX", "find"]

SUFFIX = ".pqv"


def find(root: Path) -> Iterator[Path]:
    """Folders with a header, and other files named ``.pqv``, in order of path.

    Symbolic links to folders are not followed.
    """
    for at, folders, files in os.walk(root):
        here = Path(at)
        if HEADER in files:
            folders.clear()  # an archive holds no archives
            yield here
            continue
        folders.sort()
        yield from (here / name for name in sorted(files) if name.endswith(SUFFIX))
