"""What a disk holds when the power goes: a model of it beside the real one, call by call.

A file's bytes are durable as of its last fsync, a folder's names as of the folder's. Everything
else may be there after a power loss, or not: some states are looked at after each call, among them
one with all that may be missing missing, one with all of it there, and one with the last write half
done.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Node:
    """A file or a folder: as programs see it, and as it is durable."""

    folder: bool
    data: bytearray = field(default_factory=bytearray)
    names: dict[str, Node] = field(default_factory=dict)
    durable_data: bytes = b""
    durable_names: dict[str, Node] = field(default_factory=dict)

    def sync(self) -> None:
        self.durable_data = bytes(self.data)
        self.durable_names = dict(self.names)


State = dict[str, bytes | None]  # path -> content, None for a folder


class Disk:
    """``os`` for modules under test: does what it is asked, and keeps the model.

    ``on_change`` is called after each call that changes something.
    """

    def __init__(self, root: Path, on_change: Callable[[], object] = lambda: None) -> None:
        self.root = Node(folder=True)
        self._place = str(root)
        self.calls = 0
        self.on_change = on_change
        self._open: dict[int, Node] = {}
        self._lock = threading.RLock()

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def hold(self, root: Path) -> None:
        """Take what is in a folder for durable already."""
        for path in sorted(root.rglob("*")):
            *above, last = path.relative_to(root).parts
            node = self.root
            for name in above:
                node = node.names[name]
            data = bytearray() if path.is_dir() else bytearray(path.read_bytes())
            node.names[last] = Node(folder=path.is_dir(), data=data)
        for node in [self.root, *_nodes(self.root)]:
            node.sync()

    def _changed(self) -> None:
        self.calls += 1
        self.on_change()

    # -- the calls that the storage makes --------------------------------------------------

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        with self._lock:
            fd = os.open(path, flags, mode, dir_fd=dir_fd)
            if dir_fd is None:
                if str(path) == self._place:
                    self._open[fd] = self.root
                return fd
            parent = self._open.get(dir_fd)
            if parent is None or flags & os.O_TMPFILE == os.O_TMPFILE:  # which has no name
                return fd
            new = path not in parent.names
            node = parent.names.setdefault(path, Node(folder=os.path.isdir(f"/proc/self/fd/{fd}")))
            self._open[fd] = node
            if new and flags & os.O_CREAT:
                self._changed()
            return fd

    def close(self, fd: int) -> None:
        with self._lock:
            self._open.pop(fd, None)
            os.close(fd)

    def mkdir(self, name: str, *args: Any, dir_fd: int) -> None:
        with self._lock:
            os.mkdir(name, *args, dir_fd=dir_fd)
            self._open[dir_fd].names[name] = Node(folder=True)
            self._changed()

    def rmdir(self, name: str, *, dir_fd: int) -> None:
        with self._lock:
            os.rmdir(name, dir_fd=dir_fd)
            self._open[dir_fd].names.pop(name, None)
            self._changed()

    def unlink(self, name: str, *, dir_fd: int) -> None:
        with self._lock:
            os.unlink(name, dir_fd=dir_fd)
            self._open[dir_fd].names.pop(name, None)
            self._changed()

    def rename(self, old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        with self._lock:
            os.rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            self._open[dst_dir_fd].names[new] = self._open[src_dir_fd].names.pop(old)
            self._changed()

    def link(self, old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int, **options: Any) -> None:
        with self._lock:
            os.link(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, **options)
            self._open[dst_dir_fd].names[new] = self._open[src_dir_fd].names[old]
            self._changed()

    def write(self, fd: int, data: Any) -> int:
        with self._lock:
            count = os.write(fd, data)
            if (node := self._open.get(fd)) is not None:
                node.data += memoryview(data)[:count]
                self._changed()
            return count

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        with self._lock:
            count = os.pwrite(fd, data, offset)
            node = self._open[fd]
            node.data[offset : offset + count] = memoryview(data)[:count]
            self._changed()
            return count

    def ftruncate(self, fd: int, size: int) -> None:
        with self._lock:
            os.ftruncate(fd, size)
            del self._open[fd].data[size:]
            self._changed()

    def fsync(self, fd: int) -> None:
        with self._lock:
            os.fsync(fd)
            if (node := self._open.get(fd)) is not None:
                node.sync()
                self._changed()

    fdatasync = fsync

    # -- what is there after a power loss --------------------------------------------------

    def least(self) -> State:
        """Only what is durable."""
        return dict(_walk(self.root, "", lambda n: n.durable_names, lambda n: n.durable_data))

    def swept(self) -> State:
        """Only what is durable, less the names that were removed since: one folder may reach the
        disk before another."""
        return dict(_walk(self.root, "", _not_removed, lambda n: n.durable_data))

    def most(self) -> State:
        """Everything."""
        return dict(_walk(self.root, "", lambda n: n.names, lambda n: bytes(n.data)))

    def torn(self) -> State:
        """All names, and of what was not made durable of a file the first half."""
        return dict(_walk(self.root, "", lambda n: n.names, _half))


def _nodes(node: Node) -> Iterator[Node]:
    for inner in node.names.values():
        yield inner
        yield from _nodes(inner)


def _not_removed(node: Node) -> dict[str, Node]:
    return {name: inner for name, inner in node.durable_names.items() if name in node.names}


def _half(node: Node) -> bytes:
    durable, data = node.durable_data, bytes(node.data)
    if data.startswith(durable):
        return data[: (len(durable) + len(data)) // 2]
    return durable


def _walk(
    node: Node,
    path: str,
    names: Callable[[Node], dict[str, Node]],
    data: Callable[[Node], bytes],
) -> Iterator[tuple[str, bytes | None]]:
    for name, inner in names(node).items():
        yield f"{path}{name}", None if inner.folder else data(inner)
        if inner.folder:
            yield from _walk(inner, f"{path}{name}/", names, data)


def restore(state: State, root: Path) -> None:
    """Put a state on the real disk."""
    root.mkdir(parents=True)
    for path, data in state.items():
        if data is None:
            (root / path).mkdir(exist_ok=True)
        else:
            (root / path).write_bytes(data)
