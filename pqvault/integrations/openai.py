"""What requests and responses of OpenAI's API say, streamed ones too, as fields of a record.

What is not what it should be is kept as text: a log refuses nothing.
"""

from __future__ import annotations

import json
from itertools import chain, groupby
from typing import Any, Final

__all__ = ["StreamedAnswer", "answer_of", "question_of"]

_INPUTS: Final = ("messages", "prompt", "input")
_TEXTS: Final = ("response.output_text.delta", "content_block_delta", None)  # events of answers
_ONCE: Final = ("id", "type")  # texts that come whole, and may come again


def question_of(body: bytes) -> dict[str, object]:
    """Of a request: its model, its input, and under ``request`` all other fields."""
    value = _parsed(body)
    if not isinstance(value, dict):
        return {"request_text": body.decode("utf-8", "replace")} if body else {}
    found: dict[str, object] = {"model": value.pop("model", None)}
    for name in _INPUTS:
        if name in value:
            found.setdefault("input_messages", value.pop(name))
    found["system_instructions"] = value.pop("instructions", None) or value.pop("system", None)
    found["tool_definitions"] = value.pop("tools", None)
    if value:
        found["request"] = value
    return found


def answer_of(body: bytes) -> dict[str, object]:
    """Of a response: what came, how it ended, tokens used, or the error."""
    value = _parsed(body)
    if not isinstance(value, dict):
        return {"response_text": body.decode("utf-8", "replace")} if body else {}
    found = _common(value)
    choices = value.get("choices")
    if isinstance(choices, list):
        found["output_messages"] = [_message(c) for c in choices]
        found["finish_reason"] = _reasons(choices)
    elif "output" in value or "content" in value:  # the responses and the messages API
        found["output_messages"] = value.get("output", value.get("content"))
        found["finish_reason"] = value.get("stop_reason") or value.get("status")
    return found


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _common(value: dict[str, Any]) -> dict[str, object]:
    found: dict[str, object] = {
        "response_id": value.get("id"),
        "response_model": value.get("model"),
        **_usage(value.get("usage")),
    }
    error = value.get("error")
    if isinstance(error, dict):
        found["error_type"] = str(error.get("type") or error.get("code") or "error")
        found["error_message"] = str(error.get("message", ""))
    elif error:
        found["error_type"], found["error_message"] = "error", str(error)
    return found


def _usage(usage: object) -> dict[str, object]:
    if not isinstance(usage, dict):
        return {}
    return {
        "input_tokens": usage.get("prompt_tokens", usage.get("input_tokens")),
        "output_tokens": usage.get("completion_tokens", usage.get("output_tokens")),
    }


def _message(choice: object) -> object:
    if not isinstance(choice, dict):
        return choice
    return choice.get("message") or {"role": "assistant", "content": choice.get("text")}


def _reasons(choices: list[Any]) -> list[str]:
    reasons = [c.get("finish_reason") for c in choices if isinstance(c, dict)]
    return [str(reason) for reason in reasons if reason]


# -- streams -------------------------------------------------------------------------------


class StreamedAnswer:
    """The message that the events of a stream add up to, taken as they come: each costs little,
    because this runs between the pieces of a response. What cannot be added is passed over."""

    def __init__(self) -> None:
        self._line: list[bytes] = []  # pieces of one whose end has not come
        self._fields: dict[str, object] = {}
        self._choices: dict[int, _Choice] = {}
        self._plain: dict[str | None, list[str]] = {}  # texts by the type of their events
        self._blocks: dict[int, _Block] = {}

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        *lines, rest = data.replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            self._take(b"".join((*self._line, line)))
            self._line = []
        if rest:
            self._line.append(rest)

    def fields(self) -> dict[str, object]:
        """What was said, once all came or nothing more will."""
        self._take(b"".join(self._line))
        found = {**self._fields, "stream": True}
        if self._choices:
            ordered = [self._choices[index] for index in sorted(self._choices)]
            found["finish_reason"] = [c.reason for c in ordered if c.reason]
            found["output_messages"] = [c.message() for c in ordered]
        elif (content := self._content()) and "output_messages" not in found:
            found["output_messages"] = [{"role": "assistant", "content": content}]
        return found

    def _content(self) -> object:
        """Of an answer without choices: its text, or its blocks when some are something else."""
        blocks = [self._blocks[index].whole() for index in sorted(self._blocks)]
        if any(block.get("type") != "text" for block in blocks):
            return blocks
        texts = {kind: "".join(said) for kind, said in self._plain.items()}
        if all(kind in _TEXTS for kind in texts):
            return "".join(texts.values())
        return [{"type": kind, "text": text} for kind, text in texts.items()]

    def _take(self, line: bytes) -> None:
        event = _parsed(line[5:].strip()) if line.startswith(b"data:") else None
        if not isinstance(event, dict):
            return
        self._said(event)
        if isinstance(event.get("response"), dict):  # the responses API tells all at its end
            self._said_at_its_end(event["response"])
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                self._choices.setdefault(_index(choice), _Choice()).add(choice)
        delta = event.get("delta")
        if isinstance(delta, dict):
            delta = self._part_of_message(event, delta)
        if isinstance(delta, str):
            kind = event.get("type")
            kind = kind if isinstance(kind, str) else None
            self._plain.setdefault(kind, []).append(delta)
        if isinstance(event.get("message"), dict):  # the messages API, at its beginning
            self._said(event["message"])
        if isinstance(event.get("content_block"), dict):
            self._blocks[_index(event)] = _Block(event["content_block"])

    def _part_of_message(self, event: dict[str, Any], delta: dict[str, Any]) -> object:
        """What the messages API says in pieces. Returns the text in it."""
        if isinstance(delta.get("stop_reason"), str):
            self._fields["finish_reason"] = delta["stop_reason"]
        block = self._blocks.get(_index(event))
        if block is not None and event.get("type") == "content_block_delta":
            block.add(delta)
        return delta.get("text")

    def _said_at_its_end(self, response: dict[str, Any]) -> None:
        self._said(response)
        if response.get("output"):
            self._fields["output_messages"] = response["output"]
        if response.get("status") not in (None, "queued", "in_progress"):
            self._fields["finish_reason"] = response["status"]

    def _said(self, value: dict[str, Any]) -> None:
        if value.get("type") == "error" and "error" not in value:  # of the responses API
            value = {"error": value | {"type": None}}
        self._fields |= {k: v for k, v in _common(value).items() if v is not None}


