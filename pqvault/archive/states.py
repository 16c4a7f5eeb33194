"""Earlier states of an archive: the parts up to one, or up to a time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from pqvault.archive.publicpart import PublicPart
from pqvault.archive.replacement import replaced_ids
from pqvault.errors import NotFound, UsageError

__all__ = ["select_parts"]


def select_parts(
    parts: list[PublicPart],
    as_of: str | datetime | None,
    place: Callable[[str], tuple[int, int] | None],
) -> tuple[list[PublicPart], datetime | None]:
    """The parts up to one (its id or a prefix of at least 4 characters) or up to a time, and that
    time. ``place``: the seq and the time that a removed part had, by its record."""
    if as_of is None:
        return parts, None
    if as_of == "":
        raise UsageError(
            "the part or time to see the archive as of is empty",
            hint="is a variable of the shell unset?",
        )
    if isinstance(as_of, str):
        matches = [i for i, part in enumerate(parts) if part.id.startswith(as_of.lower())]
        if len(as_of) >= 4 and len(matches) == 1:
            return parts[: matches[0] + 1], None
        if len(matches) > 1:
            raise UsageError(f"{as_of!r} names several parts", hint="give more of the part id")
        holder = _holder(parts, as_of.lower(), place) if len(as_of) >= 4 else None
        if holder is not None:
            return parts[: parts.index(holder) + 1], None
        as_of = _parse_time(as_of)
    at = _milliseconds(as_of)
    chosen = [part for part in parts if part.commit.created <= at]
    if not chosen:
        raise NotFound(
            f"the archive has no part as old as {as_of.isoformat(timespec='seconds')}",
            hint="`pqvault parts` lists its parts and their times",
        )
    return chosen, as_of


def _holder(
    parts: list[PublicPart], text: str, place: Callable[[str], tuple[int, int] | None]
) -> PublicPart | None:
    """The part that took the place of the one whose id begins with ``text``: of no other, or of
    those before it and of what had replaced it, so that its state is the one with that part.

    Raises NotFound when it took the place of later ones too: then that state is no more.
    """
    longest = sorted(parts, key=lambda part: len(part.commit.replaces))
    found = {one: p for p in longest for one in replaced_ids(p) if one.startswith(text)}
    if len(found) > 1:
        raise UsageError(f"{text!r} names several parts", hint="give more of the part id")
    for part, holder in found.items():
        if len(holder.commit.replaces) > 1 and place(part) != holder.commit.order[:2]:
            raise NotFound(
                f"part {part} was replaced by part {holder.id}, with others",
                hint=f"give {holder.id[:8]} for the state with all of those",
            )
        return holder
    return None


def _milliseconds(moment: datetime) -> int:
    try:
        return int(moment.timestamp() * 1000)
    except (ValueError, OverflowError):  # a local time of the first year
        return -1


def _parse_time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise NotFound(
            f"{text!r} is no part of this archive and no time",
            hint="give a part id from `pqvault parts`, or a time like 2026-11-23T18:00",
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)  # as `pqvault parts` shows
    # them, and to the second: what it shows names the whole of it.
    return moment if set(text) & set(".,") else moment.replace(microsecond=999_999)
