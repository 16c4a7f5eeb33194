"""The files of a part as they lie in storage: read against the commit, and sealed under another
key without a look at what is in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Self

from pqvault.archive.layout import part_file
from pqvault.archive.objects import DigestingSink
from pqvault.crypto import digest as digests
from pqvault.crypto.cobblestone import CHUNK_SIZE, MessageReader, MessageWriter
from pqvault.errors import IntegrityError
from pqvault.format.commit import PartFile
from pqvault.sealed.listed import STEP, open_listed, pieces_of
from pqvault.storage import Storage

if TYPE_CHECKING:  # a worker needs none, and starts the sooner
    from pqvault.rootkey import RootKey

__all__ = ["FileKey", "renew_file", "reseal", "sealed_pieces"]


def sealed_pieces(storage: Storage, name: str, file: PartFile, digest: str) -> Iterator[memoryview]:
    """The bytes of a file, piece by piece, in a buffer that is used again.

    ``digest``: its name. Raises IntegrityError when size or digest are not those of the commit,
    the digest only at the end: what came before it proves nothing until then.
    """
    hasher = digests.new(digest)
    with open_listed(storage, name, file.size) as source:
        for data in pieces_of(source):
            hasher.update(data)
            yield data
    if hasher.digest().hex() != file.digest:
        raise IntegrityError(f"{name} does not have the digest that its commit says")


class FileKey(NamedTuple):
    """A file of a part, its key (32 bytes) and its Cobblestone context."""

    part: str
    name: str
    key: bytes
    context: bytes

    @classmethod
    def of(cls, root: RootKey, name: str) -> Self:
        """Of the file ``name`` of the part of ``root``."""
        return cls(root.part, name, *root.object(name))

    @property
    def path(self) -> str:
        """Where it lies in the archive."""
        return part_file(self.part, self.name)


def renew_file(
    storage: Storage,
    old: FileKey,
    new: FileKey,
    file: PartFile,
    digest: str,
    tell: Callable[[int], object],
) -> PartFile:
    """Encrypt a file of a part again, as one of another part, and read it back.

    What is in it is not looked at: zstd frames stay as they are. Only a file whose sealed bytes
    have the digest that its commit says is taken: whoever knows the old root key could have
    exchanged it. Returns its line in the new commit; raises IntegrityError.
    """
    renewed = _reseal_file(storage, old, new, file, digest, tell)
    # Read back at once: one worker does so while another waits for the disk.
    _check_file(storage, new, renewed, tell)
    return renewed


def _check_file(
    storage: Storage, key: FileKey, file: PartFile, tell: Callable[[int], object]
) -> None:
    """Raise IntegrityError unless a file that we wrote is there, and all of it authentic.

    No digest is taken: what is authentic under a key that nobody else has is what we wrote, and
    of that the digest was taken then.
    """
    message = MessageReader(key.key, key.context, key.path)
    with open_listed(storage, key.path, file.size) as source:
        for data in pieces_of(source):
            message.update(data)
            tell(len(data))
    message.finalize()


def _reseal_file(
    storage: Storage,
    old: FileKey,
    new: FileKey,
    file: PartFile,
    digest: str,
    tell: Callable[[int], object],
) -> PartFile:
    name = old.path
    reader = MessageReader(old.key, old.context, name)
    writer = MessageWriter(new.key, new.context)
    with storage.create(new.path) as sink:
        digesting = DigestingSink(sink, digest)
        pieces = sealed_pieces(storage, name, file, digest)
        reseal(pieces, reader, writer, digesting.write, tell)
        return digesting.listing(new.name)


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
