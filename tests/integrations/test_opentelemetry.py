"""OpenTelemetry into a log: the completion hook by its entry point, and the exporter."""

from __future__ import annotations

import importlib.metadata
import json
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.util.genai")
pytest.importorskip("opentelemetry.sdk")

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.util.genai.completion_hook import CompletionHook, load_completion_hook
from opentelemetry.util.genai.types import InputMessage, OutputMessage, TextPart
from test_logging import KEY, rows

from pqvault.errors import Incomplete, PQVaultError
from pqvault.integrations.opentelemetry import InferenceLogExporter, SealedCompletionHook
from pqvault.logs import InferenceLog, environment
from pqvault.storage.appending import AppendFile

INPUTS = [InputMessage(role="user", parts=[TextPart(content="hi")])]
OUTPUTS = [OutputMessage(role="assistant", parts=[TextPart(content="hello")], finish_reason="stop")]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "l.pqv"


def make(archive: Path) -> InferenceLog:
    return InferenceLog(archive, recipients=[KEY.recipient])


def test_a_completion_with_its_span_and_its_event(archive: Path) -> None:
    hook = SealedCompletionHook(make(archive))
    assert isinstance(hook, CompletionHook)
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("chat m") as span:
        span.set_attributes(
            {
                "gen_ai.request.model": "m",
                "gen_ai.usage.input_tokens": 4,
                "gen_ai.request.temperature": 0.5,
                "gen_ai.operation.name": "chat",
            }
        )
        record = LogRecord(
            timestamp=1_795_654_923_000_000_000,
            event_name="gen_ai.client.inference.operation.details",
            attributes={"gen_ai.response.id": "r1", "gen_ai.response.model": "m-2"},
        )
        hook.on_completion(
            inputs=INPUTS,
            outputs=OUTPUTS,
            system_instruction=[TextPart(content="be kind")],
            tool_definitions=None,
            span=span,
            log_record=record,
        )
        trace = f"{span.get_span_context().trace_id:032x}"
    hook.shutdown()
    (row,) = rows(archive)
    assert (row["model"], row["response_model"], row["response_id"]) == ("m", "m-2", "r1")
    assert (row["input_tokens"], row["operation"], row["trace_id"]) == (4, "chat", trace)
    assert row["event"] == "gen_ai.client.inference.operation.details"
    assert row["finish_reason"] == "stop" and 0 <= row["duration_s"] < 60
    assert row["extra"] == {"gen_ai.request.temperature": 0.5}
    (message,) = json.loads(row["input_messages"])
    assert message["role"] == "user" and message["parts"][0]["content"] == "hi"
    assert json.loads(row["output_messages"])[0]["parts"][0]["content"] == "hello"
    assert json.loads(row["system_instructions"])[0]["content"] == "be kind"


def test_nothing_but_inputs_and_outputs(archive: Path) -> None:
    hook = SealedCompletionHook(make(archive))
    hook.on_completion(inputs=INPUTS, outputs=[], system_instruction=[])
    hook.shutdown()
    (row,) = rows(archive)
    assert set(row) == {"time", "input_messages", "extra"}


def test_it_is_loaded_by_its_name(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As OTEL_INSTRUMENTATION_GENAI_COMPLETION_HOOK=pqvault does it."""
    found = importlib.metadata.entry_points(group="opentelemetry_genai_completion_hook")
    if "pqvault" not in found.names:
        pytest.skip("pqvault was installed before it had this entry point; `make` installs it")
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_COMPLETION_HOOK", "pqvault")
    monkeypatch.setenv("PQVAULT_LOG_ARCHIVE", str(archive))
    monkeypatch.setenv("PQVAULT_LOG_RECIPIENTS", KEY.recipient.text)
    monkeypatch.setattr(environment, "_log", None)
    hook: Any = load_completion_hook()
    hook.on_completion(inputs=INPUTS, outputs=OUTPUTS, system_instruction=[])
    environment.log_from_environment().close()
    assert len(rows(archive)) == 1


@pytest.mark.parametrize("processor", [SimpleLogRecordProcessor, BatchLogRecordProcessor])
def test_log_records(archive: Path, processor: Any) -> None:
    provider = LoggerProvider(resource=Resource.create({"service.name": "server"}))
    exporter = InferenceLogExporter(make(archive))
    provider.add_log_record_processor(processor(exporter))
    logger = provider.get_logger("scope")
    for number in range(50):
        logger.emit(
            LogRecord(
                timestamp=1_795_654_923_000_000_000 + number,
                severity_number=SeverityNumber.INFO,
                severity_text="INFO",
                body={"number": number},
                event_name="gen_ai.choice",
                attributes={"gen_ai.request.model": "m"},
            )
        )
    assert provider.force_flush() and exporter.force_flush()
    provider.shutdown()
    found = rows(archive)
    assert [row["extra"]["body"]["number"] for row in found] == list(range(50))
    assert found[0]["model"] == "m" and found[0]["event"] == "gen_ai.choice"
    assert found[0]["extra"]["resource"]["service.name"] == "server"
    assert found[0]["extra"]["scope"] == "scope" and found[0]["extra"]["level"] == "INFO"


def test_a_batch_waits_once_for_room(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`force_flush` of a provider exports whole batches, on the thread that calls it."""

    def append(file: AppendFile, data: Any) -> None:
        raise PQVaultError("no space left on the device")

    monkeypatch.setattr(AppendFile, "append", append)
    log = InferenceLog(archive, recipients=[KEY.recipient], flush_size=2000, block_seconds=1.0)
    provider = LoggerProvider()
    provider.add_log_record_processor(BatchLogRecordProcessor(InferenceLogExporter(log)))
    began = time.monotonic()
    for number in range(60):
        provider.get_logger("here").emit(LogRecord(body=number))
    provider.force_flush()
    assert time.monotonic() - began < 10
    with pytest.raises(Incomplete):
        log.close(0.1)
    assert log.stats.dropped.total() == 60


def test_attributes_that_are_named_as_fields_of_a_record_are_kept(archive: Path) -> None:
    attributes = {"body": "of a request", "level": 3, "scope": "s", "time": 5, "gen_ai.system": "x"}
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(InferenceLogExporter(make(archive))))
    provider.get_logger("here").emit(
        LogRecord(timestamp=10**18, severity_text="INFO", body="said", attributes=attributes)
    )
    provider.shutdown()
    (found,) = rows(archive)
    assert found["provider"] == "x" and found["time"].year == 2001
    assert (found["extra"]["body"], found["extra"]["level"]) == ("said", "INFO")
    assert found["extra"]["scope"] == "here"
    kept = {"body": "of a request", "level": 3, "scope": "s", "time": 5}
    assert found["extra"]["attributes"] == kept


def test_a_burst_of_completions_loses_none(archive: Path) -> None:
    """4,000 completions at once, each with a prompt and an answer: OpenTelemetry's own upload hook
    drops what its queue does not hold."""
    hook = SealedCompletionHook(make(archive))
    for _ in range(4000):
        hook.on_completion(inputs=INPUTS, outputs=OUTPUTS, system_instruction=[])
    hook.shutdown()
    found = rows(archive)
    assert len(found) == 4000
    assert all("input_messages" in row and "output_messages" in row for row in found)
