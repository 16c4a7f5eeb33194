"""Measure what step 1 promises, as ratios of the same run on the same files.

    python benchmarks/bench_seal.py [--work DIR] [--out DIR] [--tmpfs DIR]
                                    [--size 1200M] [--runs 3] [--only NAME]

Makes the corpora it needs under ``--work`` (kept: a second run finds them) and prints
a Markdown table. pqvault is the command line of the Python that runs this file. A
peer that is not on PATH is left out by name. Page cache warm, pqvault and peer by
turns, the median ratio of the pairs. What pqvault writes it also syncs; the peers
leave that to the kernel, so ``--out`` on a tmpfs compares the work without the disk.

``--only`` takes the start of a name and may be given again: seal, seal-age, unseal, files, help.
Exit 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import corpus
from measure import (
    CommandFailedError,
    Job,
    Pairs,
    Sample,
    compare,
    compiled,
    median,
    repeat,
    run,
    tree_size,
    warm,
)

PQVAULT = [sys.executable, "-m", "pqvault_cli"]
LEVEL = 3
JOBS = 2
RATE_FILES = 100_000
RATE_TARGET = 10_000  # files a second
HELP_LIMIT = 0.25  # seconds
NONE = "–"


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the table. ``met`` is None when there is nothing to judge."""

    what: str
    ours: str
    peer: str
    ratio: str
    target: str
    met: bool | None

    def __str__(self) -> str:
        verdict = {True: " ✓", False: " ✗", None: ""}[self.met]
        return (
            f"| {self.what} | {self.ours} | {self.peer} | {self.ratio} | {self.target}{verdict} |"
        )


@dataclass(slots=True)
class Bench:
    """Where to work, how often to run, and the keys of this run."""

    work: Path
    out: Path
    tmpfs: Path
    size: int
    runs: int
    ready: bool  # whether the pqvault command runs
    identity: Path
    recipient: str = ""
    age: tuple[Path, str] | None = None  # identity file, recipient
    made: dict[str, corpus.Corpus] = field(default_factory=dict)

    def corpus(self, name: str, kind: corpus.Kind, *, size: int = 0, files: int = 0) -> Path:
        """The folder of a corpus, made and read once."""
        if name not in self.made:
            say(f"corpus {name}")
            self.made[name] = corpus.ensure(self.work / name, kind, size=size, files=files)
            warm(self.work / name)
        return self.work / name

    def mixed(self) -> Path:
        return self.corpus("mixed", "mixed", size=self.size)

    def seal(self, source: Path, archive: Path, level: int = LEVEL, jobs: int = JOBS) -> Job:
        recipient = ["-r", self.recipient, "--level", str(level), "--jobs", str(jobs), "-q"]
        command = [*PQVAULT, "seal", str(source), "-o", str(archive), *recipient]
        return Job(command, outputs=(archive,), fresh=("PQVAULT_HOME",))

    def unseal(self, archive: Path, target: Path) -> Job:
        command = [*PQVAULT, "unseal", str(archive), "-o", str(target), "-i", str(self.identity)]
        return Job([*command, "-q"], outputs=(target,), fresh=("PQVAULT_HOME",))


def say(text: str) -> None:
    print(f"… {text}", file=sys.stderr, flush=True)


def missing(*programs: str) -> list[str]:
    return [program for program in programs if shutil.which(program) is None]


def tar_of(source: Path) -> str:
    """``tar`` of a folder by its own name, on standard output."""
    parent, name = shlex.quote(str(source.parent)), shlex.quote(source.name)
    return f"tar -C {parent} -cf - {name}"


def seconds(sample: Sample) -> str:
    return f"{sample.wall:.2f} s"


def same_tree(one: Path, other: Path) -> None:
    """Raise CommandFailedError unless both hold the same files with the same bytes."""
    done = subprocess.run(["diff", "-rq", "--no-dereference", one, other], capture_output=True)
    if done.returncode != 0:
        raise CommandFailedError(f"{other} differs from {one}: {done.stdout.decode()[:500]}")


def duel(
    bench: Bench, ours: Callable[[], Job], peer: Job, limit: float, what: str
) -> tuple[Line, Pairs | None]:
    """A row of wall times. Without pqvault, the peer alone."""
    target = f"≤ {limit:g}×"
    if not bench.ready:
        return Line(what, NONE, seconds(repeat(peer, bench.runs)), NONE, target, None), None
    pairs = compare(ours(), peer, bench.runs)
    a, b = seconds(median(pairs.a)), seconds(median(pairs.b))
    spread = f"{pairs.ratio:.2f}× ({min(pairs.ratios):.2f}–{max(pairs.ratios):.2f})"
    return Line(what, a, b, spread, target, pairs.ratio <= limit), pairs


