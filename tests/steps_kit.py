"""Runs something again and again, each time with the end of the process, or an error, at the next
system call that changes something; and looks at what is there after each.

`every_step` is to be called in a process of its own: it replaces ``os`` in the modules given.
"""

from __future__ import annotations

import errno
import json
import os
import pkgutil
import random
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import hostile as h

import pqvault.storage
from pqvault.errors import PQVaultError

CHANGES = {
    "open", "write", "writev", "pwrite", "fsync", "link", "rename", "unlink", "mkdir", "rmdir",
    "fchmod", "copy_file_range", "posix_fallocate",
}  # fmt: skip


def storage_modules() -> list[Any]:
    """The modules of `pqvault.storage` that call the system: all of them, wherever code moves."""
    names = (info.name for info in pkgutil.iter_modules(pqvault.storage.__path__))
    loaded = (sys.modules.get(f"pqvault.storage.{name}") for name in names)
    found = [module for module in loaded if getattr(module, "os", None) is os]
    assert len(found) >= 4
    return found


class Shim:
    """`os`, whose k-th call that changes something ends the process, or fails."""

    def __init__(self, k: int, mode: str) -> None:
        self.k, self.mode, self.calls = k, mode, 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CHANGES:
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "open" and not (args[1] & os.O_CREAT):
                return real(*args, **kwargs)
            self.calls += 1
            if self.calls == self.k:
                if self.mode == "error":
                    raise OSError(errno.ENOSPC, "no room, says the test")
                if name == "write":  # a part of it arrives
                    real(args[0], memoryview(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call


def forked(do: Callable[[], object]) -> tuple[int, str]:
    """What a child process that does it exits with and says."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        signal.alarm(60)
        code = 0
        try:
            os.write(write, str(do()).encode())
        except BaseException:  # noqa: BLE001  (told by the parent)
            os.write(write, traceback.format_exc().encode()[-3000:])
            code = 1
        os._exit(code)
    os.close(write)
    text = b""
    while piece := os.read(read, 65536):
        text += piece
    os.close(read)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text.decode()


def in_child(code: str, base: Path, *args: object, stride: int, least: int) -> None:
    """Run ``code``, which prints what :func:`every_step` returns, in a process of its own, with
    ``base``, ``args`` and ``stride``. Nothing may have failed, of more than ``least`` calls."""
    run = h.run_child(code, base, *args, stride, home=base / "home", timeout=1500)
    assert not run.returncode, run.stderr[-3000:]
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["steps"] + stride > result["calls"] > least
    for step, text in result["failed"]:
        print(f"step {step}: {text}", file=sys.stderr)
    assert not result["failed"]


def every_step(
    base: Path,
    mode: str,
    modules: Sequence[ModuleType],
    work: Callable[[], object],
    check: Callable[[], object],
    stride: int = 1,
) -> dict[str, Any]:
    """``base``: holds ``all``, which is put back before each try, and ``home``. ``mode``:
    ``kill`` or ``error``. ``stride``: one call of so many, the first one drawn. Returns the last
    step, calls of the whole work, and what failed."""

    def attempt(k: int) -> Callable[[], object]:
        def do() -> object:
            shim: Any = Shim(k, mode)
            for module in modules:
                module.os = shim  # type: ignore[attr-defined]
            try:
                work()
            except PQVaultError as error:
                h.check_error(error)
                return ""
            if shim.calls >= k:
                raise AssertionError("an error was swallowed")
            return shim.calls

        return do

    shutil.copytree(base / "all", base / "kept")
    shutil.copytree(base / "home", base / "home-kept")
    k, failed = random.randrange(stride) + 1 - stride, []
    while True:
        k += stride
        for name, kept in (("all", "kept"), ("home", "home-kept")):
            shutil.rmtree(base / name, ignore_errors=True)
            shutil.copytree(base / kept, base / name)
        code, text = forked(attempt(k))
        if code == 0 and text:
            break
        if code != (0 if mode == "error" else -signal.SIGKILL):
            failed.append([k, text])
        code, text = forked(check)
        if code:
            failed.append([k, text or f"exit {code}"])
    return {"steps": k - stride, "calls": int(text), "failed": failed}
