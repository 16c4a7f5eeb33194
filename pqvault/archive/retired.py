"""Keys that nothing more is to be sealed to: records in ``retired/``. docs/format.md 5.4.

A host that seals holds no private key, so it cannot check a record: the name counts. Whoever can
write there can keep others from sealing to a key, as who can delete files can do worse.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

from pqvault.archive import layout
from pqvault.archive.part import OpenPart
from pqvault.errors import FormatError, PolicyRefused, PQVaultError
from pqvault.format.retired import Retired
from pqvault.format.textdoc import MAX_SIZE
from pqvault.rootkey import RootKey
from pqvault.storage import Storage

__all__ = ["check", "problems", "read_record", "refuse", "retire", "retired_ids"]

FOLDER = "retired"


def retired_ids(storage: Storage) -> set[str]:
    """The key ids that are retired in an archive."""
    return set(layout.listed_ids(storage, FOLDER)[0])


def check(storage: Storage, key_ids: Iterable[str]) -> None:
    """Raise PolicyRefused when one of ``key_ids`` is retired in an archive."""
    refuse(storage, retired_ids(storage) & set(key_ids))


def refuse(storage: Storage, key_ids: Iterable[str]) -> None:
    """Raise PolicyRefused naming the retired ``key_ids``, if there are any."""
    if refused := sorted(key_ids):
        raise PolicyRefused(
            f"{', '.join(refused)} is retired in {storage.where('')}: whoever has it is no longer"
            " to open what is added",
            hint="take it off the recipients of this run, or pass --allow-retired",
        )


def retire(storage: Storage, key: RootKey, key_id: str) -> None:
    """Write the record, once. ``key``: of a part of the archive, which vouches for it."""
    record = key.retire(key_id, created=int(time.time() * 1000))
    storage.make_folder(FOLDER)
    storage.put_new(layout.retired_name(key_id), record.marshal())


def read_record(storage: Storage, archive: str, key_id: str) -> Retired:
    """A record, unverified. Raises NotFound, FormatError."""
    name = layout.retired_name(key_id)
    record = Retired.parse(storage.read(name, MAX_SIZE), name)
    if (record.archive, record.key_id) != (archive, key_id):
        raise FormatError(f"{name} belongs to another archive or key, and was copied here")
    return record


def problems(
    storage: Storage, archive: str, opened: Mapping[str, OpenPart]
) -> Iterator[PQVaultError]:
    """What is wrong with the records, as far as the parts that are open can tell."""
    for key_id in sorted(retired_ids(storage)):
        try:
            record = read_record(storage, archive, key_id)
            if record.part in opened:
                opened[record.part].check_retired(record, layout.retired_name(key_id))
        except PQVaultError as error:
            yield error
