"""Python's logging into a log: by dictConfig, by a JSON file as vLLM's, behind a QueueHandler."""

from __future__ import annotations

import json
import logging
import logging.config
import logging.handlers
import pickle
import queue
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pqvault
from pqvault.integrations.logging import InferenceLogHandler
from pqvault.logs import InferenceLog, LogView

KEY = pqvault.Identity.generate()


def rows(archive: Path) -> list[dict[str, Any]]:
    """All rows, without nulls, `extra` parsed."""
    with LogView(archive, [KEY]) as view:
        found = [row for table in view.rows() for row in table.to_pylist()]
        assert view.problems == []
    clean = [{k: v for k, v in row.items() if v is not None} for row in found]
    return [{**row, "extra": json.loads(row.get("extra", "{}"))} for row in clean]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "l.pqv"


@pytest.fixture
def handler(archive: Path) -> Iterator[InferenceLogHandler]:
    handler = InferenceLogHandler(str(archive), recipients=[KEY.recipient])
    yield handler
    handler.close()


def logger_with(handler: logging.Handler) -> logging.Logger:
    logger = logging.Logger("server")
    logger.addHandler(handler)
    return logger


def test_text_fields_and_exceptions(handler: InferenceLogHandler, archive: Path) -> None:
    logger = logger_with(handler)
    logger.info("request %s took %d ms", "r1", 7, extra={"request_id": "r1", "model": "m"})
    logger.info({"model": "m2", "output_tokens": 5})
    try:
        raise ValueError("no such prompt")
    except ValueError:
        logger.exception("failed")
    handler.flush()
    handler.close()
    one, two, three = rows(archive)
    assert (one["request_id"], one["model"], one["event"]) == ("r1", "m", "server")
    assert one["extra"] == {"level": "INFO", "message": "request r1 took 7 ms"}
    assert (two["model"], two["output_tokens"]) == ("m2", 5)
    assert three["error_type"] == "ValueError" and "no such prompt" in three["error_message"]


def test_stacks_and_exceptions_of_other_processes_are_kept(
    handler: InferenceLogHandler, archive: Path
) -> None:
    logger = logger_with(handler)
    logger.info("where", stack_info=True)
    try:
        raise ValueError("no such prompt")
    except ValueError:
        record = logger.makeRecord("worker", logging.ERROR, "f", 1, "bad", (), sys.exc_info())
    sent = logging.handlers.SocketHandler("localhost", 0).makePickle(record)
    logger.handle(logging.makeLogRecord(pickle.loads(sent[4:])))  # noqa: S301  our own
    handler.close()
    one, two = rows(archive)
    assert one["extra"]["stack_info"].startswith("Stack (most recent call last):")
    assert two["event"] == "worker" and two["error_message"].endswith("ValueError: no such prompt")


def test_a_message_is_formatted_when_it_is_logged(
    handler: InferenceLogHandler, archive: Path
) -> None:
    """Its arguments may change before another thread writes it."""
    words = ["before"]
    logger_with(handler).info("words: %s", words)
    words[0] = "after"
    handler.close()
    assert rows(archive)[0]["extra"]["message"] == "words: ['before']"


def test_a_wrong_argument_does_not_reach_the_program(
    handler: InferenceLogHandler, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """As with any handler: it is shown, or not where `logging.raiseExceptions` is off."""
    logger = logger_with(handler)
    logger.warning("%d", "x")
    assert "TypeError" in capsys.readouterr().err
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logger.warning("%d", "x")
    assert not capsys.readouterr().err


def test_a_formatter_is_used(handler: InferenceLogHandler, archive: Path) -> None:
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger_with(handler).warning("hot")
    handler.close()
    assert rows(archive)[0]["extra"]["message"] == "WARNING hot"


def test_by_dict_config(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "ops.pub").write_text(KEY.recipient.text + "\n")
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {
            "sealed": {
                "class": "pqvault.integrations.logging.InferenceLogHandler",
                "level": "INFO",
                "archive": str(archive),
                "recipients": [f"@{tmp_path / 'ops.pub'}"],
                "fsync": "flush",
            }
        },
        "loggers": {"test-dict": {"handlers": ["sealed"], "level": "DEBUG", "propagate": False}},
    }
    logging.config.dictConfig(json.loads(json.dumps(config)))
    logger = logging.getLogger("test-dict")
    logger.debug("too quiet")
    logger.info("hello")
    (handler,) = logger.handlers
    assert isinstance(handler, InferenceLogHandler)
    handler.flush()
    assert handler.log.acknowledged == 1
    handler.close()
    logger.removeHandler(handler)
    assert [row["extra"]["message"] for row in rows(archive)] == ["hello"]


def test_a_json_file_is_all_that_a_server_needs(archive: Path, tmp_path: Path) -> None:
    """As VLLM_LOGGING_CONFIG_PATH: another process, which ends without closing anything."""
    config = {
        "version": 1,
        "handlers": {
            "sealed": {
                "class": "pqvault.integrations.logging.InferenceLogHandler",
                "archive": str(archive),
                "recipients": [KEY.recipient.text],
            }
        },
        "loggers": {"vllm": {"handlers": ["sealed"], "level": "INFO"}},
    }
    path = tmp_path / "logging.json"
    path.write_text(json.dumps(config))
    code = """
import json, logging.config, sys
with open(sys.argv[1]) as file: logging.config.dictConfig(json.load(file))
logging.getLogger("vllm.entrypoints.logger").info(
    "Received request %s: prompt: %r, params: %s.", "cmpl-1", "hi", "SamplingParams(n=1)")
"""
    subprocess.run([sys.executable, "-c", code, path], check=True, timeout=60)
    (row,) = rows(archive)
    assert row["event"] == "vllm.entrypoints.logger"
    assert "prompt: 'hi'" in row["extra"]["message"]


def test_behind_a_queue_handler(handler: InferenceLogHandler, archive: Path) -> None:
    records: queue.Queue[Any] = queue.Queue()
    logger = logger_with(logging.handlers.QueueHandler(records))
    listener = logging.handlers.QueueListener(records, handler)
    listener.start()
    for number in range(100):
        logger.info("number %d", number, extra={"request_id": str(number)})
    listener.stop()
    handler.close()
    assert [row["request_id"] for row in rows(archive)] == [str(n) for n in range(100)]


def test_a_log_does_not_feed_itself(archive: Path) -> None:
    """What pqvault says on its own logger, when a part cannot be written, is not logged there."""
    log = InferenceLog(archive, recipients=[KEY.recipient])
    handler = InferenceLogHandler(log=log)
    record = logging.makeLogRecord({"name": "pqvault.logs", "msg": "the disk is full"})
    handler.emit(record)
    handler.close()
    assert log.stats.logged == 0


def test_closing_with_losses_warns(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pqvault.errors import PQVaultError
    from pqvault.storage.appending import AppendFile

    def full(file: AppendFile, data: Any) -> None:
        raise PQVaultError("no space left on the device")

    log = InferenceLog(archive, recipients=[KEY.recipient])
    handler = InferenceLogHandler(log=log)
    monkeypatch.setattr(AppendFile, "append", full)
    logger_with(handler).info("lost")
    monkeypatch.setattr(log, "close", lambda: InferenceLog.close(log, timeout=0.2))
    with pytest.warns(RuntimeWarning, match="1 records were lost"):
        handler.close()
