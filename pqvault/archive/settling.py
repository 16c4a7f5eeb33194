"""Ends what a killed process left of parts that replace others. docs/format.md 5.6.

A part that replaces others is put first, and what it replaces is removed after it was read back.
Where all of that is still there, nobody can tell whether the new part is what it should be: it
is taken back. Where some of it is gone already, the rest goes too.
"""

from __future__ import annotations

from collections.abc import Callable

from pqvault.archive import layout
from pqvault.archive.archive import PublicState
from pqvault.archive.part import PublicPart
from pqvault.archive.removal import remove_part
from pqvault.archive.replacement import replaced_ids
from pqvault.rootkey import RootKey

__all__ = ["remove_replaced", "settle"]


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
            ids = tuple(old.id for old in there)
            remove_part(storage, open_part(there[0]), part, "replaced", ids)
            storage.remove(layout.envelope_name(part.id))
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
        state.storage.remove(layout.envelope_name(old.id))
    state.refresh()


def _clear_envelopes(state: PublicState) -> None:
    """Those of parts that were replaced by a process that was killed before it came to them."""
    names = {one for part in state.parts.values() for one in replaced_ids(part)}
    there = set(layout.listed_ids(state.storage, "envelopes")[0])
    for part in sorted(names & state.removed & there):
        state.storage.remove(layout.envelope_name(part))
