"""Cobblestone-256: C2SP chunked-encryption with HKDF-Expand-SHA-512 and AES-256-GCM.

::

    salt (24) ‖ commitment (32) ‖ chunk 0 ‖ chunk 1 ‖ …      chunk k at 56 + 16,400 k

Each chunk holds 16,384 bytes of plaintext and a 16-byte tag, the last one fewer than
16,384. :class:`MessageWriter` and :class:`MessageReader` go in order, on the library's own
streams; :class:`RandomReader` is ours, from the text of https://c2sp.org/chunked-encryption.
"""

from __future__ import annotations

import threading
from typing import Final, Protocol

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from pqvault.crypto.failures import LIBRARY_ERRORS, failure
from pqvault.crypto.mac import equal
from pqvault.errors import FormatError, IntegrityError

__all__ = [
    "CHUNK_SIZE",
    "HEADER_SIZE",
    "KEY_SIZE",
    "SEALED_CHUNK_SIZE",
    "MessageReader",
    "MessageWriter",
    "RandomReader",
    "Source",
    "plain_size",
    "sealed_size",
]

KEY_SIZE: Final = 32
SALT_SIZE: Final = 24
COMMITMENT_SIZE: Final = 32
HEADER_SIZE: Final = SALT_SIZE + COMMITMENT_SIZE
CHUNK_SIZE: Final = 16384  # bytes of plaintext
TAG_SIZE: Final = 16
SEALED_CHUNK_SIZE: Final = CHUNK_SIZE + TAG_SIZE
NONCE_SIZE: Final = 12
MAX_CHUNKS: Final = 2**38
BATCH: Final = 64  # chunks fetched at once: 1 MiB, so scratch stays small


