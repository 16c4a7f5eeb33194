"""A keyset: master keys by name, in one small sealed stream. docs/format.md section 11.

A master key wraps the data keys of Parquet files; the keyset is sealed to recipients. So these can
change (`pqvault rotate`) while no Parquet file is touched, and a Parquet file holds a short
reference for each key where it would hold a kilobyte of post-quantum wrapping.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from types import TracebackType
from typing import Final, NoReturn

from pqvault.crypto import kdf, record
from pqvault.errors import (
    FormatError,
    IntegrityError,
    KeyStateForbids,
    Locked,
    NotFound,
    PolicyRefused,
    UsageError,
)
from pqvault.format.envelope import Envelope
from pqvault.format.keyset import (
    KEY_SIZE,
    MAX_KEYS,
    KeysetContent,
    MasterKey,
    Reference,
    is_name,
)
from pqvault.format.textdoc import MAX_SIZE
from pqvault.ids import now
from pqvault.keys import Identity, Recipient
from pqvault.rootkey import STREAM_OBJECT, RootKey, keyring
from pqvault.sealed import SealedWriter
from pqvault.storage.base import explained
from pqvault.storage.replacing import copy_owner, is_named, lock_file
from pqvault.streams import encrypt, open_stream, read_stream_envelope
from pqvault.wholefile import whole_file

__all__ = ["KeyFacts", "Keyset"]

_DATA_KEY: Final = 32  # bytes; Parquet's shorter ones are refused

Edit = Callable[[KeysetContent], KeysetContent]


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What may be shown of a master key. ``created``: Unix time in ms."""

    name: str
    version: int
    created: int
    destroyed: bool


class Keyset:
    """An opened keyset: its keys are in memory until it is dropped, and are never pickled.

    ``id``: hex of 16 bytes, which nobody can give to another keyset without the secret in this
    one. Whoever writes with a keyset that others could replace (anybody can seal one to public
    keys) passes the id to :meth:`open`.
    """

    def __init__(self, path: str, content: KeysetContent, identities: Sequence[Identity]) -> None:
        self.path = path
        self._content = content
        self._identities = identities
        self._index()

    def _index(self) -> None:
        self.id = _id_of(self._content)
        self._keys = {(key.name, key.version): key for key in self._content.keys}
        self._newest = {key.name: key for key in self._content.keys}  # in order of versions

    # -- making and opening

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        recipients: Sequence[Recipient],
        names: Iterable[str],
        *,
        identities: Sequence[Identity] = (),
        force: bool = False,
    ) -> Keyset:
        """A new one with a random key for each name, sealed to the recipients.

        No private key is needed, and until it is dropped the result wraps and unwraps.
        ``identities``: to edit it with, later. Raises UsageError.
        """
        content = KeysetContent(secrets.token_bytes(KEY_SIZE), ())
        for name in names:
            content = _with_new(content, name)
        where = os.fspath(path)
        with whole_file(where, force=force) as out:
            encrypt(_Reader(content.marshal()), out, recipients, level=0, jobs=1)
        return cls(where, content, tuple(identities))

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        identities: Iterable[Identity],
        *,
        expect_id: str | None = None,
    ) -> Keyset:
        """Open one with a private key. ``expect_id``: the only one that will do.

        Raises NotFound, NoKeyFits, IntegrityError, PolicyRefused for another keyset.
        """
        where, identities = os.fspath(path), tuple(identities)
        opened = cls(where, _read(where, identities), identities)
        if expect_id is not None and opened.id != expect_id:
            raise PolicyRefused(
                f"{where} is the keyset {opened.id}, and {expect_id} is expected",
                hint="somebody may have put another in its place: ask whoever made it",
            )
        return opened

    # -- what it holds

    @property
    def names(self) -> list[str]:
        """Of the master keys."""
        return list(self._newest)

    @property
    def keys(self) -> list[KeyFacts]:
        """Of every version of every master key, in order, without the keys themselves."""
        return [KeyFacts(k.name, k.version, k.created, not k.key) for k in self._content.keys]

    # -- wrapping

    def wrap(self, data_key: bytes, name: str) -> str:
        """A reference (`pqk1:…`) to a data key of 32 bytes, under the newest version of a key.

        Raises NotFound for another name, UsageError for another length.
        """
        if len(data_key) != _DATA_KEY:
            raise UsageError(
                f"a data key of {8 * len(data_key)} bits is to be wrapped, and pqvault takes 256",
                hint="set data_key_length_bits=256 and double_wrapping=False",
            )
        key = self._usable(self._newest.get(name), name)
        sealed = record.seal_record(key.key, data_key, self._aad(key))
        return Reference(self.id, key.version, sealed).marshal()

    def unwrap(self, reference: str, name: str) -> bytes:
        """The data key. Raises FormatError, NotFound for a key that is not here, IntegrityError."""
        parsed = Reference.parse(reference, f"the key wrapped under {name!r}")
        if parsed.keyset != self.id:
            raise NotFound(
                f"a key is wrapped with the keyset {parsed.keyset}, and {self.path} is {self.id}",
                hint="open it with that keyset",
            )
        address = f"{name}@{parsed.version}"
        key = self._usable(self._keys.get((name, parsed.version)), address)
        what = f"a key wrapped under {name!r} of {self.path}"
        return record.open_record(key.key, parsed.wrapped, self._aad(key), what)

    def is_newest(self, reference: str, name: str) -> bool:
        """Whether a reference is under the newest version of its master key."""
        return name in self._newest and Reference.parse(reference).version == (
            self._newest[name].version
        )

    def _aad(self, key: MasterKey) -> bytes:
        version = str(key.version).encode("ascii")
        return kdf.bind("keyset wrap", bytes.fromhex(self.id), version, key.name.encode("ascii"))

    def _usable(self, key: MasterKey | None, name: str) -> MasterKey:
        if key is None:
            raise self._unknown(name)
        if not key.key:
            raise KeyStateForbids(
                f"the master key {key.name}@{key.version} of {self.path} was destroyed",
                hint="`pqvault keyset renew` makes a new one, for what is written from now on",
            )
        return key

    def _unknown(self, name: str) -> NotFound:
        return NotFound(
            f"the keyset {self.path} has no master key {name!r}",
            hint=f"it has {', '.join(self.names) or 'none'}; `pqvault keyset add` makes one",
        )

    # -- editing: the root key, the envelope and the id stay

    def add(self, *names: str) -> None:
        """Make master keys, all or none. Raises UsageError when there is one of such a name."""
        self._edit(lambda content: reduce(_with_new, names, content))

    def renew(self, name: str) -> int:
        """Make a new version of a master key, which wraps from now on; returns its number."""

        def newer(content: KeysetContent) -> KeysetContent:
            if not any(key.name == name for key in content.keys):
                raise self._unknown(name)
            return _with_version(content, name)

        self._edit(newer)
        return self._newest[name].version

    def destroy(self, name: str, version: int) -> None:
        """Forget one version for good: what is wrapped under it opens with older copies only.

        Its number stays taken. Raises NotFound.
        """

        def without(content: KeysetContent) -> KeysetContent:
            if not any((k.name, k.version) == (name, version) for k in content.keys):
                raise self._unknown(f"{name}@{version}")
            keys = (
                replace(k, key=b"") if (k.name, k.version) == (name, version) else k
                for k in content.keys
            )
            return replace(content, keys=tuple(keys))

        self._edit(without)

    def _edit(self, edit: Edit) -> None:
        """Change the file as it is now, under its lock, and put the whole of it."""
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        with explained("open", self.path):
            fd = os.open(self.path, flags)
        with open(fd, "rb", buffering=0) as file:
            lock_file(fd, self.path)
            if not is_named(fd, self.path):
                raise Locked(f"{self.path} was replaced by another process just now")
            content = _read(self.path, self._identities)
            if _id_of(content) != self.id:
                raise IntegrityError(f"another keyset was put in the place of {self.path}")
            content = edit(content)
            envelope = read_stream_envelope(file, self.path)
            key = _root_key(envelope, self._identities, self.path)
            with whole_file(self.path, force=True) as out:
                copy_owner(out.fileno(), os.fstat(fd))
                out.write(envelope.marshal())
                with SealedWriter(out, *key.object(STREAM_OBJECT), level=0) as writer:
                    writer.write(content.marshal())
        self._content = content
        self._index()

    # -- as a value

    def __enter__(self) -> Keyset:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._content = KeysetContent(bytes(KEY_SIZE), ())
        self._keys, self._newest = {}, {}

    def __repr__(self) -> str:
        return f"Keyset({self.path!r}, id={self.id})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a keyset is not pickled: hand over its path, and open it there")


