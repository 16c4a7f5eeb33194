"""litData: an encryption for who stays with its format.

Each chunk or sample is a sealed stream (docs/format.md section 8). litData says neither which
chunk it hands over nor where it belongs, so exchanged chunks of one writer are not noticed, which
in an archive they are. Give it samples as tuples: what litData 0.2.76 encrypts of dictionaries it
cannot read back, whatever encrypts.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

from litdata.utilities.encryption import Encryption

from pqvault.errors import FormatError, IntegrityError, UsageError
from pqvault.format.envelope import Envelope
from pqvault.ids import new_id, now
from pqvault.integrations import references
from pqvault.keys import one_profile
from pqvault.rootkey import STREAM_ARCHIVE, STREAM_OBJECT, RootKey, keyring
from pqvault.sealed import SealedReader, SealedWriter
from pqvault.sealed.writer import DEFAULT_LEVEL

__all__ = ["SealedEncryption"]

_WHAT = "what litData handed over"


class SealedEncryption(Encryption):
    """Seals to ``recipients``, opens with ``identities``: references to keys, as options have them.

    ``level``: ``chunk``, or ``sample``, which costs 1.3 kB a sample and a recipient.
    ``compression``: zstd's level, 0 to store. Pickles as references: every process that writes
    makes a root key of its own, every process that reads unwraps each of them once.
    """

    def __init__(
        self,
        recipients: references.References | None = None,
        identities: references.References | None = None,
        level: str = "chunk",
        compression: int = DEFAULT_LEVEL,
    ) -> None:
        if level not in ("sample", "chunk"):
            raise UsageError(f"level is {level!r}", hint="choose sample or chunk")
        self.level = level
        self._recipients = references.normal(recipients)
        self._identities = references.normal(identities)
        self._compression = compression
        self._own: tuple[RootKey, bytes] | None = None
        self._keys: dict[bytes, RootKey] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_own": None, "_keys": {}}

    @property
    def algorithm(self) -> str:
        """Its name in litData's index."""
        return "pqvault"

    def encrypt(self, data: bytes) -> bytes:
        """A sealed stream of ``data``."""
        if self._own is None:
            self._own = self._new_key()
        key, envelope = self._own
        out = io.BytesIO()
        out.write(envelope)
        with SealedWriter(out, *key.object(STREAM_OBJECT), level=self._compression) as writer:
            writer.write(data)
        return out.getvalue()

    def _new_key(self) -> tuple[RootKey, bytes]:
        recipients = references.recipients(self._recipients)
        key = RootKey.generate(STREAM_ARCHIVE, new_id(), one_profile(recipients))
        return key, key.envelope(recipients, created=now()).marshal()

    def decrypt(self, data: bytes) -> bytes:
        """The content of a sealed stream. Raises NoKeyFits, IntegrityError."""
        envelope, used = Envelope.parse_prefix(data, f"the envelope of {_WHAT}")
        head = bytes(data[:used])
        key = self._keys.get(head)
        if key is None:
            if (envelope.archive, envelope.group) != (STREAM_ARCHIVE, ""):
                raise FormatError(f"{_WHAT} is not a sealed stream")
            identities = keyring(references.identities(self._identities))
            key = self._keys[head] = RootKey.unwrap(envelope, identities, _WHAT)
        source = _Memory(memoryview(data)[used:])
        reader = SealedReader(source, *key.object(STREAM_OBJECT), _WHAT)
        content = bytes(reader.pread(0, reader.size))
        reader.close()
        return content

    def state_dict(self) -> dict[str, Any]:
        """What litData writes into its index: nothing secret."""
        return {"algorithm": self.algorithm, "level": self.level}

    def save(self, file_path: str) -> None:
        """The settings, without any key."""
        state = self.state_dict() | {"recipients": list(self._recipients)}
        with open(file_path, "w", encoding="utf-8") as file:
            json.dump(state, file)

    @classmethod
    def load(cls, file_path: str, password: str) -> SealedEncryption:
        """From :meth:`save`. ``password``: a reference to the identity that opens."""
        with open(file_path, encoding="utf-8") as file:
            state = json.load(file)
        return cls(state["recipients"] or None, password, level=state["level"])


@dataclass(frozen=True, slots=True)
class _Memory:
    """Sealed bytes in memory."""

    data: memoryview

    @property
    def size(self) -> int:
        return len(self.data)

    def pread_into(self, buffer: memoryview, offset: int) -> None:
        piece = self.data[offset : offset + len(buffer)]
        if len(piece) != len(buffer):
            raise IntegrityError(f"{_WHAT} is cut off")
        buffer[:] = piece