def unwrapped(target: Path, source: Path) -> Path:
    """Where ``source`` came out below ``target``: by its own name, or as ``target`` itself."""
    return target / source.name if (target / source.name).is_dir() else target


# --- the lines ---------------------------------------------------------------


def bench_seal(bench: Bench) -> Iterator[Line]:
    what = f"seal, mixed corpus, level {LEVEL}, against tar \\| zstd -{LEVEL} -T{JOBS}"
    if missing("tar", "zstd"):
        say(f"seal: skipped, no {' '.join(missing('tar', 'zstd'))} on PATH")
        return
    source = bench.mixed()
    packed, archive = bench.out / "mixed.tar.zst", bench.out / "mixed.pqv"
    command = f"{tar_of(source)} | zstd -{LEVEL} -T{JOBS} -q > {shlex.quote(str(packed))}"
    peer = Job(command, outputs=(packed,))
    line, pairs = duel(bench, lambda: bench.seal(source, archive), peer, 0.7, what)
    yield line
    size = tree_size(packed)
    if pairs is None:
        yield Line("— its size", NONE, f"{size / 1e6:.1f} MB", NONE, "≤ 1.05×", None)
    else:
        ours = tree_size(archive)
        ratio = ours / size
        mine, theirs = f"{ours / 1e6:.1f} MB", f"{size / 1e6:.1f} MB"
        yield Line("— its size", mine, theirs, f"{ratio:.3f}×", "≤ 1.05×", ratio <= 1.05)


def bench_seal_age(bench: Bench) -> Iterator[Line]:
    what = f"seal, mixed corpus, level {LEVEL}, against tar \\| zstd -{LEVEL} -T{JOBS} \\| age"
    if bench.age is None or missing("tar", "zstd"):
        away = " ".join(missing("age", "age-keygen", "tar", "zstd"))
        say(f"seal-age: skipped, no {away} on PATH")
        yield Line(what, NONE, f"skipped: no {away}", NONE, "≤ 0.5×", None)
        return
    source = bench.mixed()
    packed = bench.out / "mixed.tar.zst.age"
    command = f"{tar_of(source)} | zstd -{LEVEL} -T{JOBS} -q | age -r {bench.age[1]}"
    peer = Job(f"{command} > {shlex.quote(str(packed))}", outputs=(packed,))
    archive = bench.out / "mixed.pqv"
    yield duel(bench, lambda: bench.seal(source, archive), peer, 0.5, what)[0]


def bench_unseal(bench: Bench) -> Iterator[Line]:
    if missing("tar", "zstd"):
        say(f"unseal: skipped, no {' '.join(missing('tar', 'zstd'))} on PATH")
        return
    source = bench.mixed()
    packed, archive = bench.out / "mixed.tar.zst", bench.out / "mixed.pqv"
    if not packed.exists():
        run(Job(f"{tar_of(source)} | zstd -{LEVEL} -T{JOBS} -q > {shlex.quote(str(packed))}"))
    if bench.ready and not archive.exists():
        run(bench.seal(source, archive))
    with tempfile.TemporaryDirectory(prefix="pqvault-bench-", dir=bench.tmpfs) as memory:
        theirs, ours = Path(memory, "tar"), Path(memory, "pqvault")
        into = shlex.quote(str(theirs))
        command = f"zstd -d -q < {shlex.quote(str(packed))} | tar -x -C {into}"
        peer = Job(command, folders=(theirs,))
        what = "unseal, mixed corpus, on a tmpfs, against zstd -d \\| tar x"
        yield duel(bench, lambda: bench.unseal(archive, ours), peer, 0.6, what)[0]
        same_tree(source, unwrapped(theirs, source))
        if bench.ready:
            same_tree(source, unwrapped(ours, source))


def bench_files(bench: Bench) -> Iterator[Line]:
    source = bench.corpus(f"small-{RATE_FILES}", "small", files=RATE_FILES)
    packed, archive = bench.out / "files.tar.zst", bench.out / "files.pqv"
    command = f"{tar_of(source)} | zstd -{LEVEL} -T{JOBS} -q > {shlex.quote(str(packed))}"
    peer = Job(command, outputs=(packed,))

    def rate(sample: Sample | None) -> str:
        return f"{RATE_FILES / sample.wall:,.0f} files/s" if sample else NONE

    what = f"seal, {RATE_FILES:,} files of 4 KiB (peer: tar \\| zstd -{LEVEL} -T{JOBS})"
    target = f"≥ {RATE_TARGET:,} files/s"
    ours = theirs = None
    ratio = NONE
    if bench.ready and not missing("tar", "zstd"):
        pairs = compare(bench.seal(source, archive), peer, bench.runs)
        ours, theirs = median(pairs.a), median(pairs.b)
        ratio = f"{pairs.ratio:.2f}×"
    elif bench.ready:
        ours = repeat(bench.seal(source, archive), bench.runs)
    elif not missing("tar", "zstd"):
        theirs = repeat(peer, bench.runs)
    met = RATE_FILES / ours.wall >= RATE_TARGET if ours else None
    yield Line(what, rate(ours), rate(theirs), ratio, target, met)


