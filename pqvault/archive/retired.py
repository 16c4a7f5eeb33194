"""Keys that nothing more is to be sealed to: records in ``retired/``. docs/format.md 5.4.

A host that seals holds no private key, so it cannot check a record's MAC: the name counts. Whoever
can write there can keep others from sealing to a key, as who can delete files can do worse. Where
the operator signs, a host with a policy can tell whose record it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pqvault.archive import layout
from pqvault.errors import FormatError, NotFound, PolicyRefused, PQVaultError
from pqvault.format.retired import Retired
from pqvault.format.textdoc import MAX_SIZE
from pqvault.ids import now
from pqvault.policy import ANYBODY, Policy
from pqvault.rootkey import RootKey
from pqvault.signing import SigningKey, sign_document
from pqvault.storage import Storage

if TYPE_CHECKING:  # it imports pyarrow
    from pqvault.archive.part import OpenPart

__all__ = ["check", "problems", "read_record", "refuse", "retire", "retired_ids", "whose"]

FOLDER = "retired"


def retired_ids(storage: Storage) -> set[str]:
    """The key ids that are retired in an archive."""
    return set(layout.listed_ids(storage, FOLDER)[0])


def check(storage: Storage, key_ids: Iterable[str], policy: Policy = ANYBODY) -> None:
    """Raise PolicyRefused when one of ``key_ids`` is retired in an archive."""
    refuse(storage, retired_ids(storage).intersection(key_ids), policy)


def refuse(storage: Storage, key_ids: Iterable[str], policy: Policy) -> None:
    """Raise PolicyRefused naming the retired ``key_ids``, if there are any."""
    if refused := sorted(key_ids):
        named = ", ".join(key_id + whose(storage, key_id, policy) for key_id in refused)
        raise PolicyRefused(
            f"{named} is retired in {storage.where('')}: whoever has it is no longer to open what"
            " is added",
            hint="take it off the recipients of this run, or pass --allow-retired",
        )


def whose(storage: Storage, key_id: str, policy: Policy) -> str:
    """What a policy has to say of a record, in brackets; nothing when it names no signers."""
    if not policy.demands:
        return ""
    name = layout.retired_name(key_id)
    try:
        record = read_record(storage, layout.read_header(storage), key_id)
        signers = policy.signed_by(record, name)
    except PQVaultError as error:
        return f" ({error.message})"
    return f" (signed by {', '.join(signers)})" if signers else " (by nobody who is trusted)"


def retire(storage: Storage, key: RootKey, key_id: str, sign: Sequence[SigningKey] = ()) -> bool:
    """Write the record; False when it was there, signed by all of ``sign``.

    ``key``: of a part of the archive, which vouches for it.
    """
    name = layout.retired_name(key_id)
    try:
        there = read_record(storage, key.archive, key_id)
        own = Policy.of(signing_key.signer for signing_key in sign)
        if len(own.signed_by(there, name)) == len(sign):
            return False
    except (NotFound, FormatError, PolicyRefused):
        pass  # there is none, or one that vouches for nothing
    record = sign_document(key.retire(key_id, created=now()), sign)
    storage.make_folder(FOLDER)
    storage.put(name, record.marshal())
    return True


def read_record(storage: Storage, archive: str, key_id: str) -> Retired:
    """A record, unverified. Raises NotFound, FormatError."""
    name = layout.retired_name(key_id)
    record = Retired.parse(storage.read(name, MAX_SIZE), name)
    if (record.archive, record.key_id) != (archive, key_id):
        raise FormatError(f"{name} belongs to another archive or key, and was copied here")
    return record


def problems(
    storage: Storage, archive: str, opened: Mapping[str, OpenPart], policy: Policy
) -> Iterator[PQVaultError]:
    """What is wrong with the records, as far as the parts that are open can tell, and whether
    they bear a wrong signature in the name of somebody whom ``policy`` trusts."""
    for key_id in sorted(retired_ids(storage)):
        try:
            record = read_record(storage, archive, key_id)
            policy.signed_by(record, layout.retired_name(key_id))
            if record.part in opened:
                opened[record.part].key.check_retired(record, layout.retired_name(key_id))
        except PQVaultError as error:
            yield error
