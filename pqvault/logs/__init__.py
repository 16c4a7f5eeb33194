"""Inference logs that their host cannot read back.

::

    from pqvault.logs import InferenceLog
    log = InferenceLog("serving.pqv", recipients=["@ops.pub"])
    log.log({"model": "llama", "input_messages": […], "output_tokens": 12})
"""

from __future__ import annotations

from pqvault.logs.expire import ExpireReport, expire
from pqvault.logs.lines import json_lines
from pqvault.logs.log import InferenceLog
from pqvault.logs.pipe import PipeReport, pipe_lines
from pqvault.logs.reading import LogPartFacts, LogView
from pqvault.logs.recover import RecoveredPart, RecoverReport, recover
from pqvault.logs.schema import CONTENT, DEFAULT
from pqvault.logs.settings import LogSettings, LogStats

__all__ = [
    "CONTENT",
    "DEFAULT",
    "ExpireReport",
    "InferenceLog",
    "LogPartFacts",
    "LogSettings",
    "LogStats",
    "LogView",
    "PipeReport",
    "RecoverReport",
    "RecoveredPart",
    "expire",
    "json_lines",
    "pipe_lines",
    "recover",
]
