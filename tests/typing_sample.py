"""The public API as a user's type checker sees it. Checked by mypy, never run."""

from __future__ import annotations

from pathlib import Path

import pqvault
from pqvault.progress import Report


def watch(report: Report) -> None:
    """A progress callback."""
    print(report.stage, report.done, report.total)


def sample() -> None:
    """Every public name in use."""
    pqvault.use_kem_provider("cryptography")
    high: pqvault.Identity = pqvault.Identity.generate("high")
    print(high.profile.name, high.recipient.profile.kem)
    key: pqvault.Identity = pqvault.Identity.generate()
    recipient: pqvault.Recipient = key.recipient
    text: str = recipient.text
    report: pqvault.SealReport = pqvault.seal(
        Path("datasets"), "corpus.pqv", recipients=[recipient, text], level=9, progress=watch
    )
    size: int = report.sealed_size + report.size
    rotated: pqvault.RotateReport = pqvault.rotate("corpus.pqv", identities=[key], to=recipient)
    size += rotated.written
    with pqvault.open("corpus.pqv", identities=[key, "key.txt"]) as archive:
        for entry in archive.entries():
            path: bytes = entry.path
            kind: pqvault.Kind = entry.kind
            print(path, kind.letter, size)
        with archive.open_file("datasets/a") as file:
            data: bytes = file.read(10)
            more: bytearray = file.pread(10, 20)
        done: pqvault.UnsealReport = archive.unseal("out", ["**/*.jsonl"])
        found: pqvault.VerifyReport = archive.verify(sample=0.05)
        archive.refresh()
    assert data and more and done.files and not found.problems
    with open("in", "rb") as source, open("out.pqv", "wb") as output:
        written: int = pqvault.encrypt(source, output, [recipient])
    with pqvault.open_stream("out.pqv", [key]) as reader:
        length: int = reader.size
    assert written > length
    problems = pqvault.verify("corpus.pqv", identities=[key]).problems
    removed: list[str] = pqvault.gc("corpus.pqv", dry_run=True).removed
    print(problems, removed, pqvault.inspect("corpus.pqv").parts)
