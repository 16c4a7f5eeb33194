"""The main job on real files: make a key, seal, list, unseal, compare, print sizes and speed.

Run by ``make demo``. The sample corpus is what this Python's installed packages ship: sources,
type stubs, licences and binaries, some 200 MB in thousands of files. Nothing is downloaded.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

DEMO = Path(__file__).resolve().parent.parent / "demo"
PQVAULT = [sys.executable, "-m", "pqvault_cli"]


def main() -> None:
    """Every step is a command that could be typed."""
    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir()
    os.environ["PQVAULT_HOME"] = str(DEMO / "home")
    corpus = DEMO / "datasets"
    copy_corpus(corpus)

    recipient = run("keygen", "-o", "key.txt").strip()
    (DEMO / "key.pub").write_text(recipient + "\n")
    sealing = timed("seal", "datasets", "-r", "@key.pub")
    listing = run("ls", "-l", "datasets.pqv", "-i", "key.txt", show=False).splitlines()
    print("\n".join(listing[:5]), f"\n… {len(listing):,} entries")
    run("verify", "datasets.pqv", "-i", "key.txt")
    unsealing = timed("unseal", "datasets.pqv", "-i", "key.txt", "-o", "restored")

    size, files = compare(corpus, DEMO / "restored" / "datasets")
    sealed = sum(f.stat().st_size for f in (DEMO / "datasets.pqv").rglob("*") if f.is_file())
    print(f"\n{files:,} files compared byte for byte, with modes and times: all equal")
    print(f"content {size / 1e6:,.1f} MB, sealed {sealed / 1e6:,.1f} MB ({sealed / size:.0%})")
    print(f"seal   {sealing:5.2f} s  {size / sealing / 1e6:6,.0f} MB/s")
    print(f"unseal {unsealing:5.2f} s  {size / unsealing / 1e6:6,.0f} MB/s")


def copy_corpus(target: Path) -> None:
    """Real files of many kinds and sizes, with their modes and times."""
    target.mkdir()
    packages = Path(sysconfig.get_paths()["purelib"])
    for name in ("pyarrow", "cryptography", "rich", "pygments", "fsspec", "click", "zstandard"):
        source = packages / name
        if source.is_dir():
            skip = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, target / name, symlinks=True, ignore=skip)


def run(*args: str, show: bool = True) -> str:
    """Run a pqvault command in the demo folder; stop at the first that fails."""
    print(f"\n$ pqvault {' '.join(args)}", flush=True)
    done = subprocess.run([*PQVAULT, *args], cwd=DEMO, stdout=subprocess.PIPE, text=True)
    if show:
        print(shorten(done.stdout), end="", flush=True)
    if done.returncode:
        sys.exit(f"pqvault {args[0]} ended with {done.returncode}")
    return done.stdout


def shorten(text: str) -> str:
    """A recipient has 1,959 characters; show its head."""
    return "".join(
        line[:100] + "…\n" if len(line) > 120 else line for line in text.splitlines(True)
    )


def timed(*args: str) -> float:
    """Seconds that a command takes as a whole process."""
    began = time.monotonic()
    run(*args)
    return time.monotonic() - began


def compare(one: Path, other: Path) -> tuple[int, int]:
    """Bytes and number of files of two trees that must be equal, else the demo fails."""
    paths = sorted(path.relative_to(one) for path in one.rglob("*"))
    if paths != sorted(path.relative_to(other) for path in other.rglob("*")):
        sys.exit("the restored tree has other paths")
    size = files = 0
    for path in paths:
        a, b = (one / path).lstat(), (other / path).lstat()
        same = (a.st_mode, a.st_mtime_ns) == (b.st_mode, b.st_mtime_ns)
        if (one / path).is_file() and not (one / path).is_symlink():
            same = same and filecmp.cmp(one / path, other / path, shallow=False)
            size, files = size + a.st_size, files + 1
        if not same:
            sys.exit(f"{path} differs")
    return size, files


if __name__ == "__main__":
    main()
