"""What S3 can do and fsspec does not speak of: uploads side by side, and put only in place of what
was read."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any, Final, TypeVar

from pqvault.closing import Finishing
from pqvault.errors import UsageError
from pqvault.storage.base import Buffer
from pqvault.storage.retry import explain_remote, tried

__all__ = ["OPTIONS", "SCHEMES", "Upload", "is_s3", "listed", "replace"]

PART: Final = 16 * 1024 * 1024  # bytes; S3 takes 5 MiB to 5 GiB, and 10,000 parts
_IN_FLIGHT: Final = 3  # parts under way for one object: 48 MiB
_THREADS: Final = 16

SCHEMES: Final = ("s3", "s3a")
# Attempts are `retry`'s: the library's own under them would make a minute of each of ours.
OPTIONS: Final = {"config_kwargs": {"retries": {"mode": "standard", "total_max_attempts": 1}}}

Result = TypeVar("Result")


def is_s3(fs: Any) -> bool:
    """Whether a file system of fsspec is S3's."""
    protocol = fs.protocol
    return "s3" in ((protocol,) if isinstance(protocol, str) else protocol)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, "pqvault-upload")


os.register_at_fork(after_in_child=_pool.cache_clear)


def listed(fs: Any, path: str) -> list[str]:
    """The paths of what is in a folder. Unlike fsspec's, it does not list the folder above to find
    out whether one that is empty exists."""
    bucket, key, _ = fs.split_path(path)
    prefix = f"{key.rstrip('/')}/" if key else ""
    found: list[str] = []
    more: dict[str, str] = {}
    while True:
        page = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, Delimiter="/", **more)
        found += [item["Key"] for item in page.get("Contents", ())]
        found += [item["Prefix"].rstrip("/") for item in page.get("CommonPrefixes", ())]
        if not page.get("IsTruncated"):
            return [f"{bucket}/{name}" for name in found]
        more = {"ContinuationToken": page["NextContinuationToken"]}


def replace(fs: Any, path: str, old: bytes, new: bytes) -> bool:
    """Put ``new`` in place of an object that holds ``old``; False when it holds something else.

    ``If-Match`` with the tag of what was read makes the store compare (AWS since 2024); one that
    does not know the header on a PUT says so (501), and then nothing stands between the
    comparison and the put.
    """
    bucket, key, _ = fs.split_path(path)

    def put(**condition: str) -> None:
        tried(lambda: fs.call_s3("put_object", Bucket=bucket, Key=key, Body=new, **condition))

    try:
        # The tag first: an object that changes in between has another tag than this one.
        tag = tried(lambda: str(fs.info(path)["ETag"]))
        if tried(lambda: bytes(fs.cat_file(path, start=0, end=len(old) + 1))) != old:
            return False
        put(IfMatch=tag)
    except FileNotFoundError:
        return False
    except OSError as error:
        if _precondition_failed(error):
            return False
        if error.errno != errno.ENOSYS:
            raise
        put()
    return True


def _precondition_failed(error: OSError) -> bool:
    # s3fs turns the answer into an OSError and keeps the original as its cause.
    response = getattr(error.__cause__, "response", None) or {}
    return response.get("Error", {}).get("Code") in ("PreconditionFailed", "412")


class Upload(Finishing):
    """A `Sink` that uploads parts of 16 MiB side by side while the next one fills.

    Content of up to one part is one PUT. Nothing appears under the name before `finish`, and
    nothing ever does after `abort`. Memory: four parts, 64 MiB.
    """

    def __init__(self, fs: Any, path: str, where: str) -> None:
        self._fs = fs
        self._where = where
        self._bucket, self._key, _ = fs.split_path(path)
        self._buffer = bytearray()
        self._upload: str | None = None
        self._flying: deque[Future[str]] = deque()
        self._tags: list[str] = []
        self._open = True
        self.written = 0

    def write(self, buffer: Buffer) -> int:
        """Take all of ``buffer``; waits while three parts are under way."""
        if not self._open:
            raise UsageError(f"{self._where} is closed and takes no more bytes")
        view = memoryview(buffer).cast("B")
        at = 0
        while at < len(view):
            take = min(PART - len(self._buffer), len(view) - at)
            self._buffer += view[at : at + take]
            at += take
            if len(self._buffer) == PART:
                self._do(self._send)
        self.written += len(view)
        return len(view)

    def finish(self) -> None:
        """Make the object appear; durable on return."""
        self._do(self._finish)
        self._open = False

    def _finish(self) -> None:
        if self._upload is None:
            body = bytes(self._buffer)
            tried(lambda: self._call("put_object", Body=body))
            return
        if self._buffer:
            self._send()
        while self._flying:
            self._tags.append(self._flying.popleft().result())
        parts = [{"PartNumber": n, "ETag": tag} for n, tag in enumerate(self._tags, 1)]
        self._complete(parts)

    def _complete(self, parts: list[dict[str, Any]]) -> None:
        """Join the parts. A second attempt whose first one succeeded finds no upload any more, and
        the object in its place."""
        attempts = 0

        def call() -> None:
            nonlocal attempts
            attempts += 1
            try:
                self._call(
                    "complete_multipart_upload",
                    UploadId=self._upload,
                    MultipartUpload={"Parts": parts},
                )
            except FileNotFoundError:
                if attempts == 1 or self._size() != self.written:
                    raise

        tried(call)
        self._upload = None

    def _size(self) -> int:
        return int(self._call("head_object")["ContentLength"])

    def _send(self) -> None:
        if self._upload is None:
            self._upload = tried(lambda: str(self._call("create_multipart_upload")["UploadId"]))
        while len(self._flying) >= _IN_FLIGHT:
            self._tags.append(self._flying.popleft().result())
        number = len(self._tags) + len(self._flying) + 1
        self._flying.append(_pool().submit(self._send_part, number, bytes(self._buffer)))
        self._buffer.clear()

    def _send_part(self, number: int, body: bytes) -> str:
        return tried(
            lambda: str(
                self._call("upload_part", UploadId=self._upload, PartNumber=number, Body=body)[
                    "ETag"
                ]
            )
        )

    def _call(self, method: str, **options: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._fs.call_s3(
            method, Bucket=self._bucket, Key=self._key, **options
        )
        return found

    def _do(self, call: Callable[[], Result]) -> Result:
        try:
            return call()
        except BaseException as error:
            self.abort()
            if not isinstance(error, Exception):
                raise
            raise explain_remote(error, "write", self._where) from error

    def abort(self) -> None:
        """Drop the parts; does nothing after `finish`."""
        if not self._open:
            return
        self._open = False
        for part in self._flying:
            part.cancel()
        for part in self._flying:
            if not part.cancelled():
                part.exception()  # waits: a part that lands after the abort would stay
        upload, self._upload = self._upload, None
        if upload is None:
            return
        try:
            tried(lambda: self._call("abort_multipart_upload", UploadId=upload))
        except OSError:
            # Called while another error is on its way, which must stay the one reported. The
            # bucket's own rule for uploads that were never completed removes the parts.
            return
