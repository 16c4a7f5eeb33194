"""Write the vectors of streams, archives and views again: ``python -m vectors.generate`` from the
root.

What comes out is the same each time, byte for byte. A vector that needs a root key wrapped that is
not in ``wrapped.json``, or a signature that is not in ``views.json``, is an error; with
``--new-wraps`` it is made and put there. Without these files all of them are.
"""

from __future__ import annotations

import sys
from pathlib import Path

from vectors import archives, streams, views
from vectors.registry import write_files
from vectors.testkit import HERE, WRAPS

__all__ = ["FOLDERS", "main", "make_all"]

FOLDERS = {"stream": HERE / "streams", "archive": HERE / "archives", "view": views.FOLDER}
SUFFIX = ".vec"


def make_all() -> dict[Path, bytes]:
    """Every vector: the path of its file, and the bytes that belong there."""
    files: dict[Path, bytes] = {}
    for case in [*streams.CASES, *archives.CASES]:
        vector = case.vector()
        path = FOLDERS[vector.kind] / (vector.name + SUFFIX)
        assert path not in files, f"two vectors are named {vector.name}"
        files[path] = vector.marshal()
    files |= views.make_all()
    assert len(set(files.values())) == len(files), "two vectors are the same"
    return files


def main(arguments: list[str]) -> None:
    """Write them, and remove those that are made no more."""
    if arguments not in ([], ["--new-wraps"]):
        raise SystemExit(__doc__)
    WRAPS.start(new=bool(arguments))
    views.KNOWN.new = bool(arguments)
    files = make_all()
    WRAPS.save()
    views.KNOWN.save()
    for folder in FOLDERS.values():
        write_files(folder, {path: data for path, data in files.items() if path.parent == folder})
    print(f"{sum(map(len, files.values())) / 1e6:.1f} MB")


if __name__ == "__main__":
    main(sys.argv[1:])
