"""SealedRecords: an iterable dataset of lines, rows and tar samples, in the order of frames.

An epoch is cut into units of whole frames; units are shuffled, dealt to ranks, and put together
to blocks; a worker takes every n-th block, and the records of a block come shuffled. So each frame
is decoded once, a batch mixes records of many files, and what was given out is known by the number
of the block and how many of its records were.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import pyarrow as pa
from torch.utils.data import IterableDataset, get_worker_info

from pqvault.archive.archive import Archive
from pqvault.archive.globs import several
from pqvault.errors import IntegrityError, UsageError
from pqvault.integrations.opening import Opening
from pqvault.integrations.records import Piece, Unit, kind_of, plan_units, records_of
from pqvault.integrations.samples import FileIndex, named
from pqvault.integrations.tablerecords import TableSource
from pqvault.integrations.torch.damage import Damage
from pqvault.integrations.torch.progress import Epoch, Progress, check, merged
from pqvault.integrations.torch.sampler import Place, Placed, permutation, states_in
from pqvault.names import printable

__all__ = ["SealedRecords"]

DEFAULT_BUFFER: Final = 32 * 1024 * 1024  # bytes of records that are shuffled together
_BLOCKS: Final = 32  # a rank, at least, where there are units enough: workers end together
_ROWS: Final = 1024  # of a table made into Python objects at once


class SealedRecords(Placed, IterableDataset):
    """The records of the files of an archive: JSON values of ``.jsonl``, lines of ``.txt``, rows of
    ``.parquet`` as dictionaries, samples of ``.tar`` as webdataset has them.

    ``archive``, ``identities``, ``globs``, ``on_damage``: as :class:`SealedFiles` has them; a
    damaged piece of a file is skipped as one. ``table``: the rows of a sealed table instead, of
    ``columns`` of it only: the others are not decrypted. ``kind``: what records are, where names
    do not tell. ``transform``: what becomes of each record. ``seed`` and the epoch said with
    :meth:`set_epoch` fix the order, the number of workers only who reads what. ``buffer``: bytes
    of records shuffled together. ``rank``, ``world``: as :class:`EpochSampler` has them.

    A state is exact to the record. A loader with as many workers goes on as if it had not stopped;
    one with another number (:meth:`resume`) gives the records that are left, in another order.
    """

    def __init__(
        self,
        archive: str | os.PathLike[str],
        *,
        identities: Any = None,
        globs: str | Iterable[str] | None = (),
        table: str | None = None,
        columns: str | Sequence[str] | None = None,
        kind: str | None = None,
        transform: Callable[[Any], Any] | None = None,
        shuffle: bool = True,
        seed: int = 0,
        buffer: int = DEFAULT_BUFFER,
        rank: int | None = None,
        world: int | None = None,
        on_damage: str = "raise",
        signers: Any = None,
        as_of: str | None = None,
        storage_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._opening = Opening.of(archive, identities, signers, storage_options, as_of)
        self._globs = several(globs)
        if table is not None and (self._globs or kind is not None):
            raise UsageError("a table has rows; globs and kind are for files", hint="give one")
        if columns is not None and (table is None or not columns):
            raise UsageError(
                "columns are some of a table's" if columns else "no column is named",
                hint="name a table and columns of it, or take what you need in a transform",
            )
        self._table = table
        self._columns = (columns,) if isinstance(columns, str) else columns and tuple(columns)
        self._kind = kind
        self._transform = transform
        self._damage = Damage(on_damage)
        self._shuffle = shuffle
        self._seed = seed
        if buffer < 1:
            raise UsageError("a buffer has at least one byte", hint="leave it out for 32 MiB")
        self._buffer = buffer
        self._place = Place.of(rank, world)
        self._epoch = Epoch()
        self._epoch_is_said = False  # then a state has no say in what comes after its own epoch
        self._pid = os.getpid()
        self._resume: dict[str, Any] | None = None
        self._token = 0  # which call of resume it comes from
        self._progress: Progress | None = None
        self._index: FileIndex | None = None
        self._source: TableSource | None = None
        self._units: list[Unit] | None = None
        self._check()

    def _check(self) -> None:
        if self._table is not None:
            self._source = TableSource(self._opening.archive(), self._table, self._columns)
            return
        index = FileIndex(self._opening.archive(), self._globs)
        index.check(self._opening.place)
        for number in range(len(index)):
            kind_of(index.path(number), self._kind)
        self._index = index

    def __getstate__(self) -> dict[str, Any]:
        # No paths: they are content too, and the archive has them sealed.
        return self.__dict__ | {
            "_index": None,
            "_source": None,
            "_units": None,
            "_progress": None,
            "_place": self._place.kept(),
            "_pid": 0,
        }

    # -- epochs and states -----------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """Which epoch the next iteration reads, in every worker."""
        return self._epoch.value

    def set_epoch(self, epoch: int) -> None:
        """Say it before each epoch; running workers hear of it too."""
        self._epoch.value = epoch
        self._epoch_is_said = True
        self._resume = None

    @property
    def skipped(self) -> int:
        """How many damaged pieces all processes have left out so far."""
        return self._damage.count

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration of this process stands: what torchdata's loader asks for."""
        if self._progress is not None:
            return self._progress.state()
        return {} if self._resume is None else self._resume

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Begin the next iteration of this process where a state was taken. Raises UsageError for
        a state of another dataset."""
        if state:
            check(state, self.fingerprint())
        self._resume = state or None
        self._token = 0
        self._progress = None  # until then this is where it stands
        if state and not self._epoch_is_said:
            self._epoch.value = int(state["epoch"])

    def resume(self, state: dict[str, Any]) -> None:
        """Go on where a `StatefulDataLoader` stood, with any number of workers, exact to the
        record: make a new loader after this. Raises UsageError for a state that is not of this
        dataset."""
        whole = merged(list(states_in(state)), self.fingerprint())
        self.load_state_dict(whole)
        self._epoch.value = int(whole["epoch"])
        self._token = self._epoch.new_token()

    def fingerprint(self) -> str:
        """What the blocks of an epoch depend on: states of anything else are refused."""
        words = (
            *(self._opening.snapshot or ()),
            *self._globs,
            *map(
                str,
                (
                    self._table,
                    self._columns,
                    self._kind,
                    self._shuffle,
                    self._seed,
                    self._buffer,
                    self.rank,
                    self.world,
                ),
            ),
        )
        return hashlib.blake2b("\0".join(words).encode(), digest_size=16).hexdigest()

    # -- reading ---------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        state = self._resume if self._epoch.claim(worker, workers, self._token) else None
        self._resume = None
        epoch = int(state["epoch"]) if state else self.epoch
        self._progress = Progress(epoch, worker, workers, self.fingerprint(), state)
        return self._records(epoch, self._progress)

    def _records(self, epoch: int, progress: Progress) -> Iterator[Any]:
        blocks = self._blocks(epoch)
        archive = self._opening.archive()
        for block in progress.blocks(len(blocks)):
            to_skip, progress.given = progress.given, 0
            for number, window in enumerate(self._windows(archive, blocks[block])):
                skip = min(to_skip, len(window))
                to_skip -= skip
                progress.given += skip
                if skip == len(window):
                    continue
                for records in self._ordered(window, skip, (epoch, block, number)):
                    for record in records:
                        progress.given += 1
                        yield record if self._transform is None else self._transform(record)

    def _blocks(self, epoch: int) -> list[list[Unit]]:
        """The units of this rank in the order of the epoch, put together."""
        units = self._planned()
        if self._shuffle:
            order = permutation(len(units), "units", self._seed, epoch).tolist()
            units = [units[i] for i in order]
        units = units[self.rank :: self.world]
        target = min(self._buffer, sum(unit.size for unit in units) // _BLOCKS)
        blocks: list[list[Unit]] = []
        size = target
        for unit in units:
            if size >= target:
                blocks.append([])
                size = 0
            blocks[-1].append(unit)
            size += unit.size
        return blocks

    def _planned(self) -> list[Unit]:
        """The units of all ranks, in the order in which they lie."""
        archive = self._opening.archive()
        if self._table is not None and (self._source is None or self._pid != os.getpid()):
            # A child of fork must not read by its parent's files of Parquet.
            self._source = TableSource(archive, self._table, self._columns)
        elif self._table is None and self._index is None:
            self._index = FileIndex(archive, self._globs)
        self._pid = os.getpid()
        if self._units is None:
            if self._source is not None:
                self._units = self._source.units()
            else:
                assert self._index is not None
                self._units = plan_units(archive, self._index, self._kind)
        return self._units

    def _windows(self, archive: Archive, units: list[Unit]) -> Iterator[list[Any] | pa.Table]:
        """The records of a block, as many at a time as the buffer takes."""
        window: list[list[Any] | pa.Table] = []
        size = 0
        for unit in units:
            for records, taken in self._pieces(archive, unit):
                window.append(records)
                size += taken
                if size >= self._buffer:
                    yield _joined(window)
                    window, size = [], 0
        if window:
            yield _joined(window)

    def _pieces(self, archive: Archive, unit: Unit) -> Iterator[tuple[Any, int]]:
        for piece in unit.pieces:
            try:
                if self._source is not None:
                    yield from self._source.read(piece)
                else:
                    assert self._index is not None
                    yield from records_of(archive, self._index, unit.kind, piece)
            except IntegrityError as error:
                self._damage.note(named(error, self._name(piece)))

    def _name(self, piece: Piece) -> str:
        if self._source is not None:
            return self._source.name(piece)
        assert self._index is not None
        path = printable(self._index.path(piece.number))
        return f"{path} (bytes {piece.begin} to {piece.end})"

    def _ordered(
        self, window: list[Any] | pa.Table, skip: int, words: tuple[int, int, int]
    ) -> Iterator[list[Any]]:
        """The records of a window, shuffled, less the first ``skip``; some at a time."""
        order: Any = range(len(window))
        if self._shuffle:
            words_of_all = ("records", self._seed, self.rank, *words)
            order = permutation(len(window), *words_of_all).tolist()
        if isinstance(window, list):
            yield [window[number] for number in order[skip:]]
            return
        rows = window.take(pa.array(order[skip:], pa.int64())) if self._shuffle else window[skip:]
        for at in range(0, len(rows), _ROWS):
            yield rows.slice(at, _ROWS).to_pylist()


def _joined(chunks: list[list[Any] | pa.Table]) -> list[Any] | pa.Table:
    """Tables of one schema stay a table, which is a tenth of the size of their rows as objects."""
    first = chunks[0]
    if len(chunks) == 1:
        return first
    if isinstance(first, pa.Table) and all(
        isinstance(chunk, pa.Table) and chunk.schema.equals(first.schema) for chunk in chunks
    ):
        return pa.concat_tables(chunks)
    lists = (c.to_pylist() if isinstance(c, pa.Table) else c for c in chunks)
    return [record for records in lists for record in records]
