"""A place: where another process writes files of an extraction that this one leads."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from pqvault.archive.extract.folders import JoinedTree
from pqvault.archive.extract.links import split
from pqvault.archive.extract.target import FOLDER_FLAGS
from pqvault.archive.extract.writer import FileWriter
from pqvault.errors import NotFound
from pqvault.names import printable

__all__ = ["Place", "new_prefix"]


def new_prefix() -> str:
    """How the temporary names of one process in one extraction begin."""
    return f".pqvault-{secrets.token_hex(8)}"


class Place(NamedTuple):
    """A target that exists, with the folders of the files to be written."""

    target: bytes  # absolute
    inode: int  # so that it is known again
    prefix: str  # of temporary names, of this process alone
    force: bool  # replace files
    keep_bits: int  # of modes
    lost: tuple[str, ...] = ()  # prefixes of processes that ended and left files, to be removed

    def again(self) -> Place:
        """For another process, after the one that had this one ended: it may have written some of
        its files, of which the same content takes the place."""
        lost = (*self.lost, self.prefix)
        return self._replace(prefix=new_prefix(), force=True, lost=lost)

    @contextmanager
    def writer(self, written: Callable[[bytes], object]) -> Iterator[FileWriter]:
        """Write there. Raises NotFound when the target is not the one that it was."""
        tree = JoinedTree(self._open(), self.lost)
        try:
            yield FileWriter(
                tree,
                force=self.force,
                keep_bits=self.keep_bits,
                prefix=self.prefix,
                written=written,
            )
        finally:
            tree.close()

    def clear(self, paths: Iterable[bytes]) -> None:
        """Remove what processes that ended have left beside these files. Raises NotFound."""
        tree = JoinedTree(self._open(), self.lost)
        try:
            for folder in {split(path)[0] for path in paths}:
                tree.ensure(folder)  # they are looked through when they are opened
        finally:
            tree.close()

    def _open(self) -> int:
        try:
            # Links are followed here as they were when the target was opened first.
            fd = os.open(self.target, FOLDER_FLAGS & ~os.O_NOFOLLOW)
        except OSError as error:
            raise self._gone(error.strerror or "it cannot be opened") from None
        if os.fstat(fd).st_ino != self.inode:
            os.close(fd)
            raise self._gone("another folder is in its place")
        return fd

    def _gone(self, why: str) -> NotFound:
        return NotFound(
            f"a worker cannot extract into {printable(self.target)}: {why}",
            hint="workers need the target under the same path, on a file system that they share",
        )
