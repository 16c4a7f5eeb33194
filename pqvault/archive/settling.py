"""Ends what a killed process left of parts that replace others. docs/format.md 5.6.

A part that replaces others is put first, and what it replaces is removed after it was read back.
Where all of that is still there, nobody can tell whether the new part is what it should be: it
is taken back. Where some of it is gone already, the rest goes too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from pqvault.archive import layout
from pqvault.archive.publicpart import PublicPart, read_envelope, read_public
from pqvault.archive.publicstate import PublicState
from pqvault.archive.removal import remove_part
from pqvault.archive.replacement import replaced_ids
from pqvault.errors import Locked
from pqvault.format.envelope import Envelope
from pqvault.rootkey import RootKey
from pqvault.storage import Storage

__all__ = ["check_unchanged", "remove_envelopes", "remove_replaced", "settle", "take_back"]


def settle(state: PublicState, open_part: Callable[[PublicPart], RootKey]) -> None:
    """To be called with the archive's lock held. ``open_part``: the root key of a part, checked.

    Raises what ``open_part`` does.
    """
    storage = state.storage
    for part in sorted(state.parts.values(), key=lambda p: -len(p.commit.replaces)):
        there = [state.parts[i] for i in sorted(replaced_ids(part)) if i in state.parts]
        if not there or part.id not in state.parts:
            continue
        accounted = {old.id for old in there}.union(*(replaced_ids(old) for old in there))
        if replaced_ids(part) <= accounted:
            take_back(storage, open_part(there[0]), part, there)
        else:
            remove_replaced(state, part, open_part(part))
        state.refresh()
    _clear_envelopes(state)


def remove_replaced(state: PublicState, new: PublicPart, key: RootKey) -> None:
    """Hide what a verified part replaces; then remove the envelopes of it, so that nothing here
    gives their root keys to anyone. ``key``: the root key of the new part."""
    names = replaced_ids(new)
    for old in [part for part in state.parts.values() if part.id in names]:
        remove_part(state.storage, key, old, "replaced", (new.id,))
        remove_envelopes(state.storage, old)
    state.refresh()


def check_unchanged(
    storage: Storage, archive: str, part: PublicPart, groups: Mapping[str, Envelope]
) -> None:
    """Raise Locked when others rotated a part since it was read. ``groups``: its column groups'.

    To be asked once the new part is there: it is sealed to whom the old one was sealed to, and a
    rotation that ends later than this finds and rotates it.
    """
    if read_public(storage, archive, part.id) != part or any(
        read_envelope(storage, archive, part.id, group) != envelope
        for group, envelope in groups.items()
    ):
        raise Locked(f"part {part.id} of {storage.where('')} is changed by others just now")


def take_back(storage: Storage, key: RootKey, new: PublicPart, old: Iterable[PublicPart]) -> None:
    """Remove a new part while all that it replaces is there. ``key``: of one of those."""
    remove_part(storage, key, new, "replaced", tuple(part.id for part in old))
    remove_envelopes(storage, new)


def remove_envelopes(storage: Storage, part: PublicPart) -> None:
    """The envelope of a part and those of its column groups, which only parts with tables have."""
    if part.commit.has_tables:
        for name in layout.envelope_names(storage).get(part.id, ()):
            storage.remove(name)
    storage.remove(layout.envelope_name(part.id))


def _clear_envelopes(state: PublicState) -> None:
    """Those of parts that were replaced by a process that was killed before it came to them."""
    names = {one for part in state.parts.values() for one in replaced_ids(part)}
    there = layout.envelope_names(state.storage)
    for part in sorted(names & state.removed & there.keys()):
        for name in there[part]:
            state.storage.remove(name)