def bench_help(bench: Bench) -> Iterator[Line]:
    bare = Job([sys.executable, "-c", "pass"])
    what, target = "pqvault --help (peer: python -c pass)", f"< {HELP_LIMIT} s"
    count = max(5, bench.runs)
    if bench.ready:
        pairs = compare(Job([*PQVAULT, "--help"]), bare, count)
        ours, theirs = median(pairs.a), median(pairs.b)
        met = ours.wall < HELP_LIMIT
        a, b = f"{ours.wall:.3f} s", f"{theirs.wall:.3f} s"
        yield Line(what, a, b, f"{pairs.ratio:.1f}×", target, met)
    else:
        yield Line(what, NONE, f"{repeat(bare, count).wall:.3f} s", NONE, target, None)


LINES: dict[str, Callable[[Bench], Iterator[Line]]] = {
    "seal": bench_seal,
    "seal-age": bench_seal_age,
    "unseal": bench_unseal,
    "files": bench_files,
    "help": bench_help,
}


# --- the run -----------------------------------------------------------------


def pqvault_runs() -> bool:
    compiled()
    done = subprocess.run([*PQVAULT, "--help"], capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        say(f"pqvault does not run here, peers only: {reason}")
    return done.returncode == 0


def keys(bench: Bench, folder: Path) -> None:
    """Make this run's identities: pqvault's, and age's when age is there."""

    def output(*command: str) -> str:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    if bench.ready:
        output(*PQVAULT, "keygen", "-o", str(bench.identity))
        bench.recipient = output(*PQVAULT, "keygen", "-y", str(bench.identity))
    if not missing("age", "age-keygen"):
        identity = folder / "age.txt"
        output("age-keygen", "-o", str(identity))
        bench.age = (identity, output("age-keygen", "-y", str(identity)))


def chosen(only: list[str]) -> list[str]:
    """The names that ``only`` means: exact names first, else every name that starts so."""
    if not only:
        return list(LINES)
    names: list[str] = []
    for word in only:
        found = [word] if word in LINES else [name for name in LINES if name.startswith(word)]
        if not found:
            raise SystemExit(f"bench_seal: no line {word!r}; there are {', '.join(LINES)}")
        names += [name for name in found if name not in names]
    return names


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure seal and unseal against their peers.")
    default = Path(tempfile.gettempdir(), "pqvault-bench")
    size = corpus.parse_size
    parser.add_argument("--work", type=Path, default=default, help="corpora, kept")
    parser.add_argument("--out", type=Path, help="archives, removed; default: WORK/out")
    parser.add_argument("--tmpfs", type=Path, default=Path("/dev/shm"), help="for unseal")
    parser.add_argument("--size", type=size, default=corpus.DEFAULT_SIZE, help="mixed corpus")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    args = parser.parse_args(argv)
    names = chosen(args.only)

    args.work.mkdir(parents=True, exist_ok=True)
    outputs = args.out or args.work / "out"
    outputs.mkdir(parents=True, exist_ok=True)
    failed = False
    with (
        tempfile.TemporaryDirectory(prefix="pqvault-bench-keys-") as secret,
        tempfile.TemporaryDirectory(prefix="run-", dir=outputs) as out,
    ):
        bench = Bench(
            work=args.work.resolve(),
            out=Path(out).resolve(),
            tmpfs=args.tmpfs,
            size=args.size,
            runs=args.runs,
            ready=pqvault_runs(),
            identity=Path(secret, "pqvault.txt"),
        )
        keys(bench, Path(secret))
        print(f"{os.cpu_count()} cores, {args.runs} runs, page cache warm\n")
        print("| what | pqvault | peer | ratio | target |")
        print("| --- | --- | --- | --- | --- |", flush=True)
        for name in names:
            say(name)
            try:
                for line in LINES[name](bench):
                    print(line, flush=True)
                    failed |= line.met is False
            except CommandFailedError as error:
                failed = True
                print(f"| {name} | failed | {NONE} | {NONE} | {NONE} |", flush=True)
                print(f"bench_seal: {name}: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
