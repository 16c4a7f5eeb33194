"""Measure what a key costs: make one, wrap a root key to it, open that, in every profile.

    python benchmarks/bench_kem.py [--rounds N]

CPU microseconds, the least of the rounds, of HPKE by `cryptography` and, where it is installed,
with ML-KEM from liboqs; the last column is the second over the first, wrap and unwrap together, in
the same run. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

from pqvault.crypto import kem
from pqvault.crypto.profiles import PROFILES, Profile
from pqvault.errors import PQVaultError

CALLS = 100  # of each, in a round
INFO = b"pqvault.dev/envelope@v1\0" + bytes(150)


def least(call: Callable[[], object], rounds: int) -> float:
    """CPU microseconds of one call."""
    found = []
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(CALLS):
            call()
        found.append((time.process_time() - began) / CALLS * 1e6)
    return min(found)


def measure(profile: Profile, provider: str, rounds: int) -> tuple[float, float, float]:
    """(key pair, wrap, unwrap)."""
    kem.use(provider)
    seed, key = os.urandom(profile.seed_size), bytes(32)
    public_key = kem.public_key_of(profile, seed)
    sealed = kem.wrap(profile, key, public_key, INFO)
    assert kem.unwrap(profile, sealed, seed, INFO, "it") == key
    return (
        least(lambda: kem.public_key_of(profile, seed), rounds),
        least(lambda: kem.wrap(profile, key, public_key, INFO), rounds),
        least(lambda: kem.unwrap(profile, sealed, seed, INFO, "it"), rounds),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    providers = ["cryptography"]
    try:
        kem.use("liboqs")
        providers.append("liboqs")
    except PQVaultError as error:
        print(f"without liboqs: {error.message}\n")
    print("| profile | provider | key pair µs | wrap µs | unwrap µs | to `cryptography` |")
    print("|---|---|---|---|---|---|")
    for profile in PROFILES.values():
        first = 0.0
        for provider in providers:
            pair, wrap, unwrap = measure(profile, provider, rounds)
            first = first or wrap + unwrap
            ratio = (wrap + unwrap) / first
            row = f"{profile} | {provider} | {pair:.0f} | {wrap:.0f} | {unwrap:.0f} | {ratio:.2f}"
            print(f"| {row} |")


if __name__ == "__main__":
    main()
