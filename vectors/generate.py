"""Write every vector again: ``python -m vectors.generate [--new-wraps]`` from the root.

What comes out is the same each time, byte for byte. A vector that needs a root key wrapped that is
not in ``wrapped.json`` is an error; with ``--new-wraps`` it is wrapped and put there. Without that
file all of them are.
"""

from __future__ import annotations

import sys
from pathlib import Path

from vectors import archives, streams
from vectors.testkit import HERE, WRAPS

__all__ = ["FOLDERS", "main", "make_all"]

FOLDERS = {"stream": HERE / "streams", "archive": HERE / "archives"}
SUFFIX = ".vec"


def make_all() -> dict[Path, bytes]:
    """Every vector: the path of its file, and the bytes that belong there."""
    files: dict[Path, bytes] = {}
    for case in [*streams.CASES, *archives.CASES]:
        vector = case.vector()
        path = FOLDERS[vector.kind] / (vector.name + SUFFIX)
        assert path not in files, f"two vectors are named {vector.name}"
        files[path] = vector.marshal()
    assert len(set(files.values())) == len(files), "two vectors are the same"
    return files


def main(arguments: list[str]) -> None:
    """Write them, and remove those that are made no more."""
    if arguments not in ([], ["--new-wraps"]):
        raise SystemExit(__doc__)
    WRAPS.start(new=bool(arguments))
    files = make_all()
    WRAPS.save()
    for folder in FOLDERS.values():
        folder.mkdir(exist_ok=True)
        for path in folder.glob("*" + SUFFIX):
            if path not in files:
                path.unlink()
    for path, data in files.items():
        path.write_bytes(data)
    print(f"{len(files)} vectors, {sum(map(len, files.values())) / 1e6:.1f} MB")


if __name__ == "__main__":
    main(sys.argv[1:])
