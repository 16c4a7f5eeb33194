"""The ASGI middleware before a small OpenAI-compatible application: whole, streamed, broken."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("starlette")

from starlette.applications import Starlette  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import JSONResponse, Response, StreamingResponse  # noqa: E402
from starlette.routing import Route  # noqa: E402
from test_logging import KEY, rows  # noqa: E402

from pqvault.integrations.asgi import InferenceLogMiddleware  # noqa: E402
from pqvault.integrations.openai import StreamedAnswer, answer_of, question_of  # noqa: E402
from pqvault.integrations.waiting import Waiting  # noqa: E402
from pqvault.logs import InferenceLog  # noqa: E402

ASKED = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0.5}
WORDS = ["He", "llo ", "wörld", "!"]


def event(value: Any) -> bytes:
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


def deltas() -> list[Any]:
    found: list[Any] = [
        {"id": "c1", "model": "m-1", "choices": [{"index": 0, "delta": {"role": "assistant"}}]}
    ]
    found += [{"id": "c1", "choices": [{"index": 0, "delta": {"content": w}}]} for w in WORDS]
    found.append({"id": "c1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    found.append({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
    return found


async def chat(request: Request) -> Response:
    body = await request.json()
    if body.get("stream"):

        async def pieces() -> Any:
            raw = b"".join(map(event, [*deltas(), b"[DONE]"]))
            for at in range(0, len(raw), 7):  # events come in pieces
                yield raw[at : at + 7]
                if body.get("slow"):
                    await asyncio.sleep(0.01)

        return StreamingResponse(pieces(), media_type="text/event-stream")
    if body.get("crash"):
        raise RuntimeError("out of memory")
    if body.get("refuse"):
        error = {"message": "no such model", "type": "invalid_request_error", "code": 404}
        return JSONResponse({"error": error}, 404)
    return JSONResponse(
        {
            "id": "c1",
            "model": "m-1",
            "choices": [
                {"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}
            ],
            "usage": {"prompt_tokens": 3, "completion_tokens": 4},
        }
    )


async def health(request: Request) -> Response:
    return Response(b"ok")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[InferenceLog]:
    log = InferenceLog(tmp_path / "l.pqv", recipients=[KEY.recipient])
    yield log
    log.close()


def application(log: InferenceLog, **options: Any) -> Any:
    routes = [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/health", health, methods=["GET", "POST"]),
    ]
    app = Starlette(routes=routes)
    app.add_middleware(InferenceLogMiddleware, log=log, **options)
    return app


def post(app: Any, body: Any, path: str = "/v1/chat/completions") -> Any:
    async def go() -> Any:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            headers = {"x-request-id": "req-7", "authorization": "Bearer sk-secret"}
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            return await client.post(path, content=data, headers=headers)

    return asyncio.run(go())


def only(log: InferenceLog, tmp_path: Path) -> dict[str, Any]:
    log.close()
    (row,) = rows(tmp_path / "l.pqv")
    assert "sk-secret" not in str(row)  # attack 40: no header but the request's id
    return row


def test_a_completion(log: InferenceLog, tmp_path: Path) -> None:
    response = post(application(log), {**ASKED, "tools": [{"type": "function"}]})
    assert response.json()["choices"][0]["message"]["content"] == "Hello"
    row = only(log, tmp_path)
    assert (row["request_id"], row["response_id"]) == ("req-7", "c1")
    assert (row["model"], row["response_model"], row["status_code"]) == ("m", "m-1", 200)
    assert (row["input_tokens"], row["output_tokens"], row["finish_reason"]) == (3, 4, "stop")
    assert json.loads(row["input_messages"]) == ASKED["messages"]
    assert json.loads(row["output_messages"]) == [{"role": "assistant", "content": "Hello"}]
    assert json.loads(row["tool_definitions"]) == [{"type": "function"}]
    assert row["extra"] == {"path": "/v1/chat/completions", "request": {"temperature": 0.5}}
    assert row["duration_s"] >= row["first_token_s"] >= 0


def test_a_stream_passes_untouched_and_is_put_together(log: InferenceLog, tmp_path: Path) -> None:
    response = post(application(log), {**ASKED, "stream": True})
    assert response.content == b"".join(map(event, [*deltas(), b"[DONE]"]))
    row = only(log, tmp_path)
    assert json.loads(row["output_messages"]) == [{"role": "assistant", "content": "Hello wörld!"}]
    assert (row["finish_reason"], row["response_model"], row["output_tokens"]) == ("stop", "m-1", 4)
    assert row["extra"]["stream"] is True and row["first_token_s"] <= row["duration_s"]


def test_an_error_of_the_server(log: InferenceLog, tmp_path: Path) -> None:
    assert post(application(log), {**ASKED, "refuse": True}).status_code == 404
    row = only(log, tmp_path)
    assert row["status_code"] == 404 and row["error_type"] == "invalid_request_error"
    assert row["error_message"] == "no such model"


def test_an_exception_is_logged_and_goes_on(log: InferenceLog, tmp_path: Path) -> None:
    assert post(application(log), {**ASKED, "crash": True}).status_code == 500
    row = only(log, tmp_path)
    assert (row["error_type"], row["error_message"]) == ("RuntimeError", "out of memory")


def test_what_is_no_json_is_kept_as_text(log: InferenceLog, tmp_path: Path) -> None:
    post(application(log), b"\xffnot json")
    row = only(log, tmp_path)
    assert row["extra"]["request_text"] == "\ufffdnot json"


def test_other_paths_and_methods_are_not_logged(log: InferenceLog) -> None:
    assert post(application(log), {}, "/health").content == b"ok"
    assert log.stats.logged == 0


def test_large_bodies_are_cut_and_counted(log: InferenceLog, tmp_path: Path) -> None:
    post(application(log, max_body=100), {**ASKED, "prompt": "x" * 1000})
    row = only(log, tmp_path)
    assert row["extra"]["request_cut"] > 900 and len(row["extra"]["request_text"]) == 100


@pytest.mark.parametrize("stream", [False, True])
def test_bodies_that_were_compressed_within_are_read(
    log: InferenceLog, tmp_path: Path, stream: bool
) -> None:
    """Middleware that compresses may have been added before ours."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        kind = b"text/event-stream" if stream else b"application/json"
        headers = [(b"content-type", kind), (b"Content-Encoding", b"gzip")]
        answer = {"choices": [{"message": {"role": "assistant", "content": "Hello"}}]}
        raw = b"".join(map(event, deltas())) if stream else json.dumps(answer).encode()
        data = gzip.compress(raw)
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for at in range(0, len(data), 7):
            body = {"type": "http.response.body", "body": data[at : at + 7], "more_body": True}
            await send(body)
        await send({"type": "http.response.body"})

    assert post(InferenceLogMiddleware(app, log), ASKED).status_code == 200
    message = {"role": "assistant", "content": "Hello wörld!" if stream else "Hello"}
    row = only(log, tmp_path)
    assert json.loads(row["output_messages"]) == [message] and "error_type" not in row


