"""Rotate one sealed stream: a new envelope, then the same object, in a new file of the same name.

The envelope is at the head of the file and its length changes, so the object's bytes are copied,
by the kernel where it can (copy_file_range); they are not decrypted. This costs as much as `cp`.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pqvault.crypto.cobblestone import RandomReader
from pqvault.errors import FormatError, IntegrityError, Locked
from pqvault.format.envelope import Envelope
from pqvault.ids import now
from pqvault.keys import Recipient
from pqvault.keystore.index import STREAM
from pqvault.rootkey import STREAM_OBJECT, RootKey
from pqvault.rotation.archives import Rotated
from pqvault.rotation.change import Change, Keys, Member
from pqvault.storage.base import explained
from pqvault.storage.replacing import copy_owner, is_named, lock_file
from pqvault.streams import FileSource, read_stream_envelope

__all__ = ["UNSIGNED", "StreamRotation", "hold", "opened", "replace_file", "write_all"]

UNSIGNED: Final = "sealed streams carry no signatures: none is made or asked for, but of archives"
_PIECE: Final = 64 * 1024 * 1024  # bytes copied at once
_NOT_HERE: Final = {errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.EBADF}


@dataclass(frozen=True, slots=True)
class StreamRotation:
    """A change to the sealed stream in the file ``path``."""

    path: Path
    change: Change
    keys: Keys

    @property
    def _what(self) -> str:
        return f"the envelope of {self.path}"

    def look(self) -> tuple[Envelope, int, tuple[Member, ...] | None]:
        """Its envelope, the bytes of its object, and who is to open it, where that changes."""
        with opened(self.path) as (_, envelope, size):
            return envelope, size, self.change.members(envelope, self._what)

    def run(self) -> Rotated:
        """Rotate. Raises NoKeyFits, IntegrityError, Locked when another process is at it."""
        result = Rotated(str(self.path), STREAM)
        with opened(self.path) as (fd, envelope, size):
            result.met = set(envelope.key_ids)
            members = self.change.members(envelope, self._what)
            if members is None:
                result.unchanged = 1
                result.opens(envelope)
                result.warnings += self.change.stays(envelope)
                return result
            hold(self.path, fd)
            start = os.fstat(fd).st_size - size
            key = self._open(fd, start, envelope)
            self.keys.prove(members)
            new = key.rewrap(envelope, members, created=now())
            data = new.marshal()
            if Envelope.parse(data) != new:
                raise IntegrityError(f"the new envelope of {self.path} does not read back")
            if os.fstat(fd).st_nlink > 1:
                result.warnings.append(
                    f"{self.path} has other names (hard links), which keep the old envelope"
                )
            with explained("write", str(self.path)):
                replace_file(self.path, fd, lambda out: _rewritten(fd, start, out, data))
        result.rewrapped, result.written, result.copied = 1, len(data), size
        result.wrapped = {m.key_id for m in members if isinstance(m, Recipient)}
        result.opens(new)
        result.warnings += self.change.stays(new)
        return result

    def _open(self, fd: int, start: int, envelope: Envelope) -> RootKey:
        key = RootKey.unwrap(envelope, self.keys.ring, self._what)
        # There is no commit. The object commits to its key, which shows that the envelope is its.
        # Its last chunk is authenticated too, so that no torn stream passes for a rotated one.
        source = FileSource(fd, start, os.fstat(fd).st_size - start)
        RandomReader(source, *key.object(STREAM_OBJECT), str(self.path))
        return key


@contextmanager
def opened(path: Path) -> Iterator[tuple[int, Envelope, int]]:
    """Descriptor, envelope, bytes of the object behind it."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with explained("open", str(path)):
        fd = os.open(path, flags)
    with open(fd, "rb", buffering=0) as file:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise FormatError(f"{path} is not a regular file")
        envelope = read_stream_envelope(file, str(path))
        yield fd, envelope, info.st_size - len(envelope.marshal())


def hold(path: Path, fd: int) -> None:
    """Take the lock of the open file ``path``, without waiting: another rotation may copy for
    minutes. Raises Locked."""
    lock_file(fd, str(path), wait=0)
    if not is_named(fd, str(path)):
        raise Locked(f"{path} was replaced by another process just now")


def replace_file(path: Path, fd: int, fill: Callable[[int], object]) -> None:
    """Put a file that ``fill`` writes, given a descriptor, in the place of ``path``.

    ``fd``: of the file that is there, whose lock is ours. Whole and durable, or nothing is left.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _clear(path, folder)
        beside = f".{path.name[:50]}.{secrets.token_hex(4)}.rotating"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        out = os.open(beside, flags, 0o600, dir_fd=folder)
        try:
            try:
                copy_owner(out, os.fstat(fd))
                fill(out)
                os.fsync(out)
            finally:
                os.close(out)
            os.rename(beside, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(beside, dir_fd=folder)
            raise
        os.fsync(folder)
    finally:
        os.close(folder)


def _clear(path: Path, folder: int) -> None:
    """Remove what processes that were killed left beside ``path``: its lock is ours."""
    mine = re.compile(rf"\.{re.escape(path.name[:50])}\.[0-9a-f]{{8}}\.rotating", re.S)
    for name in os.listdir(folder):
        if mine.fullmatch(name):
            os.unlink(name, dir_fd=folder)


def _rewritten(source: int, start: int, out: int, envelope: bytes) -> None:
    write_all(out, envelope)
    _copy(source, start, out)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of ``data``."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _copy(source: int, start: int, target: int) -> None:
    """Append all of ``source`` from ``start`` on to ``target``."""
    left = os.fstat(source).st_size - start
    while left:
        try:
            count = os.copy_file_range(source, target, min(left, _PIECE), start)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            count = os.sendfile(target, source, start, min(left, _PIECE))
        if not count:
            raise IntegrityError("the sealed stream got shorter while it was copied")
        start += count
        left -= count
