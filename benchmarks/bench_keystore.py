"""A keystore of 10,000 keys: how long it takes to list, unlock, verify and rotate.

``python benchmarks/bench_keystore.py [KEYS]``. Argon2id is measured alone, because unlocking
should cost that and next to nothing else.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pqvault.crypto.passphrase import COSTS, new_lock
from pqvault.keys import Identity
from pqvault.keystore import Keystore, State, lifecycle

WORDS = b"a passphrase"


def best(what: Callable[[], object], times: int = 5) -> float:
    """The least seconds of several calls: other work on the machine only adds."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        what()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def main(keys: int) -> None:
    """Make, measure, print."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "keystore.sqlite"
        store = Keystore.create(WORDS, path=path)
        with store.change() as change:
            for number in range(keys):
                name = lifecycle.add_key(change, f"key-{number}")
                lifecycle.add_version(change, name, Identity.generate(), State.ACTIVE, "new")
            change.audit("new", "all")
        argon2 = best(lambda: new_lock(WORDS, COSTS["standard"]))
        command = [sys.executable, "-m", "pqvault_cli", "key", "list", "-q"]
        env = {**os.environ, "PQVAULT_HOME": folder}
        measured = {
            "list": best(Keystore(path).list),
            "pqvault key list": best(
                lambda: subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
            ),
            "Argon2id alone": argon2,
            "unlock": best(lambda: Keystore(path).unlock(lambda: WORDS)),
            "verify every row": best(store.verify),
            "rotate one": best(lambda: lifecycle.rotate(store, "key-5")),
        }
    print(f"{keys:,} keys, {path.name}")
    for what, seconds in measured.items():
        print(f"{what:<20} {1000 * seconds:8.1f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
