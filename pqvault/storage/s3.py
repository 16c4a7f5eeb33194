"""What S3 can do and fsspec does not speak of: uploads side by side, and put only in place of what
was read."""

from __future__ import annotations

import errno
import os
import re
import warnings
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any, Final, TypeVar

from fsspec.asyn import sync

from pqvault.closing import Finishing
from pqvault.errors import UsageError
from pqvault.storage.base import Buffer
from pqvault.storage.retry import code_of, explain_remote, tried

__all__ = [
    "OPTIONS",
    "SCHEMES",
    "Upload",
    "beginning",
    "is_s3",
    "listed",
    "precondition_failed",
    "replace",
]

# Bytes; S3 takes 5 MiB to 5 GiB, and 10,000 parts. Sealed, what was some power of two is a little
# more, and that is not worth a request.
PART: Final = 9 * 1024 * 1024
_LARGE_PART: Final = 10 * PART  # bytes of those after the first 8,000, which are 75 GB
_SMALL_PARTS: Final = 8000
# Bytes under way for a process, but at least a part for each object: a store gives a connection
# only so much, and eight more than four.
_IN_FLIGHT: Final = 8 * PART
_THREADS: Final = 16

# A part is handed over as a bytearray, in one piece: as a file it would go through another thread,
# 64 KiB at a time. aiohttp warns that the loop has to copy it (3 ms), but that loop does nothing
# else than send.
warnings.filterwarnings("ignore", "Sending a large body directly", ResourceWarning)

SCHEMES: Final = ("s3", "s3a")
# Attempts are `retry`'s: the library's own under them would make a minute of each of ours. What is
# read is authenticated here, and some stores (rclone, Ceph, BOS) answer a range with the checksum
# of the whole object, which the library would take for damage.
OPTIONS: Final = {
    "config_kwargs": {
        "max_pool_connections": 64,
        "retries": {"mode": "standard", "total_max_attempts": 1},
        "response_checksum_validation": "when_required",
    }
}

Result = TypeVar("Result")


def is_s3(fs: Any) -> bool:
    """Whether a file system of fsspec is S3's."""
    protocol = fs.protocol
    return "s3" in ((protocol,) if isinstance(protocol, str) else protocol)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, "pqvault-upload")


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


def beginning(fs: Any, path: str, size: int) -> bytes:
    """The first ``size`` bytes of an object, or all that it has. An answer that lost its end on the
    way is an OSError that is worth another attempt: unlike the content, nothing else would tell."""
    bucket, key, _ = fs.split_path(path)

    async def fetch() -> tuple[str, bytes]:
        range_ = f"bytes=0-{size - 1}"
        answer = await fs._call_s3("get_object", Bucket=bucket, Key=key, Range=range_)
        try:
            return answer.get("ContentRange", ""), await answer["Body"].read()
        finally:
            answer["Body"].close()

    try:
        said, data = sync(fs.loop, fetch)
    except OSError as error:
        if code_of(error) == "InvalidRange":  # an object without bytes has no range
            return b""
        raise
    last = re.match(r"bytes 0-(\d+)/", said)
    if last and len(data) != int(last[1]) + 1:
        raise OSError(errno.EIO, "the answer is shorter than it says")
    return bytes(data)


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
        if tried(lambda: beginning(fs, path, len(old) + 1)) != old:
            return False
        put(IfMatch=tag)
    except FileNotFoundError:
        return False
    except OSError as error:
        if precondition_failed(error):
            return False
        if error.errno != errno.ENOSYS:
            raise
        put()
    return True


def precondition_failed(error: OSError) -> bool:
    """Whether the store compared, and it was not as the request would have it."""
    return code_of(error) in ("PreconditionFailed", "412")


class Upload(Finishing):
    """A `Sink` that uploads parts of 9 MiB side by side while the next one fills.

    Content of up to one part is one PUT. Nothing appears under the name before `finish`, and
    nothing ever does after `abort`. Memory: a part for each object, and two for each part under
    way, of which the library makes a copy.
    """

    def __init__(self, fs: Any, path: str, where: str) -> None:
        self._fs = fs
        self._where = where
        self._bucket, self._key, _ = fs.split_path(path)
        self._buffer = bytearray()  # grows to a part, and is then used again
        self._filled = 0
        self._part = PART
        self._upload: str | None = None
        self._flying: deque[tuple[Future[str], bytearray]] = deque()
        self._spare: list[bytearray] = []  # used again: fresh memory costs as much as sealing
        self._tags: list[str] = []
        self._open = True
        self.written = 0

    def write(self, buffer: Buffer) -> int:
        """Take all of ``buffer``; waits while enough parts are under way."""
        if not self._open:
            raise UsageError(f"{self._where} is closed and takes no more bytes")
        view = memoryview(buffer).cast("B")
        at = 0
        while at < len(view):
            take = min(self._part - self._filled, len(view) - at)
            # Past its end, this appends.
            self._buffer[self._filled : self._filled + take] = view[at : at + take]
            self._filled += take
            at += take
            if self._filled == self._part:
                self._do(self._send)
        self.written += len(view)
        return len(view)

    def finish(self) -> None:
        """Make the object appear; durable on return."""
        self._do(self._finish)
        self._open = False
        _uploads.discard(self)

    def _finish(self) -> None:
        if self._upload is None:
            body = self._content()
            tried(lambda: self._call("put_object", Body=body))
            return
        if self._filled:
            self._send()
        while self._flying:
            self._await_first()
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
            _uploads.add(self)
        while len(self._flying) >= max(1, _IN_FLIGHT // self._part // max(1, len(_uploads))):
            self._await_first()
        number = len(self._tags) + len(self._flying) + 1
        if number == _SMALL_PARTS:
            self._part = _LARGE_PART
        sent = _pool().submit(self._send_part, number, self._content())
        self._flying.append((sent, self._buffer))
        self._buffer = self._spare.pop() if self._spare else bytearray()
        self._filled = 0

    def _content(self) -> bytearray:
        """What was written since the last part was sent."""
        whole = self._filled == len(self._buffer)
        return self._buffer if whole else self._buffer[: self._filled]

    def _await_first(self) -> None:
        """Until the part that has been under way for longest is there."""
        # Dropped only when it is there: an abort in the midst of this must find it, and wait.
        sent, buffer = self._flying[0]
        tag = sent.result()
        self._flying.popleft()
        self._tags.append(tag)
        self._spare.append(buffer)

    def _send_part(self, number: int, body: bytearray) -> str:
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
        _uploads.discard(self)
        parts = [part for part, _ in self._flying]
        for part in parts:
            part.cancel()
        for part in parts:
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


_uploads: weakref.WeakSet[Upload] = weakref.WeakSet()  # those that have sent parts


def _forget() -> None:
    _pool.cache_clear()
    _uploads.clear()


os.register_at_fork(after_in_child=_forget)
