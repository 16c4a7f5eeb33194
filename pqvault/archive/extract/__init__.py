"""Write entries below a target folder, and nowhere else: the last wall of ``unseal``.

Nothing here knows keys or formats. What an archive says is authenticated, but only as far
as "someone who knew the public keys sealed it", so every name is taken as hostile:

- each step below the target is one component, opened relative to its parent's handle with
  ``O_NOFOLLOW``: no ``..``, no planted symbolic link, no race leads outside, and no path is
  too long or too deep;
- a file is written under a temporary name beside its own and renamed when it is whole;
- symbolic links are made last, so that nothing can be written through them;
- modes and times of folders are set last, children first; until then folders are 0o700.
"""

from pqvault.archive.extract.extractor import Extractor, Links, Report, Skipped
from pqvault.archive.extract.place import Place
from pqvault.archive.extract.trouble import TargetFull
from pqvault.archive.extract.writer import FileSink, FileWriter

__all__ = [
    "Extractor",
    "FileSink",
    "FileWriter",
    "Links",
    "Place",
    "Report",
    "Skipped",
    "TargetFull",
]
