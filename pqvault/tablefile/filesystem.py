"""Where a file of an archive is, in pyarrow's words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

from pqvault.lazy import LazyModule
from pqvault.sealed import RangeFile
from pqvault.storage import LocalStorage, ReadAt, Storage

__all__ = ["HeldFile", "arrow_place", "on_disk"]

pa = LazyModule("pyarrow")
pafs = LazyModule("pyarrow.fs")


def arrow_place(storage: Storage, name: str) -> tuple[Any, str]:
    """A pyarrow file system and a path in it.

    On a local disk its own file system, so that no scan calls back into Python, which can abort
    the interpreter at its end (pyarrow 26, issues 50482 and 33975). Elsewhere one over the
    storage, which `pqvault.tables.scanner` reads within its own calls.
    """
    if on_disk(storage):
        return pafs.LocalFileSystem(), storage.where(name)
    return pafs.PyFileSystem(_handler(storage)), name


def on_disk(storage: Storage) -> bool:
    """Whether pyarrow reads the files itself: local ones, but its paths are UTF-8 only."""
    if not isinstance(storage, LocalStorage):
        return False
    try:
        storage.where("").encode()
    except UnicodeEncodeError:
        return False
    return True


class HeldFile(RangeFile):
    """A file of a storage, open to be read. Ranges of it can be held in memory: what is read twice
    is fetched once."""

    def __init__(self, source: ReadAt) -> None:
        super().__init__()
        self._source = source
        self._held: list[tuple[int, memoryview]] = []
        self.size = source.size

    def hold(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch these ranges (begin, end), and let go of those before."""
        held: list[tuple[int, memoryview]] = []
        for begin, end in ranges:
            held.append((begin, memoryview(self.pread(begin, end - begin))))
        self._held = held

    def pread_into(self, out: memoryview, offset: int) -> None:
        for begin, data in self._held:
            if begin <= offset and offset + len(out) <= begin + len(data):
                out[:] = data[offset - begin :][: len(out)]
                return
        self._source.pread_into(out, offset)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()


def _handler(storage: Storage) -> Any:
    """What pyarrow asks of a file system: only to open files."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError("this file system opens files and does nothing else")

    def open_file(_: Any, path: str) -> Any:
        return pa.PythonFile(HeldFile(storage.open(path)), mode="r")

    def file_info(_: Any, paths: list[str]) -> list[Any]:
        found = []
        for path in paths:
            with storage.open(path) as source:
                found.append(pafs.FileInfo(path, pafs.FileType.File, size=source.size))
        return found

    abstract = pafs.FileSystemHandler.__abstractmethods__
    methods = dict.fromkeys(abstract, refuse) | {
        "get_type_name": lambda _: "pqvault",
        "normalize_path": lambda _, path: path,
        "get_file_info": file_info,
        "open_input_stream": open_file,
        "open_input_file": open_file,
    }
    return type("StorageHandler", (pafs.FileSystemHandler,), methods)()
