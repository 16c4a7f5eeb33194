"""A serving host that cannot read its own log, from the first request to the last shredded key.

    python examples/serving.py [--seconds 3] [--folder DIR]

An OpenAI-compatible toy server answers chat completions, streamed ones too, under load; the
middleware of pqvault seals every request and response. The server is killed with -9 in the middle,
the log is recovered, queried with SQL, and expired. Needs nothing but pqvault; SQL needs
`pqvault[duckdb]`. Every step but the load is a command that could be typed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pqvault.integrations.asgi import InferenceLogMiddleware
from pqvault.logs import InferenceLog

PQVAULT = [sys.executable, "-m", "pqvault_cli"]
WORDS = ("sealed", "logs", "survive", "what", "servers", "do", "not", "and", "hold", "no", "key")
MODELS = ("toy-7b", "toy-70b")


# -- the server ----------------------------------------------------------------------------


class Toy:
    """The application: an ASGI callable that answers ``/v1/chat/completions``."""

    def __init__(self, log: InferenceLog) -> None:
        self._log = log

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        if scope["path"] == "/flush":  # for the example: how many records are safe by now
            await asyncio.to_thread(self._log.flush)
            return await answer(send, 200, {"acknowledged": self._log.acknowledged})
        asked = json.loads(body)
        if asked["model"] not in MODELS:
            error = {"message": f"no model {asked['model']}", "type": "invalid_request_error"}
            return await answer(send, 404, {"error": error})
        words = random.choices(WORDS, k=random.randint(5, 40))
        usage = {"prompt_tokens": len(body) // 4, "completion_tokens": len(words)}
        if not asked.get("stream"):
            message = {"role": "assistant", "content": " ".join(words)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            whole = {"id": "c-1", "model": asked["model"], "choices": [choice], "usage": usage}
            return await answer(send, 200, whole)
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-type", b"text/event-stream")]})  # fmt: skip
        for word in words:
            await event(send, {"choices": [{"index": 0, "delta": {"content": word + " "}}]})
        last = {"index": 0, "delta": {}, "finish_reason": "stop"}
        await event(send, {"id": "c-2", "model": asked["model"], "choices": [last], "usage": usage})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def answer(send: Any, status: int, value: object) -> None:
    """A whole response."""
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})


async def event(send: Any, value: object) -> None:
    """One piece of a stream."""
    data = b"data: " + json.dumps(value).encode() + b"\n\n"
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def serve(app: Any, port: int) -> None:
    """Just enough of HTTP/1.1 to call an ASGI application; any ASGI server does it better."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
            method, path, _ = head[0].decode().split(" ")
            pairs = (line.partition(b":") for line in head[1:] if line)
            headers = [(name.lower(), value.strip()) for name, _, value in pairs]
            body = await reader.readexactly(int(dict(headers).get(b"content-length", 0)))

            async def receive() -> Any:
                return {"type": "http.request", "body": body}

            async def send(message: Any) -> None:
                if message["type"] == "http.response.start":
                    lines = [f"HTTP/1.1 {message['status']} -".encode(), b"connection: close"]
                    lines += [name + b": " + value for name, value in message["headers"]]
                    writer.write(b"\r\n".join(lines) + b"\r\n\r\n")
                else:
                    writer.write(message["body"])
                    await writer.drain()

            scope = {"type": "http", "method": method, "path": path, "headers": headers}
            await app(scope, receive, send)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client went away
        finally:
            writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", port)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    server.close()


def run_server(port: int) -> None:
    """What the serving host runs: it holds two public keys and no private one."""
    log = InferenceLog(
        "serving.pqv",
        recipients=["@ops.pub"],
        groups={"content": ["@privacy.pub"]},
        fsync="flush",
    )
    asyncio.run(serve(InferenceLogMiddleware(Toy(log), log), port))
    log.close()  # the part is committed as a table


# -- the clients ---------------------------------------------------------------------------


