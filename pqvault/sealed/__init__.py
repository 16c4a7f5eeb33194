"""One object: ``Cobblestone-256( zstd-seekable( bytes ) )``. Seal it in order, read it anywhere."""

from pqvault.sealed.framecache import FrameCache
from pqvault.sealed.inorder import InOrderReader
from pqvault.sealed.rangefile import RangeFile
from pqvault.sealed.reader import SealedReader
from pqvault.sealed.writer import SealedWriter

__all__ = ["FrameCache", "InOrderReader", "RangeFile", "SealedReader", "SealedWriter"]
