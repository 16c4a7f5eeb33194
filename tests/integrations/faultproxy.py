"""A store that misbehaves: a proxy on loopback in front of a good one, with faults on demand.

A *fault* is a function ``(number, method, path) -> what`` that is asked before each request:

``None``        pass it on
a number        pass it on after that many seconds
``"503"``       answer Service Unavailable, without asking the store
``"cut"``       close the connection without an answer, the store has not seen the request
``"lost"``      pass the request on, then close the connection: the answer is lost
``"half"``      pass it on, and close the connection in the middle of the answer's body
``"torn"``      pass it on, and answer with the first half of the body as if that were all
``(400, "X")``  answer with this status and S3's error of this name, without asking the store
"""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

Fault: TypeAlias = Callable[[int, str, str], str | float | tuple[int, str] | None]


def none(number: int, method: str, path: str) -> None:
    """No fault."""


class FaultProxy:
    """Listens on a port of 127.0.0.1; ``fault`` may be exchanged at any time."""

    def __init__(self, upstream: int) -> None:
        self.fault: Fault = none
        self.log: list[tuple[str, str]] = []
        numbers = itertools.count()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                number = next(numbers)
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                proxy.log.append((self.command, self.path))
                what = proxy.fault(number, self.command, self.path)
                if isinstance(what, int | float):
                    time.sleep(what)
                    what = None
                if what == "503":
                    what = (503, "ServiceUnavailable")
                if isinstance(what, tuple):
                    status, code = what
                    self._answer(status, [], b"<Error><Code>%s</Code></Error>" % code.encode())
                elif what == "cut":
                    self.close_connection = True
                else:
                    self._pass_on(body, what)

            def _pass_on(self, body: bytes, what: str | None) -> None:
                connection = http.client.HTTPConnection("127.0.0.1", upstream, timeout=60)
                try:
                    headers = {k: v for k, v in self.headers.items() if k != "Connection"}
                    connection.request(self.command, self.path, body, headers)
                    answer = connection.getresponse()
                    data = answer.read()
                    if what == "torn":
                        data = data[: len(data) // 2]
                    if what == "lost":
                        self.close_connection = True
                    else:
                        cut = len(data) // 2 if what == "half" else None
                        self._answer(answer.status, answer.getheaders(), data, cut)
                finally:
                    connection.close()

            def _answer(
                self,
                status: int,
                headers: list[tuple[str, str]],
                data: bytes,
                cut: int | None = None,
            ) -> None:
                self.send_response(status)
                length = str(len(data))
                for name, value in headers:
                    if name.lower() == "content-length" and self.command == "HEAD":
                        length = value
                    elif name.lower() not in ("content-length", "connection", "transfer-encoding"):
                        self.send_header(name, value)
                self.send_header("Content-Length", length)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data[:cut])
                if cut is not None:
                    self.close_connection = True

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        for method in ("GET", "PUT", "POST", "HEAD", "DELETE"):
            setattr(Handler, f"do_{method}", Handler._any)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """The endpoint to use in place of the store's."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
