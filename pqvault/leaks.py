"""Where host libraries and the system leave plaintext on disks, and what to set against it.

Only looks: at names, sizes and owners, never into files. What lies in memory (tmpfs) or on a disk
that dm-crypt encrypts is no leak. Linux; a place that cannot be looked at is left out.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Leak", "find"]

_MOST: Final = 100_000  # files counted in one place; a cache of millions must not take minutes

MEMORY: Final = "memory"
ENCRYPTED: Final = "encrypted disk"
DISK: Final = "disk"


@dataclass(frozen=True, slots=True)
class Leak:
    """A place where plaintext may come to lie.

    ``on``: ``memory``, ``encrypted disk``, ``disk``, or "" where there is none. ``files``, ``size``
    (bytes): what lies there now and looks like a library's; ``set``: what to set against it.
    """

    place: str
    path: str
    on: str
    files: int
    size: int
    set: str

    @property
    def leaking(self) -> bool:
        """Whether something lies there where it can be read without a key."""
        return self.on == DISK and self.files > 0

    @property
    def open(self) -> bool:
        """Whether something could come to lie there."""
        return self.on == DISK


def find() -> list[Leak]:
    """All places, those that leak now first."""
    found = [leak for look in _LOOKS for leak in look()]
    return sorted(found, key=lambda leak: (not leak.leaking, not leak.open))


# -- host libraries --------------------------------------------------------------------------


def _hugging_face() -> Iterator[Leak]:
    home = _folder("HF_HOME") or _cache() / "huggingface"
    data = _folder("HF_DATASETS_CACHE") or home / "datasets"
    yield _look(
        "Hugging Face datasets",
        data,
        "load with streaming=True; where that cannot be, HF_DATASETS_CACHE on /dev/shm or on an"
        " encrypted disk, and delete this folder",
        lambda name: not name.endswith((".lock", ".json")),
    )
    hub = _folder("HF_HUB_CACHE") or home / "hub"
    yield _look(
        "Hugging Face hub",
        hub,
        "HF_HUB_CACHE on an encrypted disk, if what is downloaded or uploaded is not public",
    )


def _lightning() -> Iterator[Leak]:
    yield _look(
        "litData chunks",
        _folder("DATA_OPTIMIZER_CACHE_FOLDER") or Path(os.path.expanduser("~/.lightning/chunks")),
        "DATA_OPTIMIZER_CACHE_FOLDER on /dev/shm or on an encrypted disk, or an encryption"
        " (pqvault.integrations.litdata)",
    )


def _ray() -> Iterator[Leak]:
    root = _folder("RAY_TMPDIR") or _folder("TMPDIR") or Path("/tmp")
    sessions = root if root.name == "ray" else root / "ray"
    advice = (
        "ray.init(_temp_dir=…) or RAY_TMPDIR on an encrypted disk, or an object store large"
        " enough not to spill (object_store_memory); objects that do not fit are spilled here"
    )
    spilled = list(_below(sessions, "ray_spilled_objects*")) or [sessions]
    for folder in spilled:
        yield _look("Ray spill folder", folder, advice, lambda name: not name.endswith(".log"))


def _duckdb() -> Iterator[Leak]:
    advice = "SET temp_directory = '' (nothing is spilled) or a folder on an encrypted disk"
    folder = Path.cwd() / ".tmp"
    yield _look("DuckDB temp", folder, advice, lambda name: name.startswith("duckdb_temp"))
    for other in sorted(Path.cwd().glob("*.db.tmp")) + sorted(Path.cwd().glob("*.duckdb.tmp")):
        yield _look("DuckDB temp", other, advice)


def _dask() -> Iterator[Leak]:
    root = _folder("DASK_TEMPORARY_DIRECTORY") or Path(tempfile.gettempdir())
    advice = "dask.config.set(temporary_directory=…) on /dev/shm or on an encrypted disk"
    for name in ("dask-scratch-space", "dask-worker-space"):
        yield _look("Dask spill folder", root / name, advice, lambda n: not n.endswith(".dirlock"))


# What libraries make in TMPDIR and may leave there when they are killed.
_LEFT: Final = ("pymp-", "torch_", "datasets", "hf_", "wds", "streaming", "tmp")


def _tmpdir() -> Iterator[Leak]:
    folder = Path(tempfile.gettempdir())
    advice = f"TMPDIR on /dev/shm or on an encrypted disk; look through {folder} and clean it"
    yield _look("TMPDIR", folder, advice, within=_mine_with_a_name_of_a_library)


def _mine_with_a_name_of_a_library(entry: os.DirEntry[str]) -> bool:
    own = entry.stat(follow_symlinks=False).st_uid == os.getuid()
    return own and entry.name.startswith(_LEFT)


# -- the system ------------------------------------------------------------------------------


def _swap() -> Iterator[Leak]:
    advice = "`swapoff -a`, zram, or swap on an encrypted disk: pages of this process may be there"
    for line in _lines("/proc/swaps")[1:]:
        path, _, _size, used = line.split()[:4]
        on = MEMORY if "zram" in path else _device_of_swap(path)
        yield Leak("swap", path, on, int(int(used) > 0), int(used) * 1024, advice)


def _device_of_swap(path: str) -> str:
    try:
        info = os.stat(path)
    except OSError:
        return DISK
    device = info.st_rdev if stat.S_ISBLK(info.st_mode) else info.st_dev
    return ENCRYPTED if _is_encrypted(device) else DISK


def _core_dumps() -> Iterator[Leak]:
    pattern = "".join(_lines("/proc/sys/kernel/core_pattern")[:1])
    advice = (
        "`ulimit -c 0` where training runs (a service: LimitCORE=0); pqvault's own command line"
        " never dumps"
    )
    if pattern.startswith("|"):
        folder = Path("/var/lib/systemd/coredump")
        if "systemd-coredump" not in pattern:
            return
        advice = f"Storage=none in /etc/systemd/coredump.conf; {advice}"
    else:
        folder = Path(os.path.dirname(pattern) or os.getcwd())
    leak = _look("core dumps", folder, advice, lambda name: name.startswith("core"), deep=False)
    allowed = _core_limit() != 0
    yield leak if allowed or leak.files else Leak(leak.place, leak.path, "", 0, 0, advice)


def _core_limit() -> int:
    """The limit of the shell that called: ours is lowered by the command line already."""
    for line in _lines(f"/proc/{os.getppid()}/limits"):
        if line.startswith("Max core file size"):
            soft = line.split()[4]
            return -1 if soft == "unlimited" else int(soft)
    return -1


_LOOKS: Final[tuple[Callable[[], Iterable[Leak]], ...]] = (
    _hugging_face,
    _lightning,
    _ray,
    _duckdb,
    _dask,
    _tmpdir,
    _swap,
    _core_dumps,
)


# -- looking ---------------------------------------------------------------------------------


def _look(
    place: str,
    folder: Path,
    advice: str,
    wanted: Callable[[str], bool] = lambda _: True,
    *,
    within: Callable[[os.DirEntry[str]], bool] | None = None,
    deep: bool = True,
) -> Leak:
    """A folder and what is in it. ``within``: which of its own entries count."""
    on = _medium(folder)
    files = size = 0
    if on == DISK:
        for info, name in _files(folder, within, deep):
            if wanted(name):
                files += 1
                size += info.st_size
    return Leak(place, str(folder), on, files, size, advice)


def _files(
    folder: Path, within: Callable[[os.DirEntry[str]], bool] | None, deep: bool
) -> Iterator[tuple[os.stat_result, str]]:
    stack = [str(folder)]
    count = 0
    while stack:
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    if within is not None and not within(entry):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        stack += [entry.path] if deep else []
                    elif entry.is_file(follow_symlinks=False):
                        count += 1
                        if count > _MOST:
                            return
                        yield entry.stat(follow_symlinks=False), entry.name
        except OSError:  # gone, or not ours to look into
            pass
        within = None  # what is below an entry that counts, counts


def _below(folder: Path, pattern: str) -> Iterator[Path]:
    try:
        yield from sorted(p for p in folder.glob(f"session_*/{pattern}") if p.is_dir())
    except OSError:
        return


def _medium(path: Path) -> str:
    """Where a path lies, or would if it were made."""
    while not path.exists():
        if path.parent == path:
            return ""
        path = path.parent
    device = path.stat().st_dev
    if _type_of(device) in ("tmpfs", "ramfs"):
        return MEMORY
    return ENCRYPTED if _is_encrypted(device) else DISK


def _type_of(device: int) -> str:
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in _lines("/proc/self/mountinfo"):
        fields = line.split()
        if fields[2] == wanted:
            return fields[fields.index("-") + 1]
    return ""


def _is_encrypted(device: int) -> bool:
    """Whether dm-crypt is what a device is, or what it is made of (LVM on LUKS)."""
    folder = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if any(line.startswith("CRYPT-") for line in _lines(folder / "dm" / "uuid")):
        return True
    try:
        below = list((folder / "slaves").iterdir())
    except OSError:
        return False
    return bool(below) and all(_is_encrypted(_number(one)) for one in below)


def _number(device: Path) -> int:
    """The number of a device of sysfs."""
    major, _, minor = "".join(_lines(device / "dev")).partition(":")
    return os.makedev(int(major or 0), int(minor or 0))


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def _folder(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(os.path.expanduser(value)) if value else None


def _cache() -> Path:
    return _folder("XDG_CACHE_HOME") or Path(os.path.expanduser("~/.cache"))
