"""LiteLLM into an inference log. Needs `pqvault[litellm]`.

::

    litellm.callbacks = [SealedLogger(InferenceLog("proxy.pqv", recipients=["@ops.pub"]))]

For the proxy, a module with ``sealed = SealedLogger()`` and in its configuration
``litellm_settings: {callbacks: [module.sealed]}``; the environment describes the log then.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from litellm.integrations.custom_logger import CustomLogger

from pqvault.integrations.waiting import Waiting
from pqvault.logs import InferenceLog
from pqvault.logs.environment import log_from_environment

__all__ = ["SealedLogger"]

# What LiteLLM's standard payload calls the columns.
_COLUMNS: Final = {
    "id": "response_id",
    "litellm_call_id": "request_id",
    "trace_id": "conversation_id",
    "call_type": "operation",
    "custom_llm_provider": "provider",
    "model": "model",
    "messages": "input_messages",
    "prompt_tokens": "input_tokens",
    "completion_tokens": "output_tokens",
    "response_time": "duration_s",
    "error_str": "error_message",
}
_KEPT: Final = (
    "status",
    "model_group",
    "model_parameters",
    "response_cost",
    "cache_hit",
    "end_user",
    "request_tags",
    "stream",
    "api_base",
)


class SealedLogger(CustomLogger):
    """Seals each call that LiteLLM makes, whether it succeeds or fails."""

    def __init__(self, log: InferenceLog | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.log = log if log is not None else log_from_environment()
        self._waiting = Waiting(self.log)

    def log_success_event(
        self, kwargs: Mapping[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """A call that returned, or raised."""
        self.log.log(_record(kwargs, response_obj, start_time, end_time))

    log_failure_event = log_success_event

    async def async_log_success_event(
        self, kwargs: Mapping[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """The same of asynchronous calls."""
        self._waiting.take(_record(kwargs, response_obj, start_time, end_time))

    async_log_failure_event = async_log_success_event


def _record(kwargs: Mapping[str, Any], response: Any, start: Any, end: Any) -> dict[str, object]:
    payload: Mapping[str, Any] = kwargs.get("standard_logging_object") or {}
    record: dict[str, object] = {
        column: payload[name] for name, column in _COLUMNS.items() if payload.get(name)
    }
    record |= {name: payload[name] for name in _KEPT if payload.get(name) is not None}
    record.setdefault("model", kwargs.get("model"))
    record.setdefault("input_messages", kwargs.get("messages"))
    record.setdefault("request_id", kwargs.get("litellm_call_id"))
    if isinstance(start, datetime):
        record["time"] = start.astimezone()
        if isinstance(end, datetime) and "duration_s" not in record:
            record["duration_s"] = (end - start).total_seconds()
    body = payload.get("response") or response
    if isinstance(body, Mapping) and isinstance(body.get("choices"), list):
        record["output_messages"] = [c.get("message", c) for c in body["choices"]]
        record["finish_reason"] = [
            c["finish_reason"] for c in body["choices"] if c.get("finish_reason")
        ]
        record["response_model"] = body.get("model")
    elif body is not None:
        record["output_messages"] = body
    error = payload.get("error_information") or {}
    raised = kwargs.get("exception")
    if raised is not None:
        record["error_type"] = type(raised).__qualname__
        record.setdefault("error_message", str(raised))
    elif error.get("error_class"):
        record["error_type"] = error["error_class"]
    code = error.get("error_code")
    record["status_code"] = int(code) if code and str(code).isdigit() else None
    return record
