"""Archive: open it, list it, read any file of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from pqvault.archive import layout
from pqvault.archive.entryfile import EntryFile
from pqvault.archive.globs import Globs, several
from pqvault.archive.part import OpenObjects, OpenPart
from pqvault.archive.publicpart import PublicPart
from pqvault.archive.publicstate import TRIES, PublicState
from pqvault.archive.removal import check_state, read_record
from pqvault.archive.replacement import check_claims, replaced_ids
from pqvault.archive.states import select_parts
from pqvault.archive.tableentry import TableEntry, has_content, short_name
from pqvault.archive.tasks import side_by_side
from pqvault.archive.view import View
from pqvault.closing import Closing
from pqvault.errors import NoKeyFits, NotFound, PQVaultError, RolledBack, UsageError
from pqvault.format.catalog import entries_of
from pqvault.format.entries import Entry, Kind
from pqvault.keys import Identity
from pqvault.memory import Memory
from pqvault.names import printable
from pqvault.policy import ANYBODY, Policy
from pqvault.progress import Progress, ignore
from pqvault.rootkey import Keyring, RootKey, keyring
from pqvault.sealed import FrameCache
from pqvault.storage import Storage

if TYPE_CHECKING:
    from pqvault.archive.engine import ExtractingEngine
    from pqvault.archive.extract import Links
    from pqvault.archive.unseal import UnsealReport
    from pqvault.archive.verify import VerifyReport

Name = str | bytes | os.PathLike[Any]  # of an entry

__all__ = ["Archive"]

# Read when the archive is opened; of more parts, each when it is needed. Who leaves bad parts out
# has to know which they are, and reads all catalogs anyway.
_CATALOGS: Final = 64


class Archive(Closing):
    """An archive that identities open.

    ``strict``: raise for the first part that is damaged, missing or that no identity fits.
    Otherwise such parts are left out and named in :attr:`problems`, and the caller must not
    take silence for completeness. ``as_of``: a part id or a time; later parts are not seen.
    ``snapshot``: ids of parts, as another reader found them; these are seen and no others.
    ``memory``: of what was seen of the archive before. ``policy``: who must have signed it.
    ``cache``: where decoded frames are kept, by default 32 MiB.
    """

    def __init__(
        self,
        storage: Storage,
        identities: Iterable[Identity],
        *,
        as_of: str | datetime | None = None,
        snapshot: Sequence[str] | None = None,
        strict: bool = True,
        memory: Memory | None = None,
        policy: Policy = ANYBODY,
        cache: FrameCache | None = None,
    ) -> None:
        self.storage = storage
        self._snapshot = snapshot
        self._memory = memory
        self._policy = policy
        self.keyring: Keyring = keyring(identities)
        # One of each for all parts, so that memory and open files do not grow with them.
        self.cache = cache or FrameCache()
        self._objects = OpenObjects()
        self._as_of = as_of
        self._strict = strict
        self.problems: list[PQVaultError] = []
        self.unopened: dict[str, PQVaultError] = {}  # part id -> why
        self._chosen_ids: list[str] = []  # of all parts of the view, in their order
        self.parts: list[OpenPart] = []
        self.id = ""
        self.refresh()

    def refresh(self) -> None:
        """Read the list of parts again; parts that are open already stay open. Raises RolledBack
        where another archive has taken the place of this one."""
        for _ in range(TRIES):
            state = PublicState(self.storage, self._memory)
            if self.id not in ("", state.archive):
                raise RolledBack(
                    f"{self.storage.where('')} is another archive than when it was opened",
                    hint="open it again, if it is the right one",
                )
            parts, problems = self._open_parts(state)
            # Parts may be replaced under our hands: then there is nothing wrong with them.
            if not problems or not state.moved():
                break
        if problems and (self._strict or (not parts and _all_without_key(problems))):
            raise problems[0]
        self.id = state.archive
        self.strange = state.strange
        self.problems = problems
        self.parts = parts
        self.view = View(parts, self._on_damage)
        if self._memory is not None:
            self._memory.remember(self.id, [part.public.sight for part in parts], state.removed)

    def _open_parts(self, state: PublicState) -> tuple[list[OpenPart], list[PQVaultError]]:
        """The parts of the view in their order, and what is wrong. Format sections 5.3, 5.6."""
        problems = list(state.problems)
        if problems and self._strict:
            return [], problems
        known = {part.id: part for part in self.parts}
        chosen = self._chosen(state)
        self._chosen_ids = [public.id for public in chosen]
        unsigned = self._policy.unsigned_after_signed(part.commit for part in state.ordered())
        opened: dict[str, OpenPart] = {}
        self.unopened = {}
        replaced: set[str] = set()

        # What replaces most is read first, of equal ones the last: what it names is not read.
        def reach(part: PublicPart) -> tuple[int, tuple[int, int, str]]:
            return len(part.commit.replaces), part.commit.order

        for public in sorted(chosen, key=reach, reverse=True):
            if public.id in replaced:
                continue
            try:
                part = known.get(public.id) or self._open_part(public)
                if public.id in unsigned:
                    raise unsigned[public.id]
                check_claims(part, state.parts.values(), self._policy)
                if public.commit.replaces:
                    part.read_catalog()
            except PQVaultError as error:
                problems.append(error)
                self.unopened[public.id] = error
            else:
                opened[public.id] = part
                replaced |= replaced_ids(public)
        parts = [opened[p.id] for p in chosen if p.id in opened and p.id not in replaced]
        if self._strict and len(parts) > _CATALOGS:
            return parts, problems
        damage = side_by_side(self.storage.requests, OpenPart.read_catalog, parts)
        checked = list(zip(parts, damage, strict=True))
        found = {part.id: error for part, error in checked if error is not None}
        self.unopened |= found
        problems += found.values()
        return [part for part, error in checked if error is None], problems

    def _chosen(self, state: PublicState) -> list[PublicPart]:
        def place(part: str) -> tuple[int, int] | None:
            record = read_record(self.storage, state.archive, part)
            return None if record is None else (record.seq, record.committed)

        try:
            chosen, until = select_parts(state.ordered(), self._as_of, place)
            if self._as_of is not None:
                check_state(self.storage, state.archive, state.removed, chosen, until)
        except NotFound as error:
            # Why there is no such state any more comes before that there is none.
            raise (state.rolled_back[0] if state.rolled_back else error) from None
        if self._snapshot is None:
            return chosen
        wanted = set(self._snapshot)
        chosen = [part for part in chosen if part.id in wanted]
        if gone := wanted.difference(part.id for part in chosen):
            raise RolledBack(
                f"part {min(gone)} of {self.storage.where('')} was there when reading began and is"
                " gone",
                hint="begin again with the archive as it is now",
            )
        return chosen

    def _open_part(self, public: PublicPart) -> OpenPart:
        return OpenPart(self.storage, public, self.keyring, self.cache, self._policy, self._objects)

    def open_key(self, public: PublicPart) -> RootKey:
        """The root key of a part that is not of the view, checked as any."""
        return self._open_part(public).key

    def _on_damage(self, error: PQVaultError) -> None:
        if self._strict:
            raise error
        if error.message not in {problem.message for problem in self.problems}:
            self.problems.append(error)

    def batches(self, below: Name = b"", *, direct: bool = False) -> Iterator[pa.RecordBatch]:
        """The entries as Arrow record batches of at most 8,192 rows a part, sorted by path.

        Columns as in docs/format.md section 6; paths are raw bytes. ``below``: only this path and
        what is below it. ``direct``: only what is in that folder (b"": at the top), not itself
        and not what is below its own folders. Of the catalogs no more is read than that takes.
        """
        if direct:
            yield from self.view.children(_name(below))
        else:
            yield from (batch for batch, _ in self.view.batches(_name(below)))

    def entries(self, below: Name = b"", *, direct: bool = False) -> Iterator[Entry]:
        """The entries as objects, sorted by path; chosen as by :meth:`batches`."""
        for batch in self.batches(below, direct=direct):
            yield from entries_of(batch)

    def located(
        self, below: Name = b"", globs: Globs | None = None
    ) -> Iterator[tuple[OpenPart, Entry]]:
        """The entries with the part that holds the content of each; of ``globs``, those that one
        of them matches."""
        parts = self.view.parts
        for batch, where in self.view.batches(_name(below)):
            if globs is not None:
                batch, where = globs.select(batch, where)
            for entry, index in zip(entries_of(batch), where, strict=True):
                yield parts[index], entry

    def find(self, path: Name) -> tuple[OpenPart, Entry]:
        """One entry and its part. Raises NotFound naming the path."""
        name = _name(path)
        found = self.view.find(name)
        if found is None:
            raise NotFound(
                f"{printable(name) or 'the empty path'} is not in the archive",
                hint="`pqvault ls` lists its paths; they begin with the sealed folder's name",
            )
        return found

    def check_newest(self, path: Name) -> None:
        """Raise the first problem that may keep back something newer than what is found under a
        path: any, but of parts before the one that holds it, which hides what is in those."""
        if not self.problems:
            return
        before = self._chosen_ids[: self._chosen_ids.index(self.find(path)[0].id)]
        harmless = [self.unopened.get(part_id) for part_id in before]
        for problem in self.problems:
            if problem not in harmless:
                raise problem

    def find_table(self, name: str | bytes | os.PathLike[Any]) -> list[TableEntry]:
        """The parts of a table, the oldest first, by its path or by the last component of it
        without its ending, where only one table has that.

        Raises NotFound naming it, UsageError when several tables have that name.
        """
        path = os.fsencode(name).strip(b"/")
        found = self.view.find_table(path)
        if not found:
            matches = [p for p in self.table_paths() if short_name(p) == path]
            if len(matches) > 1:
                several = ", ".join(printable(match) for match in matches)
                raise UsageError(
                    f"{printable(path)} may be any of {several}", hint="give the whole path"
                )
            found = self.view.find_table(matches[0]) if matches else []
        if not found:
            raise NotFound(
                f"there is no table {printable(path)} in the archive",
                hint="`pqvault table ls` lists its tables",
            )
        return [TableEntry(part, entry) for part, entry in found]

    def table_paths(self) -> Iterator[bytes]:
        """The path of each table, sorted."""
        for batch in self.batches():
            for path, kind in zip(
                batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True
            ):
                if kind == Kind.TABLE:
                    yield path

    def open_file(self, path: Name) -> EntryFile:
        """A file of the archive as a seekable, readable binary file. Raises NotFound, and
        UsageError for a folder, a symbolic link or a table, which have no bytes."""
        part, entry = self.find(path)
        if entry.kind not in layout.WITH_CONTENT:
            what = "a folder" if entry.kind == Kind.FOLDER else "a symbolic link"
            raise UsageError(
                f"{printable(entry.path)} is {what} and not a file",
                hint="`pqvault ls -l` shows what entries are",
            )
        if entry.kind == Kind.TABLE and not has_content(entry):
            raise UsageError(
                f"{printable(entry.path)} is a table, which has rows and no bytes",
                hint="`pqvault table export` writes it as Parquet, JSON lines or CSV",
            )
        return EntryFile(part, entry)

    def unseal(
        self,
        target: str | os.PathLike[str] | None = None,
        globs: str | Sequence[str] = (),
        *,
        force: bool = False,
        preserve_special: bool = False,
        links: Links = "inside",
        jobs: int | None = None,
        engine: ExtractingEngine | None = None,
        progress: Progress = ignore,
    ) -> UnsealReport:
        """Extract into ``target``, which must not exist or be empty unless ``force``.

        Without ``target``: into ``./NAME``, which must not exist; where the archive holds one
        folder of that very name and nothing else, its content lands there. ``globs`` match
        whole paths, ``**`` crosses ``/``. ``links="as-is"`` makes symbolic links that leave the
        target too. What fails is in the report's ``failed``; nothing appears half-written.
        ``engine``: whose workers write the files, in place of threads and processes here.
        """
        from pqvault.archive.unseal import unseal  # it is built on this class

        if target is not None and not os.fspath(target):
            raise UsageError(
                "the folder to unseal into has an empty name",
                hint="is a variable of the shell unset?",
            )
        if links not in ("inside", "as-is"):
            raise UsageError(f"links={links!r} is not known", hint="give 'inside' or 'as-is'")
        return unseal(
            self,
            None if target is None else Path(target),
            several(globs),
            force=force,
            preserve_special=preserve_special,
            links=links,
            jobs=jobs,
            engine=engine,
            progress=progress,
        )

    def verify(
        self, *, sample: float = 1.0, jobs: int | None = None, progress: Progress = ignore
    ) -> VerifyReport:
        """Check every byte; problems are listed in the report, not raised."""
        from pqvault.archive.verify import verify  # it is built on this class

        return verify(self.storage, self, sample=sample, jobs=jobs, progress=progress)

    def close(self) -> None:
        """Close every part."""
        for part in self.parts:
            part.close()


def _all_without_key(problems: list[PQVaultError]) -> bool:
    # A UsageError is about the passphrase that would unlock one: there is none, or no terminal.
    return all(isinstance(problem, NoKeyFits | UsageError) for problem in problems)


def _name(path: Name) -> bytes:
    return os.fsencode(path).strip(b"/")
