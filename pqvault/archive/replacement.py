"""Parts that take the place of others: encrypted again, or several in one. docs/format.md 5.6."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from pqvault.archive.publicpart import PublicPart
from pqvault.errors import FormatError, IntegrityError, PolicyRefused, RolledBack
from pqvault.policy import Policy

if TYPE_CHECKING:  # it imports pyarrow
    from pqvault.archive.part import OpenPart

__all__ = ["check_claims", "check_replaced", "id_in_place", "replaced_ids", "successors"]

_HINT: Final = "restore commits/ from a copy"


def replaced_ids(part: PublicPart) -> set[str]:
    """The parts whose place a part says to take."""
    return {replaced for replaced, _ in part.commit.replaces}


def successors(parts: Iterable[PublicPart]) -> dict[tuple[str, str], PublicPart]:
    """(part id, digest of its commit) -> the part that says to hold its content now.

    Nothing is verified. Of several the one that replaces most stands, for it replaces the others.
    Not parts without an envelope, which nobody can open.
    """
    found: dict[tuple[str, str], PublicPart] = {}
    for part in sorted(parts, key=lambda p: len(p.commit.replaces)):
        if part.envelope is not None:
            found |= dict.fromkeys(part.commit.replaces, part)
    return found


def check_replaced(parts: Mapping[str, PublicPart]) -> list[RolledBack]:
    """What was exchanged among the parts that others replace, as far as commits show it."""
    digests: dict[str, tuple[str, str]] = {}  # part id -> digest of its commit, who says so
    found: dict[str, RolledBack] = {}
    for part in parts.values():
        for replaced, digest in part.commit.replaces:
            other = parts.get(replaced)
            known, who = digests.setdefault(replaced, (digest, part.id))
            if other is not None and other.commit_digest != digest:
                known, who = other.commit_digest, replaced
            if known != digest:
                found[replaced] = RolledBack(
                    f"the commit of part {replaced} is not the one that part {part.id} replaced,"
                    f" by part {who}",
                    hint=_HINT,
                )
    for part in parts.values():
        for parent, digest in part.commit.parents:
            known, who = digests.get(parent, (digest, ""))
            if known != digest:
                found[parent] = RolledBack(
                    f"the part {parent} that part {who} replaced is not the one that part {part.id}"
                    " followed",
                    hint=_HINT,
                )
    return list(found.values())


def check_claims(part: OpenPart, others: Iterable[PublicPart], policy: Policy) -> None:
    """Raise unless a verified part may replace those of ``others`` that it names: of all parts
    that are there, for what it may do is not a question of what is looked at.

    IntegrityError: one comes after it. PolicyRefused: one is signed, or wrongly so in the name of
    a trusted signer, and it is not signed.
    """
    names = replaced_ids(part.public)
    for other in others:
        if other.id not in names:
            continue
        if other.commit.order[:2] > part.commit.order[:2]:
            raise FormatError(f"part {part.id} replaces part {other.id}, which comes after it")
        signed_by = () if part.signed else policy.check(other.commit, f"part {other.id}")
        if not part.signed and policy.counts_as_signed(other.commit, signed_by):
            raise PolicyRefused(
                f"part {part.id} is not signed, and replaces part {other.id}, which is",
                hint="find out who added it; `pqvault reencrypt --sign` signs new parts",
            )


def id_in_place(part: str, others: Collection[str]) -> str:
    """A new random part id that sorts among ``others`` as ``part`` does.

    ``others``: ids of the parts of the same seq and time, whose order their ids decide.
    """
    low = max((int(other, 16) for other in others if other < part), default=-1)
    high = min((int(other, 16) for other in others if other > part), default=1 << 128)
    if high - low < 1 << 16:  # somebody made ids that leave no room
        raise IntegrityError(f"no id is left for a part in the place of part {part}")
    return f"{low + 1 + secrets.randbelow(high - low - 1):032x}"
