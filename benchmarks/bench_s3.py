"""Measure archives at an object store on loopback, against s3fs with the same bytes.

    python benchmarks/bench_s3.py [--size 512] [--runs 3] [--endpoint http://127.0.0.1:9000]
                                  [--link 40:15]

The store is moto's server (Python, one process), unless an endpoint is given or `rclone` can
`serve s3`. Seal reads, digests, encrypts and uploads content that does not compress; s3fs puts
the sealed files of that archive as they are. Unseal and verify read them back, and s3fs gets them.
By turns; the ratio is s3fs / pqvault, so above 1 pqvault is the quicker. Exit 1 when seal is below
0.8. ``--link``: answers that are so many milliseconds late, and so many megabytes a second for a
connection.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from measure import compiled

TARGET = 0.8
MIB = 1024 * 1024

COPY = """
import sys, s3fs
fs = s3fs.S3FileSystem()
getattr(fs, sys.argv[1])(sys.argv[2], sys.argv[3], recursive=True)
"""


def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def serves_s3(rclone: str) -> bool:
    done = subprocess.run([rclone, "serve", "s3", "--help"], capture_output=True)
    return b"over s3" in done.stdout.lower()


@contextmanager
def store(folder: Path) -> Iterator[tuple[str, str]]:
    """An S3 on loopback: its name and endpoint."""
    number = port()
    rclone = shutil.which("rclone")
    if rclone and serves_s3(rclone):
        name = "rclone serve s3"
        (folder / "store").mkdir()
        address = ["--addr", f"127.0.0.1:{number}", "--auth-key", "test,testtest"]
        argv = [rclone, "serve", "s3", str(folder / "store"), *address]
    else:
        name = "moto"
        argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(number)]
    server = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", number)) == 0:
                    break
            time.sleep(0.1)
        yield name, f"http://127.0.0.1:{number}"
    finally:
        server.kill()
        server.wait()


@contextmanager
def link(endpoint: str, slow: str | None) -> Iterator[str]:
    """The endpoint behind a slow link, where one is asked for."""
    if slow is None:
        yield endpoint
        return
    number = port()
    target = endpoint.rpartition(":")[2]
    argv = [sys.executable, str(Path(__file__).with_name("slowlink.py"))]
    between = subprocess.Popen([*argv, str(number), target, *slow.split(":")])
    try:
        time.sleep(1)
        yield f"http://127.0.0.1:{number}"
    finally:
        between.kill()
        between.wait()


def timed(argv: list[str]) -> tuple[float, float]:
    """Seconds, and seconds of processors, which a busy machine bends less."""
    begin, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    done = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = done.ru_utime + done.ru_stime - used.ru_utime - used.ru_stime
    return time.perf_counter() - begin, cpu


def by_turns(runs: int, job: Callable[[int], list[str]], peer: Callable[[int], list[str]]) -> float:
    """The median ratio peer / job of ``runs`` pairs."""
    ratios = []
    for number in range(runs):
        turn = 1 if number % 2 == 0 else -1  # A B, B A: the store takes fresh memory for the first
        pair = [job(number), peer(number)][::turn]
        (ours, cpu), (its, its_cpu) = [timed(argv) for argv in pair][::turn]
        ratios.append(its / ours)
        print(f"{ours:.2f} s ({cpu:.2f} CPU s), s3fs {its:.2f} s ({its_cpu:.2f})", flush=True)
    return statistics.median(ratios)


def measure(folder: Path, size: int, runs: int) -> dict[str, float]:
    """What was done, and how many times the speed of s3fs it had."""
    import s3fs

    import pqvault

    data, identity = folder / "data", folder / "key.txt"
    data.mkdir()
    for number in range(8):
        (data / f"{number}").write_bytes(os.urandom(size * MIB // 8))
    key = pqvault.Identity.generate()
    (folder / "key.pub").write_text(key.recipient.text)
    identity.write_text(key.text)
    identity.chmod(0o600)
    pqvault.seal(data, folder / "local.pqv", recipients=[key.recipient])
    bucket = f"s3://b{uuid.uuid4().hex[:8]}"
    s3fs.S3FileSystem().mkdir(bucket)
    tool, copy = [sys.executable, "-m", "pqvault_cli"], [sys.executable, "-c", COPY]

    def seal(number: int) -> list[str]:
        to = ["-o", f"{bucket}/{number}.pqv", "-r", f"@{folder}/key.pub"]
        return [*tool, "seal", str(data), "-q", *to]

    def put(number: int) -> list[str]:
        return [*copy, "put", f"{folder}/local.pqv/", f"{bucket}/{number}-put/"]

    def unseal(number: int) -> list[str]:
        to = ["-o", f"{folder}/out{number}"]
        return [*tool, "unseal", f"{bucket}/0.pqv", "-i", str(identity), "-q", *to]

    def verify(number: int) -> list[str]:
        return [*tool, "verify", f"{bucket}/0.pqv", "-i", str(identity), "-q"]

    def get(number: int) -> list[str]:
        return [*copy, "get", f"{bucket}/0.pqv/", f"{folder}/got{number}/"]

    ratios = {"seal": by_turns(runs, seal, put)}
    ratios["unseal"] = by_turns(runs, unseal, get)
    for number in range(runs):
        shutil.rmtree(folder / f"out{number}")
        shutil.rmtree(folder / f"got{number}")
    ratios["verify"] = by_turns(runs, verify, get)
    s3fs.S3FileSystem().rm(bucket, recursive=True)
    return ratios


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--size", type=int, default=512, help="MiB")
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--endpoint")
    options.add_argument("--link", metavar="MS:MB")
    given = options.parse_args()
    compiled()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.setdefault("AWS_ACCESS_KEY_ID", "test")
        os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "testtest")
        os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
        os.environ["PQVAULT_HOME"] = str(folder / "home")
        given_or_own = nullcontext((given.endpoint, given.endpoint))
        with (
            given_or_own if given.endpoint else store(folder) as (what, endpoint),
            link(endpoint, given.link) as os.environ["AWS_ENDPOINT_URL"],
        ):
            ratios = measure(folder, given.size, given.runs)
    for name, ratio in ratios.items():
        met = ratio >= TARGET
        target = f"at least {TARGET}× {'✓' if met else '✗'}" if name == "seal" else ""
        print(f"| {name}, {given.size} MiB, {what} | {ratio:.2f}× | {target} |")
    return 0 if ratios["seal"] >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
