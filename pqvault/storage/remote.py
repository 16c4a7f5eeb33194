"""An archive at a URL that fsspec reaches: an object store, mostly.

An object appears whole or not at all, so most promises of `base` cost nothing there. What
differs: a request takes tens of milliseconds, so large ranges are asked for at once, what is read
in order is fetched ahead, and callers are told to keep many requests under way
(:attr:`RemoteStorage.requests`). Requests fail for a moment, so they are tried again (`retry`).

Credentials and endpoints are the library's own (``AWS_*`` variables, ``~/.aws``, fsspec's
configuration files): no secret is in a URL, an option or a pickle.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeVar

from pqvault.errors import FormatError, NotFound, PQVaultError, UsageError
from pqvault.storage import lease, s3
from pqvault.storage.base import Buffer, Names, Sink, check_name
from pqvault.storage.remotefiles import RemoteReader, RemoteSink
from pqvault.storage.retry import explain_remote, tried

__all__ = ["RemoteStorage"]

_REQUESTS: Final = 64  # under way at once

# Where a file appears whole when its upload ends. Elsewhere (SFTP, SMB) it is written beside
# and renamed.
_WHOLE: Final = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "memory"}
_TEMPORARY: Final = re.compile(r"\..+\.[0-9a-f]{8}\.tmp", re.DOTALL)

Result = TypeVar("Result")


@lru_cache(maxsize=64)
def _reach(url: str, process: int) -> tuple[Any, str]:
    """The file system of a URL, and the path in it. One for a process: it holds connections.

    The child of a fork must neither use those of its parent nor close them, as s3fs does when its
    file system is let go of: it stays here.
    """
    import fsspec

    try:
        # No listing is remembered: another writer may add a part at any moment.
        scheme = url.partition("://")[0]
        options = s3.OPTIONS if scheme in s3.SCHEMES else {}
        fs, root = fsspec.core.url_to_fs(
            url, use_listings_cache=False, skip_instance_cache=True, **options
        )
    except ImportError as error:
        raise UsageError(
            f"{url} needs a library that is not installed: {error}",
            hint="for s3:// install pqvault[s3]; others are listed in fsspec's documentation",
        ) from None
    except ValueError as error:
        raise UsageError(f"{url} cannot be used: {error}", hint="check the URL") from None
    if s3.is_s3(fs):
        fs.retries = 1  # attempts are `retry`'s
    return fs, root


@dataclass(frozen=True, slots=True)
class RemoteStorage:
    """A `Storage` below ``url``. Pickled as the URL and nothing else."""

    url: str

    def __post_init__(self) -> None:
        scheme, _, rest = self.url.partition("://")
        if "::" in self.url:
            raise UsageError(f"{self.url} chains file systems, which an archive cannot be behind")
        if "@" in rest.partition("/")[0]:
            # Command lines and logs are read by others.
            raise UsageError(
                f"a {scheme}:// URL holds a name or password, and is not used",
                hint="hand credentials over in the way of the store's library, as AWS_PROFILE",
            )
        object.__setattr__(self, "url", self.url.rstrip("/"))

    @property
    def requests(self) -> int:
        """How many requests are worth having under way at once."""
        return _REQUESTS

    def where(self, name: str) -> str:
        """The URL of `name`."""
        return f"{self.url}/{name}" if name else self.url

    @property
    def _scheme(self) -> str:
        return self.url.partition("://")[0]

    def _path(self, name: str) -> tuple[Any, str]:
        fs, root = _reach(self.url, os.getpid())
        return fs, f"{root}/{check_name(name)}" if name else root

    def _do(self, doing: str, name: str, call: Callable[[Any, str], Result]) -> Result:
        """``call(fs, path)``, tried again where that helps, its errors explained."""
        fs, path = self._path(name)
        with self._explained(doing, name):
            return tried(lambda: call(fs, path))

    @contextmanager
    def _explained(self, doing: str, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise explain_remote(error, doing, self.where(name)) from error

    # --- reading

    def read(self, name: str, limit: int) -> bytes:
        """Return a whole object of at most `limit` bytes, in one request."""

        def call(fs: Any, path: str) -> bytes:
            try:
                if s3.is_s3(fs):
                    return s3.beginning(fs, path, limit + 1)
                data: bytes = fs.cat_file(path, start=0, end=limit + 1)
            except OSError:
                # A range of an object without bytes cannot be satisfied (HTTP 416).
                if fs.size(path) != 0:
                    raise
                return b""
            return data

        data = self._do("read", name, call)
        if len(data) > limit:
            raise FormatError(f"{self.where(name)} has more than {limit:,} bytes")
        return data

    def open(self, name: str) -> RemoteReader:
        """Open an object; its size is asked for. Raises `NotFound`."""
        info = self._info(name)
        if info.get("type") == "directory":
            raise FormatError(f"{self.where(name)} is a folder")
        size = info.get("size")
        if not isinstance(size, int):
            raise PQVaultError(f"the store does not say how large {self.where(name)} is")
        return RemoteReader(self, name, size)

    def _info(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self._do("open", name, lambda fs, path: fs.info(path))
        return found

    def exists(self, name: str) -> bool:
        """Whether an object, or a folder of objects, bears this name."""
        try:
            self._info(name)
        except NotFound:
            return False
        return True

    def mtime(self, name: str) -> float:
        """Seconds since 1970 of the last change, by the store's clock."""

        def call(fs: Any, path: str) -> float:
            try:
                return float(fs.modified(path).timestamp())
            except IsADirectoryError:  # of objects: there is none of this name
                raise FileNotFoundError from None

        return self._do("look at", name, call)

    def list(self, folder: str) -> Names:
        """The sorted last components below `folder`, from one listing of it and no more."""
        return [n for n in self._names(folder) if not _TEMPORARY.fullmatch(n)]

    def unfinished(self, folder: str) -> Names:
        """Temporary files in `folder`; a store that puts whole objects has none."""
        prefix = folder and folder + "/"
        return [prefix + n for n in self._names(folder) if _TEMPORARY.fullmatch(n)]

    def _names(self, folder: str) -> Names:
        def call(fs: Any, path: str) -> Names:
            found: Names = s3.listed(fs, path) if s3.is_s3(fs) else fs.ls(path, detail=False)
            return found

        try:
            found = self._do("list", folder, call)
        except NotFound:
            return []
        root = self._path(folder)[1].strip("/")
        # Some stores list the folder itself, as an object without bytes.
        inner = {p.strip("/") for p in found if p.strip("/") != root}
        return sorted(p.rpartition("/")[2] for p in inner)

    def walk(self, folder: str, *, leftovers: bool = False) -> Iterator[str]:
        """The full name of every object below `folder`."""
        root = self._path("")[1].strip("/")
        try:
            found = self._do("list", folder, lambda fs, path: fs.find(path))
        except NotFound:
            return
        for path in sorted(found):
            name = path.strip("/").removeprefix(root).strip("/")
            if leftovers or not _TEMPORARY.fullmatch(name.rpartition("/")[2]):
                yield name

    # --- writing

    def put(self, name: str, data: Buffer) -> None:
        """Write a whole object, replacing what is there."""
        lease.fence(self.url, name)
        self._do("write", name, lambda fs, path: self._put(fs, path, bytes(data)))

    def _put(self, fs: Any, path: str, data: bytes, **options: Any) -> None:
        if self._scheme in _WHOLE:
            fs.pipe_file(path, data, **options)
            return
        folder, _, last = path.rpartition("/")
        beside = f"{folder}/.{last}.{os.urandom(4).hex()}.tmp"
        fs.pipe_file(beside, data)
        fs.mv(beside, path)

    def put_new(self, name: str, data: Buffer) -> bool:
        """Write a whole object unless the name is taken; False when it is.

        The store is asked to refuse (``If-None-Match: *``) where it can; elsewhere the name is
        looked at first, and of two writers in the same moment one may win unseen.
        """
        lease.fence(self.url, name)
        content = bytes(data)

        def call(fs: Any, path: str) -> bool:
            # Looked at first in any case: some stores that speak S3 pass over the condition.
            if fs.exists(path):
                return False
            if self._scheme in _WHOLE:
                try:
                    fs.pipe_file(path, content, mode="create")
                except FileExistsError:
                    return False
                except OSError as error:
                    # s3fs knows it by a word that not all stores say.
                    if s3.precondition_failed(error):
                        return False
                    raise
            else:
                self._put(fs, path, content)
            return True

        # Of a request whose answer was lost, the second attempt finds what the first one put.
        return self._do("write", name, call) or self._holds(name, content)

    def replace(self, name: str, old: bytes, new: Buffer) -> bool:
        """Write a whole object in place of one that holds exactly `old`; see `Storage.replace`.

        The store is asked to compare (``If-Match``) where it can. Elsewhere what is there is read
        and compared first, and of two writers in the same moment one may win unseen.
        """
        lease.fence(self.url, name)
        content = bytes(new)

        def call(fs: Any, path: str) -> bool:
            return (
                s3.replace(fs, path, old, content)
                if s3.is_s3(fs)
                else self._swap(fs, path, old, content)
            )

        return self._do("replace", name, call) or self._holds(name, content)

    def _swap(self, fs: Any, path: str, old: bytes, new: bytes) -> bool:
        try:
            if fs.cat_file(path) != old:
                return False
        except FileNotFoundError:
            return False
        self._put(fs, path, new)
        return True

    def _holds(self, name: str, data: bytes) -> bool:
        try:
            return self.read(name, len(data)) == data
        except (NotFound, FormatError):
            return False

    def locked(self, name: str) -> AbstractContextManager[None]:
        """Hold the lock of an object, ``<name>.lock``; see `lease` for what that is worth."""
        return lease.held(self, name)

    def create(self, name: str) -> Sink:
        """Begin an object. Its name must be new: pqvault draws it at random."""
        lease.fence(self.url, name)
        fs, path = self._path(name)
        if s3.is_s3(fs):
            return s3.Upload(fs, path, self.where(name))
        return RemoteSink(self, name)

    def remove(self, name: str) -> None:
        """Remove an object; one that is gone already is no error."""
        lease.fence(self.url, name)

        def call(fs: Any, path: str) -> None:
            try:
                fs.rm_file(path)
            except FileNotFoundError:
                return

        self._do("remove", name, call)

    # --- folders, which object stores do not have

    def remove_folder(self, folder: str) -> None:
        """Remove empty folders where there are folders."""
        if self._scheme not in _WHOLE and not list(self.walk(folder)) and self.exists(folder):
            self._do("remove", folder, lambda fs, path: fs.rm(path, recursive=True))

    def make_folder(self, folder: str) -> None:
        """Make a folder where there are folders."""
        if self._scheme not in _WHOLE:
            self._do("make", folder, lambda fs, path: fs.makedirs(path, exist_ok=True))

    def sync_folder(self, folder: str) -> None:
        """Nothing: what a store has acknowledged is durable."""
