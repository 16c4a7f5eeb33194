"""Find liboqs, look at its version, and only then import `oqs`.

``import oqs`` clones liboqs from the network and builds it with a shell when it finds no shared
library (ATTACKS row 22), and writes to standard output. So the library is looked for here, in the
places where `oqs` looks, without a program being run; `oqs` is imported only when it is there and
made to load the very file that was looked at.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib
import logging
import os
import re
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from pqvault.errors import PQVaultError

__all__ = ["FLOOR", "Library", "find", "load", "wrapper_version"]

FLOOR: Final = (0, 15)  # of liboqs and of liboqs-python: the oldest that was tested
# What the loader may know it by. liboqs 0.15 and 0.16 have SONAME 9; later ones count on.
_NAMES: Final = ("liboqs.so", *(f"liboqs.so.{number}" for number in range(9, 30)))
_HINT: Final = (
    "install liboqs 0.15 or newer as a shared library (below ~/_oqs or OQS_INSTALL_PATH, or where"
    " the system's loader looks) and `pip install pqvault[liboqs]`; pqvault neither downloads nor"
    " builds it"
)
_once = threading.Lock()


@dataclass(frozen=True, slots=True)
class Library:
    """A shared library. ``where``: a path, or the name that the loader knows it by."""

    where: str
    version: str


def find() -> Library | None:
    """liboqs, if it is there: OQS_INSTALL_PATH or else ``~/_oqs``, then where the loader looks.

    Loads it to ask for its version. Runs no program and touches no network. Raises PQVaultError
    for a version below the floor, or a file that is no liboqs.
    """
    for where in (*_files(), *_NAMES):
        try:
            library = ctypes.CDLL(where)
        except OSError:
            continue
        return Library(where, _version_of(library, where))
    return None


def _files() -> Iterator[str]:
    root = os.environ.get("OQS_INSTALL_PATH")
    try:
        folder = Path(root) if root else Path.home() / "_oqs"
    except RuntimeError:  # a user without a home
        return
    for name in ("lib", "lib64"):
        path = folder.absolute() / name / "liboqs.so"
        if path.is_file():
            yield str(path)


def _version_of(library: ctypes.CDLL, where: str) -> str:
    try:
        ask = library.OQS_version
    except AttributeError:
        raise PQVaultError(f"{where} is not liboqs", hint=_HINT) from None
    ask.restype = ctypes.c_char_p
    version = (ask() or b"").decode("ascii", "replace")
    _check_floor(version, f"liboqs in {where}")
    return version


def _check_floor(version: str, what: str) -> None:
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < FLOOR:
        floor = ".".join(map(str, FLOOR))
        raise PQVaultError(
            f"{what} has version {version[:40]!r}, and it must be {floor} or newer", hint=_HINT
        )


def wrapper_version() -> str | None:
    """The version of liboqs-python, None when it is not installed. Imports nothing of it."""
    from importlib import metadata  # 10 ms, for who asks

    try:
        return metadata.version("liboqs-python")
    except metadata.PackageNotFoundError:
        return None


def load() -> tuple[ModuleType, Library]:
    """The module `oqs`, and the library that it uses. Raises PQVaultError that says what lacks."""
    with _once:
        version = wrapper_version()
        if version is None:
            raise PQVaultError("liboqs-python is not installed", hint=_HINT)
        _check_floor(version, "liboqs-python")
        library = find()
        if library is None:
            raise PQVaultError("no shared library of liboqs is found", hint=_HINT)
        return _import(library), library


def _import(library: Library) -> ModuleType:
    # It logs to standard output, where content goes.
    logging.getLogger("oqs.oqs").disabled = True
    real: Any = ctypes.util.find_library
    # The real one runs ldconfig and a compiler, and might find another library than we did.
    ctypes.util.find_library = lambda name: library.where
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about versions of wrapper and library that differ
            return importlib.import_module("oqs")
    except (ImportError, AttributeError, RuntimeError) as error:
        raise PQVaultError(
            f"liboqs-python does not work with liboqs {library.version}: {error}", hint=_HINT
        ) from None
    finally:
        ctypes.util.find_library = real
