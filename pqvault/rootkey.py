"""A part's root key: how it is wrapped, and what is derived from it. docs/format.md section 2.

The only module that knows both the key schedule and the text documents.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NoReturn

from pqvault.crypto import kdf, kem, mac
from pqvault.crypto.digest import SIZES
from pqvault.crypto.profiles import STANDARD, Profile
from pqvault.crypto.profiles import profile as find_profile
from pqvault.errors import FormatError, IntegrityError, NoKeyFits, UsageError
from pqvault.format.commit import Commit
from pqvault.format.envelope import MAX_RECIPIENTS, Envelope, WrappedKey
from pqvault.format.removed import Removed
from pqvault.format.retired import Retired
from pqvault.format.textdoc import MAX_INTEGER
from pqvault.keys import Identity, Recipient, one_profile

__all__ = [
    "STREAM_ARCHIVE",
    "STREAM_OBJECT",
    "Keyring",
    "RootKey",
    "check_kept_profile",
    "check_profile",
    "keyring",
]

STREAM_ARCHIVE: Final = bytes(16).hex()  # a sealed stream belongs to no archive
STREAM_OBJECT: Final = "stream"


# Identities by their key id, so that thousands of envelopes cost one look-up each.
Keyring = Mapping[str, Identity]


def keyring(identities: Iterable[Identity]) -> dict[str, Identity]:
    """Identities by key id."""
    return {identity.key_id: identity for identity in identities}


@dataclass(frozen=True, slots=True)
class RootKey:
    """32 random bytes that open one part, with the ids that everything is bound to.

    ``profile``: of its envelopes, and so of its commit.
    """

    archive: str
    part: str
    secret: bytes = field(repr=False)
    profile: Profile = STANDARD

    @classmethod
    def generate(cls, archive: str, part: str, profile: Profile = STANDARD) -> RootKey:
        """A fresh one; two parts never share one."""
        return cls(archive, part, secrets.token_bytes(kdf.ROOT_KEY_SIZE), profile)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a root key is not pickled: hand over object keys, sealed")

    @property
    def _ids(self) -> tuple[bytes, bytes]:
        return bytes.fromhex(self.archive), bytes.fromhex(self.part)

    def object(self, name: str) -> tuple[bytes, bytes]:
        """The key (32 bytes) and the Cobblestone context of the object ``name`` of this part."""
        return self._keyed("object", name)

    def table(self, name: str) -> tuple[bytes, bytes]:
        """The key (32 bytes) and the AAD prefix of the table file ``name`` of this part."""
        return self._keyed("table", name)

    def wal(self, name: str) -> tuple[bytes, bytes]:
        """The key (32 bytes) and the first bytes of the contexts of a write-ahead file."""
        return self._keyed("wal", name)

    def _keyed(self, purpose: str, name: str) -> tuple[bytes, bytes]:
        fields = (*self._ids, name.encode("ascii"))
        return kdf.derive(self.secret, 32, purpose, *fields), kdf.bind(purpose, *fields)

    @property
    def commit_id(self) -> str:
        """Hex of 32 bytes: ``root`` of the commit, which ties it to this key's envelope."""
        return kdf.derive(self.secret, 32, "commit id", *self._ids).hex()

    def envelope(
        self, recipients: Sequence[Recipient], *, created: int, generation: int = 1, group: str = ""
    ) -> Envelope:
        """Wrap this key to every recipient. ``created``: Unix time in ms.

        Raises UsageError for no, too many or repeated recipients, or those of another profile.
        """
        check_kept_profile(self, self.profile, recipients)
        ids = [r.key_id for r in recipients]
        _check_count(len(ids))
        if len(set(ids)) != len(ids):
            raise UsageError("a recipient is given twice", hint="leave one of them out")
        wrapped = tuple(self._wrap(r, group) for r in recipients)
        bare = Envelope(
            self.archive,
            self.part,
            group,
            generation,
            created,
            self.profile.name,
            wrapped,
            bytes(32),
        )
        return replace(bare, mac=self._envelope_mac(bare))

    def rewrap(
        self, old: Envelope, members: Sequence[WrappedKey | Recipient], *, created: int
    ) -> Envelope:
        """The envelope that takes the place of ``old``: what is wrapped already stays as it is,
        recipients are wrapped anew, the generation is one more, nobody has signed it.
        ``created``: Unix time in ms.

        ``old`` must have been opened by this key. Raises UsageError for no or too many members,
        and for recipients of another profile: that takes a new root key.
        """
        _check_count(len(members))
        check_kept_profile(self, self.profile, [m for m in members if isinstance(m, Recipient)])
        wrapped = tuple(
            m if isinstance(m, WrappedKey) else self._wrap(m, old.group) for m in members
        )
        if old.generation >= MAX_INTEGER:
            raise IntegrityError(f"the envelope of part {old.part} has no generation left")
        bare = replace(
            old,
            generation=old.generation + 1,
            created=created,
            recipients=wrapped,
            signatures=(),  # those were of the old one
        )
        return replace(bare, mac=self._envelope_mac(bare))

    def retire(self, key_id: str, *, created: int) -> Retired:
        """The record that nothing more is to be sealed to a key id. ``created``: ms."""
        record = Retired(self.archive, self.part, key_id, created)
        return replace(record, mac=self._retired_mac(record))

    def check_retired(self, record: Retired, what: str) -> None:
        """Raise IntegrityError unless the record was made with this key."""
        if not mac.equal(self._retired_mac(record), record.mac):
            raise IntegrityError(f"{what} failed authentication")

    def _retired_mac(self, record: Retired) -> bytes:
        key = kdf.derive(self.secret, mac.MAC_KEY_SIZE, "retired mac", *self._ids)
        return mac.compute(key, record.authenticated())

    def remove(self, record: Removed) -> Removed:
        """``record`` of the removal of a part of this archive, with its MAC."""
        return replace(record, mac=self._removed_mac(record))

    def check_removed(self, record: Removed, what: str) -> None:
        """Raise IntegrityError unless the record was made with this key."""
        if not mac.equal(self._removed_mac(record), record.mac):
            raise IntegrityError(f"{what} failed authentication")

    def _removed_mac(self, record: Removed) -> bytes:
        key = kdf.derive(self.secret, mac.MAC_KEY_SIZE, "removed mac", *self._ids)
        return mac.compute(key, record.authenticated())

    def _wrap(self, recipient: Recipient, group: str) -> WrappedKey:
        info = _wrap_info(self.archive, self.part, group, self.profile, recipient.key_id)
        sealed = kem.wrap(self.profile, self.secret, recipient.public_key, info)
        return WrappedKey(self.profile.kem, recipient.key_id, sealed)

    @classmethod
    def unwrap(cls, envelope: Envelope, identities: Keyring, what: str) -> RootKey:
        """Open an envelope with the first and best of its recipients that we are; check its MAC.

        Raises NoKeyFits when it names none of them, IntegrityError when it names one and
        does not open, or when its MAC is wrong.
        """
        profile = find_profile(envelope.profile, what)
        for wrapped in envelope.recipients:
            if wrapped.kem != profile.kem:
                raise FormatError(
                    f"{what} names the KEM {wrapped.kem!r}, which the profile {profile} does not"
                    " have"
                )
        fits = [(w, identities[w.key_id]) for w in envelope.recipients if w.key_id in identities]
        if not fits:
            sealed_to = ", ".join(envelope.key_ids)
            raise NoKeyFits(
                f"no identity fits {what}: {len(identities)} tried, sealed to {sealed_to}"
            )
        wrapped, identity = min(fits, key=lambda fit: fit[1].rank)
        if identity.profile != profile:  # key ids hold the KEM's name: a row of a keystore lies
            raise IntegrityError(f"the key {wrapped.key_id} is not of the profile {profile}")
        ids = (envelope.archive, envelope.part)
        info = _wrap_info(*ids, envelope.group, profile, wrapped.key_id)
        where = f"the wrapped key in {what}"
        secret = kem.unwrap(profile, wrapped.sealed, identity.seed, info, where)
        key = cls(*ids, secret, profile)
        if not mac.equal(key._envelope_mac(envelope), envelope.mac):
            raise IntegrityError(
                f"{what} failed authentication: its list of recipients was altered"
            )
        return key

    def check_same_profile(self, part: RootKey, what: str) -> None:
        """Raise IntegrityError for the key of a column group whose profile is not its part's."""
        if self.profile != part.profile:
            raise IntegrityError(f"{what} has the profile {self.profile}, its part {part.profile}")

    def _envelope_mac(self, envelope: Envelope) -> bytes:
        fields = (*self._ids, envelope.group.encode("ascii"))
        key = kdf.derive(self.secret, mac.MAC_KEY_SIZE, "envelope mac", *fields)
        return mac.compute(key, envelope.authenticated())

    def _commit_mac(self, commit: Commit) -> bytes:
        key = kdf.derive(self.secret, mac.MAC_KEY_SIZE, "commit mac", *self._ids)
        return mac.compute(key, commit.authenticated())

    def sign_off(self, commit: Commit) -> Commit:
        """``commit`` with its MAC."""
        return replace(commit, mac=self._commit_mac(commit))

    def check_commit(self, commit: Commit, what: str) -> None:
        """Raise IntegrityError unless ``commit`` belongs to this key and is unaltered."""
        check_profile(commit, f"the commit of {what}")
        if not mac.equal(commit.root.encode(), self.commit_id.encode()):
            raise IntegrityError(f"the envelope does not belong to {what}")
        if not mac.equal(self._commit_mac(commit), commit.mac):
            raise IntegrityError(f"the commit of {what} failed authentication")
        if commit.profile != self.profile.name:
            raise IntegrityError(
                f"the commit of {what} has the profile {commit.profile}, its envelope"
                f" {self.profile}"
            )


