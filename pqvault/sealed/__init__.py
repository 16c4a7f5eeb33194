"""One object: ``Cobblestone-256( zstd-seekable( bytes ) )``. Seal it in order, read it anywhere."""

from pqvault.sealed.inorder import InOrderReader
from pqvault.sealed.reader import RangeFile, SealedReader
from pqvault.sealed.writer import SealedWriter

__all__ = ["InOrderReader", "RangeFile", "SealedReader", "SealedWriter"]
