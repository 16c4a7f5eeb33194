"""Find archives and sealed streams below a folder, by their names. Nothing is opened."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from pqvault.archive.layout import HEADER

__all__ = ["SUFFIX", "find", "unfollowed"]

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


def unfollowed(roots: Iterable[Path], known: Collection[str]) -> Iterator[str]:
    """A warning for each symbolic link below folders to what :func:`find` looks for, and does not
    follow it to: that nobody takes it for done. ``known``: real paths of what is done anyway."""
    below = (root for root in roots if os.path.realpath(root) not in known)
    for link in (link for root in below for link in _links(root)):
        if os.path.realpath(link) not in known:
            yield f"{link} is a symbolic link, which is not followed: name what it leads to"


def _links(root: Path) -> Iterator[Path]:
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
