"""The columns of an inference log. docs/logs.md has the same table.

Names and meanings come from OpenTelemetry's semantic conventions for generative AI; a record may
use the convention's own names (``gen_ai.request.model``) or the short ones here.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

import pyarrow as pa

from pqvault.tablefile.views import with_fields

__all__ = [
    "ALIASES",
    "CONTENT",
    "DEFAULT",
    "DROPPED",
    "EXTRA",
    "JSON",
    "TIME",
    "TIME_TYPE",
    "complete",
    "is_json",
]

TIME: Final = "time"  # of the record; now, when it has none
EXTRA: Final = "extra"  # everything without a column of its own, as one JSON object
DROPPED: Final = "dropped"  # in a row of its own: how many records were lost before it

# A text column that holds JSON: any value may be logged there.
JSON: Final = MappingProxyType({b"pqvault.encoding": b"json"})


def is_json(field: pa.Field) -> bool:
    """Whether a column holds JSON."""
    return field.metadata is not None and dict(JSON).items() <= field.metadata.items()


def _json(name: str) -> pa.Field:
    return pa.field(name, pa.string(), metadata=dict(JSON))


TIME_TYPE: Final = pa.timestamp("us", "UTC")
_TIME: Final = pa.field(TIME, TIME_TYPE, nullable=False)
_DROPPED: Final = pa.field(DROPPED, pa.int64())

DEFAULT: Final = pa.schema(
    [
        _TIME,
        pa.field("request_id", pa.string()),
        pa.field("response_id", pa.string()),
        pa.field("conversation_id", pa.string()),
        pa.field("event", pa.string()),
        pa.field("operation", pa.string()),
        pa.field("provider", pa.string()),
        pa.field("model", pa.string()),
        pa.field("response_model", pa.string()),
        pa.field("input_tokens", pa.int64()),
        pa.field("output_tokens", pa.int64()),
        pa.field("duration_s", pa.float64()),
        pa.field("first_token_s", pa.float64()),
        pa.field("finish_reason", pa.string()),
        pa.field("status_code", pa.int64()),
        pa.field("error_type", pa.string()),
        pa.field("trace_id", pa.string()),
        pa.field("span_id", pa.string()),
        _DROPPED,
        _json("input_messages"),
        _json("output_messages"),
        _json("system_instructions"),
        _json("tool_definitions"),
        pa.field("error_message", pa.string()),
        _json(EXTRA),
    ]
)

# The columns of the default schema that hold what people and models said, or may.
CONTENT: Final = (
    "input_messages",
    "output_messages",
    "system_instructions",
    "tool_definitions",
    "error_message",
    EXTRA,
)

# OpenTelemetry's names, and those that people type, for columns of the default schema.
ALIASES: Final = MappingProxyType(
    {
        "timestamp": TIME,
        "event.name": "event",
        "gen_ai.operation.name": "operation",
        "gen_ai.provider.name": "provider",
        "gen_ai.system": "provider",
        "gen_ai.request.model": "model",
        "gen_ai.response.model": "response_model",
        "gen_ai.response.id": "response_id",
        "gen_ai.conversation.id": "conversation_id",
        "gen_ai.usage.input_tokens": "input_tokens",
        "gen_ai.usage.output_tokens": "output_tokens",
        "gen_ai.response.finish_reasons": "finish_reason",
        "gen_ai.input.messages": "input_messages",
        "gen_ai.output.messages": "output_messages",
        "gen_ai.system_instructions": "system_instructions",
        "gen_ai.tool.definitions": "tool_definitions",
        "gen_ai.client.operation.duration": "duration_s",
        "gen_ai.server.request.duration": "duration_s",
        "gen_ai.server.time_to_first_token": "first_token_s",
        "gen_ai.response.time_to_first_chunk": "first_token_s",
        "http.response.status_code": "status_code",
        "error.type": "error_type",
        "error.message": "error_message",
        "prompt": "input_messages",
        "response": "output_messages",
        "latency": "duration_s",
    }
)


def complete(schema: pa.Schema) -> pa.Schema:
    """A schema with the three columns that every log has: time, dropped, extra. All others may be
    null at any depth, whatever it says: a value that does not fit is."""
    schema = pa.schema([f if f.name == TIME else _nullable(f) for f in schema], schema.metadata)
    for field in (_TIME, _DROPPED, _json(EXTRA)):
        place = schema.get_field_index(field.name)
        if place < 0:
            schema = schema.append(field)
        elif not schema.field(place).type.equals(field.type):
            raise pa.ArrowInvalid(f"the column {field.name} of a log is {field.type}")
    return schema


def _nullable(field: pa.Field) -> pa.Field:
    return field.with_type(with_fields(field.type, _nullable)).with_nullable(True)
