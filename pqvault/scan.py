"""Find archives and sealed streams below a folder, and note which keys open them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from pqvault.archive.finding import find, unfollowed
from pqvault.archive.inspect import Inspection, inspect
from pqvault.archive.layout import listed_ids, open_logs
from pqvault.errors import FormatError, NotFound, PQVaultError
from pqvault.format.envelope import Envelope
from pqvault.format.textdoc import MAX_SIZE
from pqvault.ids import now
from pqvault.keystore import index
from pqvault.keystore.index import STREAM
from pqvault.storage import Storage, storage_at

__all__ = ["ScanReport", "scan"]


@dataclass(slots=True)
class ScanReport:
    """``found``: (path, key ids). ``gone``: entries of the index that are no longer there.
    ``warnings``: of what was left out."""

    found: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    gone: int = 0
    problems: list[PQVaultError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def scan(folder: str | os.PathLike[str]) -> ScanReport:
    """Bring the keystore's index up to date for all that is below ``folder``.

    Reads public values only. Raises NotFound for no such folder, or no keystore.
    """
    root = Path(os.path.abspath(folder))
    if not root.is_dir():
        raise NotFound(f"there is no folder {root}", hint="check the path")
    report = ScanReport()
    rows: list[index.Row] = []
    began = now()
    for path in find(root):
        try:
            if path.exists() and not (path.is_dir() or path.is_file()):
                raise FormatError(f"{path} is not a regular file", hint="move it elsewhere")
            found = inspect(path)
        except PQVaultError as error:
            report.problems.append(error)
            continue
        report.problems += found.problems
        keys = _key_ids(found, report.problems)
        report.found.append((str(path), keys))
        rows += [(found.archive or STREAM, str(path), key_id) for key_id in keys]
    done = {os.path.realpath(path) for path, _ in report.found}
    report.warnings += unfollowed([root], done)
    # What could not be read is not gone.
    keep = [str(path) for path in find(root)] if report.problems else []
    report.gone = index.replace_below(str(root), rows, keep, since=began)
    return report


def _key_ids(found: Inspection, problems: list[PQVaultError]) -> tuple[str, ...]:
    envelopes = [found.envelope, *(part.envelope for part in found.parts)]
    ids = {key_id for e in envelopes if e is not None for _, key_id in e.recipients}
    if found.archive is not None:
        ids |= _of_open_logs(storage_at(found.path), problems)
    return tuple(sorted(ids))


def _of_open_logs(storage: Storage, problems: list[PQVaultError]) -> set[str]:
    """The keys that alone open what logs have written and not yet committed."""
    known = {id for folder in ("commits", "removed") for id in listed_ids(storage, folder)[0]}
    ids = set[str]()
    for name in open_logs(storage, known):
        try:
            envelope = Envelope.parse(storage.read(name, MAX_SIZE), name)
            ids.update(envelope.key_ids)
        except PQVaultError as error:
            problems.append(error)
    return ids
