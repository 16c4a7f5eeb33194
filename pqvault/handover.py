"""Hand the key of one object to a worker process: sealed to a key that the worker made.

What a task is called with may be logged, kept and replayed by whoever runs tasks, so a key is
never among it in clear. HPKE as for envelopes, with a purpose of its own; nothing of it is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pqvault.crypto import kdf, kem
from pqvault.crypto.cobblestone import MessageReader, MessageWriter
from pqvault.ids import new_id
from pqvault.keys import Identity, Recipient
from pqvault.rootkey import RootKey

__all__ = ["HandedKey", "HandedText"]

_TEXT: Final = "text"  # in place of an object's name


@dataclass(frozen=True, slots=True)
class HandedKey:
    """The key of the object ``name`` of a part, sealed. Safe to pickle, log and lose."""

    archive: str
    part: str
    name: str
    sealed: bytes  # as long as a wrapped key of the recipient's profile

    @classmethod
    def to(cls, worker: Recipient, key: RootKey, name: str) -> HandedKey:
        """For one worker, by the public key that it made."""
        info = _info(key.archive, key.part, name, worker.key_id)
        secret = key.object(name)[0]
        sealed = kem.wrap(worker.profile, secret, worker.public_key, info)
        return cls(key.archive, key.part, name, sealed)

    def open(self, mine: Identity) -> tuple[bytes, bytes]:
        """The key (32 bytes) and the Cobblestone context of the object. Raises IntegrityError."""
        info = _info(self.archive, self.part, self.name, mine.key_id)
        what = f"the key of {self.name} for this worker"
        secret = kem.unwrap(mine.profile, self.sealed, mine.seed, info, what)
        ids = (bytes.fromhex(self.archive), bytes.fromhex(self.part))
        return secret, kdf.bind("object", *ids, self.name.encode("ascii"))


@dataclass(frozen=True, slots=True)
class HandedText:
    """Bytes that are not for logs either, paths above all: under a key made for them alone."""

    key: HandedKey
    sealed: bytes

    @classmethod
    def to(cls, worker: Recipient, data: bytes) -> HandedText:
        """For one worker."""
        once = RootKey.generate(new_id(), new_id(), worker.profile)
        message = MessageWriter(*once.object(_TEXT))
        room = memoryview(bytearray(MessageWriter.room(len(data))))
        sealed = bytes(room[: message.update_into(data, room)]) + message.finalize()
        return cls(HandedKey.to(worker, once, _TEXT), sealed)

    def open(self, mine: Identity) -> bytes:
        """What was handed over. Raises IntegrityError."""
        message = MessageReader(*self.key.open(mine), "what was handed to this worker")
        return message.update(self.sealed) + message.finalize()


def _info(archive: str, part: str, name: str, key_id: str) -> bytes:
    ids = (bytes.fromhex(archive), bytes.fromhex(part))
    return kdf.bind("handover", *ids, name.encode("ascii"), bytes.fromhex(key_id))
