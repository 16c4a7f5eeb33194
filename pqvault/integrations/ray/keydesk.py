"""Where tasks ask their driver for keys of objects, and get them sealed to keys of their own.

Tasks of Ray Data start when and where Ray likes, so the driver cannot hand them anything
beforehand. The desk is an actor between them: it holds public keys and sealed keys, nothing that
opens anything. The root key stays on the driver.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import threading
from collections.abc import Callable
from typing import Final

import ray

from pqvault.crypto.profiles import PROFILES
from pqvault.errors import PQVaultError
from pqvault.handover import HandedKey
from pqvault.integrations.ray.worker import own_identity
from pqvault.keys import Identity, Recipient

__all__ = ["KeyDesk", "ask"]

_POLL: Final = 0.25  # seconds between looks whether the run has ended
_WAIT: Final = 120.0  # seconds a task waits for its driver
# Calls at once: more than tasks that wait, so that there is room for who answers them. Groups of
# calls would be event loops of their own, which must not share a queue.
_ASKING: Final = 10_000


class _Desk:
    """The actor."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._asked: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self._waiting: dict[int, asyncio.Future[HandedKey]] = {}

    async def ask(self, public_key: bytes) -> HandedKey:
        """For tasks: the key of a new object."""
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        self._asked.put_nowait((number, public_key))
        try:
            return await self._waiting[number]
        finally:
            del self._waiting[number]

    async def asked(self, wait: float) -> list[tuple[int, bytes]]:
        """For the driver: who asked since, with their public keys."""
        try:
            found = [await asyncio.wait_for(self._asked.get(), wait)]
        except TimeoutError:
            return []
        while not self._asked.empty():
            found.append(self._asked.get_nowait())
        return found

    async def answer(self, answers: dict[int, HandedKey]) -> None:
        """For the driver."""
        for number, handed in answers.items():
            waiting = self._waiting.get(number)
            if waiting is not None and not waiting.done():  # its task may have ended
                waiting.set_result(handed)


class KeyDesk:
    """The driver's side: answers with what ``hand_over`` gives, until :meth:`close`."""

    def __init__(
        self, name: str, profile: str, hand_over: Callable[[Recipient], HandedKey]
    ) -> None:
        self._profile = PROFILES[profile]
        self._hand_over = hand_over
        self._ended = threading.Event()
        self._desk = (
            ray.remote(num_cpus=0, max_concurrency=_ASKING)(_Desk).options(name=name).remote()
        )
        self._thread = threading.Thread(target=self._serve, name="pqvault-desk", daemon=True)
        self._thread.start()

    @staticmethod
    def new_name() -> str:
        """A name by which tasks find a desk."""
        return f"pqvault-desk-{secrets.token_hex(8)}"

    def _serve(self) -> None:
        while not self._ended.is_set():
            try:
                asked = ray.get(self._desk.asked.remote(_POLL))
                answers = {
                    number: self._hand_over(Recipient(public_key, profile=self._profile))
                    for number, public_key in asked
                }
                if answers:
                    ray.get(self._desk.answer.remote(answers))
            except ray.exceptions.RayError:
                return  # the desk is gone; who asks is told so by Ray

    def close(self) -> None:
        """Tasks get no more keys."""
        self._ended.set()
        self._thread.join()
        ray.kill(self._desk)


def ask(name: str, profile: str) -> tuple[HandedKey, Identity]:
    """In a task: the key of a new object, and what opens it. Raises PQVaultError when the driver
    is gone."""
    mine = own_identity(profile)
    try:
        desk = ray.get_actor(name)
        handed: HandedKey = ray.get(desk.ask.remote(mine.recipient.public_key), timeout=_WAIT)
    except (ValueError, ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
        raise PQVaultError(
            "the driver of this write gives no keys: it has ended, or is out of reach",
            hint="write again; nothing was committed",
        ) from None
    return handed, mine
