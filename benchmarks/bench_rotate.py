"""Rotation: thousands of archives against the bare system calls, one part small and large.

``python benchmarks/bench_rotate.py [--archives 2000] [--big-size 1G] [--runs 3] [--out DIR]
[--only bulk|sizes] [--sign]``

The floor of a bulk rotation is what it cannot do without: for each archive a file of the same
size written, synced, renamed, and its folder synced, by as many threads. Both run as processes of
their own, by turns; a rotation goes there and back again between two keys. ``--sign``: each
envelope is signed with Ed25519 and ML-DSA-65 too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import measure

import pqvault
from pqvault.keys import Identity
from pqvault.rotation.run import JOBS
from pqvault.signing import SigningKey

ENVELOPE = 1900  # bytes, of one recipient


def bare(folder: Path, count: int) -> None:
    """The floor: write + fsync + rename + fsync of the folder, ``count`` times."""
    data = os.urandom(ENVELOPE)

    def one(number: int) -> None:
        fd = os.open(folder / str(number), os.O_RDONLY | os.O_DIRECTORY)
        file = os.open("new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=fd)
        os.write(file, data)
        os.fsync(file)
        os.close(file)
        os.rename("new", "envelope", src_dir_fd=fd, dst_dir_fd=fd)
        os.fsync(fd)
        os.close(fd)

    with ThreadPoolExecutor(JOBS) as pool:
        list(pool.map(one, range(count)))


def make_archives(folder: Path, count: int, key: Identity) -> None:
    """Archives of one part each, sealed as anybody would."""
    source = folder / "src"
    source.mkdir(parents=True)
    (source / "f").write_bytes(b"content")

    def one(number: int) -> None:
        archive = folder / "archives" / f"{number}.pqv"
        pqvault.seal(source, archive, recipients=[key.recipient], jobs=1)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, range(count)))
    for number in range(count):
        (folder / "bare" / str(number)).mkdir(parents=True)


def bulk(folder: Path, count: int, runs: int, *, sign: bool) -> None:
    """Many archives, against the floor."""
    keys = [Identity.generate(), Identity.generate()]
    for number, key in enumerate(keys):
        key.save_file(folder / f"{number}.key")
        (folder / f"{number}.pub").write_text(key.recipient.text + "\n")
    SigningKey.generate().save_file(folder / "sign.key")
    began = time.monotonic()
    make_archives(folder, count, keys[0])
    print(f"made {count:,} archives in {time.monotonic() - began:.0f} s", flush=True)
    floor = measure.Job([sys.executable, __file__, "--bare", str(folder / "bare"), str(count)])
    rotations, floors = [], []
    for turn in range(2 * runs):
        old, new = turn % 2, 1 - turn % 2
        command = [sys.executable, "-m", "pqvault_cli", "rotate", str(folder / "archives")]
        command += ["--recursive", "-q", "-i", str(folder / f"{old}.key")]
        command += ["--to", f"@{folder / f'{new}.pub'}"]
        command += ["--sign", str(folder / "sign.key")] if sign else []
        floors.append(measure.run(floor))
        rotations.append(measure.run(measure.Job(command)))
    rates = [count / sample.wall for sample in rotations]
    ratios = [r.wall / f.wall for r, f in zip(rotations, floors, strict=True)]
    cpu = statistics.median(sample.cpu for sample in rotations)
    print(
        f"rotate{' and sign' if sign else ''} {count:,} archives:"
        f" {statistics.median(rates):,.0f} a second ({min(rates):,.0f} to {max(rates):,.0f}),"
        f" {1000 * cpu / count:.2f} ms of CPU each,"
        f" peak {max(s.peak for s in rotations):.0f} MiB"
    )
    print(
        f"bare system calls: {count / statistics.median(s.wall for s in floors):,.0f} a second;"
        f" rotation takes {statistics.median(ratios):.2f}x of it (both start a Python)"
    )


def sizes(folder: Path, big: int, runs: int) -> None:
    """One part of 10 MB and one of ``big`` bytes, by turns."""
    keys = [Identity.generate(), Identity.generate()]
    names = {"10 MB": 10_000_000, f"{big / 1e9:g} GB": big}
    for name, size in names.items():
        source = folder / name
        source.mkdir()
        with (source / "noise").open("wb") as file:
            for _ in range(size // 10_000_000):
                file.write(os.urandom(10_000_000))
        pqvault.seal(source, folder / f"{name}.pqv", recipients=[keys[0].recipient], level=0)
        (source / "noise").unlink()
    os.sync()
    times: dict[str, list[float]] = {name: [] for name in names}
    written = 0
    for turn in range(runs):
        old, new = keys[turn % 2], keys[1 - turn % 2]
        for name in names:
            began = time.perf_counter()
            report = pqvault.rotate(folder / f"{name}.pqv", identities=[old], to=new.recipient)
            times[name].append(time.perf_counter() - began)
            written = max(written, report.written)
    for name, seconds in times.items():
        print(f"rotate one part of {name}: {1000 * statistics.median(seconds):.2f} ms")
    small, large = (statistics.median(seconds) for seconds in times.values())
    print(f"ratio {large / small:.3f} (target: within 10 %); wrote {written:,} bytes of envelope")


def size_of(text: str) -> int:
    return int(float(text.rstrip("GM")) * {"G": 10**9, "M": 10**6}[text[-1]])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archives", type=int, default=2000)
    parser.add_argument("--big-size", type=size_of, default=10**9)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, help="where archives are made [default: /tmp]")
    parser.add_argument("--bare", nargs=2, metavar=("DIR", "N"), help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=("bulk", "sizes"))
    parser.add_argument("--sign", action="store_true")
    args = parser.parse_args()
    if args.bare:
        bare(Path(args.bare[0]), int(args.bare[1]))
        return
    with tempfile.TemporaryDirectory(dir=args.out) as scratch:
        os.environ["PQVAULT_HOME"] = str(Path(scratch, "home"))
        if args.only != "sizes":
            bulk(Path(scratch), args.archives, args.runs, sign=args.sign)
        if args.only != "bulk":
            sizes(Path(scratch), args.big_size, 100 * args.runs)


if __name__ == "__main__":
    main()