async def post(port: int, path: str, value: object) -> bytes:
    """One request; the body of its response, or what came of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        body = json.dumps(value).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: toy\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        return (await reader.read()).partition(b"\r\n\r\n")[2]
    finally:
        writer.close()


async def load(port: int, seconds: float) -> int:
    """Clients that ask all the time; how many answers came."""
    answers = 0
    until = time.monotonic() + seconds

    async def client(number: int) -> None:
        nonlocal answers
        while time.monotonic() < until:
            model = random.choice(MODELS) if number else "no-such-model"
            asked = {
                "model": model,
                "messages": [{"role": "user", "content": f"question {random.random()}"}],
                "stream": number % 2 == 0,
            }
            try:
                answered = await post(port, "/v1/chat/completions", asked)
            except OSError:
                return  # the server is gone
            answers += bool(answered)
            await asyncio.sleep(0.001 if number else 0.1)

    await asyncio.gather(*(client(number) for number in range(8)))
    return answers


def start(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A server that answers by now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(Path(__file__).resolve()), "--serve", str(port)]
    server = subprocess.Popen(command, cwd=folder)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return server, port
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the server did not start")


# -- the story -----------------------------------------------------------------------------


class Shell:
    """Types commands in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, *args: str, code: int = 0, show: bool = True) -> str:
        """What a command printed; stops when it does not exit with ``code``."""
        print(f"\n$ pqvault {' '.join(args)}", flush=True)
        done = subprocess.run(
            [*PQVAULT, *args], cwd=self._folder, capture_output=True, text=True, check=False
        )
        if show or done.returncode != code:
            print(done.stdout + done.stderr, end="", flush=True)
        if done.returncode != code:
            raise SystemExit(f"exit code {done.returncode}, expected {code}")
        return done.stdout


def story(folder: Path, seconds: float) -> None:
    """All of it."""
    shell = Shell(folder)
    for name in ("ops", "privacy"):
        (folder / f"{name}.pub").write_text(shell.run("keygen", "-o", f"{name}.txt", show=False))

    print("\n-- the server under load, killed with -9 in the middle")
    server, port = start(folder)
    before = asyncio.run(load(port, seconds))
    safe = json.loads(asyncio.run(post(port, "/flush", {})))["acknowledged"]
    print(f"{before:,} answers so far, {safe:,} records acknowledged")

    async def killed() -> int:
        asyncio.get_running_loop().call_later(seconds / 2, server.kill)
        return await load(port, seconds)

    during = asyncio.run(killed())
    server.wait()
    print(f"{during:,} more answers, then kill -9")
    shell.run("log", "ls", "serving.pqv", "-i", "ops.txt")

    print("\n-- recovered by who holds the keys")
    shell.run("log", "recover", "serving.pqv", "-i", "ops.txt", code=12)
    shell.run("log", "recover", "serving.pqv", "-i", "privacy.txt")
    listed = shell.run("log", "ls", "serving.pqv", "-i", "ops.txt", "--json", show=False)
    facts = [json.loads(line) for line in listed.splitlines()]
    rows = sum(part["rows"] for part in facts)
    print(f"{rows:,} records there, of {safe:,} acknowledged and {before + during:,} answered")
    if rows < safe:
        raise SystemExit("an acknowledged record is lost")

    print("\n-- the next server goes on in the same archive, and ends when it is told to")
    server, port = start(folder)
    asyncio.run(load(port, seconds / 2))
    server.terminate()
    if server.wait(60):
        raise SystemExit("the server failed")
    shell.run("log", "ls", "serving.pqv", "-i", "ops.txt")

    print("\n-- asked")
    if find_spec("duckdb") is not None:
        shell.run(
            "query",
            "serving.pqv",
            "select model, status_code, count(*) as n, sum(output_tokens) as tokens,"
            " round(quantile_cont(duration_s, 0.99) * 1000, 1) as p99_ms"
            " from inference group by 1, 2 order by n desc",
            "-i",
            "ops.txt",
        )
    else:
        print("(SQL needs duckdb: pip install 'pqvault[duckdb]')")
    print("\nWho has the key of the metrics reads no prompt; who has the other one does:")
    columns = ("--columns", "model,input_messages")
    shell.run("log", "cat", "serving.pqv", "-i", "ops.txt", *columns, code=12)
    lines = shell.run("log", "cat", "serving.pqv", "-i", "privacy.txt", *columns, show=False)
    print("\n".join(lines.splitlines()[:3]))

    print("\n-- retention: what is older than no time at all goes, keys first")
    shell.run("log", "expire", "serving.pqv", "--older-than", "0s")
    shell.run("log", "ls", "serving.pqv", "-i", "ops.txt")
    left = [p for p in (folder / "serving.pqv").rglob("*") if p.is_file()]
    size = sum(path.stat().st_size for path in left)
    print(f"left: {len(left)} files, {size} bytes, no key among them")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of load")
    parser.add_argument("--folder", type=Path, help="where to work; must be empty")
    parser.add_argument("--serve", type=int, metavar="PORT", help="be the server")
    arguments = parser.parse_args()
    if arguments.serve:
        run_server(arguments.serve)
        return
    if arguments.folder is not None:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        story(arguments.folder, arguments.seconds)
        return
    with tempfile.TemporaryDirectory() as name:
        story(Path(name), arguments.seconds)


if __name__ == "__main__":
    main()
