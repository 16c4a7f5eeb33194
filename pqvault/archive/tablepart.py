"""TablePart: a part that holds tables and nothing else, written with public keys only."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from pqvault.archive import layout, retired
from pqvault.archive.columngroups import (
    ColumnGroup,
    PartKeys,
    check_groups,
    everybody,
    plan_columns,
    plan_files,
)
from pqvault.archive.committing import (
    give_up,
    make_commit,
    put_part,
    refuse_digests,
    refuse_unsigned,
)
from pqvault.archive.partwriter import write_catalog
from pqvault.archive.publicstate import PublicState
from pqvault.closing import Closing
from pqvault.errors import UsageError
from pqvault.format.catalog import table_of
from pqvault.format.commit import PartFile
from pqvault.format.entries import Kind, is_path
from pqvault.format.table import MODES
from pqvault.keys import Recipient, one_profile
from pqvault.memory import Memory
from pqvault.names import printable
from pqvault.policy import ANYBODY, Policy
from pqvault.signing import SigningKey, check_suites
from pqvault.storage import Storage
from pqvault.tablefile import RowGroups, TableSink
from pqvault.tablefile.schemas import Sorting
from pqvault.tablefile.writer import LEVEL

__all__ = ["TablePart", "table_path"]

_FOLDER_MODE = 0o755
_FILE_MODE = 0o644


@dataclass(slots=True)
class TablePart(Closing):
    """One part on its way. ``with`` discards it unless :meth:`commit` was called.

    ``recipients``: who opens the part; ``groups``: who opens which columns of its tables, where
    a table has them. ``keys``: of a part that was begun before (a log's), whose envelopes are in
    place and name the key ids ``sealed_to``; by default fresh ones. Raises UsageError,
    PolicyRefused, RolledBack.
    """

    storage: Storage
    recipients: Sequence[Recipient]
    groups: Sequence[ColumnGroup] = ()
    keys: PartKeys | None = None
    sealed_to: Sequence[str] = ()
    sign: Sequence[SigningKey] = ()
    policy: Policy = ANYBODY
    allow_retired: bool = False
    memory: Memory | None = None
    state: PublicState = field(init=False)
    _keys: PartKeys = field(init=False, repr=False)
    _sinks: dict[bytes, tuple[str, TableSink]] = field(default_factory=dict, init=False, repr=False)
    _done: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if self.keys is None:
            layout.create_archive(self.storage)
        else:
            layout.check_header(self.storage, self.keys.root.archive)
            self.storage.make_folder("commits")  # which a copy of a log that had none may lack
        self.state = PublicState(self.storage, self.memory)
        self._check()
        check_groups(self.groups)
        self._keys = self.keys or self._new_keys()
        if self.keys is None:  # else its rows are written already
            refuse_digests(self.state, self._keys.root.profile)
        check_suites(self._keys.root.profile, self.sign)
        self.storage.make_folder(f"parts/{self.part}/tables")

    @property
    def part(self) -> str:
        """The part id."""
        return self._keys.root.part

    def _new_keys(self) -> PartKeys:
        profile = one_profile(everybody(self.recipients, self.groups))
        return PartKeys.generate(self.state.archive, self.groups, profile)

    def _check(self) -> None:
        self.state.refuse_rolled_back()
        if not (self.sign or self.policy.allow_unsigned):
            refuse_unsigned(self.state)
        if not self.allow_retired:
            retired.check(self.storage, self._key_ids())

    def _key_ids(self) -> list[str]:
        if self.keys is not None:
            return list(self.sealed_to)
        return [r.key_id for r in everybody(self.recipients, self.groups)]

    def table(
        self,
        path: str | bytes,
        schema: pa.Schema,
        *,
        mode: str = "replace",
        level: int = LEVEL,
        row_groups: RowGroups | None = None,
        sorting: Sorting = (),
        columns: Mapping[str, Sequence[str]] | None = None,
    ) -> TableSink:
        """Begin a table. ``mode``: `replace` what earlier parts hold of it, or `append` to it.
        ``columns``: of each group, where ``groups`` does not say."""
        if mode not in MODES:
            raise UsageError(f"{mode!r} is no way to write a table", hint="replace or append")
        name = table_path(path)
        if name in self._sinks:
            raise UsageError(f"{printable(name)} is written twice")
        what = f"table {printable(name)}"
        if columns is None:
            files = plan_files(schema, self._keys, self.groups, what)
        else:
            files = plan_columns(schema, self._keys, columns, what)
        sink = TableSink(
            self.storage, schema, files, what, digest=self._keys.root.profile.digest, level=level,
            row_groups=row_groups,
            sorting=sorting,
        )  # fmt: skip
        self._sinks[name] = (mode, sink)
        return sink

    def commit(self) -> str:
        """Finish all tables and commit them: the part id."""
        files: list[PartFile] = []
        tables = {}
        for path, (mode, sink) in self._sinks.items():
            doc, listed = sink.finish(mode)
            files += listed
            tables[path] = doc.marshal()
        key, digest = self._keys.root, self._keys.root.profile.digest
        files.append(write_catalog(_catalog(tables), key, self.storage, digest, ()))
        self.state.refresh()
        # Again: a key may have been retired while we wrote.
        self._check()
        commit = make_commit(
            self.state,
            key,
            files,
            kind="append",
            sealed_to=self._key_ids(),
            digest=digest,
            sign=self.sign,
        )
        envelopes = []
        if self.keys is None:
            envelopes = self._keys.envelopes(self.recipients, self.groups, self.sign)
        put_part(self.storage, envelopes, commit)
        self._done = True
        self.state.remember(commit)
        return self.part

    def close(self) -> None:
        """Discard what was written; nothing after :meth:`commit`. A part that was begun before
        keeps what it had."""
        if self._done:
            return
        self._done = True
        for _, sink in self._sinks.values():
            sink.abort()
        if self.keys is None:
            give_up(self.storage, self.part)


def table_path(path: str | bytes) -> bytes:
    """The path of a table as the catalog has it. Raises UsageError for one that no entry has."""
    name = os.fsencode(path).strip(b"/")
    if not is_path(name):
        raise UsageError(
            f"{printable(name)!r} is no name for a table",
            hint="write one or more names with / between them, none of them . or ..",
        )
    return name


def _catalog(tables: Mapping[bytes, bytes]) -> pa.Table:
    """The rows of a catalog: tables and the folders above them."""
    now = time.time_ns()
    rows: dict[bytes, tuple[int, int, bytes | None]] = {}
    for path, doc in tables.items():
        at = path.find(b"/")
        while at >= 0:
            rows.setdefault(path[:at], (Kind.FOLDER, _FOLDER_MODE, None))
            at = path.find(b"/", at + 1)
        if path in rows:
            raise UsageError(f"{printable(path)} is a table and a folder of others")
        rows[path] = (Kind.TABLE, _FILE_MODE, doc)
    clash = [p for p in tables if rows[p][0] != Kind.TABLE]
    if clash:
        raise UsageError(f"{printable(clash[0])} is a table and a folder of others")
    return table_of(
        [
            (path, int(kind), 0, mode, now, None, None, [], doc)
            for path, (kind, mode, doc) in sorted(rows.items())
        ]
    )
