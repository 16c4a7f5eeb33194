"""webdataset streams tar shards that lie inside an archive."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import webdataset as wds
from sample import sealed_corpus

import pqvault
from pqvault import Identity
from pqvault.integrations.fsspec import PQVaultFileSystem


def add_shards(folder: Path) -> None:
    """Seal three tar files into the archive, as another part."""
    shards = folder / "shards"
    shards.mkdir()
    for number in range(3):
        with tarfile.open(shards / f"{number:03}.tar", "w") as shard:
            for sample in range(number * 100, number * 100 + 50):
                for ending, data in (("txt", f"sample {sample}"), ("cls", str(sample % 10))):
                    member = tarfile.TarInfo(f"{sample:06}.{ending}")
                    member.size = len(data)
                    shard.addfile(member, io.BytesIO(data.encode()))
    identity = Identity.load_file(folder / "key.txt")[0]
    pqvault.seal(
        shards, folder / "corpus.pqv", recipients=[identity.recipient], identities=[identity]
    )


def main() -> None:
    """``pqvault://`` as a scheme of webdataset, braces and all."""
    with sealed_corpus() as folder:
        add_shards(folder)
        archive = PQVaultFileSystem(f"{folder}/corpus.pqv")
        wds.gopen_schemes["pqvault"] = lambda url, mode, bufsize, **_: archive.open(url, mode)
        samples = (
            wds.WebDataset("pqvault://shards/{000..002}.tar", shardshuffle=False)
            .shuffle(50)
            .decode()
            .to_tuple("txt", "cls")
        )
        found = sorted(text for text, _ in samples)
        print(f"{len(found)} samples from 3 shards, the first is {found[0]!r}")


if __name__ == "__main__":
    main()
