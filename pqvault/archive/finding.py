"""Find archives and sealed streams below a folder, by their names. Nothing is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pqvault.archive.layout import HEADER

__all__ = ["SUFFIX", "find", "find_links"]

SUFFIX = ".pqv"


def find(root: Path) -> Iterator[Path]:
    """Folders with a header, and other files named ``.pqv``, in order of path. A folder that cannot
    be read is among them: whoever opens it says why, and what is below it is not missing.

    Symbolic links to folders are not followed.
    """
    unread: list[OSError] = []
    for at, folders, files in os.walk(root, onerror=unread.append):
        yield from _not_gone(unread)
        here = Path(at)
        if HEADER in files:
            folders.clear()  # an archive holds no archives
            yield here
            continue
        folders.sort()
        yield from (here / name for name in sorted(files) if name.endswith(SUFFIX))
    yield from _not_gone(unread)


def find_links(root: Path) -> Iterator[Path]:
    """Symbolic links below a folder to what :func:`find` looks for, which are not followed."""
    for at, folders, files in os.walk(root):
        here = Path(at)
        if HEADER in files:
            folders.clear()
            continue
        links = (here / name for name in sorted((*folders, *files)) if (here / name).is_symlink())
        for link in links:
            if (link / HEADER).exists() or (link.name.endswith(SUFFIX) and link.is_file()):
                yield link


def _not_gone(unread: list[OSError]) -> Iterator[Path]:
    while unread:
        error = unread.pop(0)
        if not isinstance(error, FileNotFoundError):
            yield Path(error.filename)
