"""safetensors: tensors of a sealed file, each read and decrypted when it is asked for.

The library's own ``safe_open`` maps a file of the disk; this has its shape and goes by ranges.
"""

from __future__ import annotations

import json
import threading
from importlib.util import find_spec
from typing import Any, Final

import fsspec

from pqvault.closing import Closing
from pqvault.errors import FormatError, NotFound, UsageError

__all__ = ["safe_open"]

MAX_HEADER: Final = 100_000_000  # bytes, the library's own limit
_MAX_DIMENSIONS: Final = 64


class safe_open(Closing):  # noqa: N801  the name that the library has
    """A file of tensors at a path or URL (``pqvault://…``), of which only the header is read.

    ``framework``: ``pt`` for torch, ``np`` for NumPy. ``device``: where torch puts them. Other
    options are fsspec's. Threads may share it. Raises FormatError for a header that contradicts
    itself, before anything of its size is allocated.
    """

    def __init__(
        self, url: str, framework: str = "pt", device: Any = "cpu", **options: Any
    ) -> None:
        inside = url.partition("::")[0]
        self._name = inside if "://" in inside else url  # `pqvault::URL` of a stream
        self._is_numpy = framework in ("np", "numpy")
        if not self._is_numpy and framework not in ("pt", "torch", "pytorch"):
            raise UsageError(
                f"tensors of {self._name} are not given as {framework!r}",
                hint="choose pt for torch, or np for NumPy",
            )
        for package in ("safetensors", "numpy" if self._is_numpy else "torch"):
            if find_spec(package) is None:
                raise UsageError(
                    f"tensors of {self._name} need {package}, which is not installed",
                    hint="pip install 'pqvault[safetensors]' is enough for framework=\"np\"; for"
                    " torch pip install 'pqvault[safetensors,torch]'",
                )
        self._device = device
        self._lock = threading.Lock()  # of the position of the file
        self._opened = fsspec.open(url, "rb", **options)
        self._file = self._opened.open()
        try:
            self._read_header()
        except BaseException:
            self.close()
            raise

    def _read_header(self) -> None:
        total = self._file.seek(0, 2)
        self._file.seek(0)
        length = int.from_bytes(self._file.read(8), "little")
        if total < 8 or length > min(MAX_HEADER, total - 8):
            raise self._bad("is too short for its header")
        try:
            header = json.loads(self._file.read(length))
            self._metadata = dict(header.pop("__metadata__", {}))
            self._tensors = {name: _checked(facts) for name, facts in header.items()}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise self._bad("has a header that is not of safetensors") from None
        self._begin = 8 + length
        at = 0
        for _, _, begin, end in sorted(self._tensors.values(), key=lambda facts: facts[2:]):
            if begin != at:
                raise self._bad("has tensors that overlap or leave a gap")
            at = end
        if self._begin + at != total:
            raise self._bad("does not end where its tensors do")

    def _bad(self, sentence: str) -> FormatError:
        return FormatError(f"{self._name} {sentence}")

    def keys(self) -> list[str]:
        """The names of the tensors, as the file has them."""
        return list(self._tensors)

    def metadata(self) -> dict[str, str]:
        """The text that the file was saved with."""
        return dict(self._metadata)

    def get_tensor(self, name: str) -> Any:
        """One tensor; nothing else of the file is read."""
        return self.get_slice(name)[...]

    def get_slice(self, name: str) -> _Slice:
        """A tensor whose rows are read when they are asked for: ``[5:9]``, ``[:, 0]``."""
        if name not in self._tensors:
            raise NotFound(
                f"{self._name} has no tensor {name!r}", hint="keys() lists those that it has"
            )
        return _Slice(self, *self._tensors[name])

    def _load(self, kind: str, shape: list[int], begin: int, end: int) -> Any:
        """``end - begin`` bytes as a tensor, by the library's own reader of one tensor."""
        header = {"x": {"dtype": kind, "shape": shape, "data_offsets": [0, end - begin]}}
        head = json.dumps(header, separators=(",", ":")).encode()
        head += b" " * (-len(head) % 8)
        blob = bytearray(8 + len(head) + end - begin)
        blob[:8] = len(head).to_bytes(8, "little")
        blob[8 : 8 + len(head)] = head
        with self._lock, memoryview(blob)[8 + len(head) :] as view:
            self._file.seek(self._begin + begin)
            if self._file.readinto(view) != len(view):
                raise self._bad("ends early")
        from safetensors import SafetensorError

        try:
            if self._is_numpy:
                return _numpy(bytes(blob), f"{self._name} has a tensor of type {kind}")
            from safetensors.torch import load

            return load(bytes(blob))["x"].to(self._device)
        except SafetensorError as error:  # its type, or its size for its shape
            raise self._bad(f"has a tensor that contradicts its header: {error}") from None

    def close(self) -> None:
        """Close the file."""
        self._opened.close()


class _Slice:
    """One tensor of an open file, read by rows."""

    def __init__(
        self, file: safe_open, kind: str, shape: tuple[int, ...], begin: int, end: int
    ) -> None:
        self._file, self._kind, self._shape = file, kind, shape
        self._begin, self._end = begin, end

    def get_shape(self) -> list[int]:
        """Its shape."""
        return list(self._shape)

    def get_dtype(self) -> str:
        """The name of its type, as safetensors has it."""
        return self._kind

    def __getitem__(self, where: Any) -> Any:
        first = where[0] if isinstance(where, tuple) and where else where
        if not self._shape or not isinstance(first, slice):
            return self._file._load(self._kind, [*self._shape], self._begin, self._end)[where]
        start, stop, step = first.indices(self._shape[0])
        if step != 1 or not self._shape[0]:
            return self._file._load(self._kind, [*self._shape], self._begin, self._end)[where]
        stop = max(start, stop)
        row = (self._end - self._begin) // self._shape[0]
        begin = self._begin + start * row
        rows = self._file._load(
            self._kind, [stop - start, *self._shape[1:]], begin, begin + (stop - start) * row
        )
        return rows[(slice(None), *where[1:])] if isinstance(where, tuple) else rows


def _numpy(blob: bytes, what: str) -> Any:
    from safetensors.numpy import load

    try:
        return load(blob)["x"]
    except KeyError:
        raise UsageError(
            f"{what}, which NumPy does not have", hint="open the file with framework='pt'"
        ) from None


def _checked(facts: dict[str, Any]) -> tuple[str, tuple[int, ...], int, int]:
    kind, shape, (begin, end) = facts["dtype"], facts["shape"], facts["data_offsets"]
    numbers = [*shape, begin, end]
    if not isinstance(kind, str) or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError("not a tensor")
    if end < begin or len(shape) > _MAX_DIMENSIONS:
        raise ValueError("not a tensor")
    return kind, tuple(shape), begin, end
