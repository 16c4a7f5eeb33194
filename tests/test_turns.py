"""Turns of threads that read small files."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import pqvault
from pqvault.archive import turns as module
from pqvault.archive.engine import THREADS
from pqvault.archive.turns import Turns


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns as they are where files come from memory, whatever else this machine does."""
    monkeypatch.setattr(module, "_IDLE", -1.0)


def test_one_at_a_time(busy: None) -> None:
    """Nobody else is in the block, but where it steps aside."""
    turns, inside, most = Turns(), 0, 0
    guard = threading.Lock()

    def count(step: int) -> None:
        nonlocal inside, most
        with guard:
            inside += step
            most = max(most, inside)

    def read(_: int) -> None:
        with turns.turn():
            count(1)
            time.sleep(0.001)
            count(-1)
            with turns.aside():
                time.sleep(0.001)
            count(1)
            count(-1)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(40)))
    assert most == 1


def test_who_steps_aside_lets_another_in(busy: None) -> None:
    turns, other = Turns(), threading.Event()

    def read() -> None:
        with turns.turn():
            other.set()

    with turns.turn():
        thread = threading.Thread(target=read)
        thread.start()
        assert not other.wait(0.05), "it is not its turn"
        with turns.aside():
            assert other.wait(10)
    thread.join()


def test_an_error_ends_the_turn(busy: None) -> None:
    turns = Turns()
    for _ in range(3):
        with pytest.raises(ValueError, match="inside"), turns.turn(), turns.aside():
            raise ValueError("inside")
    with pytest.raises(ValueError, match="turn"), turns.turn():
        raise ValueError("turn")
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: turns.turn().__enter__()).result(timeout=10) is None


def test_aside_of_no_turn_is_nothing() -> None:
    with Turns().aside():
        pass


def test_who_waits_for_a_disk_waits_with_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a turn in which the process was idle, threads read side by side."""
    monkeypatch.setattr(module, "_IDLE", 2.0)  # every turn counts as idle
    turns = Turns()
    with turns.turn():
        pass
    both = threading.Barrier(2, timeout=10)

    def read(_: int) -> None:
        with turns.turn():
            both.wait()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(read, range(2)))


def test_a_child_of_fork_seals(tmp_path: Path) -> None:
    """A thread of the parent has the turn at the fork; it is not in the child."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a").write_bytes(b"small")
    key = pqvault.Identity.generate()
    with THREADS._turns.turn():
        child = os.fork()
        if child == 0:  # pragma: no cover, another process
            status = 1
            try:
                pqvault.seal(tmp_path / "src", tmp_path / "x.pqv", recipients=[key.recipient])
                status = 0
            finally:
                os._exit(status)
        deadline = time.monotonic() + 60
        while not (done := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < deadline:
            time.sleep(0.01)
        if not done[0]:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the child waits for a thread that it does not have")
    assert os.waitstatus_to_exitcode(done[1]) == 0
