"""Measure peak memory of seal, verify, unseal, encrypt and decrypt, each a process of its own.

    python benchmarks/bench_memory.py [--work DIR] [--size 20G] [--mixed-size 1200M]
                                      [--files 200000] [--level N] [--jobs 4] [--only NAME]

``--only``: mixed, small (``--files`` files of 4 KiB), big (one file of ``--size`` bytes), and may
be given again, as may ``--level`` (3 and 9 when left out). Corpora are made once under ``--work``
and kept, all else is removed as soon as it is measured; ``big`` takes 2.7 times its size on the
disk. Peak memory is that of all processes of a command together, mapped files included. Prints a
Markdown table; exit 1 when something takes 300 MiB or more.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import corpus
from measure import CommandFailedError, Job, run

import pqvault

PQVAULT = [sys.executable, "-m", "pqvault_cli"]
LIMIT = 300  # MiB
LEVELS = (3, 9)


@dataclass(frozen=True, slots=True)
class Verbs:
    """The commands to measure, with the keys and the folder of this run."""

    out: Path
    identity: Path
    recipient: str
    jobs: int

    def _job(self, *words: str | Path, outputs: tuple[Path, ...] = ()) -> Job:
        command = [*PQVAULT, *map(str, words), "-q"]
        return Job(command, outputs=outputs, fresh=("PQVAULT_HOME",), whole=True)

    def archive(self, source: Path, level: int) -> Iterator[tuple[str, Job]]:
        """Seal a folder, verify and unseal it."""
        archive, target = self.out / "memory.pqv", self.out / "memory"
        jobs, key = ("--jobs", str(self.jobs)), ("-i", self.identity)
        to = ("-r", self.recipient, "--level", str(level))
        yield "seal", self._job("seal", source, "-o", archive, *to, *jobs, outputs=(archive,))
        yield "verify", self._job("verify", archive, *key, *jobs)
        unseal = self._job("unseal", archive, "-o", target, *key, *jobs, outputs=(target,))
        yield "unseal", unseal
        unseal.clean()
        self._job(outputs=(archive,)).clean()

    def stream(self, source: Path, level: int) -> Iterator[tuple[str, Job]]:
        """Encrypt a file and decrypt it."""
        sealed, back = self.out / "stream.pqv", self.out / "stream"
        to = ("-r", self.recipient, "--level", str(level), "--jobs", str(self.jobs))
        yield "encrypt", self._job("encrypt", source, "-o", sealed, *to, outputs=(sealed,))
        decrypt = self._job("decrypt", sealed, "-o", back, "-i", self.identity, outputs=(back,))
        yield "decrypt", decrypt
        decrypt.clean()
        self._job(outputs=(sealed,)).clean()


def measure(what: str, jobs: Iterator[tuple[str, Job]], level: int, threads: int) -> bool:
    """Print a line for each job; whether all stayed below the limit."""
    met = True
    for verb, job in jobs:
        sample = run(job)
        low = sample.peak < LIMIT
        met &= low
        print(
            f"| {verb} | {what} | {level} | {threads} | {sample.peak:.0f} MiB {'✓' if low else '✗'}"
            f" | {sample.wall:.1f} s |",
            flush=True,
        )
    return met


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    default = Path(tempfile.gettempdir(), "pqvault-bench")
    parser.add_argument("--work", type=Path, default=default, help="corpora, kept")
    parser.add_argument("--out", type=Path, help="archives, removed; default: WORK/out")
    parser.add_argument("--size", type=corpus.parse_size, default=2_000_000_000, help="big")
    parser.add_argument("--mixed-size", type=corpus.parse_size, default=corpus.DEFAULT_SIZE)
    parser.add_argument("--files", type=int, default=200_000, help="small")
    parser.add_argument("--level", type=int, action="append")
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--only", action="append", choices=["mixed", "small", "big"])
    args = parser.parse_args()

    out = args.out or args.work / "out"
    out.mkdir(parents=True, exist_ok=True)
    met = True
    print(
        f"| verb | what | level | jobs | peak (< {LIMIT} MiB) | wall |\n|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory(prefix="memory-", dir=out) as folder:
        identity = pqvault.Identity.generate()
        identity.save_file(Path(folder, "key.txt"))
        verbs = Verbs(
            Path(folder).resolve(), Path(folder, "key.txt"), identity.recipient.text, args.jobs
        )
        for name in args.only or ("mixed", "small", "big"):
            sizes = {
                "mixed": {"size": args.mixed_size},
                "small": {"files": args.files},
                "big": {"size": args.size},
            }[name]
            where = args.work / (f"{name}-{args.files}" if name == "small" else name)
            corpus.ensure(where, name, **sizes)
            what = {
                "mixed": f"mixed corpus of {args.mixed_size / 1e9:g} GB",
                "small": f"{args.files:,} files of 4 KiB",
                "big": f"one file of {args.size / 1e9:g} GB",
            }[name]
            for level in args.level or LEVELS:
                try:
                    met &= measure(what, verbs.archive(where, level), level, args.jobs)
                    if name == "big":
                        plain = where / "big.bin"
                        met &= measure(what, verbs.stream(plain, level), level, args.jobs)
                except CommandFailedError as error:
                    print(f"bench_memory: {what}: {error}", file=sys.stderr)
                    met = False
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
