"""Train a small language model from a sealed archive, stop it, and go on with the same batches.

Nothing is in plaintext on the disk: the corpus is an archive, the checkpoint a sealed stream. Needs
`pip install 'pqvault[torch]'`; takes some seconds on a CPU.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import fsspec
import torch
from torch import nn
from torchdata.stateful_dataloader import StatefulDataLoader

import pqvault
from pqvault import Identity
from pqvault.integrations.torch import SealedRecords

STEPS, STOP = 60, 25
LENGTH = 64  # characters of a sample
ANIMALS = ("heron", "otter", "lynx", "marten", "stork")


class Model(nn.Module):
    """Predicts the next character."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, width)
        self.body = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, 128)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """(batch, length) of characters to (batch, length, 128) of scores."""
        hidden, _ = self.body(self.embed(text))
        return self.head(hidden)


def encode(record: dict[str, Any]) -> torch.Tensor:
    """A record as characters."""
    text = str(record["text"])[: LENGTH + 1].ljust(LENGTH + 1)
    return torch.tensor([min(ord(c), 127) for c in text])


def make_corpus(folder: Path) -> Path:
    """Three files of JSONL, sealed; the plaintext is deleted."""
    corpus = folder / "corpus"
    corpus.mkdir()
    for part in range(3):
        lines = (
            json.dumps({"text": f"{n}: the {ANIMALS[n % 5]} crosses river {n % 11} at dawn"})
            for n in range(part * 1000, part * 1000 + 1000)
        )
        (corpus / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
    identity = Identity.generate()
    identity.save_file(folder / "key.txt")
    (folder / "key.pub").write_text(identity.recipient.text + "\n")
    pqvault.seal(corpus, folder / "corpus.pqv", recipients=[identity.recipient])
    for path in corpus.iterdir():
        path.unlink()
    return folder / "corpus.pqv"


class Run:
    """One process of training."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.checkpoint = f"pqvault::file://{folder}/checkpoint.pqv"
        self.options = {
            "identities": f"file:{folder}/key.txt",
            "recipients": f"file:{folder}/key.pub",
        }
        self.model = Model()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=5e-3)
        records = SealedRecords(
            folder / "corpus.pqv",
            identities=f"file:{folder}/key.txt",  # a reference: workers load the key themselves
            globs="**/*.jsonl",
            transform=encode,
            seed=7,
        )
        self.loader = StatefulDataLoader(records, batch_size=32, num_workers=2)
        self.step = 0

    def train(self, until: int) -> list[tuple[str, float]]:
        """Step up to ``until``; for each step what the batch was, and the loss."""
        seen = []
        for batch in self.loader:
            scores = self.model(batch[:, :-1])
            loss = nn.functional.cross_entropy(scores.flatten(0, 1), batch[:, 1:].flatten())
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.step += 1
            digest = hashlib.blake2b(batch.numpy().tobytes(), digest_size=8).hexdigest()
            seen.append((digest, round(loss.item(), 6)))
            if self.step == until:
                break
        return seen

    def save(self) -> None:
        """Model, optimizer and where the loader stands, as a sealed stream."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "loader": json.dumps(self.loader.state_dict()),
            "step": self.step,
        }
        with fsspec.open(self.checkpoint, "wb", **self.options) as file:
            torch.save(state, file)

    def load(self) -> None:
        """Go on where a run was saved."""
        with fsspec.open(self.checkpoint, "rb", **self.options) as file:
            state = torch.load(file, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.loader.load_state_dict(json.loads(state["loader"]))
        self.step = state["step"]


def main() -> None:
    """One run to the end; another that is stopped, and a third that carries on for it."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["PQVAULT_HOME"] = str(folder / "home")
        make_corpus(folder)

        whole = Run(folder)
        straight = whole.train(STEPS)
        print(f"{STEPS} steps, loss {straight[0][1]:.3f} -> {straight[-1][1]:.3f}")

        stopped = Run(folder)
        begun = stopped.train(STOP)
        stopped.save()
        del stopped

        again = Run(folder)
        again.load()
        rest = again.train(STEPS)
        print(f"stopped after {STOP}, resumed at {again.step - len(rest)}")
        assert begun + rest == straight, "the batches differ"
        for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
            assert torch.equal(one, other)
        print(f"all {STEPS} batches, losses and final weights are identical")


if __name__ == "__main__":
    main()
