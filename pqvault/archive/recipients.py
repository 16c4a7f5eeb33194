"""Public keys for key ids: an envelope names its recipients, and holds no public key."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pqvault.archive.publicpart import PublicPart
from pqvault.errors import UsageError
from pqvault.keys import Recipient

__all__ = ["FindRecipient", "known_recipients", "recipients_of"]

FindRecipient = Callable[[str], Recipient | None]


def recipients_of(part: PublicPart, find: FindRecipient) -> tuple[Recipient, ...]:
    """Who can open a part. Raises UsageError when a public key is not known."""
    return known_recipients(
        part.own_envelope.key_ids,
        find,
        f"the envelope of part {part.id}",
        "give them with -r RECIPIENT, or take them off with `pqvault rotate --remove KEYID`",
    )


def known_recipients(
    key_ids: Iterable[str], find: FindRecipient, what: str, hint: str
) -> tuple[Recipient, ...]:
    """The public key of each. Raises UsageError with ``hint`` when some are not known."""
    wanted = list(key_ids)
    # A public key is what its key id says, whoever keeps it; the envelope's MAC covers that.
    known = [r for key_id in wanted if (r := find(key_id)) and r.key_id == key_id]
    if len(known) < len(wanted):
        unknown = sorted(set(wanted) - {recipient.key_id for recipient in known})
        raise UsageError(
            f"{what} is sealed to {', '.join(unknown)}, whose public keys are not known here",
            hint=hint,
        )
    return tuple(known)
