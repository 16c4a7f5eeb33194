"""Re-encryption against its floor: the files copied with `cp`, and one AES pass over them.

``python benchmarks/bench_reencrypt.py [--size 1G] [--runs 5] [--threads N] [--out DIR]``

The floor is what nobody can do without: ``cp -r`` of the archive, its files synced (a part whose
data is not on the disk may not replace another), and AES-256-GCM over as many bytes, 16 KiB at a
time, by one thread of OpenSSL. Floor and re-encryption are processes of their own, by turns; each
has the archive in the page cache. What re-encryption does on top: a second AES pass (it decrypts
too), the digests of what it reads and of what it writes, and a third pass over all of the new part,
read back from storage, before the old one goes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import measure
from bench_rotate import size_of
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import pqvault
from pqvault.keys import Identity

CHUNK = 16384  # bytes


def aes(size: int) -> None:
    """AES-256-GCM over so many bytes."""
    cipher, data = AESGCM(bytes(32)), memoryview(bytearray(os.urandom(CHUNK)))
    out = memoryview(bytearray(CHUNK + 16))
    for number in range(size // CHUNK):
        cipher.encrypt_into(number.to_bytes(12, "big"), data, None, out)


def copy(source: Path, target: Path, size: int) -> None:
    """The floor; prints the seconds of each half."""
    began = time.perf_counter()
    code = os.spawnlp(os.P_WAIT, "cp", "cp", "-r", str(source), str(target))
    if code:
        sys.exit(code)
    for path in target.rglob("*"):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    copied = time.perf_counter()
    aes(size)
    print(
        f"cp and fsync {copied - began:.2f} s, AES {time.perf_counter() - copied:.2f} s", flush=True
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=size_of, default=10**9)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of pqvault [default: its own]")
    parser.add_argument("--out", type=Path, help="where the archive is made [default: /tmp]")
    parser.add_argument("--floor", nargs=3, metavar=("FROM", "TO", "N"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.floor:
        copy(Path(args.floor[0]), Path(args.floor[1]), int(args.floor[2]))
        return
    with tempfile.TemporaryDirectory(dir=args.out) as scratch:
        os.environ["PQVAULT_HOME"] = str(Path(scratch, "home"))
        run(Path(scratch), args.size, args.runs, args.threads)


def run(folder: Path, size: int, runs: int, threads: int | None) -> None:
    """One part, there and back again between two keys."""
    keys = [Identity.generate(), Identity.generate()]
    for number, key in enumerate(keys):
        key.save_file(folder / f"{number}.key")
        (folder / f"{number}.pub").write_text(key.recipient.text + "\n")
    source, archive, target = folder / "src", folder / "a.pqv", folder / "copy"
    source.mkdir()
    with (source / "noise").open("wb") as file:
        for _ in range(size // 10**7):
            file.write(os.urandom(10**7))
    pqvault.seal(source, archive, recipients=[keys[0].recipient], level=0)
    (source / "noise").unlink()
    floor = measure.Job(
        [sys.executable, __file__, "--floor", str(archive), str(target), str(size)], (target,)
    )
    floors, ours = [], []
    for turn in range(runs):
        old, new = turn % 2, 1 - turn % 2
        command = [sys.executable, "-m", "pqvault_cli", "reencrypt", str(archive), "-q"]
        command += ["-i", str(folder / f"{old}.key"), "--to", f"@{folder / f'{new}.pub'}"]
        command += ["--jobs", str(threads)] if threads else []
        pairs = [(floor, floors), (measure.Job(command), ours)]
        for job, samples in pairs if turn % 2 else reversed(pairs):
            pqvault.gc(archive, older_than=0)
            os.sync()
            samples.append(measure.run(job))
    ratios = [f.wall / o.wall for f, o in zip(floors, ours, strict=True)]
    for name, samples in (("floor", floors), ("reencrypt", ours)):
        wall = statistics.median(s.wall for s in samples)
        cpu = statistics.median(s.cpu for s in samples)
        print(f"{name}: {size / wall / 1e6:,.0f} MB/s, {cpu:.2f} s of CPU")
    print(
        f"speed of the floor reached: {statistics.median(ratios):.2f}"
        f" ({min(ratios):.2f} to {max(ratios):.2f}; target 0.80), peak"
        f" {max(s.peak for s in ours):.0f} MiB"
    )


if __name__ == "__main__":
    main()
