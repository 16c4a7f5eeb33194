"""LiteLLM's own calls, answered by its mock, into a log."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

litellm = pytest.importorskip("litellm")

from test_logging import KEY  # noqa: E402

from pqvault.integrations.litellm import SealedLogger  # noqa: E402
from pqvault.logs import InferenceLog, LogView  # noqa: E402

ASKED: Any = [{"role": "user", "content": "hi"}]


class Kept:
    """One log for all tests: LiteLLM keeps the first of each kind of logger that it sees."""

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        self.log = InferenceLog(archive, recipients=[KEY.recipient])
        self.seen = 0

    def newest(self) -> dict[str, Any]:
        """The one row that came since the last call; LiteLLM brings it from a thread of its own."""
        deadline = time.monotonic() + 10
        while self.log.stats.logged == self.seen and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.2)  # would there be one too many?
        self.seen += 1
        assert self.log.stats.logged == self.seen
        self.log.flush()
        with LogView(self.archive, [KEY]) as view:
            (row,) = view.last(1)[0].to_pylist()
        return {k: v for k, v in row.items() if v is not None}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    kept = Kept(tmp_path_factory.mktemp("litellm") / "l.pqv")
    litellm.callbacks = [SealedLogger(kept.log)]
    yield kept
    litellm.callbacks = []
    kept.log.close()


@pytest.mark.filterwarnings("ignore")
def test_a_call(kept: Kept) -> None:
    litellm.completion(model="gpt-4o", messages=ASKED, mock_response="hello", temperature=0.5)
    row = kept.newest()
    assert row["model"] == "gpt-4o" and row["provider"] == "openai"
    assert json.loads(row["input_messages"]) == ASKED
    assert json.loads(row["output_messages"])[0]["content"] == "hello"
    assert row["input_tokens"] > 0 and row["output_tokens"] > 0
    assert row["finish_reason"] == "stop" and row["duration_s"] >= 0
    assert json.loads(row["extra"])["model_parameters"]["temperature"] == 0.5


@pytest.mark.filterwarnings("ignore")
def test_an_asynchronous_call(kept: Kept) -> None:
    async def call() -> None:
        await litellm.acompletion(model="gpt-4o", messages=ASKED, mock_response="hello")
        for _ in range(200):
            if kept.log.stats.logged > kept.seen:
                break
            await asyncio.sleep(0.02)

    asyncio.run(call())
    row = kept.newest()
    assert json.loads(row["output_messages"])[0]["content"] == "hello"


@pytest.mark.filterwarnings("ignore")
def test_a_stream(kept: Kept) -> None:
    text = "one two three four five"
    stream = litellm.completion(model="gpt-4o", messages=ASKED, mock_response=text, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in stream) == text
    row = kept.newest()
    assert json.loads(row["output_messages"])[0]["content"] == text


@pytest.mark.filterwarnings("ignore")
def test_a_call_that_fails(kept: Kept) -> None:
    with pytest.raises(litellm.RateLimitError):
        litellm.completion(
            model="gpt-4o", messages=ASKED, mock_response="litellm.RateLimitError", num_retries=0
        )
    row = kept.newest()
    assert row["error_type"] == "RateLimitError" and row["error_message"]
    assert json.loads(row["input_messages"]) == ASKED
