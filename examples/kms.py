"""A data lake with Parquet's own encryption: post-quantum keys, one column for fewer people.

Run it anywhere: ``python examples/kms.py``. It works in a folder of its own and cleans up.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pyarrow as pa

import pqvault
from pqvault.errors import NoKeyFits
from pqvault.keyset import Keyset
from pqvault.tables.kms import Kms


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        lake = Path(folder)
        alice, bob = pqvault.Identity.generate(), pqvault.Identity.generate()
        Keyset.create(lake / "keys.pqv", [alice.recipient], ["lake", "pii"])
        kms = Kms(Keyset.open(lake / "keys.pqv", [alice]))
        print(f"keyset {kms.keyset.id}: {', '.join(kms.keyset.names)}")

        for day in range(3):
            table = pa.table(
                {"day": [day] * 1000, "email": [f"user{i}@example.org" for i in range(1000)]}
            )
            kms.write_table(
                table,
                lake / f"day{day}.parquet",
                footer_key="lake",
                column_keys={"pii": ["email"]},
                external=True,
            )
        files = sorted(lake.glob("*.parquet"))
        print(f"{len(files)} files, {kms.dataset(files).count_rows():,} rows")

        # Alice leaves. Her key gives way to Bob's: one small file is rewritten.
        begun = time.perf_counter()
        pqvault.rotate(lake / "keys.pqv", identities=[alice], to=bob.recipient)
        print(f"recipients rotated in {1000 * (time.perf_counter() - begun):.0f} ms")
        try:
            Keyset.open(lake / "keys.pqv", [alice])
        except NoKeyFits as error:
            print(f"alice: {error.message.replace(folder, '')}")

        # She may have kept the master keys: new ones for what comes, and for the keys that are.
        kms = Kms(Keyset.open(lake / "keys.pqv", [bob]))
        for name in kms.keyset.names:
            kms.keyset.renew(name)
        print(f"{sum(map(kms.rotate_material, files))} data keys wrapped anew")
        print(f"opens for bob: {kms.read_table(files[0]).num_rows:,} rows")


if __name__ == "__main__":
    main()
