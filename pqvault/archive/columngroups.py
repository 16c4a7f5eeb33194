"""Column groups: columns of tables that are sealed to recipients of their own. format 10.3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pqvault.archive.committing import make_envelope
from pqvault.archive.layout import new_table_name
from pqvault.crypto.profiles import STANDARD, Profile
from pqvault.errors import UsageError
from pqvault.format.envelope import Envelope
from pqvault.format.table import is_group
from pqvault.ids import new_id
from pqvault.keys import Recipient
from pqvault.rootkey import RootKey
from pqvault.signing import SigningKey
from pqvault.tablefile import OutFile, check_schema

__all__ = ["ColumnGroup", "PartKeys", "check_groups", "everybody", "plan_columns", "plan_files"]


@dataclass(frozen=True, slots=True)
class ColumnGroup:
    """Columns that are sealed to recipients of their own, who can read the others too."""

    name: str
    columns: tuple[str, ...]
    recipients: tuple[Recipient, ...]

    def __post_init__(self) -> None:
        if not is_group(self.name):
            raise UsageError(
                f"{self.name!r} is no name for a column group",
                hint="use 1 to 64 of a-z, 0-9, _ and -, beginning with a letter or digit",
            )
        if not self.columns or not self.recipients:
            raise UsageError(f"the column group {self.name!r} needs columns and recipients")


@dataclass(frozen=True, slots=True)
class PartKeys:
    """The root keys of one part: its own, and one of each column group, independent of it."""

    root: RootKey
    groups: Mapping[str, RootKey]

    @classmethod
    def generate(
        cls, archive: str, groups: Sequence[ColumnGroup], profile: Profile = STANDARD
    ) -> PartKeys:
        """Fresh ones, for a new part id."""
        part = new_id()
        own = {group.name: RootKey.generate(archive, part, profile) for group in groups}
        return cls(RootKey.generate(archive, part, profile), own)

    def envelopes(
        self,
        recipients: Sequence[Recipient],
        groups: Sequence[ColumnGroup],
        sign: Sequence[SigningKey] = (),
    ) -> list[Envelope]:
        """The envelopes of the groups, then the part's. Members of a group open both."""
        own = (
            make_envelope(self.groups[g.name], list(dict.fromkeys(g.recipients)), sign, g.name)
            for g in groups
        )
        return [*own, make_envelope(self.root, everybody(recipients, groups), sign)]


def plan_files(
    schema: pa.Schema, keys: PartKeys, groups: Sequence[ColumnGroup], what: str
) -> list[OutFile]:
    """Which columns go into which file. Raises UsageError for columns that are not there."""
    check_groups(groups)
    return plan_columns(schema, keys, {group.name: group.columns for group in groups}, what)


def plan_columns(
    schema: pa.Schema, keys: PartKeys, groups: Mapping[str, Sequence[str]], what: str
) -> list[OutFile]:
    """The same, where only the columns of each group are known and not its members."""
    check_schema(schema, what)
    taken = {column: group for group, columns in groups.items() for column in columns}
    files = []
    there = set(schema.names)
    for group, columns in sorted(groups.items()):
        for column in columns:
            if column not in there:
                raise UsageError(
                    f"{what} has no column {column!r}, which the group {group!r} names"
                )
        places = tuple(i for i, name in enumerate(schema.names) if taken.get(name) == group)
        files.append(OutFile(group, keys.groups[group], new_table_name(), places))
    rest = tuple(i for i, name in enumerate(schema.names) if name not in taken)
    if not rest:
        raise UsageError(f"all columns of {what} are in groups; leave one of them out")
    return [OutFile("", keys.root, new_table_name(), rest), *files]


def check_groups(groups: Sequence[ColumnGroup]) -> None:
    """Raise UsageError for a group that is given twice, and a column that two groups name."""
    if len({group.name for group in groups}) != len(groups):
        raise UsageError("a column group is given twice")
    taken: dict[str, str] = {}
    for group in groups:
        for column in group.columns:
            if taken.setdefault(column, group.name) != group.name:
                raise UsageError(
                    f"the column {column!r} is in the groups {taken[column]!r} and {group.name!r}"
                )


def everybody(recipients: Sequence[Recipient], groups: Sequence[ColumnGroup]) -> list[Recipient]:
    """Who opens a part: its recipients as they are, and the members of its groups."""
    members = dict.fromkeys(r for group in groups for r in group.recipients)
    return [*recipients, *(r for r in members if r not in recipients)]