def check_kept_profile(
    of: Envelope | RootKey, profile: Profile, recipients: Sequence[Recipient]
) -> None:
    """Raise UsageError unless a root key of a profile may be wrapped to them. ``of``: whose."""
    if not recipients or (wanted := one_profile(recipients)) == profile:
        return
    way = "`pqvault reencrypt` makes new root keys of another"
    if of.archive != STREAM_ARCHIVE and profile.digest not in wanted.digests:
        way = "unseal it, and seal it to the new recipients, for the digests change too"
    raise UsageError(
        f"part {of.part} has the profile {profile}, and {recipients[0].key_id} is a key"
        f" of the profile {wanted}",
        hint=f"a new wrapping keeps the profile; {way}",
    )


def _check_count(recipients: int) -> None:
    if not 1 <= recipients <= MAX_RECIPIENTS:
        raise UsageError(
            f"{recipients} recipients were given; an envelope takes 1 to {MAX_RECIPIENTS}",
            hint="name who may open it with -r or -R",
        )


def check_profile(commit: Commit, what: str) -> None:
    """Raise FormatError for a profile that is not known, or digests that it does not
    allow, by their names or, of parents, by their lengths."""
    profile = find_profile(commit.profile, what)
    if commit.digest not in profile.digests:
        raise FormatError(f"{what} names the digest {commit.digest}, not one of {profile}")
    lengths = {2 * SIZES[name] for name in profile.digests}
    if any(len(named) not in lengths for _, named in (*commit.parents, *commit.replaces)):
        raise FormatError(f"{what} names a part by a digest that is not one of {profile}")


def _wrap_info(archive: str, part: str, group: str, profile: Profile, key_id: str) -> bytes:
    return kdf.bind(
        "envelope",
        bytes.fromhex(archive),
        bytes.fromhex(part),
        group.encode("ascii"),
        profile.name.encode("ascii"),
        profile.kem.encode("ascii"),
        bytes.fromhex(key_id),
    )
