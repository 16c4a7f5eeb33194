"""Find archives and sealed streams below a folder, and note which keys open them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from pqvault.archive.finding import find
from pqvault.archive.inspect import Inspection, inspect
from pqvault.errors import NotFound, PQVaultError
from pqvault.keystore import index

__all__ = ["STREAM", "ScanReport", "scan"]

STREAM = "stream"  # what the index calls the archive of a sealed stream


@dataclass(slots=True)
class ScanReport:
    """``found``: (path, key ids). ``gone``: entries of the index that are no longer there."""

    found: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    gone: int = 0
    problems: list[PQVaultError] = field(default_factory=list)


def scan(folder: str | os.PathLike[str]) -> ScanReport:
    """Bring the keystore's index up to date for all that is below ``folder``.

    Reads public values only. Raises NotFound for no such folder, or no keystore.
    """
    root = Path(os.path.abspath(folder))
    if not root.is_dir():
        raise NotFound(f"there is no folder {root}")
    report = ScanReport()
    rows: list[index.Row] = []
    for path in find(root):
        try:
            found = inspect(path)
        except PQVaultError as error:
            report.problems.append(error)
            continue
        report.problems += found.problems
        keys = _key_ids(found)
        report.found.append((str(path), keys))
        rows += [(found.archive or STREAM, str(path), key_id) for key_id in keys]
    # What could not be read is not gone.
    keep = [str(path) for path in find(root)] if report.problems else []
    report.gone = index.replace_below(str(root), rows, keep)
    return report


def _key_ids(found: Inspection) -> tuple[str, ...]:
    envelopes = [found.envelope, *(part.envelope for part in found.parts)]
    ids = {key_id for e in envelopes if e is not None for _, key_id in e.recipients}
    return tuple(sorted(ids))
