"""Encrypt one sealed stream again: a new file with a new root key, in the place of the old one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pqvault.archive.recipients import FindRecipient
from pqvault.archive.sealedfiles import reseal
from pqvault.crypto.cobblestone import MessageReader, MessageWriter
from pqvault.errors import IntegrityError
from pqvault.format.envelope import Envelope
from pqvault.ids import new_id, now
from pqvault.keys import Recipient, one_profile
from pqvault.keystore.index import STREAM
from pqvault.rootkey import STREAM_ARCHIVE, STREAM_OBJECT, RootKey
from pqvault.rotation.archives import Rotated
from pqvault.rotation.change import Change, Keys
from pqvault.rotation.streams import hold, opened, replace_file, write_all
from pqvault.sealed.listed import pieces_of
from pqvault.storage.base import explained
from pqvault.streams import FileSource

__all__ = ["StreamRenewal"]


@dataclass(frozen=True, slots=True)
class StreamRenewal:
    """A new root key for the sealed stream in the file ``path``. ``started``: ms; one that was
    encrypted again since then is done. ``find``: a public key by its key id."""

    path: Path
    change: Change
    keys: Keys
    find: FindRecipient
    started: int
    tell: Callable[[int], object] = lambda _: None

    @property
    def _what(self) -> str:
        return f"the envelope of {self.path}"

    def look(self) -> tuple[Envelope, int, tuple[Recipient, ...]]:
        """Its envelope, the bytes of its object, and to whom it will be sealed; () when done."""
        with opened(self.path) as (_, envelope, size):
            return envelope, size, self._recipients(envelope)

    def _recipients(self, envelope: Envelope) -> tuple[Recipient, ...]:
        # What says to come from the future was not made since then: a clock was wrong.
        new = self.started <= envelope.created <= now() and envelope.generation == 1
        if new and self.change.fits(envelope, self._what):
            return ()
        return self.change.recipients(envelope, self._what, self.find)

    def run(self) -> Rotated:
        """Do it. Raises NoKeyFits, IntegrityError, Locked when another process is at it."""
        result = Rotated(str(self.path), STREAM)
        with opened(self.path) as (fd, envelope, size):
            result.met = set(envelope.key_ids)
            recipients = self._recipients(envelope)
            if not recipients:
                result.unchanged = 1
                result.opens(envelope)
                return result
            hold(self.path, fd)
            old = RootKey.unwrap(envelope, self.keys.ring, self._what)
            self.keys.prove(recipients)
            key = RootKey.generate(STREAM_ARCHIVE, new_id(), one_profile(recipients))
            new = key.envelope(recipients, created=now())
            if os.fstat(fd).st_nlink > 1:
                result.warnings.append(
                    f"{self.path} has other names (hard links), which keep the old root key"
                )
            source = FileSource(fd, os.fstat(fd).st_size - size, size)

            def fill(out: int) -> None:
                data = new.marshal()
                write_all(out, data)
                self._reseal(source, old, key, out)
                self._check(out, new, len(data), key)

            with explained("write", str(self.path)):
                replace_file(self.path, fd, fill)
        result.rewrapped, result.copied = 1, size
        result.wrapped = {recipient.key_id for recipient in recipients}
        result.opens(new)
        return result

    def _reseal(self, source: FileSource, old: RootKey, key: RootKey, out: int) -> None:
        reader = MessageReader(*old.object(STREAM_OBJECT), str(self.path))
        writer = MessageWriter(*key.object(STREAM_OBJECT))
        reseal(pieces_of(source), reader, writer, lambda data: write_all(out, data), self.tell)

    def _check(self, out: int, envelope: Envelope, start: int, key: RootKey) -> None:
        """Read all of the new file back: what a reader would refuse must not take a place."""
        head = os.pread(out, start, 0)
        if Envelope.parse(head) != envelope:
            raise IntegrityError(f"the new envelope of {self.path} does not read back")
        if not self.keys.ring.keys().isdisjoint(envelope.key_ids):
            key = RootKey.unwrap(envelope, self.keys.ring, self._what)
        reader = MessageReader(*key.object(STREAM_OBJECT), f"the new {self.path}")
        for data in pieces_of(FileSource(out, start, os.fstat(out).st_size - start)):
            reader.update(data)
            self.tell(len(data))
        reader.finalize()
