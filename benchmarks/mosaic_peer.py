"""MosaicML streaming, shuffled: the other side of ratios of `bench_training.py`.

    PYTHON benchmarks/mosaic_peer.py IMAGES OUT

A program of its own, for an interpreter of its own: `mosaicml-streaming` wants versions of numpy
and of clients of clouds that pqvault's hosts don't go with. Writes the files of the folder IMAGES
as MDS to OUT, says ``{"version": …, "samples": …}``, and then answers each line of standard input:
a JSON list of numbers of samples, read by number from a `StreamingDataset`, or a JSON object of
options of torch's loader, which reads all, shuffled. An answer is one line: the bytes, or the
samples that the loader gave; seconds; and seconds of processors. Nothing but reading is timed.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write(images: Path, out: Path) -> int:
    """The files of ``images`` in the order of their names; gives how many there are."""
    from streaming import MDSWriter

    shutil.rmtree(out, ignore_errors=True)
    paths = sorted(path for path in images.rglob("*") if path.is_file())
    with MDSWriter(out=str(out), columns={"image": "bytes", "n": "int"}) as writer:
        for number, path in enumerate(paths):
            writer.write({"image": path.read_bytes(), "n": number})
    return len(paths)


def processors() -> float:
    """Seconds that this process and its ended children have used."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage)


def timed(job: Callable[[], int]) -> tuple[int, float, float]:
    """What the job counted, seconds, seconds of processors."""
    began, used = time.perf_counter(), processors()
    count = job()
    return count, time.perf_counter() - began, processors() - used


def same(batch: list[Any]) -> list[Any]:
    return batch


def main() -> None:
    """Write, then serve."""
    import streaming
    from torch.utils.data import DataLoader

    images, out = Path(sys.argv[1]), Path(sys.argv[2])
    samples = write(images, out)
    # Its default shuffle asks for a number of nodes and a batch size: one machine, as torch's.
    data = streaming.StreamingDataset(local=str(out), shuffle=True, batch_size=32)
    print(json.dumps({"version": streaming.__version__, "samples": samples}), flush=True)

    def by_number(numbers: list[int]) -> int:
        return sum(len(data[number]["image"]) for number in numbers)

    def loaded(options: dict[str, Any]) -> int:
        return sum(len(batch) for batch in DataLoader(data, collate_fn=same, **options))

    for line in sys.stdin:
        asked = json.loads(line)
        read = by_number if isinstance(asked, list) else loaded
        print(json.dumps(timed(lambda asked=asked, read=read: read(asked))), flush=True)


if __name__ == "__main__":
    main()
