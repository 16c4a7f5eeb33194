"""Peak memory of every verb, each in a process of its own: under 300 MiB whatever the size.

Slow: 1.5 GB in one file, 100,000 files; levels 3 and 9, four jobs. ``-s`` prints the numbers.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import hostile as h
import pytest

import pqvault

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600), pytest.mark.usefixtures("home")]

KEY = pqvault.Identity.generate()
LIMIT = 300  # MiB
SIZE = 1_500_000_000  # bytes
FILES = 100_000

CHILD = """
import sys, time
import hostile as h
import pqvault
from pqvault.archive.trim import keep_apart
what, identity, one, other, level, jobs = sys.argv[1:]
key = pqvault.Identity.parse(identity)
level, jobs = int(level), int(jobs)
began = time.monotonic()
if what == "seal":
    keep_apart()  # as the command does
    pqvault.seal(one, other, recipients=[key.recipient], level=level, jobs=jobs)
elif what == "unseal":
    with pqvault.open(other, identities=[key]) as archive:
        assert not archive.unseal(one, jobs=jobs).failed
elif what == "verify":
    assert not pqvault.verify(other, identities=[key], jobs=jobs).problems
elif what == "verify without a key":
    assert not pqvault.verify(other, jobs=jobs).problems
elif what == "list":
    with pqvault.open(other, identities=[key]) as archive:
        print(sum(1 for _ in archive.entries()))
elif what == "encrypt":
    with open(one, "rb") as source, open(other, "wb") as out:
        pqvault.encrypt(source, out, [key.recipient], level=level, jobs=jobs,
                        frame_size=8 << 20)
elif what == "decrypt":
    with open(other, "rb") as source, open(one, "wb") as out:
        pqvault.decrypt(source, out, [key])
elif what == "decrypt from a pipe":
    class Pipe:
        def __init__(self, file):
            self.read = file.read
    with open(other, "rb") as source, open(one, "wb") as out:
        pqvault.decrypt(Pipe(source), out, [key])
print(h.peak(), round(time.monotonic() - began, 1))
"""


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """Gone after each test: pytest keeps its folders."""
    path = tmp_path / "room"
    path.mkdir()
    if shutil.disk_usage(path).free < 6 * SIZE:
        pytest.skip("not enough free disk")
    yield path
    shutil.rmtree(path)


def mixed(path: Path, size: int) -> None:
    """Text that compresses, noise that does not, and zeros, in stretches of some MiB."""
    rng = random.Random(5)
    words = [rng.randbytes(rng.randrange(3, 9)).hex() for _ in range(5000)]
    text = " ".join(rng.choices(words, k=800_000)).encode()
    with path.open("wb") as file:
        while file.tell() < size:
            kind = rng.randrange(5)
            if kind < 3:
                file.write(text[rng.randrange(1000) :])
            else:
                file.write(rng.randbytes(4 << 20) if kind == 3 else b"\x01" * (4 << 20))
        file.truncate(size)


def measured(what: str, one: Path, other: Path, level: int, jobs: int, home: Path) -> int:
    args = (what, KEY.text, one, other, level, jobs)
    run = h.run_child(CHILD, *args, home=home, timeout=1800)
    assert not run.returncode, run.stderr[-3000:]
    peak, seconds = run.stdout.split()[-2:]
    print(f"{what:22} level {level} jobs {jobs}: {int(peak):4} MiB, {seconds} s")
    return int(peak)


def bounded(peaks: dict[str, int]) -> None:
    over = {what: peak for what, peak in peaks.items() if peak >= LIMIT}
    assert not over, f"MiB at the peak: {over}"


@pytest.mark.parametrize("level", [3, 9])
def test_one_large_file(room: Path, home: Path, level: int) -> None:
    source = room / "src"
    source.mkdir()
    mixed(source / "large", SIZE)
    peaks = {"seal": measured("seal", source, room / "x.pqv", level, 4, home)}
    for what in ("unseal", "verify", "verify without a key"):
        peaks[what] = measured(what, room / "out", room / "x.pqv", level, 4, home)
    assert (room / "out" / "src" / "large").stat().st_size == SIZE
    bounded(peaks)


@pytest.mark.parametrize("level", [3, 9])
def test_one_large_stream(room: Path, home: Path, level: int) -> None:
    mixed(room / "large", SIZE)
    peaks = {"encrypt": measured("encrypt", room / "large", room / "s.pqv", level, 4, home)}
    for what in ("decrypt", "decrypt from a pipe"):
        peaks[what] = measured(what, room / "plain", room / "s.pqv", level, 4, home)
    assert (room / "plain").stat().st_size == SIZE
    bounded(peaks)


@pytest.mark.parametrize("level", [3, 9])
def test_many_small_files(room: Path, home: Path, level: int) -> None:
    source = room / "src"
    rng = random.Random(6)
    for folder in range(100):
        path = source / f"{folder:02d}"
        path.mkdir(parents=True)
        for number in range(FILES // 100):
            text = f"{folder} {number} {rng.random()}\n" * rng.randrange(40)
            (path / f"a-file-with-a-longish-name-{number:06d}.json").write_text(text)
    peaks = {"seal": measured("seal", source, room / "x.pqv", level, 4, home)}
    peaks["seal again"] = measured("seal", source, room / "x.pqv", level, 4, home)
    for what in ("unseal", "verify", "verify without a key", "list"):
        peaks[what] = measured(what, room / "out", room / "x.pqv", level, 4, home)
    bounded(peaks)


def test_many_hard_links(room: Path, home: Path) -> None:
    """Every file has a second name: first names are remembered."""
    source = room / "src"
    source.mkdir()
    for number in range(FILES // 2):
        (source / f"{number:06d}").write_bytes(b"%d" % number)
        os.link(source / f"{number:06d}", source / f"{number:06d}.link")
    peaks = {"seal": measured("seal", source, room / "x.pqv", 3, 4, home)}
    for what in ("unseal", "verify"):
        peaks[what] = measured(what, room / "out", room / "x.pqv", 3, 4, home)
    bounded(peaks)


def test_long_names(room: Path, home: Path) -> None:
    """Paths of a kilobyte: row groups count rows, not bytes."""
    source = room / "src"
    deep = source.joinpath(*["x" * 200] * 4)
    deep.mkdir(parents=True)
    for number in range(FILES // 2):
        (deep / f"{number:06d}{'y' * 200}").touch()
    peaks = {"seal": measured("seal", source, room / "x.pqv", 3, 4, home)}
    for what in ("unseal", "verify", "list"):
        peaks[what] = measured(what, room / "out", room / "x.pqv", 3, 4, home)
    bounded(peaks)
