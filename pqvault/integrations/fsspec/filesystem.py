"""PQVaultFileSystem: what fsspec calls."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from fsspec.core import get_compression
from fsspec.implementations.chained import ChainedFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import tokenize

from pqvault.archive.append import AppendPart
from pqvault.archive.archive import Archive
from pqvault.errors import IntegrityError, NoKeyFits, NotFound, PQVaultError, UsageError
from pqvault.integrations import places, references
from pqvault.integrations.fsspec.files import (
    IsFolder,
    MissingFile,
    Unchangeable,
    VaultFile,
    VaultText,
    VaultWriter,
)
from pqvault.integrations.fsspec.trees import (
    ArchiveTree,
    Info,
    NewTree,
    StreamTree,
    Tree,
    folder_info,
)
from pqvault.integrations.fsspec.writing import (
    CompressedPart,
    PartTransaction,
    SinglePart,
    StreamPart,
)
from pqvault.integrations.references import References
from pqvault.names import printable
from pqvault.sealed import RangeFile
from pqvault.sealed.writer import DEFAULT_FRAME, DEFAULT_LEVEL
from pqvault.streams import open_stream, open_stream_at

__all__ = ["PQVaultFileSystem"]

_THREADS: Final = 8  # that read ranges side by side; most of them wait for a disk or a store


class PQVaultFileSystem(ChainedFileSystem):
    """The files of an archive, or the one file of a sealed stream, decrypted as they are read.

    ``fo``: path or URL of the archive or stream; ``target_protocol``, ``target_options``: of the
    file system it is on. ``identities``, ``recipients``, ``sign``: references to keys, never keys
    (:mod:`pqvault.integrations.references`). ``as_of``: a part id or a time. ``signers``: who must
    have signed what is read. ``level``, ``frame_size``: of what is written.

    An instance sees the parts that were there when it was first used, until
    :meth:`invalidate_cache`. It pickles as its options: no key, no open file, no listing.
    """

    protocol = "pqvault"
    root_marker = ""
    transaction_type = PartTransaction

    def __init__(
        self,
        fo: str = "",
        target_protocol: str | None = None,
        target_options: dict[str, Any] | None = None,
        *,
        identities: References | None = None,
        recipients: References | None = None,
        sign: References | None = None,
        signers: References | None = None,
        as_of: str | None = None,
        level: int = DEFAULT_LEVEL,
        frame_size: int = DEFAULT_FRAME,
        **options: Any,
    ) -> None:
        references.check_options(options, PQVaultFileSystem.__init__)
        for given in (identities, recipients, sign, signers):
            references.normal(given)  # refuses keys before anything can keep them
        if not fo:
            raise UsageError(
                "no archive is named",
                hint="write pqvault://path/inside::file:///data/corpus.pqv",
            )
        super().__init__(**options)
        self.fo = os.fspath(fo)
        self._target = (target_protocol, target_options)
        self._identities = identities
        self._recipients = recipients
        self._sign = sign
        self._signers = signers
        self._as_of = as_of
        self._level = level
        self._frame_size = frame_size
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._opened: Tree | None = None
        self._made: set[str] = set()  # folders that were asked for, and may hold nothing yet
        self.part: AppendPart | None = None  # of the transaction under way

    # -- what stands behind ----------------------------------------------------------------

    def _place(self) -> tuple[Any, str]:
        return places.inner(self.fo, *self._target)

    @property
    def _tree(self) -> Tree:
        if os.getpid() != self._pid:  # a child of fork: the parent's locks may be held for ever
            self._lock = threading.RLock()
            self._opened = None
            self._pid = os.getpid()
        with self._lock:
            if self._opened is None:
                self._opened = self._open_tree()
            return self._opened

    def _open_tree(self) -> Tree:
        fs, path = self._place()
        archive = places.is_archive(fs, path)
        if not archive and self._recipients is not None and not fs.exists(path):
            return NewTree(self.fo)
        keys = references.identities(self._identities)
        if archive:
            policy = references.policy(self._signers)
            storage = places.storage_at(fs, path, self._target[1])
            return ArchiveTree(Archive(storage, keys, as_of=self._as_of, policy=policy))
        if isinstance(fs, LocalFileSystem):
            return StreamTree(open_stream(path, keys), path)
        return StreamTree(open_stream_at(places.RangeSource(fs, path), keys, path), path)

    def _inside(self, path: str) -> str:
        """The path in the tree. A chain that names no inner path gives the outer one."""
        name = str(self._strip_protocol(path)).strip("/")
        return "" if name == self.fo.strip("/") and self._is_folder() else name

    def _is_folder(self) -> bool:
        return isinstance(self._tree, ArchiveTree)

    def invalidate_cache(self, path: str | None = None) -> None:
        """See what was added since: the archive or stream is opened anew at the next use."""
        with self._lock:
            self._opened = None

    def _written(self) -> None:
        """What this process has written is seen by all its instances on the same archive."""
        for other in list(type(self)._cache.values()):
            if other.fo == self.fo:
                other.invalidate_cache()
        self.invalidate_cache()

    # -- listing ---------------------------------------------------------------------------

    def info(self, path: str, **options: Any) -> Info:
        """``name``, ``size`` in bytes of plaintext, ``type``, ``mtime``, ``mode``, ``digest``."""
        inside = self._inside(path)
        try:
            return self._tree.info(inside)
        except MissingFile:
            if inside in self._made:
                return folder_info(inside)
            raise

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        """What is in a folder, sorted."""
        inside = self._inside(path)
        try:
            found = self._tree.children(inside)
        except MissingFile:
            if inside not in self._made:
                raise
            found = []
        return found if detail else [info["name"] for info in found]

    def find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        **options: Any,
    ) -> Any:
        """All files below a path, in one pass over the catalog."""
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        inside = self._inside(path)
        found = {info["name"]: info for info in self._below(inside, maxdepth, withdirs)}
        if not found:
            try:
                info = self._tree.info(inside)
            except MissingFile:
                info = {"type": ""}
            if info["type"] == "file":
                found = {info["name"]: info}
        return found if detail else list(found)

    def _below(self, inside: str, maxdepth: int | None, withdirs: bool) -> Iterator[Info]:
        if withdirs and inside:
            try:
                info = self._tree.info(inside)
            except MissingFile:
                return
            if info["type"] == "directory":
                yield info
        base = inside.count("/") + 1 if inside else 0
        for info in self._tree.below(inside):
            if maxdepth is not None and info["name"].count("/") - base >= maxdepth:
                continue
            if withdirs or info["type"] != "directory":
                yield info

    def exists(self, path: str, **options: Any) -> bool:
        """Whether there is such a path; what cannot be read at all is an error, not a no."""
        try:
            self.info(path)
        except MissingFile:
            return False
        return True

    def modified(self, path: str) -> datetime:
        """The time that the file had when it was sealed."""
        return datetime.fromtimestamp(self.info(path).get("mtime", 0), UTC)

    def ukey(self, path: str) -> str:
        """Changes when the content does."""
        return str(tokenize(self._tree.key(self._inside(path))))

    checksum = ukey

    # -- reading ---------------------------------------------------------------------------

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode == "rb":
            return VaultFile(self._content(path))
        if mode in ("wb", "xb"):
            if mode == "xb" and self.exists(path):
                raise FileExistsError(path)
            return self._writer(str(self._strip_protocol(path)).strip("/"))
        raise UsageError(
            f"mode {mode!r} is not possible: what is sealed is not changed",
            hint="open it with rb, or write a new file with wb",
        )

    def _content(self, path: str) -> RangeFile:
        inside = self._inside(path)
        if not inside and self._is_folder():
            raise self._no_file_named()
        return self._tree.open(inside)

    def _no_file_named(self) -> IsFolder:
        return IsFolder(
            f"{self.fo} is an archive, and no file in it is named",
            hint="write pqvault://path/inside::file:///data/corpus.pqv",
        )

    def open(self, path: str, mode: str = "rb", *args: Any, **options: Any) -> Any:
        """A file: binary or text, reading or writing."""
        if "r" in mode:
            return super().open(path, mode, *args, **options)
        if "b" in mode:
            compression = get_compression(path, options.pop("compression", None))
            file = super().open(path, mode, *args, **options)
            if compression is not None:
                file.change(lambda part: CompressedPart(part, compression))
            return file
        text = {k: options.pop(k) for k in ("encoding", "errors", "newline") if k in options}
        return VaultText(self.open(path, mode.replace("t", "") + "b", *args, **options), **text)

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **options: Any
    ) -> bytes:
        """The bytes of a range; negative numbers count from the end."""
        file = self._content(path)
        first, last, _ = slice(start, end).indices(file.size)
        return bytes(file.pread(first, max(0, last - first)))

    def cat_ranges(
        self,
        paths: list[str],
        starts: int | list[int | None] | None,
        ends: int | list[int | None] | None,
        max_gap: int | None = None,
        on_error: str = "return",
        **options: Any,
    ) -> list[Any]:
        """Ranges of many files, side by side; with ``on_error="return"`` errors in their places."""
        count = len(paths)
        froms = starts if isinstance(starts, list) else [starts] * count
        tos = ends if isinstance(ends, list) else [ends] * count
        if not len(froms) == len(tos) == count:
            raise ValueError("paths, starts and ends are not of one length")

        def one(job: tuple[str, int | None, int | None]) -> Any:
            try:
                return self.cat_file(*job)
            except (PQVaultError, OSError) as error:
                if on_error == "return":
                    return error
                raise

        jobs = list(zip(paths, froms, tos, strict=True))
        if count < 2:
            return [one(job) for job in jobs]
        with ThreadPoolExecutor(min(_THREADS, count), "pqvault-ranges") as pool:
            return list(pool.map(one, jobs))

    # -- writing ---------------------------------------------------------------------------

    def _writer(self, name: str) -> VaultWriter:
        fs, place = self._place()
        places.check_name(name)
        if name in ("", place.strip("/")):
            if places.is_archive(fs, place):
                raise self._no_file_named()
            places.check_place(fs, place)
            return VaultWriter(
                StreamPart(fs, place, self._recipient_keys(), self._level, self._frame_size),
                name,
                self._written,
            )
        self._check_new(name)
        if not self._intrans:
            part = self._new_part(fs, place)
            return VaultWriter(SinglePart(part, name), name, self._written)
        with self._lock:
            if self.part is None:
                self.part = self._new_part(fs, place)
        return VaultWriter(self.part.create(os.fsencode(name)), name)

    def _check_new(self, name: str) -> None:
        # With public keys alone nobody can tell; a key that is not here is as good as none, and
        # damage in what is there is no reason to lose what is written.
        if self._opened is None and not (self._identities or os.environ.get("PQVAULT_IDENTITY")):
            return
        with suppress(NotFound, NoKeyFits, IntegrityError):
            self._tree.check_new(name)

    def _new_part(self, fs: Any, place: str) -> AppendPart:
        places.check_place(fs, place)
        return AppendPart(
            places.storage_at(fs, place, self._target[1]),
            self._recipient_keys(),
            level=self._level,
            frame_size=self._frame_size,
            sign=references.signing_keys(self._sign),
        )

    def _recipient_keys(self) -> Sequence[Any]:
        return references.recipients(self._recipients)

    def _refuse(self, *paths: str, **options: Any) -> None:
        """Raises Unchangeable, which is also what hosts know such file systems by; MissingFile."""
        self.info(paths[0])
        raise Unchangeable(
            f"{printable(os.fsencode(paths[0]))} is not removed, moved or copied: what is sealed is"
            " not changed",
            hint="write a file of that name to replace it, or seal a new archive without it",
        )

    rm_file = _rm = cp_file = _refuse

    def mkdir(self, path: str, create_parents: bool = True, **options: Any) -> None:
        """Nothing in the archive: a folder comes with what is written in it. Until then this
        instance says that it is there and empty, which is what hosts look for next."""
        self._made.add(str(self._strip_protocol(path)).strip("/"))

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """The same."""
        self.mkdir(path)

    def rmdir(self, path: str) -> None:
        """A folder that was made and holds nothing yet. Raises Unchangeable for what is sealed,
        MissingFile."""
        inside = str(self._strip_protocol(path)).strip("/")
        made = inside in self._made
        self._made.discard(inside)
        if not made or self.exists(inside):
            self._refuse(inside)