class Source(Protocol):
    """Sealed bytes that can be read anywhere: a file, an object in a store."""

    @property
    def size(self) -> int:
        """Total size in bytes."""

    def pread_into(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer`` from ``offset``; raises when fewer bytes are there."""


def sealed_size(size: int) -> int:
    """The size in bytes of a message of ``size`` bytes, sealed."""
    return HEADER_SIZE + size + TAG_SIZE * (size // CHUNK_SIZE + 1)


def plain_size(size: int, what: str) -> int:
    """The size of the plaintext of a message of ``size`` bytes, **not yet authenticated**.

    Raises IntegrityError for a length that no message has: it was cut or added to.
    """
    full, last = divmod(size - HEADER_SIZE, SEALED_CHUNK_SIZE)
    if size < HEADER_SIZE + TAG_SIZE or last < TAG_SIZE:
        raise IntegrityError(f"{what} is truncated: no sealed message is {size} bytes long")
    if full >= MAX_CHUNKS:
        raise FormatError(f"{what} is longer than a message can be")
    return full * CHUNK_SIZE + last - TAG_SIZE


class MessageWriter:
    """Seals one message in order. The salt is drawn by the library, fresh for each."""

    def __init__(self, key: bytes, context: bytes) -> None:
        self._encryptor = Cobblestone256Encryptor(key, context)

    def update_into(self, data: bytes | memoryview, out: bytearray | memoryview) -> int:
        """Seal ``data``; returns how many bytes of ``out`` were written.

        ``out`` must have room for ``len(data) + 16,440 + 16 * (len(data) // 16,384)`` bytes.
        """
        return self._encryptor.update_into(data, out)

    def finalize(self) -> bytes:
        """The short last chunk, without which the message reads as truncated."""
        return self._encryptor.finalize()

    @staticmethod
    def room(size: int) -> int:
        """An upper bound of what :meth:`update_into` writes for ``size`` bytes."""
        return HEADER_SIZE + (size // CHUNK_SIZE + 2) * SEALED_CHUNK_SIZE


class MessageReader:
    """Opens one message in order; nothing it returns is unauthenticated."""

    def __init__(self, key: bytes, context: bytes, what: str) -> None:
        self._decryptor = Cobblestone256Decryptor(key, context)
        self._what = what

    def update(self, data: bytes | memoryview) -> bytes:
        """The plaintext of all chunks that are whole by now. Raises IntegrityError."""
        try:
            return self._decryptor.update(data)
        except LIBRARY_ERRORS as error:
            raise failure(error, self._what) from None

    def finalize(self) -> bytes:
        """The last chunk. Raises IntegrityError when the message is truncated."""
        try:
            return self._decryptor.finalize()
        except LIBRARY_ERRORS as error:
            raise failure(error, f"the end of {self._what}") from None


class RandomReader:
    """Reads a sealed message anywhere. Thread-safe: it has no state but keys.

    The commitment is checked when it is made, and the last chunk is authenticated then too,
    so :attr:`size` and everything relative to the end can be believed (C2SP: a reader MUST
    do so before it answers a seek from the end).
    """

    def __init__(self, source: Source, key: bytes, context: bytes, what: str) -> None:
        if len(key) != KEY_SIZE:
            raise ValueError(f"a Cobblestone-256 key is {KEY_SIZE} bytes")
        self._source = source
        self._what = what
        size = plain_size(source.size, what)
        header = bytearray(HEADER_SIZE)
        source.pread_into(memoryview(header), 0)
        salt, commitment = bytes(header[:SALT_SIZE]), bytes(header[SALT_SIZE:])
        okm = _expand(key, salt, context)
        # Checked before any chunk is touched: this is what makes the key the only one that
        # opens the message (ATTACKS row 1).
        if not equal(okm[KEY_SIZE + NONCE_SIZE :], commitment):
            raise IntegrityError(
                f"{what} failed authentication: it was not sealed under this key and this name"
            )
        self._aead = AESGCM(okm[:KEY_SIZE])
        self._nonce = int.from_bytes(okm[KEY_SIZE : KEY_SIZE + NONCE_SIZE], "big")
        self._chunks = size // CHUNK_SIZE + 1
        self.size = size
        self._open_chunks(
            self._chunks - 1, self._chunks, 0, memoryview(bytearray(size % CHUNK_SIZE))
        )

    def pread_into(self, out: memoryview, offset: int) -> None:
        """Fill ``out`` with the plaintext from ``offset``; whole range or IntegrityError.

        Chunks that lie whole within the range are decrypted straight into ``out``; on a
        failure all of ``out`` is zeroed, for the library writes before it checks the tag.
        """
        length = len(out)
        if offset < 0 or offset + length > self.size:
            raise ValueError("the range is outside the message")
        try:
            self._pread_into(out, offset)
        except BaseException:
            out[:] = bytes(length)
            raise

    def pread(self, offset: int, length: int) -> bytearray:
        """``length`` bytes of plaintext from ``offset``."""
        out = bytearray(length)
        self.pread_into(memoryview(out), offset)
        return out

    def _pread_into(self, out: memoryview, offset: int) -> None:
        done = 0
        while done < len(out):
            first, skip = divmod(offset + done, CHUNK_SIZE)
            end = min(first + BATCH, (offset + len(out) - 1) // CHUNK_SIZE + 1)
            take = min(len(out) - done, (end - first) * CHUNK_SIZE - skip)
            self._open_chunks(first, end, skip, out[done : done + take])
            done += take

    def _open_chunks(self, first: int, end: int, skip: int, out: memoryview) -> None:
        """Fill ``out`` from the chunks ``first <= k < end``, less ``skip`` bytes of the first.

        Fetched in one read: a disk or a store answers one request sooner than three.
        """
        rest = min(end * CHUNK_SIZE, self.size) - first * CHUNK_SIZE
        # Room for sealed bytes, this thread's own and used again: new memory costs as much as
        # opening what is read into it. Not shared with a reader that is the source of this one.
        room, _local.room = getattr(_local, "room", None), None
        size = rest + TAG_SIZE * (end - first)
        if room is None or len(room) < size:
            room = memoryview(bytearray(size))
        try:
            self._source.pread_into(room[:size], HEADER_SIZE + first * SEALED_CHUNK_SIZE)
            self._decrypt(room[:size], first, end, skip, out)
        finally:
            _local.room = room

    def _decrypt(self, view: memoryview, first: int, end: int, skip: int, out: memoryview) -> None:
        # Not more than needed in the loop: this is a third of what a small sample takes.
        open_into, base, room = self._aead.decrypt_into, self._nonce, len(out)
        chunk, at = first, -skip  # where the chunk begins in ``out``
        from_ = 0
        try:
            for chunk in range(first, end):
                data = view[from_ : from_ + SEALED_CHUNK_SIZE]
                nonce = (base ^ chunk).to_bytes(NONCE_SIZE, "big")
                stop = at + len(data) - TAG_SIZE
                if at >= 0 and stop <= room:
                    open_into(nonce, data, None, out[at:stop])
                else:
                    piece = memoryview(self._aead.decrypt(nonce, data, None))
                    out[max(0, at) : stop] = piece[max(0, -at) : room - at]
                at = stop
                from_ += SEALED_CHUNK_SIZE
        except LIBRARY_ERRORS as error:
            raise failure(error, f"chunk {chunk} of {self._chunks} of {self._what}") from None


_local = threading.local()


def _expand(key: bytes, salt: bytes, context: bytes) -> bytes:
    # C2SP chunked-encryption, "Key derivation": key (32) ‖ base nonce (12) ‖ commitment (32).
    info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00" + salt + context
    length = KEY_SIZE + NONCE_SIZE + COMMITMENT_SIZE
    return HKDFExpand(algorithm=hashes.SHA512(), length=length, info=info).derive(key)
