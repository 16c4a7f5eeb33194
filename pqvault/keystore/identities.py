"""Keys of the keystore as identities: unlocked and unsealed only when one fits an envelope."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from pqvault import providers
from pqvault.crypto.profiles import Profile
from pqvault.crypto.profiles import profile as find_profile
from pqvault.errors import KeyStateForbids, NotFound, PQVaultError
from pqvault.keys import Identity, Recipient
from pqvault.keystore.change import Unlocked
from pqvault.keystore.halves import signs
from pqvault.keystore.records import Address, KeyName, KeyVersion
from pqvault.keystore.states import OPENS, State
from pqvault.keystore.store import KeyFacts, Keystore
from pqvault.signing import SigningKey

__all__ = [
    "Opener",
    "StoredIdentity",
    "audit_use",
    "identities",
    "identities_of",
    "stored_signing_key",
]

Warn = Callable[[str], None]


class Opener:
    """Unlocks a keystore when it is first needed, once: one Argon2id for thousands of parts."""

    def __init__(self, store: Keystore, unlock: Callable[[], Unlocked], warn: Warn) -> None:
        self.store = store
        self._unlock = unlock
        self._warn = warn
        self._unlocked: Unlocked | None = None
        self._refused: PQVaultError | None = None
        self._seeds: dict[str, bytes] = {}
        self._one_at_a_time = threading.Lock()

    def seed(self, key_id: str) -> bytes:
        """The seed of a version whose row was authenticated and whose state allows it."""
        with self._one_at_a_time:  # parts may be opened on several threads
            if key_id not in self._seeds:
                self._seeds[key_id] = self._unsealed(key_id)
            return self._seeds[key_id]

    def known(self, key_id: str) -> bytes | None:
        """A seed that was asked for before and is in memory."""
        return self._seeds.get(key_id)

    def audit(self, action: str, subject: str, **detail: object) -> None:
        """Append to the audit log, if the keystore was unlocked by now."""
        if self._unlocked is not None:
            with self._unlocked.change() as change:
                change.audit(action, subject, **detail)

    def _unsealed(self, key_id: str) -> bytes:
        if self._refused is not None:
            # One Argon2id and one question for thousands of parts, also when the answer is wrong.
            raise type(self._refused)(self._refused.message, hint=self._refused.hint)
        if self._unlocked is None:
            try:
                self._unlocked = self._unlock()
            except PQVaultError as error:
                self._refused = error
                raise
        name, v = self._unlocked.checked(key_id)
        check_opens(name, v)
        if v.state is State.COMPROMISED:
            self._warn(
                f"{name.at(v)} is compromised: what it opens may be known to "
                "others; seal it anew with new root keys"
            )
        return self._unlocked.seed(key_id)


class StoredIdentity(Identity):
    """An identity whose seed is in the keystore until it is used."""

    __slots__ = ("_facts", "_opener")
    _facts: KeyFacts
    _opener: Opener

    def __init__(self, facts: KeyFacts, opener: Opener) -> None:
        # Frozen as its base is, so that nothing changes which key this is.
        object.__setattr__(self, "_facts", facts)
        object.__setattr__(self, "_opener", opener)

    @property
    def opener(self) -> Opener:
        """What unlocks its keystore."""
        return self._opener

    @property
    def seed(self) -> bytes:
        """32 or 64 bytes. Unlocks the keystore; raises KeyStateForbids as its state says."""
        return self._opener.seed(self._facts.key_id)

    @property
    def profile(self) -> Profile:
        """The profile, as the keystore's row says."""
        return find_profile(self._facts.profile, self._facts.address)

    @property
    def recipient(self) -> Recipient:
        """The public half, from the keystore's row: it needs no passphrase."""
        return self._opener.store.public_key(self._facts.key_id)

    @property
    def key_id(self) -> str:
        """Hex of 16 bytes."""
        return self._facts.key_id

    @property
    def rank(self) -> int:
        """Which is tried first when several fit: 0 opens, 1 with a warning, 2 is refused."""
        if self._facts.state == State.COMPROMISED:
            return 1
        allowed = self._facts.state in OPENS and self._facts.version >= self._facts.floor_open
        return 0 if allowed else 2

    def __eq__(self, other: object) -> bool:
        # The base compares seeds, which would unlock the keystore.
        return isinstance(other, Identity) and self.key_id == other.key_id

    def __hash__(self) -> int:
        return hash(self.key_id)

    def __repr__(self) -> str:
        return f"StoredIdentity({self._facts.address})"


def audit_use(used: Iterable[Identity], action: str, subject: str, **detail: object) -> None:
    """Append to the audit log what keys of a keystore were used for, if any was."""
    for opener in {i.opener for i in used if isinstance(i, StoredIdentity)}:
        opener.audit(action, subject, **detail, kem=providers.in_use())


def check_opens(name: KeyName, v: KeyVersion) -> None:
    """Raise KeyStateForbids unless this version may open what was sealed to it."""
    what = name.at(v)
    if v.state not in OPENS:
        hint = f"`pqvault key activate {what}` allows it"
        if v.state is State.DESTROYED:
            hint = "its private key is gone; only a backup of the keystore from before has it"
        raise KeyStateForbids(f"this is sealed to {what}, which is {v.state}", hint=hint, key=what)
    if v.version < name.floor_open:
        raise KeyStateForbids(
            f"this is sealed to {what}, below {name.name}@{name.floor_open}, the lowest that may "
            "open",
            hint=f"`pqvault key floor {name.name} --open {v.version}` allows it",
            key=what,
        )


def stored_signing_key(store: Keystore, ask: Callable[[], bytes], address: str) -> SigningKey:
    """The newest version of an address that may sign. Raises NotFound, UsageError,
    KeyStateForbids, and what unlocking does."""
    store.signing_version(address)  # says what is wrong before a passphrase is asked for
    with store.unlock(ask) as opened:
        key_id = store.signing_version(address)  # of rows that are authentic now
        _, v = opened.checked(key_id)
        return SigningKey(v.profile, opened.seed(key_id))


def identities(
    store: Keystore, ask: Callable[[], bytes], warn: Warn, addresses: Iterable[str] = ()
) -> list[Identity]:
    """All versions with a private key, or those of ``addresses``, still sealed.

    Destroyed ones too, so that what was sealed to them gives that reason and not "no key fits".
    Raises NotFound for an address that is not there.
    """
    return _identities(Opener(store, lambda: store.unlock(ask), warn), addresses)


def identities_of(store: Unlocked, warn: Warn) -> list[Identity]:
    """The same of a keystore that is unlocked."""
    return _identities(Opener(store.store, lambda: store, warn), ())


def _identities(opener: Opener, addresses: Iterable[str]) -> list[Identity]:
    wanted = [Address.parse(text) for text in addresses]
    found: list[Identity] = []
    for facts in opener.store.list():
        if signs(facts.profile) or (wanted and not any(_is_at(facts, a) for a in wanted)):
            continue
        if facts.private or facts.state == State.DESTROYED:
            found.append(StoredIdentity(facts, opener))
    if wanted and not found:
        raise NotFound(
            f"there is no private key {', '.join(addresses)} in the keystore",
            hint="`pqvault key list` shows all; public keys alone open nothing",
        )
    return found


def _is_at(facts: KeyFacts, address: Address) -> bool:
    version = address.version in (None, facts.version)
    return facts.name == address.name and version and address.period in ("", facts.period)
