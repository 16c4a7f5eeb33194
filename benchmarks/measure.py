"""Time whole processes, and see how much memory they took.

A `Job` is a command: an argument list, or a shell pipeline as one string. `run`
starts it once and returns a `Sample`; `repeat` runs it several times; `compare`
runs two jobs by turns, A B, B A, A B, …, and gives the ratio of each pair, so that
a machine that slows down for a while slows both.

- Wall seconds run from the fork to the end of the last process of the pipeline.
- Peak memory is ``ru_maxrss`` of `os.wait4`: the most any one process of the tree
  had resident, not the sum. Pages of mapped files count. The floor is about 10 MiB.
  With ``whole`` it is the sum over all processes, of which each counts its share of
  pages that it shares with others (PSS), looked at every 20 ms.
- The page cache is left warm: call `warm` on the input first. Before each run the
  outputs of the last one are removed and dirty pages written out (`os.sync`), so
  that no run pays for another's.
- The free memory of a virtual machine may belong to its host, until it is touched: that is
  several times slower than the next touch, and would be charged to whoever comes first. So a
  process touches as much as a run may need, and ends, right before each run.

The command is started by a small process of its own (this file, run as a script):
Linux counts what the parent had resident at the fork into a child's ``ru_maxrss``,
and a benchmark that has just made a corpus is not small.
"""

from __future__ import annotations

import compileall
import importlib.util
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1024 * 1024
TOUCH = 4096  # MiB of free memory that is touched before a run, but no more than half of it


def compiled() -> None:
    """pqvault as bytecode, as pip leaves what it installs: in a checkout, with an environment that
    keeps Python from writing any, commands would compile their modules each time."""
    for name in ("pqvault", "pqvault_cli"):
        found = importlib.util.find_spec(name)
        for folder in (found and found.submodule_search_locations) or ():
            compileall.compile_dir(folder, quiet=1)


class CommandFailedError(Exception):
    """The measured command did not exit with 0; the message ends with its last words."""


@dataclass(frozen=True, slots=True)
class Job:
    """A command to measure.

    ``command``: an argument list, or a pipeline for ``bash -o pipefail -c``.
    ``outputs``: files and folders it writes, removed before each run.
    ``folders``: made, empty, before each run; removed first, like the outputs.
    ``fresh``: environment variables that name a new empty folder in each run.
    ``whole``: measure the memory of all processes together.
    """

    command: Sequence[str] | str
    outputs: tuple[Path, ...] = ()
    folders: tuple[Path, ...] = ()
    fresh: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    whole: bool = False

    def argv(self) -> list[str]:
        if isinstance(self.command, str):
            return ["bash", "-o", "pipefail", "-c", self.command]
        return list(self.command)

    def clean(self) -> None:
        for path in (*self.outputs, *self.folders):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Sample:
    """One run, or the median of several. ``wall``, ``cpu``: seconds; ``peak``: MiB."""

    wall: float
    cpu: float
    peak: float


@dataclass(frozen=True, slots=True)
class Pairs:
    """Runs of A and B by turns."""

    a: tuple[Sample, ...]
    b: tuple[Sample, ...]

    @property
    def ratios(self) -> list[float]:
        """Wall time of A over that of B, pair by pair."""
        return [one.wall / other.wall for one, other in zip(self.a, self.b, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of `ratios`."""
        return statistics.median(self.ratios)


def run(job: Job) -> Sample:
    """Run ``job`` once. Raises CommandFailedError."""
    job.clean()
    for folder in job.folders:
        folder.mkdir(parents=True)
    os.sync()
    _touch()
    with tempfile.TemporaryDirectory(prefix="pqvault-measure-") as scratch:
        env = os.environ | job.env
        # An installed package has its modules compiled; without this ours are compiled each time.
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        for number, name in enumerate(job.fresh):
            folder = Path(scratch, str(number))
            folder.mkdir(mode=0o700)
            env[name] = str(folder)
        report = Path(scratch, "report")
        starter = [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(report)]
        starter += [str(int(job.whole))]
        done = subprocess.run(
            [*starter, *job.argv()],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        words = done.stderr.decode("utf-8", "replace").strip()
        if done.returncode != 0:
            shown = job.command if isinstance(job.command, str) else " ".join(job.command)
            raise CommandFailedError(f"exit {done.returncode}: {shown}\n{words[-2000:]}")
        facts = json.loads(report.read_text())
    return Sample(facts["wall"], facts["cpu"], facts["maxrss"] / MIB)


def _touch() -> None:
    """Make the free memory this machine's own, in a process that ends."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    size = min(TOUCH * MIB, free // 2)
    subprocess.run([sys.executable, "-I", "-S", "-c", f"b'1' * {size}"], check=True)


def median(samples: Sequence[Sample]) -> Sample:
    """The median time; of the memory the largest, because a limit holds for every run."""
    return Sample(
        statistics.median(each.wall for each in samples),
        statistics.median(each.cpu for each in samples),
        max(each.peak for each in samples),
    )


def repeat(job: Job, runs: int) -> Sample:
    """The median of ``runs`` runs."""
    return median([run(job) for _ in range(runs)])


def compare(a: Job, b: Job, runs: int) -> Pairs:
    """Run both ``runs`` times by turns; every other pair begins with ``b``."""
    first: list[Sample] = []
    second: list[Sample] = []
    for turn in range(runs):
        if turn % 2:
            second.append(run(b))
            first.append(run(a))
        else:
            first.append(run(a))
            second.append(run(b))
    return Pairs(tuple(first), tuple(second))


def warm(*roots: Path) -> int:
    """Read every file below ``roots`` into the page cache. Returns the bytes read."""
    total = 0
    for root in roots:
        for path in (root,) if root.is_file() else root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                with path.open("rb", buffering=0) as file:
                    while data := file.read(MIB):
                        total += len(data)
    return total


def tree_size(path: Path) -> int:
    """Bytes in the files at or below ``path``."""
    if path.is_file():
        return path.stat().st_size
    return sum(
        each.lstat().st_size for each in path.rglob("*") if each.is_file() and not each.is_symlink()
    )


def _together(process: int) -> int:
    """Bytes of a process and all below it; what has ended meanwhile has none."""
    size, processes = 0, [process]
    for each in processes:
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
            size += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            for task in Path(f"/proc/{each}/task").iterdir():
                processes += map(int, (task / "children").read_text().split())
        except (OSError, StopIteration):
            continue
    return size * 1024


def _start(report: str, whole: bool, argv: list[str]) -> int:
    """The small process: fork, exec, wait, and write what it cost. Returns the exit code."""
    begin = time.perf_counter()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python's own setting would be inherited
        try:
            os.execvp(argv[0], argv)
        except OSError as error:
            print(f"{argv[0]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(127)
    peak = 0
    while whole and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        peak = max(peak, _together(child))
        time.sleep(0.02)
    _, status, usage = os.wait4(child, 0)
    wall = time.perf_counter() - begin
    facts = {
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "maxrss": peak if whole else usage.ru_maxrss * 1024,  # Linux counts KiB
    }
    Path(report).write_text(json.dumps(facts))
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(_start(sys.argv[1], sys.argv[2] == "1", sys.argv[3:]))
