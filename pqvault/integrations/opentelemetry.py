"""OpenTelemetry into an inference log: a completion hook for generative AI, and an exporter of
log records. Needs `pqvault[opentelemetry]`.

The hook is found by its entry point: set OTEL_INSTRUMENTATION_GENAI_COMPLETION_HOOK=pqvault, and
PQVAULT_LOG_ARCHIVE and PQVAULT_LOG_RECIPIENTS.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult

from pqvault.errors import PQVaultError
from pqvault.logs import InferenceLog
from pqvault.logs.environment import log_from_environment

if TYPE_CHECKING:
    from opentelemetry._logs import LogRecord
    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.trace import Span
    from opentelemetry.util.genai.types import (
        InputMessage,
        MessagePart,
        OutputMessage,
        ToolDefinition,
    )

__all__ = ["InferenceLogExporter", "SealedCompletionHook"]

_TAKEN: Final = ("resource", "scope", "attributes")  # names of fields that an exporter adds


class _Sealing:
    def __init__(self, log: InferenceLog | None = None) -> None:
        self.log = log if log is not None else log_from_environment()

    def shutdown(self) -> None:
        """Close the log. Raises Incomplete when something could not be written."""
        self.log.close()


class SealedCompletionHook(_Sealing):
    """Seals inputs and outputs of each completion, with what span and log record say of it."""

    def on_completion(
        self,
        *,
        inputs: list[InputMessage],
        outputs: list[OutputMessage],
        system_instruction: list[MessagePart],
        tool_definitions: list[ToolDefinition] | None = None,
        span: Span | None = None,
        log_record: LogRecord | None = None,
        **others: Any,
    ) -> None:
        """Called by instrumentations. ``others``: what later versions may add."""
        record: dict[str, object] = {**_of_span(span), **_of_log_record(log_record), **others}
        for name, value in (
            ("gen_ai.input.messages", inputs),
            ("gen_ai.output.messages", outputs),
            ("gen_ai.system_instructions", system_instruction),
            ("gen_ai.tool.definitions", tool_definitions),
        ):
            if value:
                record[name] = value
        if "gen_ai.response.finish_reasons" not in record:
            reasons = [m.finish_reason for m in outputs if m.finish_reason]
            record["gen_ai.response.finish_reasons"] = reasons or None
        self.log.log(record)


def _of_span(span: Span | None) -> dict[str, object]:
    if span is None:
        return {}
    found = dict(getattr(span, "attributes", None) or {})
    context = span.get_span_context()
    if context.is_valid:
        found["trace_id"] = f"{context.trace_id:032x}"
        found["span_id"] = f"{context.span_id:016x}"
    began = getattr(span, "start_time", None)
    if began:
        ended = getattr(span, "end_time", None) or time.time_ns()
        found.setdefault("gen_ai.client.operation.duration", (ended - began) / 1e9)
    return found


def _of_log_record(record: LogRecord | None) -> dict[str, object]:
    if record is None:
        return {}
    found: dict[str, object] = {}
    if record.event_name:
        found["event"] = record.event_name
    if when := record.timestamp or record.observed_timestamp:
        found["time"] = when
    if record.body is not None:
        found["body"] = record.body
    if record.severity_text:
        found["level"] = record.severity_text
    if record.trace_id:
        found["trace_id"] = f"{record.trace_id:032x}"
    if record.span_id:
        found["span_id"] = f"{record.span_id:016x}"
    return found | _attributes(record, found)


def _attributes(record: LogRecord, found: Mapping[str, object]) -> dict[str, object]:
    """Those of a record by their names; under ``attributes`` where a name is taken."""
    free = {k: v for k, v in (record.attributes or {}).items() if k not in (*found, *_TAKEN)}
    taken = {k: v for k, v in (record.attributes or {}).items() if k not in free}
    return {**free, "attributes": taken} if taken else free


class InferenceLogExporter(_Sealing, LogRecordExporter):
    """Seals OpenTelemetry's log records; for a `BatchLogRecordProcessor` or a simple one."""

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """FAILURE when records were dropped; they are counted in the log too."""
        whole = True
        for item in batch:
            # Who has waited for room in vain does not wait again for each of hundreds.
            wait = None if whole or self.log.has_room else 0.0
            whole = self.log.log(self._fields(item), wait=wait) and whole
        return LogRecordExportResult.SUCCESS if whole else LogRecordExportResult.FAILURE

    @staticmethod
    def _fields(item: ReadableLogRecord) -> Mapping[str, object]:
        found = _of_log_record(item.log_record)
        if item.resource is not None and item.resource.attributes:
            found["resource"] = dict(item.resource.attributes)
        if item.instrumentation_scope is not None:
            found["scope"] = item.instrumentation_scope.name
        return found

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Whether everything is safe now, as the log's fsync policy says."""
        try:
            self.log.flush(timeout_millis / 1000)
        except PQVaultError:
            return False
        return True
