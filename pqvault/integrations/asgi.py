"""An ASGI middleware that seals requests and responses of an OpenAI-compatible server.

::

    app.add_middleware(InferenceLogMiddleware, log=InferenceLog("serving.pqv", recipients=[…]))
    vllm serve … --middleware pqvault.integrations.asgi.InferenceLogMiddleware   # environment

Nothing is held back: bodies pass through as they come, and what was seen is logged at the end,
also of a stream whose client went away. Headers are not logged, but for the request id.
"""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final, TypeAlias

from pqvault.integrations.openai import StreamedAnswer, answer_of, question_of
from pqvault.integrations.waiting import Waiting
from pqvault.logs import InferenceLog
from pqvault.logs.environment import log_from_environment

__all__ = ["PATHS", "InferenceLogMiddleware"]

PATHS: Final = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/messages",
)
_MAX_BODY: Final = 16 * 1024 * 1024  # bytes of a request or a response that are kept

_logger = logging.getLogger("pqvault.integrations.asgi")
_ZLIB: Final = frozenset({"gzip", "x-gzip", "deflate"})
_LONGEST: Final = 10.0  # seconds to write what waits when the server ends

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]


class InferenceLogMiddleware:
    """``log``: where to; else the environment says. ``paths``: whose POST requests are logged,
    by the end of their path. ``max_body``: bytes kept of a body; the rest is counted.

    When the server says that it shuts down (lifespan, which some can switch off), the log is
    closed.
    """

    def __init__(
        self,
        app: App,
        log: InferenceLog | None = None,
        *,
        paths: Iterable[str] = PATHS,
        max_body: int = _MAX_BODY,
    ) -> None:
        self.app = app
        self.log = log if log is not None else log_from_environment()
        self._paths = tuple(paths)
        self._max_body = max_body
        self._waiting = Waiting(self.log)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["type"] == "http" and self._is_logged(scope):
            await self._logged(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _is_logged(self, scope: Message) -> bool:
        return scope["method"] == "POST" and str(scope["path"]).endswith(self._paths)

    async def _lifespan(self, scope: Message, receive: Receive, send: Send) -> None:
        """The life of the server, for the application, and alone when it answers nothing: many
        that know only requests raise then, and the server would tell nobody of its end."""
        asked: list[Message] = []
        answered = False

        async def receiving() -> Message:
            asked.append(await receive())
            return asked[-1]

        async def sending(message: Message) -> None:
            nonlocal answered
            answered = True
            if message["type"] == "lifespan.shutdown.complete":
                await self._close()
            await send(message)

        try:
            await self.app(scope, receiving, sending)
        except Exception as error:
            if answered:
                raise
            _logger.info("the application knows no lifespan: %s", type(error).__name__)
        if answered:
            return
        if not asked:
            await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _close(self) -> None:
        await self._waiting.settle()
        await asyncio.to_thread(self.log.close, _LONGEST)

    async def _logged(self, scope: Message, receive: Receive, send: Send) -> None:
        seen = _Exchange(scope, self._max_body)

        async def receiving() -> Message:
            message = await receive()
            seen.received(message)
            return message

        async def sending(message: Message) -> None:
            seen.sent(message)
            await send(message)

        try:
            await self.app(scope, receiving, sending)
        except BaseException as error:
            seen.error = error
            raise
        finally:
            self._waiting.take(seen.record(), seen.size)


class _Body:
    """The first bytes of a body, and how many more there were. One that some middleware within
    has compressed is opened, as far as zlib does it: ``opened``."""

    def __init__(self, most: int, encoding: str = "") -> None:
        self._most = most
        self._pieces: list[bytes] = []
        self._kept = 0
        self.encoding = encoding.strip().lower()
        self._zlib = None
        if self.encoding in _ZLIB:
            self._zlib = zlib.decompressobj(zlib.MAX_WBITS | 32)  # gzip's header, or its own
        self.cut = 0  # bytes that were not kept, compressed ones as they came

    @property
    def opened(self) -> bool:
        """Whether what is kept is what was meant."""
        return self.encoding in ("", "identity") or self._zlib is not None

    def add(self, data: bytes) -> bytes:
        """What is kept of it."""
        piece, rest = self._divided(data, self._most - self._kept)
        self.cut += rest
        if piece:
            self._pieces.append(piece)
            self._kept += len(piece)
        return piece

    def _divided(self, data: bytes, room: int) -> tuple[bytes, int]:
        if self._zlib is not None and room and data:
            try:
                piece = self._zlib.decompress(data, room)
            except zlib.error:
                self._zlib = None  # it is something else, and kept as that
            else:
                return piece, len(self._zlib.unconsumed_tail)
        return bytes(data[:room]), max(0, len(data) - room)

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._kept

    def data(self) -> bytes:
        return b"".join(self._pieces)


class _Exchange:
    """What is seen of one request and its response."""

    def __init__(self, scope: Message, max_body: int) -> None:
        self._scope = scope
        self._began = time.time()
        self._clock = time.perf_counter()
        self._first: float | None = None
        self._max_body = max_body
        self._request = _Body(max_body, _header(scope.get("headers", ()), b"content-encoding"))
        self._response = _Body(max_body)
        self._status: int | None = None
        self._stream: StreamedAnswer | None = None
        self._ended = False
        self._gone = False
        self.error: BaseException | None = None

    def received(self, message: Message) -> None:
        if message["type"] == "http.request":
            self._request.add(message.get("body", b""))
        elif message["type"] == "http.disconnect" and not self._ended:
            self._gone = True

    def sent(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = list(message.get("headers", ()))
            self._response = _Body(self._max_body, _header(headers, b"content-encoding"))
            kind = _header(headers, b"content-type")
            if kind.startswith("text/event-stream") and self._response.opened:
                self._stream = StreamedAnswer()
        elif message["type"] == "http.response.body":
            body = message.get("body", b"")
            if body and self._first is None:
                self._first = time.perf_counter() - self._clock
            kept = self._response.add(body)
            if self._stream is not None and kept:
                self._stream.feed(kept)
            self._ended = not message.get("more_body", False)

    @property
    def size(self) -> int:
        """Bytes that the record has about."""
        return self._request.size + self._response.size

    def record(self) -> dict[str, object]:
        record: dict[str, object] = {
            "time": self._began,
            "request_id": _header(self._scope.get("headers", ()), b"x-request-id") or None,
            "duration_s": time.perf_counter() - self._clock,
            "first_token_s": self._first,
            "status_code": self._status,
            "path": self._scope["path"],
        }
        record |= _said("request", self._request, question_of)
        if self._stream is not None:
            record |= self._stream.fields()
        else:
            record |= _said("response", self._response, answer_of)
        for name, body in (("request_cut", self._request), ("response_cut", self._response)):
            if body.cut:
                record[name] = body.cut
        if self.error is not None:
            record["error_type"] = type(self.error).__qualname__
            record["error_message"] = str(self.error)
        elif self._gone or not self._ended:
            record["error_type"] = "client_disconnected" if self._gone else "response_unfinished"
        return record


def _said(name: str, body: _Body, read: Callable[[bytes], dict[str, object]]) -> dict[str, object]:
    """What a body says; its bytes, when it is compressed as only others open it."""
    if body.opened or not body.data():
        return read(body.data())
    return {f"{name}_bytes": body.data(), f"{name}_encoding": body.encoding}


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    return next((v.decode("latin-1") for k, v in headers if k.lower() == name), "")
