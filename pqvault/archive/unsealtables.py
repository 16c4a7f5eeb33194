"""Tables of an archive as the Parquet files that an unseal makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from pqvault.archive.archive import Archive
from pqvault.archive.entryfile import naming
from pqvault.archive.extract import FileWriter
from pqvault.archive.globs import Globs
from pqvault.errors import PQVaultError
from pqvault.names import printable

__all__ = ["Tables"]


@dataclass(frozen=True, slots=True)
class Tables:
    """Those that are extracted. ``folder``: what is cut off all paths; ``globs``: what of the
    archive is extracted, all when there are none."""

    archive: Archive
    folder: bytes
    globs: Globs

    def write(
        self,
        path: bytes,
        files: FileWriter,
        check: Callable[[], object],
        on_bytes: Callable[[int], object],
    ) -> list[str]:
        """Write a table, with all that its parts hold and the keys at hand open; returns what was
        left out. ``path``: without ``folder``. ``check`` and ``on_bytes`` may raise to end it.
        Raises PQVaultError that names the file."""
        # Only here: they import 100 ms of pyarrow.
        from pqvault.archive.tableparquet import MAX_TABLE, parquet_name, write_parquet
        from pqvault.archive.tablerows import TableRows

        name = parquet_name(path)
        if name != path and self._is_extracted(name):
            raise PQVaultError(
                f"{printable(path)} cannot be extracted as {printable(name)}: another entry has"
                " that name",
                hint="`pqvault table export` writes it wherever you say",
            )
        with naming(printable(name)):
            rows = TableRows(self.archive.find_table(self._whole(path)))
            target = replace(rows.entries[-1].entry, path=name, size=MAX_TABLE)
            with files.open_file(target) as sink:
                sink.commit(write_parquet(rows, sink.pwrite, check, on_bytes))
        if not rows.hidden:
            return []
        return [f"{rows.what}: its columns {', '.join(sorted(rows.hidden))} are sealed to others"]

    def _is_extracted(self, path: bytes) -> bool:
        path = self._whole(path)
        wanted = not self.globs or self.globs.match(path)
        return wanted and self.archive.view.find(path) is not None

    def _whole(self, path: bytes) -> bytes:
        return self.folder + b"/" + path if self.folder else path
