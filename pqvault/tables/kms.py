"""A key management service for Parquet's own encryption, without a service: a keyset.

For who writes encrypted Parquet with `pyarrow.parquet.encryption.CryptoFactory`, or with Spark,
and wants the keys of its files wrapped to post-quantum recipients::

    kms = Kms(Keyset.open("lake-keys.pqv", identities=[key]))
    kms.write_table(table, "users.parquet", footer_key="lake", column_keys={"pii": ["email"]})
    kms.read_table("users.parquet", columns=["country"])

What Parquet's tools get wrong by default is right here, or refused: data keys of 256 bits (its
double wrapping has 128 whatever is asked for), every column encrypted (its own settings leave
those without a key in the clear), and a plaintext file in the place of an encrypted one is not
read. A file is bound to its keys but not to its name: who can write can swap two whole files
of one keyset. Sealed tables (`pqvault.tables`) do not have that gap.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe

from pqvault.errors import FormatError, IntegrityError, NotFound, UsageError
from pqvault.format.keyset import is_name
from pqvault.keyset import Keyset
from pqvault.storage.base import explained
from pqvault.storage.replacing import copy_owner, is_named, lock_file
from pqvault.tablefile.encryption import MAGIC
from pqvault.tablefile.schemas import leaf_paths
from pqvault.wholefile import whole_file

__all__ = ["Kms", "KmsClient", "check_encrypted", "column_paths", "material_path"]

_MAX_MATERIAL: Final = 16 * 1024 * 1024  # bytes of a file of key material: 32,767 keys fit
_CACHED: Final = 4_096  # data keys; Parquet asks anew for each column of each row group

ColumnKeys = Mapping[str, Sequence[str]]


class KmsClient(pe.KmsClient):  # type: ignore[misc]
    """What a `CryptoFactory` asks: `CryptoFactory(lambda config: KmsClient(keyset))`."""

    def __init__(self, keyset: Keyset) -> None:
        super().__init__()
        self._keyset = keyset
        self._cache: dict[tuple[str, str], bytes] = {}

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> str:
        """A reference to a data key of 256 bits. Raises UsageError for a shorter one, NotFound."""
        return self._keyset.wrap(bytes(key_bytes), master_key_identifier)

    def unwrap_key(self, wrapped_key: str, master_key_identifier: str) -> bytes:
        """The data key. Raises FormatError, NotFound, IntegrityError."""
        asked = (wrapped_key, master_key_identifier)
        key = self._cache.get(asked)
        if key is None:
            key = self._keyset.unwrap(*asked)
            if len(self._cache) >= _CACHED:
                self._cache.clear()
            self._cache[asked] = key
        return key


class Kms:
    """A keyset, and Parquet's settings made right for it. Use it from one process."""

    def __init__(self, keyset: Keyset) -> None:
        self.keyset = keyset
        self.connection = pe.KmsConnectionConfig()
        self._client = KmsClient(keyset)
        self.factory = pe.CryptoFactory(lambda _: self._client)

    # -- Parquet's own objects, for who calls pyarrow directly

    def encryption(
        self,
        schema: pa.Schema,
        *,
        footer_key: str,
        column_keys: ColumnKeys | None = None,
        external: bool = False,
    ) -> pe.EncryptionConfiguration:
        """Settings that encrypt every column of a schema with AES-256-GCM.

        ``column_keys``: master key -> columns (a name, or the path of a leaf: `a.list.element`);
        all others, and the footer, are under ``footer_key``. ``external``: keep the wrapped keys
        in a file beside (`_KEY_MATERIAL_FOR_…`), which can be rotated. Raises NotFound for a
        master key that is not there, UsageError for a column that is not, or is given twice.
        """
        for name in (footer_key, *(column_keys or ())):
            if name not in self.keyset.names:
                raise NotFound(
                    f"the keyset {self.keyset.path} has no master key {name!r}",
                    hint="`pqvault keyset add` makes one",
                )
        keys = _covering(schema, footer_key, column_keys) if column_keys else None
        return pe.EncryptionConfiguration(
            footer_key,
            column_keys=keys,
            uniform_encryption=keys is None,
            encryption_algorithm="AES_GCM_V1",
            plaintext_footer=False,
            double_wrapping=False,
            internal_key_material=not external,
            data_key_length_bits=256,
        )

    def encryption_properties(
        self, path: str | os.PathLike[str], config: pe.EncryptionConfiguration
    ) -> Any:
        """For one `ParquetWriter` of one file: every file gets keys of its own."""
        where = None if config.internal_key_material else os.fspath(path)
        return self.factory.file_encryption_properties(self.connection, config, where)

    def decryption_properties(self, path: str | os.PathLike[str]) -> Any:
        """For one file, after it was looked at: these properties would read a plaintext one too.

        Raises IntegrityError when the file is not encrypted from head to foot.
        """
        check_encrypted(path)
        external = os.path.exists(material_path(path))
        where = os.fspath(path) if external else None
        return self.factory.file_decryption_properties(self.connection, None, where)

    # -- whole files

    def write_table(
        self,
        table: pa.Table,
        path: str | os.PathLike[str],
        *,
        footer_key: str,
        column_keys: ColumnKeys | None = None,
        external: bool = False,
        row_group_size: int | None = None,
        **options: Any,
    ) -> None:
        """A table as one encrypted file. ``options``: of `pyarrow.parquet.ParquetWriter`.

        Raises as :meth:`encryption` does.
        """
        config = self.encryption(
            table.schema, footer_key=footer_key, column_keys=column_keys, external=external
        )
        properties = self.encryption_properties(path, config)
        with pq.ParquetWriter(path, table.schema, encryption_properties=properties, **options) as w:
            w.write_table(table, row_group_size)

    def open(self, path: str | os.PathLike[str]) -> pq.ParquetFile:
        """The file, after :func:`check_encrypted`. Raises IntegrityError, NotFound."""
        with _as_errors(path):
            return pq.ParquetFile(path, decryption_properties=self.decryption_properties(path))

    def read_table(
        self, path: str | os.PathLike[str], columns: Sequence[str] | None = None
    ) -> pa.Table:
        """All rows of one file. Raises IntegrityError for a file that was altered, NotFound."""
        with _as_errors(path), self.open(path) as file:
            return file.read(columns=None if columns is None else list(columns))

    def dataset(self, paths: Iterable[str | os.PathLike[str]]) -> ds.Dataset:
        """Files of one schema as a dataset with projection and filter pushdown.

        Every file is looked at as by :func:`check_encrypted`. Arrow asks for keys on threads of
        its own: read a scan to its end (`head` does), because a process that ends in the middle
        of one can hang (apache/arrow#50482). Raises IntegrityError.
        """
        fragments, schema = [], None
        file_system = pa.fs.LocalFileSystem()
        for path in [os.fspath(each) for each in paths]:
            with _as_errors(path):
                properties = self.decryption_properties(path)
                if schema is None:
                    schema = self.open(path).schema_arrow
                options = ds.ParquetFragmentScanOptions(decryption_properties=properties)
                form = ds.ParquetFileFormat(default_fragment_scan_options=options)
                fragments.append(form.make_fragment(path, file_system))
        if schema is None:
            raise UsageError("no file is named")
        return _Dataset(fragments, schema, fragments[0].format, file_system)

    # -- rotation

    def rotate_material(self, path: str | os.PathLike[str]) -> int:
        """Wrap the data keys of one file anew, under the newest versions of their master keys;
        returns how many were not. The Parquet file is not touched.

        Only for files with external key material. The new material takes the old one's place
        whole or not at all, under a lock (Arrow's own `rotate_master_keys` does neither).
        Raises NotFound, FormatError, IntegrityError, Locked.
        """
        where = material_path(path)
        with explained("open", where):
            try:
                fd = os.open(where, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                raise NotFound(
                    f"{os.fspath(path)} has no key material beside it",
                    hint="keys that are in the file stay as they are: write it anew to change them",
                ) from None
        with open(fd, "rb", buffering=0) as file:
            lock_file(fd, where)
            if not is_named(fd, where):
                return self.rotate_material(path)
            material = _parse_material(file.read(_MAX_MATERIAL + 1), where)
            changed = sum(map(self._rewrap, material.values()))
            if changed:
                data = json.dumps(
                    {name: _compact(value) for name, value in material.items()},
                    separators=(",", ":"),
                )
                with whole_file(where, force=True) as out:
                    copy_owner(out.fileno(), os.fstat(fd))
                    out.write(data.encode())
            return changed

    def _rewrap(self, material: dict[str, Any]) -> bool:
        reference, name = material["wrappedDEK"], material["masterKeyID"]
        if self.keyset.is_newest(reference, name):
            return False
        material["wrappedDEK"] = self.keyset.wrap(self.keyset.unwrap(reference, name), name)
        return True


class _Dataset(ds.FileSystemDataset):  # type: ignore[misc]
    """Its head ends no process: pyarrow's own leaves threads behind that ask for keys."""

    def head(self, num_rows: int, columns: Any = None, filter: Any = None, **_: Any) -> pa.Table:
        """The first rows, read row group by row group; nothing is read ahead of them."""
        found: list[pa.Table] = []
        left = num_rows
        for fragment in self.get_fragments():
            for group in fragment.split_by_row_group(filter) if left > 0 else ():
                if left > 0:
                    found.append(group.to_table(columns=columns, filter=filter).slice(0, left))
                    left -= len(found[-1])
        empty = self.schema.empty_table()
        return pa.concat_tables([ds.dataset(empty).to_table(columns=columns), *found])


def check_encrypted(path: str | os.PathLike[str]) -> None:
    """Raise IntegrityError unless a file begins and ends as encrypted Parquet does, with its
    footer encrypted too: Parquet's readers take a plaintext file without a word."""
    where = os.fspath(path)
    with explained("open", where), open(where, "rb") as file:
        head = file.read(4)
        size = os.fstat(file.fileno()).st_size
        foot = os.pread(file.fileno(), 4, max(0, size - 4))
    if head != MAGIC or foot != MAGIC or size < 12:
        raise IntegrityError(
            f"{where} is not encrypted Parquet with an encrypted footer",
            hint="a plaintext file in its place is not read: find out who put it there",
        )


def material_path(path: str | os.PathLike[str]) -> str:
    """Where Arrow and Spark keep the external key material of a file."""
    folder, name = os.path.split(os.fspath(path))
    return os.path.join(folder, f"_KEY_MATERIAL_FOR_{name}.json")


def column_paths(schema: pa.Schema) -> list[str]:
    """The paths of all leaf columns, as Parquet names them: `messages.list.element.role`."""
    with explained("write", "a schema"):
        return leaf_paths(schema)


def _covering(schema: pa.Schema, footer_key: str, column_keys: ColumnKeys) -> dict[str, list[str]]:
    """A key for every leaf: what is not named is under the footer's."""
    leaves = column_paths(schema)
    if len(set(leaves)) != len(leaves):
        raise UsageError("two columns have one path in Parquet, so no key can be said for one")
    chosen: dict[str, str] = {}
    for key, columns in column_keys.items():
        for column in columns:
            found = [leaf for leaf in leaves if leaf == column or leaf.startswith(f"{column}.")]
            if not found:
                raise UsageError(f"there is no column {column!r} to encrypt with {key!r}")
            for leaf in found:
                if chosen.setdefault(leaf, key) != key:
                    raise UsageError(f"the column {leaf!r} is given two keys")
    covered: dict[str, list[str]] = {}
    for leaf in leaves:
        # Parquet's settings are text, split at these and stripped of blanks.
        if any(mark in leaf for mark in ",:;") or leaf != leaf.strip():
            raise UsageError(
                f"the column {leaf!r} cannot be given a key in Parquet: its name has , : ; or"
                " blanks around",
                hint="rename it, or leave column_keys out: all columns are under one key then",
            )
        covered.setdefault(chosen.get(leaf, footer_key), []).append(leaf)
    return covered


def _parse_material(data: bytes, where: str) -> dict[str, dict[str, Any]]:
    """Each key's material. Raises FormatError for anything but single wrapping."""
    if len(data) > _MAX_MATERIAL:
        raise FormatError(f"{where} is over {_MAX_MATERIAL} bytes")
    try:
        found = {name: json.loads(text) for name, text in json.loads(data).items()}
        for material in found.values():
            if material["keyMaterialType"] != "PKMT1" or material["doubleWrapping"] is not False:
                raise FormatError(
                    f"{where} has keys that are wrapped twice, under keys of 128 bits",
                    hint="write the file anew with double_wrapping=False",
                )
            name, reference = material["masterKeyID"], material["wrappedDEK"]
            if not isinstance(reference, str) or not is_name(name):
                raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise FormatError(f"{where} is not the key material of a Parquet file") from None
    return found


def _compact(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


@contextmanager
def _as_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """What Parquet says of a damaged file, as an error of pqvault."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        words = " ".join(str(error).split())[:200]
        raise IntegrityError(f"{os.fspath(path)} cannot be read: {words}") from None
