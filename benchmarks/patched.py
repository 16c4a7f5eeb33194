"""The pqvault command line with one thing taken out, to see what that thing costs.

    python benchmarks/patched.py copy|plain COMMAND [ARG...]

``copy``: encryption is replaced by a copy. ``plain``: no encryption and no digests either.
What comes out is no archive that anything could read; only the time is of interest.
"""

from __future__ import annotations

import sys

from pqvault.archive import partwriter
from pqvault.crypto import digest
from pqvault.sealed import writer


class CopyWriter:
    """MessageWriter without the cipher: the bytes go through the same buffers."""

    def __init__(self, key: bytes, context: bytes) -> None:
        pass

    def update_into(self, data: bytes | memoryview, out: memoryview) -> int:
        out[: len(data)] = data
        return len(data)

    def finalize(self) -> bytes:
        return b""

    @staticmethod
    def room(size: int) -> int:
        return size


class NoDigest:
    """A hasher that looks at nothing."""

    def update(self, data: object) -> None:
        pass

    def digest(self) -> bytes:
        return bytes(32)


def main() -> None:
    """Patch, then hand over."""
    what, *args = sys.argv[1:]
    if what not in ("copy", "plain"):
        raise SystemExit(__doc__)
    writer.MessageWriter = CopyWriter  # type: ignore[assignment,misc]
    partwriter._read_back = lambda *_: None  # type: ignore[assignment]
    if what == "plain":
        real = digest.new
        # Key ids are digests too, and must stay what they are.
        partwriter.digests.new = lambda name="": real(name) if not name else NoDigest()
    from pqvault_cli.main import main as cli

    cli(args)


if __name__ == "__main__":
    main()
