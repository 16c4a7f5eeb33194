"""Measure archives at an object store on loopback: sealing, against s3fs putting the same bytes.

    python benchmarks/bench_s3.py [--size 512] [--runs 3] [--endpoint http://127.0.0.1:9000]

The store is moto's server (Python, one process), unless an endpoint is given or `rclone` can
`serve s3`. Seal reads, digests, encrypts and uploads content that does not compress; s3fs uploads
the sealed files of that archive as they are. By turns; the ratio is s3fs / pqvault, so above 1
pqvault is the quicker. Exit 1 below 0.8.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from measure import compiled

TARGET = 0.8
MIB = 1024 * 1024

PUT = """
import sys, s3fs
fs = s3fs.S3FileSystem()
fs.put(sys.argv[1], sys.argv[2], recursive=True)
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


def timed(argv: list[str]) -> tuple[float, float]:
    """Seconds, and seconds of processors, which a busy machine bends less."""
    begin, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    done = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = done.ru_utime + done.ru_stime - used.ru_utime - used.ru_stime
    return time.perf_counter() - begin, cpu


def measure(folder: Path, size: int, runs: int) -> float:
    """The median ratio s3fs / pqvault of ``runs`` pairs."""
    import s3fs

    import pqvault

    data = folder / "data"
    data.mkdir()
    for number in range(8):
        (data / f"{number}").write_bytes(os.urandom(size * MIB // 8))
    key = pqvault.Identity.generate()
    (folder / "key.pub").write_text(key.recipient.text)
    pqvault.seal(data, folder / "local.pqv", recipients=[key.recipient])
    bucket = f"b{uuid.uuid4().hex[:8]}"
    s3fs.S3FileSystem().mkdir(bucket)
    ratios = []
    for number in range(runs):
        tool = [sys.executable, "-m", "pqvault_cli", "seal", str(data), "-q"]
        to = ["-o", f"s3://{bucket}/{number}.pqv", "-r", f"@{folder}/key.pub"]
        put = [sys.executable, "-c", PUT, f"{folder}/local.pqv/", f"s3://{bucket}/{number}-put/"]
        jobs = [[*tool, *to], put]
        turn = 1 if number % 2 == 0 else -1  # A B, B A: the store takes fresh memory for the first
        (ours, cpu), (peer, its_cpu) = [timed(job) for job in jobs[::turn]][::turn]
        ratios.append(peer / ours)
        print(f"seal {ours:.2f} s ({cpu:.2f} CPU s), s3fs {peer:.2f} s ({its_cpu:.2f})", flush=True)
        for name in (f"{number}.pqv", f"{number}-put"):
            s3fs.S3FileSystem().rm(f"s3://{bucket}/{name}", recursive=True)
    return statistics.median(ratios)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--size", type=int, default=512, help="MiB")
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--endpoint")
    given = options.parse_args()
    compiled()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.setdefault("AWS_ACCESS_KEY_ID", "test")
        os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "testtest")
        os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
        os.environ["PQVAULT_HOME"] = str(folder / "home")
        if given.endpoint:
            os.environ["AWS_ENDPOINT_URL"] = given.endpoint
            what, ratio = given.endpoint, measure(folder, given.size, given.runs)
        else:
            with store(folder) as (what, endpoint):
                os.environ["AWS_ENDPOINT_URL"] = endpoint
                ratio = measure(folder, given.size, given.runs)
    met = ratio >= TARGET
    print(
        f"| {given.size} MiB to {what} | {ratio:.2f}× | at least {TARGET}× {'✓' if met else '✗'} |"
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