def _index(piece: dict[str, Any]) -> int:
    index = piece.get("index")
    return index if isinstance(index, int) else 0


class _Pieces:
    """Fields whose values come in pieces."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[Any]] = {}

    def add(self, name: str, value: object) -> None:
        if value is not None:
            self._pieces.setdefault(name, []).append(value)

    def fields(self) -> dict[str, Any]:
        try:
            return {name: _joined(name, pieces) for name, pieces in self._pieces.items()}
        except RecursionError:  # nested as deep as Python reads it
            return dict(self._pieces)


def _joined(name: str, pieces: list[Any]) -> Any:
    """Texts add up, lists go on, of objects each field does; of anything else the last counts."""
    if len(pieces) == 1:
        return pieces[0]
    kinds = {type(piece) for piece in pieces}
    if kinds == {str} and name not in _ONCE:
        return "".join(pieces)
    if kinds == {dict}:
        fields = _Pieces()
        for piece in pieces:
            for inner, value in piece.items():
                fields.add(inner, value)
        return fields.fields()
    if list not in kinds:
        return pieces[-1]
    found: list[Any] = []
    for kind, group in groupby(pieces, type):
        alike = list(group)
        found += chain(*alike) if kind is list else [_joined(name, alike)]
    return found


class _Block:
    """One block of the messages API: text, a call of a tool, thoughts."""

    def __init__(self, begun: dict[str, Any]) -> None:
        self._begun = begun
        self._pieces = _Pieces()

    def add(self, delta: dict[str, Any]) -> None:
        for name, value in delta.items():
            if name != "type":  # objects are each one of their own: citations
                self._pieces.add(name, [value] if isinstance(value, dict) else value)

    def whole(self) -> dict[str, Any]:
        found = {**self._begun, **self._pieces.fields()}
        if "partial_json" in found:  # the input of a tool; as text where it was cut
            text = found.pop("partial_json")
            parsed = _parsed(str(text).encode())
            found["input"] = text if parsed is None else parsed
        return found


class _Choice:
    """One choice of a streamed completion."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._message = _Pieces()
        self._calls: list[_Pieces] = []
        self._newest: dict[int, tuple[object, _Pieces]] = {}  # id and call of each index

    def add(self, piece: dict[str, Any]) -> None:
        if piece.get("finish_reason"):
            self.reason = str(piece["finish_reason"])
        if isinstance(piece.get("text"), str):
            self._message.add("content", piece["text"])
        delta = piece.get("delta")
        for name, value in delta.items() if isinstance(delta, dict) else ():
            if name == "tool_calls" and isinstance(value, list):
                for call in value:
                    if isinstance(call, dict):
                        self._add_call(call)
            elif name != "role":
                self._message.add(name, value)

    def _add_call(self, piece: dict[str, Any]) -> None:
        index, its = _index(piece), piece.get("id")
        function = piece.get("function")
        begins = isinstance(function, dict) and bool(function.get("name"))
        known, call = self._newest.get(index, (None, None))
        # Some servers give every call the same index, others every piece another id.
        if call is None or (begins and its and known and its != known):
            call = _Pieces()
            self._calls.append(call)
        self._newest[index] = (its or known, call)
        for name, value in piece.items():
            if name != "index":
                call.add(name, value)

    def message(self) -> dict[str, Any]:
        message = {"role": "assistant", **self._message.fields()}
        if self._calls:
            message["tool_calls"] = [call.fields() for call in self._calls]
        return message
