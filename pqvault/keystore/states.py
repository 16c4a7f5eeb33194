"""The life of a key version: states of NIST SP 800-57 part 1, and who may go where."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Final

from pqvault.errors import KeyStateForbids

__all__ = ["OPENS", "TRANSITIONS", "State", "check_transition"]


class State(StrEnum):
    """What a key version may do."""

    PRE_ACTIVE = "pre-active"  # made, not yet in use
    ACTIVE = "active"  # seals and opens
    SUSPENDED = "suspended"  # does nothing, may come back
    DEACTIVATED = "deactivated"  # opens only
    COMPROMISED = "compromised"  # opens, with a warning; what it sealed must be sealed anew
    DESTROYED = "destroyed"  # the seed is gone, the record stays


# state -> where it may go. SP 800-57 part 1 rev. 5 section 7.3. An active or deactivated key is
# never destroyed by way of "active": one looks first at what still needs it.
TRANSITIONS: Final = MappingProxyType(
    {
        State.PRE_ACTIVE: frozenset({State.ACTIVE, State.COMPROMISED, State.DESTROYED}),
        State.ACTIVE: frozenset({State.SUSPENDED, State.DEACTIVATED, State.COMPROMISED}),
        State.SUSPENDED: frozenset(
            {State.ACTIVE, State.DEACTIVATED, State.COMPROMISED, State.DESTROYED}
        ),
        State.DEACTIVATED: frozenset({State.COMPROMISED, State.DESTROYED}),
        State.COMPROMISED: frozenset({State.DESTROYED}),
        State.DESTROYED: frozenset[State](),
    }
)

OPENS: Final = frozenset({State.ACTIVE, State.DEACTIVATED, State.COMPROMISED})

_HINTS: Final = {
    (State.ACTIVE, State.DESTROYED): "`pqvault key deactivate {what}` first",
    (State.DEACTIVATED, State.ACTIVE): "`pqvault key rotate {name}` makes a new version",
}


def check_transition(old: State, new: State, what: str) -> None:
    """Raise KeyStateForbids unless ``old`` may become ``new``; ``what`` names the version."""
    if new not in TRANSITIONS[old]:
        ways = ", ".join(sorted(TRANSITIONS[old])) or "nothing else, for ever"
        raise KeyStateForbids(
            f"{what} is {old} and cannot become {new}",
            hint=_HINTS.get((old, new), f"it can become {ways}").format(
                what=what, name=what.partition("@")[0]
            ),
        )
