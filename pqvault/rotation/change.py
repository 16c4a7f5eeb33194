"""What a rotation does to the list of recipients of an envelope, whichever envelope it is.

A `Change` is resolved once, from keys and names, and then applied to thousands of envelopes. It
is idempotent: applied to what it made, it changes nothing. So a rotation that was interrupted is
carried on by doing it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from pqvault.archive.recipients import FindRecipient, known_recipients
from pqvault.crypto.profiles import profile
from pqvault.errors import (
    FormatError,
    IntegrityError,
    KeyStateForbids,
    NoKeyFits,
    NotFound,
    UsageError,
)
from pqvault.format.envelope import Envelope, WrappedKey
from pqvault.keys import Identity, Recipient
from pqvault.keystore import KeyFacts, Keystore, State
from pqvault.keystore.halves import signs
from pqvault.rootkey import Keyring, check_kept_profile, keyring

__all__ = ["Change", "Keys", "Member", "resolve"]

Member: TypeAlias = WrappedKey | Recipient  # wrapped already, or to be wrapped to

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_INSTEAD_IN_GROUP: Final = (
    "give with -i who opens that column group, and name with --to who takes the place of what is"
    " removed"
)
_INSTEAD: Final = "make a new version with `pqvault key rotate`, or use --to or --remove"


@dataclass(frozen=True, slots=True)
class Change:
    """``replace``: key id -> who takes its place. ``add``, ``remove``: as they say.

    ``to`` takes the place of the one key of ``ours`` (key id -> name) that the envelope names,
    all of its versions.
    ``compromised``: key id -> address of keys that rewrapping does not help. ``blocked``: key id ->
    why nothing may be sealed to it, of keys that nothing takes the place of.
    """

    replace: Mapping[str, Recipient] = field(default_factory=lambda: _NOTHING)
    to: Recipient | None = None
    ours: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    add: tuple[Recipient, ...] = ()
    remove: frozenset[str] = frozenset()
    compromised: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    blocked: Mapping[str, str] = field(default_factory=lambda: _NOTHING)

    @property
    def named(self) -> set[str]:
        """The key ids that the operator named to be wrapped to, in whatever archive."""
        to = (self.to,) if self.to else ()
        return {recipient.key_id for recipient in (*to, *self.add)}

    @property
    def new(self) -> dict[str, Recipient]:
        """Everybody whom it may wrap to, by key id."""
        to = (self.to,) if self.to else ()
        return {r.key_id: r for r in (*self.replace.values(), *to, *self.add)}

    def today(self, facts: Sequence[KeyFacts]) -> Change:
        """The same change, with what the states of keys forbid by now: it may have been resolved
        days ago, for a run that was interrupted."""
        new = self.new
        blocked = {f.key_id: f.refusal for f in facts if f.key_id in new and f.refusal}
        blocked = {**self.blocked, **blocked}
        return replace(self, compromised=_compromised(facts), blocked=blocked)

    def members(self, envelope: Envelope, what: str) -> tuple[Member, ...] | None:
        """Who is to open the envelope; None when those do already.

        Raises KeyStateForbids when it names a compromised key, or would be wrapped to a key that
        may not be sealed to, UsageError when nobody would be left, when it is not clear whose
        place ``to`` takes, and for keys of another profile.
        """
        there = {wrapped.key_id: wrapped for wrapped in envelope.recipients}
        self._refuse_compromised(there, what)
        members = self._members(envelope, there, what)
        self._refuse_new([key_id for key_id in members if key_id not in there], what)
        new = [member for member in members.values() if isinstance(member, Recipient)]
        check_kept_profile(envelope, profile(envelope.profile, what), new)
        return None if members.keys() == there.keys() else tuple(members.values())

    def fits(self, envelope: Envelope, what: str) -> bool:
        """Whether who is to open it does, and nobody else."""
        there = {wrapped.key_id: wrapped for wrapped in envelope.recipients}
        return self._members(envelope, there, what).keys() == there.keys()

    def recipients(
        self, envelope: Envelope, what: str, find: FindRecipient
    ) -> tuple[Recipient, ...]:
        """To whom a new root key is to be wrapped, when it takes the place of that of ``envelope``.

        ``find``: the public key of a key id, for an envelope holds none. Raises KeyStateForbids
        when a key would be among them that may not be sealed to, UsageError when a public key is
        not known.
        """
        there = {wrapped.key_id: wrapped for wrapped in envelope.recipients}
        members = self._members(envelope, there, what)
        for key_id in members:
            if key_id in self.compromised:
                raise KeyStateForbids(
                    f"{what} is sealed to {self.compromised[key_id]}, which is compromised, and so"
                    " would be the new root key",
                    hint=_INSTEAD,
                    key=self.compromised[key_id],
                )
            if key_id in self.blocked:
                raise KeyStateForbids(
                    f"{what} is sealed to a key that nothing new may be sealed to:"
                    f" {self.blocked[key_id]}",
                    hint=_INSTEAD,
                    key=self.blocked[key_id],
                )
        new = self.new
        return known_recipients(
            members,
            lambda key_id: new.get(key_id) or find(key_id),
            what,
            "give them with --add RECIPIENT, or leave them out with --remove KEYID",
        )

    def _members(
        self, envelope: Envelope, there: Mapping[str, WrappedKey], what: str
    ) -> dict[str, Member]:
        """Who is to open the envelope, by key id."""
        replace = {**self.replace, **self._taken_by_to(envelope, there, what)}
        members: dict[str, Member] = {}
        for key_id, wrapped in there.items():
            new = replace.get(key_id)
            if new is not None:
                members.setdefault(new.key_id, there.get(new.key_id, new))
            elif key_id not in self.remove:
                members.setdefault(key_id, wrapped)
        # Who is added to an archive is not added to the groups of columns that are kept from it.
        for recipient in self.add if envelope.group == "" else ():
            members.setdefault(recipient.key_id, recipient)
        if not members:
            raise UsageError(
                f"nobody could open {what} any more",
                hint=_INSTEAD_IN_GROUP
                if envelope.group
                else "name with --to or --add who takes the place of what is removed",
            )
        return members

    def _refuse_compromised(self, there: Mapping[str, WrappedKey], what: str) -> None:
        for key_id in there:
            if key_id in self.compromised:
                raise KeyStateForbids(
                    f"{what} is sealed to {self.compromised[key_id]}, which is compromised: a new"
                    " wrapping keeps the root key, which whoever has that key and any copy of the"
                    " old envelope can read",
                    hint="`pqvault reencrypt` makes new root keys",
                    key=self.compromised[key_id],
                )

    def stays(self, envelope: Envelope) -> Iterator[str]:
        """A warning for each key of the envelope that should give way, and has nobody to."""
        for key_id in envelope.key_ids:
            if key_id in self.blocked:
                reason = self.blocked[key_id]
                name = reason.partition("@")[0]
                yield (
                    f"{reason}, and what is sealed to it stays so: `pqvault key rotate {name}`"
                    " makes a version that takes its place, then rotate again"
                )

    def _taken_by_to(
        self, envelope: Envelope, there: Mapping[str, WrappedKey], what: str
    ) -> dict[str, Recipient]:
        if self.to is None:
            return {}
        names: dict[str, list[str]] = {}
        for key_id in there:
            if key_id in self.ours:
                names.setdefault(self.ours[key_id], []).append(key_id)
        own = self.ours.get(self.to.key_id)
        if own in names:  # older versions of the very key
            names = {own: names[own]}
        if len(names) > 1:
            raise UsageError(
                f"{what} is sealed to several keys of this keystore: {', '.join(sorted(names))}",
                hint="say with -i NAME whose place the new one takes",
            )
        if not names and self.to.key_id not in there and envelope.group == "":
            raise NoKeyFits(f"no key of ours fits {what}: sealed to {', '.join(there)}")
        chosen = [key_id for ids in names.values() for key_id in ids]
        return {key_id: self.to for key_id in chosen if key_id != self.to.key_id}

    def _refuse_new(self, key_ids: Iterable[str], what: str) -> None:
        for key_id in key_ids:
            if key_id in self.compromised or key_id in self.blocked:
                address = self.compromised.get(key_id, "")
                why = f"{address} is compromised" if address else self.blocked[key_id]
                raise KeyStateForbids(
                    f"{what} would be wrapped to a key that nothing new may be sealed to: {why}",
                    hint=_INSTEAD,
                    key=address or self.blocked[key_id],
                )

    # -- as it is kept with an unfinished rotation; public values only

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return {
            "keys": {key_id: r.text for key_id, r in self.new.items()},
            "replace": {key_id: r.key_id for key_id, r in self.replace.items()},
            "to": self.to.key_id if self.to else None,
            "ours": dict(self.ours),
            "add": [r.key_id for r in self.add],
            "remove": sorted(self.remove),
            "compromised": dict(self.compromised),
            "blocked": dict(self.blocked),
        }

    @classmethod
    def from_json(cls, value: Any) -> Change:
        """Raises FormatError for what `to_json` never gave."""
        try:
            keys = {key_id: Recipient.parse(text) for key_id, text in value["keys"].items()}
            return cls(
                replace={str(old): keys[new] for old, new in value["replace"].items()},
                to=keys[value["to"]] if value["to"] else None,
                ours={str(k): str(v) for k, v in value["ours"].items()},
                add=tuple(keys[key_id] for key_id in value["add"]),
                remove=frozenset(map(str, value["remove"])),
                compromised={str(k): str(v) for k, v in value["compromised"].items()},
                blocked={str(k): str(v) for k, v in value.get("blocked", {}).items()},
            )
        except (KeyError, TypeError, AttributeError, UsageError):
            raise FormatError("the change of an unfinished rotation is damaged") from None


class Keys:
    """The identities at hand: they open envelopes, and show that what is ours stays ours."""

    def __init__(self, identities: Iterable[Identity] = ()) -> None:
        self.ring: Keyring = keyring(identities)
        self._proven: set[str] = set()

    def prove(self, members: Iterable[Member]) -> None:
        """Raise IntegrityError unless we can open what is about to be wrapped to a key of ours.

        A row of the keystore may hold a public key that somebody else put there: it is met
        here, where the private key is asked for, before anything is wrapped to it.
        """
        for member in members:
            identity = self.ring.get(member.key_id)
            if isinstance(member, WrappedKey) or identity is None:
                continue
            if member.key_id not in self._proven and (
                Identity(identity.seed, identity.profile).key_id != member.key_id
            ):
                raise IntegrityError(f"the private key of {member.key_id} does not belong to it")
            self._proven.add(member.key_id)


def resolve(
    *,
    to: Recipient | None = None,
    add: Sequence[Recipient] = (),
    remove: Iterable[str] = (),
    mine: Sequence[Identity] | None = None,
    keystore: Keystore | None = None,
    signing: bool = False,
    new_keys: bool = False,
) -> Change:
    """The change that is meant.

    ``mine``: the identities whose place ``to`` takes; None: the keys of the keystore, where
    ``to`` takes the place of older versions of its own name, or else of the one key that an
    archive is sealed to. Without ``to``, ``add`` and ``remove`` each key of the keystore gives
    way to its newest version, but for keys of a period, which are made to be destroyed.
    ``remove``: key ids. ``signing``: no change is one too, because envelopes are signed.
    ``new_keys``: root keys are made anew too, which compromised keys may be taken from, and for
    which nothing else need change. Raises UsageError, KeyStateForbids.
    """
    removed = frozenset(remove)
    facts = keystore.list() if keystore is not None else []
    replace: dict[str, Recipient] = {}
    if keystore is not None and not (to or add or removed):
        replace = _successors(keystore, facts)
    elif not (to or add or removed or signing or new_keys):
        raise UsageError(
            "nothing is said to change",
            hint="name with --to KEY who takes your place, or use --add and --remove",
        )
    if mine is not None:
        ours = {identity.key_id: "" for identity in mine}
    else:
        # Each month's key stands for itself, so that the next one does not take its place.
        ours = {f.key_id: f.address if f.period else f.name for f in facts if f.private}
    change = Change(
        replace=replace,
        to=to,
        ours=ours if to else {},
        add=tuple(dict.fromkeys(add)),
        remove=removed,
        compromised=_compromised(facts),
        blocked=_blocked(facts, replace) if new_keys or not (to or add or removed) else {},
    )
    both = removed & change.new.keys()
    if both:
        raise UsageError(
            f"{min(both)} is to be removed and to be wrapped to at once",
            hint="leave it out of --remove, or of --to and --add",
        )
    for key_id in () if new_keys else removed & change.compromised.keys():
        raise KeyStateForbids(
            f"{change.compromised[key_id]} is compromised: taking it off an envelope keeps the root"
            " key, which whoever has the key and any copy of the old envelope can read",
            hint="`pqvault reencrypt` makes new root keys",
        )
    return change


def _compromised(facts: Iterable[KeyFacts]) -> dict[str, str]:
    return {f.key_id: f.address for f in facts if f.state == State.COMPROMISED}


def _blocked(facts: Sequence[KeyFacts], replaced: Mapping[str, Recipient]) -> dict[str, str]:
    # The key of a month stays the only one of what is sealed to it, when it no longer seals too.
    keys = (f for f in facts if not (signs(f.profile) or f.period or f.key_id in replaced))
    return {f.key_id: f.refusal for f in keys if f.refusal and f.state != State.COMPROMISED}


def _successors(keystore: Keystore, facts: Sequence[KeyFacts]) -> dict[str, Recipient]:
    newest: dict[str, Recipient] = {}
    for name in {f.name for f in facts if not signs(f.profile)}:
        try:
            newest[name] = keystore.recipient(name)
        except (KeyStateForbids, NotFound):
            continue  # nothing may take the place of this key: its archives stay as they are
    versions = {f.key_id: f.version for f in facts}
    return {
        f.key_id: newest[f.name]
        for f in facts
        if f.name in newest and not f.period and f.version < versions[newest[f.name].key_id]
    }
