"""Records of keys that a rotation takes off an archive, so that nothing more is sealed to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pqvault.archive import layout, retired
from pqvault.archive.publicpart import PublicPart
from pqvault.archive.publicstate import PublicState
from pqvault.errors import PQVaultError
from pqvault.policy import Policy
from pqvault.rootkey import RootKey
from pqvault.rotation.change import Change
from pqvault.signing import SigningKey

__all__ = ["retire"]


def retire(
    state: PublicState,
    change: Change,
    wraps_to: Callable[[], set[str]],
    open_part: Callable[[PublicPart], RootKey],
    *,
    allow_retired: bool,
    sign: Sequence[SigningKey],
    policy: Policy,
) -> list[str]:
    """Write what ``change`` retires, and take back what it wraps to again; returns new key ids.

    ``wraps_to``: the key ids that will be wrapped to. ``sign``: who signs the records. Raises
    PolicyRefused when a key is retired that will be wrapped to, and that is not allowed.
    """
    storage = state.storage
    known = retired.retired_ids(storage)
    back = sorted(known & (change.named | wraps_to())) if known else []
    if not allow_retired:
        retired.refuse(storage, back, policy)
    for key_id in back:
        storage.remove(layout.retired_name(key_id))
    wanted = change.remove & (_named(state) | known) if change.remove else frozenset()
    # A record that is there need not be written again, unless we sign it.
    if not sign:
        wanted -= known
    key = _any_key(state, open_part) if wanted else None
    if key is None:
        return []
    return [key_id for key_id in sorted(wanted) if retired.retire(storage, key, key_id, sign)]


def _named(state: PublicState) -> set[str]:
    """Whom parts are sealed to, and were: hosts may go on sealing to those."""
    parts = state.parts.values()
    now = {key_id for p in parts if p.envelope for key_id in p.envelope.key_ids}
    return now.union(*(part.commit.sealed_to for part in parts))


def _any_key(state: PublicState, open_part: Callable[[PublicPart], RootKey]) -> RootKey | None:
    """The root key of the newest part that opens."""
    for part in reversed(state.ordered()):
        try:
            return open_part(part)
        except PQVaultError:
            continue  # told when its turn comes
    return None