def _id_of(content: KeysetContent) -> str:
    return kdf.derive(content.secret, 16, "keyset id").hex()


def _read(path: str, identities: Sequence[Identity]) -> KeysetContent:
    with open_stream(path, identities) as reader:
        if reader.size > MAX_SIZE:
            raise FormatError(f"{path} is no keyset: it is over {MAX_SIZE} bytes")
        return KeysetContent.parse(bytes(reader.read()), path)


def _root_key(envelope: Envelope, identities: Sequence[Identity], path: str) -> RootKey:
    return RootKey.unwrap(envelope, keyring(identities), f"the envelope of {path}")


def _with_new(content: KeysetContent, name: str) -> KeysetContent:
    if not is_name(name):
        raise UsageError(
            f"{name!r} is no name of a master key",
            hint="use up to 128 letters, digits and . _ / @ -",
        )
    if any(key.name == name for key in content.keys):
        raise UsageError(
            f"there is a master key {name!r} already", hint="`pqvault keyset renew` makes a new one"
        )
    return _with_version(content, name)


def _with_version(content: KeysetContent, name: str) -> KeysetContent:
    if len(content.keys) >= MAX_KEYS:
        raise UsageError(f"a keyset has at most {MAX_KEYS:,} keys")
    version = 1 + max((key.version for key in content.keys if key.name == name), default=0)
    key = MasterKey(name, version, now(), secrets.token_bytes(KEY_SIZE))
    keys = sorted((*content.keys, key), key=lambda k: (k.name, k.version))
    return replace(content, keys=tuple(keys))


class _Reader:
    """Bytes to be read once, in order."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int, /) -> bytes:
        data, self._data = self._data[:size], self._data[size:]
        return data