def test_bodies_that_only_others_open_are_kept_as_bytes(log: InferenceLog, tmp_path: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        headers = [(b"content-encoding", b"br"), (b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"\x00\xff\x80"})

    post(InferenceLogMiddleware(app, log), ASKED)
    extra = only(log, tmp_path)["extra"]
    assert extra["response_bytes"] == "AP+A" and extra["response_encoding"] == "br"


def test_what_is_said_in_few_bytes_is_cut_too(log: InferenceLog, tmp_path: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        headers = [(b"content-encoding", b"gzip")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": gzip.compress(bytes(10_000_000))})

    post(InferenceLogMiddleware(app, log, max_body=1000), ASKED)
    extra = only(log, tmp_path)["extra"]
    assert len(extra["response_text"]) == 1000 and extra["response_cut"] > 0


def test_a_client_that_goes_away(log: InferenceLog, tmp_path: Path) -> None:
    """What was said until then is logged: the host knows what it gave out."""
    app = application(log)
    sent = 0

    async def go() -> None:
        gone = asyncio.Event()
        asked = [
            {
                "type": "http.request",
                "body": json.dumps({**ASKED, "stream": True, "slow": True}).encode(),
            }
        ]

        async def receive() -> Any:
            if asked:
                return asked.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal sent
            sent += len(message.get("body", b""))
            if sent > 200:
                gone.set()

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "headers": [],
            "query_string": b"",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
        }
        await app(scope, receive, send)

    asyncio.run(go())
    row = only(log, tmp_path)
    assert row["error_type"] == "client_disconnected"
    content = json.loads(row["output_messages"])[0].get("content", "")
    assert "Hello wörld!".startswith(content) and sent < 900


async def requests_alone(scope: Any, receive: Any, send: Any) -> None:
    """An application that has never heard of lifespan."""
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": body})


async def refuses_others(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await requests_alone(scope, receive, send)


@pytest.mark.parametrize("within", [None, requests_alone, refuses_others])
def test_the_end_of_the_server_closes_the_log(
    log: InferenceLog, tmp_path: Path, within: Any
) -> None:
    app = application(log) if within is None else InferenceLogMiddleware(within, log)
    post(app, ASKED)

    async def go() -> None:
        messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        said = []

        async def receive() -> Any:
            return messages.pop(0)

        async def send(message: Any) -> None:
            said.append(message["type"])

        await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
        assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]

    asyncio.run(go())
    assert len(rows(tmp_path / "l.pqv")) == 1


def test_a_start_that_fails_is_the_applications_to_say(log: InferenceLog) -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no model"})
        raise RuntimeError("no model")

    async def go() -> None:
        said = []

        async def receive() -> Any:
            return {"type": "lifespan.startup"}

        async def send(message: Any) -> None:
            said.append(message["type"])

        with pytest.raises(RuntimeError):
            await InferenceLogMiddleware(fails, log)({"type": "lifespan"}, receive, send)
        assert said == ["lifespan.startup.failed"]

    asyncio.run(go())


def test_a_full_disk_does_not_stop_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under `block` a record waits for room, and the event loop does not: requests are answered.
    What waits is there when there is room again, and the rest was counted."""
    from pqvault.errors import PQVaultError
    from pqvault.storage.appending import AppendFile

    real, full = AppendFile.append, True

    def append(file: AppendFile, data: Any) -> None:
        if full:
            raise PQVaultError("no space left on the device")
        real(file, data)

    monkeypatch.setattr(AppendFile, "append", append)
    log = InferenceLog(
        tmp_path / "l.pqv", recipients=[KEY.recipient], flush_size=4000, block_seconds=30.0
    )
    app = application(log)

    async def go() -> None:
        nonlocal full
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for _ in range(40):
                answer = client.post("/v1/chat/completions", json=ASKED)
                assert (await asyncio.wait_for(answer, 10)).status_code == 200
            began = time.monotonic()
            await asyncio.to_thread(len, "")  # the pool of the application is free
            assert time.monotonic() - began < 5
        full = False
        messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

        async def receive() -> Any:
            return messages.pop(0)

        async def send(message: Any) -> None:
            pass

        await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)

    asyncio.run(go())
    assert len(rows(tmp_path / "l.pqv")) == 40 and log.stats.dropped.total() == 0


def test_the_end_of_a_server_whose_disk_is_full_is_not_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits is given up together, and not one after the other."""
    from pqvault.errors import Incomplete, PQVaultError
    from pqvault.storage.appending import AppendFile

    def append(file: AppendFile, data: Any) -> None:
        raise PQVaultError("no space left on the device")

    monkeypatch.setattr(AppendFile, "append", append)
    log = InferenceLog(
        tmp_path / "l.pqv", recipients=[KEY.recipient], flush_size=4000, block_seconds=2.0
    )
    waiting = Waiting(log)
    began = time.monotonic()
    for _ in range(50):
        waiting.take(ASKED)
    asyncio.run(waiting.settle())
    with pytest.raises(Incomplete):
        log.close(0.5)
    assert time.monotonic() - began < 8
    assert log.stats.dropped.total() == 50


# -- what the API says ---------------------------------------------------------------------


def streamed(*events: Any) -> dict[str, object]:
    answer = StreamedAnswer()
    for value in events:
        answer.feed(event(value))
    return answer.fields()


def test_streamed_tool_calls() -> None:
    def call(index: int, **function: str) -> Any:
        return {"choices": [{"delta": {"tool_calls": [{"index": index, "function": function}]}}]}

    found = streamed(
        {"choices": [{"delta": {"tool_calls": [
            {"index": 0, "id": "t1", "type": "function", "function": {"name": "f", "arguments": ""}}
        ]}}]},
        call(0, arguments='{"a"'),
        call(0, arguments=":1}"),
        call(1, name="g", arguments="{}"),
    )  # fmt: skip
    assert found["output_messages"] == [
        {
            "role": "assistant",
            "tool_calls": [
                {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
                {"function": {"name": "g", "arguments": "{}"}},
            ],
        }
    ]


def test_a_line_that_comes_in_many_pieces_takes_no_time() -> None:
    answer = StreamedAnswer()
    began = time.process_time()
    for _ in range(20_000):
        answer.feed(b"x" * 100)
    assert time.process_time() - began < 2


def test_lines_may_end_as_the_standard_allows() -> None:
    answer = StreamedAnswer()
    for word in WORDS:
        said = {"choices": [{"delta": {"content": word}}]}
        answer.feed(event(said).replace(b"\n", b"\r"))
    assert answer.fields()["output_messages"] == [{"role": "assistant", "content": "Hello wörld!"}]


def test_calls_of_one_index_are_told_apart_and_pieces_of_one_call_are_not() -> None:
    def piece(**call: Any) -> Any:
        return {"choices": [{"delta": {"tool_calls": [{"index": 0, **call}]}}]}

    found = streamed(
        piece(id="a", function={"name": "f", "arguments": "{}"}),
        piece(id="b", function={"name": "g", "arguments": '{"x"'}),
        piece(id="another for each piece", function={"arguments": ":1}"}),
    )
    calls = found["output_messages"][0]["tool_calls"]  # type: ignore[index]
    assert [call["function"] for call in calls] == [
        {"name": "f", "arguments": "{}"},
        {"name": "g", "arguments": '{"x":1}'},
    ]


@pytest.mark.parametrize(
    ("name", "pieces", "whole"),
    [
        ("function_call", [{"name": "f", "arguments": ""}, {"arguments": '{"a"'},
                           {"arguments": ":1}"}], {"name": "f", "arguments": '{"a":1}'}),
        ("audio", [{"id": "a1", "data": "QUJD"}, {"id": "a1", "data": "REVG", "expires_at": 9}],
         {"id": "a1", "data": "QUJDREVG", "expires_at": 9}),
        ("annotations", [[{"url": 1}], [{"url": 2}]], [{"url": 1}, {"url": 2}]),
        ("content", [[{"thinking": "hm"}], "He", "llo"], [{"thinking": "hm"}, "Hello"]),
    ],
)  # fmt: skip
def test_whatever_a_message_has_is_put_together(name: str, pieces: list[Any], whole: Any) -> None:
    found = streamed(*({"choices": [{"delta": {name: piece}}]} for piece in pieces))
    assert found["output_messages"] == [{"role": "assistant", name: whole}]


def test_a_response_says_how_it_ended() -> None:
    assert streamed({"response": {"status": "in_progress"}}).get("finish_reason") is None
    done = {"type": "response.incomplete", "response": {"status": "incomplete"}}
    assert streamed(done)["finish_reason"] == "incomplete"
    failed = streamed({"type": "error", "code": "server_error", "message": "out of memory"})
    assert (failed["error_type"], failed["error_message"]) == ("server_error", "out of memory")


def test_a_response_that_was_cut_keeps_apart_what_was_thought_and_said() -> None:
    kinds = ("response.reasoning_summary_text.delta", "response.output_text.delta")
    found = streamed(*({"type": kind, "delta": d} for kind in kinds for d in ("a", "b")))
    assert found["output_messages"] == [
        {"role": "assistant", "content": [{"type": kind, "text": "ab"} for kind in kinds]}
    ]


def test_streams_of_the_other_apis() -> None:
    responses = streamed(
        {"type": "response.output_text.delta", "delta": "Hel"},
        {"type": "response.output_text.delta", "delta": "lo"},
        {"type": "response.completed", "response": {"id": "r1", "output": [{"x": 1}],
                                                    "usage": {"input_tokens": 2}}},
    )  # fmt: skip
    assert responses["output_messages"] == [{"x": 1}]
    assert (responses["response_id"], responses["input_tokens"]) == ("r1", 2)
    messages = streamed({"type": "content_block_delta", "delta": {"text": "Hi"}})
    assert messages["output_messages"] == [{"role": "assistant", "content": "Hi"}]
    completions = streamed({"choices": [{"text": "a"}]}, {"choices": [{"text": "b"}]})
    assert completions["output_messages"] == [{"role": "assistant", "content": "ab"}]


def test_a_stream_of_the_messages_api_is_put_together() -> None:
    """What is said at its beginning and end, and calls of tools, whose input comes in pieces."""

    def block(index: int, **begun: str) -> dict[str, Any]:
        return {"type": "content_block_start", "index": index, "content_block": begun}

    def piece(index: int, **delta: str) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": index, "delta": delta}

    usage = {"input_tokens": 25, "output_tokens": 1}
    begun = {"type": "message_start", "message": {"id": "m1", "model": "c", "usage": usage}}
    text = [block(0, type="text", text=""), piece(0, text="Hel"), piece(0, text="lo")]
    ended = {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"output_tokens": 9},
    }
    found = streamed(begun, *text, ended)
    assert found["output_messages"] == [{"role": "assistant", "content": "Hello"}]
    assert (found["response_id"], found["response_model"], found["finish_reason"]) == (
        "m1",
        "c",
        "end_turn",
    )
    assert (found["input_tokens"], found["output_tokens"]) == (25, 9)
    call = block(1, type="tool_use", id="t1", name="add")
    pieces = [piece(1, partial_json='{"a":'), piece(1, partial_json="1}")]
    for count, given in ((2, {"a": 1}), (1, '{"a":')):
        (message,) = streamed(begun, *text, call, *pieces[:count], ended)["output_messages"]
        assert message["content"] == [
            {"type": "text", "text": "Hello"},
            {"type": "tool_use", "id": "t1", "name": "add", "input": given},
        ]


@pytest.mark.parametrize(
    "hostile",
    [
        b"data: [1,2]\n\n",
        b"data: {\"choices\": 7}\n\n",
        b"data: {\"choices\": [7, null, {\"delta\": []}]}\n\n",
        b'data: {"choices": [{"index": "x", "delta": {"tool_calls": [1, {"index": -9}]}}]}\n\n',
        b"data: {\"usage\": [], \"error\": \"broken\"}\n\n",
        b'data: {"content_block": {"type": []}, "index": [], "message": {"id": {}}}\n\n',
        b"data: " + b"[" * 100_000 + b"\n\n",
        2 * (b'data: {"choices": [{"delta": ' + b'{"a":' * 900 + b"1" + b"}" * 902 + b"]}\n\n"),
        b"\x00\xff" * 1000,
    ],
)  # fmt: skip
def test_streams_that_are_none_raise_nothing(hostile: bytes) -> None:
    answer = StreamedAnswer()
    answer.feed(hostile)
    assert answer.fields()["stream"] is True
    for body in (hostile, b"", b"null", b"[]", b'{"choices": [1, null]}', b'{"error": {}}'):
        assert isinstance(answer_of(body), dict) and isinstance(question_of(body), dict)
