"""Tensors of a sealed safetensors file, each decrypted when it is asked for."""

from __future__ import annotations

import io

import torch
from safetensors.torch import save
from sample import sealed_corpus

import pqvault
from pqvault import Identity
from pqvault.integrations.safetensors import safe_open


def main() -> None:
    """Weights that are never on the disk in plaintext, not even while they are written."""
    with sealed_corpus() as folder:
        weights = {f"layer.{n}": torch.full((64, 32), float(n)) for n in range(8)}
        identity = Identity.load_file(folder / "key.txt")[0]
        sealed = folder / "model.safetensors.pqv"
        with sealed.open("wb") as output:
            pqvault.encrypt(io.BytesIO(save(weights)), output, [identity.recipient])

        with safe_open(f"pqvault::file://{sealed}") as file:
            third = file.get_tensor("layer.3")
            rows = file.get_slice("layer.5")[10:12]
            print(f"{len(file.keys())} tensors; one is {tuple(third.shape)}, all {third[0, 0]:g}")
            assert torch.equal(rows, weights["layer.5"][10:12])


if __name__ == "__main__":
    main()
