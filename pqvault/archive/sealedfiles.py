"""The files of a part as they lie in storage: read against the commit, and sealed under another
key without a look at what is in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from pqvault.archive.layout import part_file
from pqvault.archive.objects import DigestingSink
from pqvault.crypto import digest as digests
from pqvault.crypto.cobblestone import CHUNK_SIZE, MessageReader, MessageWriter
from pqvault.errors import IntegrityError
from pqvault.format.commit import PartFile
from pqvault.rootkey import RootKey
from pqvault.storage import Storage

__all__ = ["STEP", "check_file", "reseal", "reseal_file", "sealed_pieces"]

STEP: Final = 1024 * 1024  # bytes: a piece and its plaintext stay in the processor's cache


def sealed_pieces(
    storage: Storage, name: str, file: PartFile, digest: str, step: int = STEP
) -> Iterator[memoryview]:
    """The bytes of a file, piece by piece, in a buffer that is used again.

    ``digest``: its name. Raises IntegrityError when size or digest are not those of the commit,
    the digest only at the end: what came before it proves nothing until then.
    """
    hasher = digests.new(digest)
    buffer = memoryview(bytearray(min(step, file.size)))
    with storage.open(name) as source:
        if source.size != file.size:
            raise IntegrityError(f"{name} has {source.size} bytes, its commit says {file.size}")
        for at in range(0, file.size, step):
            data = buffer[: min(step, file.size - at)]
            source.pread_into(data, at)
            hasher.update(data)
            yield data
    if hasher.digest().hex() != file.digest:
        raise IntegrityError(f"{name} does not have the digest that its commit says")


def check_file(
    storage: Storage, key: RootKey, file: PartFile, tell: Callable[[int], object]
) -> None:
    """Raise IntegrityError unless a file that we wrote is there, and all of it authentic.

    No digest is taken: what is authentic under a key that nobody else has is what we wrote, and
    of that the digest was taken then.
    """
    name = part_file(key.part, file.name)
    message = MessageReader(*key.object(file.name), name)
    buffer = memoryview(bytearray(min(STEP, file.size)))
    with storage.open(name) as source:
        if source.size != file.size:
            raise IntegrityError(f"{name} has {source.size} bytes, its commit says {file.size}")
        for at in range(0, file.size, STEP):
            data = buffer[: min(STEP, file.size - at)]
            source.pread_into(data, at)
            message.update(data)
            tell(len(data))
    message.finalize()


def reseal_file(
    storage: Storage,
    old: RootKey,
    new: RootKey,
    file: PartFile,
    digest: str,
    tell: Callable[[int], object],
) -> PartFile:
    """Decrypt a file of the part of ``old`` and encrypt it as one of the part of ``new``.

    What is in it is not looked at: zstd frames stay as they are. Only a file whose sealed bytes
    have the digest that its commit says is taken: whoever knows the old root key could have
    exchanged it. Returns its line in the new commit; raises IntegrityError, and leaves nothing.
    """
    name = part_file(old.part, file.name)
    reader = MessageReader(*old.object(file.name), name)
    writer = MessageWriter(*new.object(file.name))
    with storage.create(part_file(new.part, file.name)) as sink:
        digesting = DigestingSink(sink, digest)
        pieces = sealed_pieces(storage, name, file, digest)
        reseal(pieces, reader, writer, digesting.write, tell)
        return digesting.listing(file.name)


def reseal(
    pieces: Iterable[memoryview],
    reader: MessageReader,
    writer: MessageWriter,
    write: Callable[[memoryview], object],
    tell: Callable[[int], object],
) -> None:
    """Decrypt a message that comes in pieces of at most 1 MiB, and write it encrypted anew.

    The last chunk is written only when all of ``pieces`` was authentic.
    """
    room = memoryview(bytearray(MessageWriter.room(STEP + CHUNK_SIZE)))

    def put(plain: bytes) -> None:
        if plain:
            write(room[: writer.update_into(plain, room)])

    for data in pieces:
        put(reader.update(data))
        tell(len(data))
    put(reader.finalize())
    write(memoryview(writer.finalize()))
