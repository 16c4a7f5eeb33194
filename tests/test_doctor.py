"""The self-test of `pqvault doctor` can fail, also under ``python -O``."""

from __future__ import annotations

import subprocess
import sys

import pytest

BROKEN = {
    "decrypt = lambda *_: None": {
        "seal and open": "FAILED: what was sealed did not come back",
        "a wrong key is refused": "FAILED: a wrong key opened a sealed stream",
        "damage is noticed": "FAILED: damage was not noticed",
    },
    "kem.offered = lambda: ()": {
        "published keys come out": "FAILED: not offered: cnsa2, high, standard; "
        "a published key does not come out"
    },
    "": {},
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("flag", ["-O", "-B"])
def test_the_self_test_says_what_is_broken(flag: str, how: str) -> None:
    """Each check with what it is there to notice; the others stay ok."""
    code = f"""
from pqvault import doctor
doctor.{how or "_CHECKS"}
for name, check in doctor._CHECKS.items():
    print(name, doctor._outcome(check), sep="|")
"""
    done = subprocess.run([sys.executable, flag, "-c", code], capture_output=True, text=True)
    told = dict(line.split("|") for line in done.stdout.splitlines())
    assert len(told) == 5, done.stderr
    assert {name: outcome for name, outcome in told.items() if outcome != "ok"} == BROKEN[how]
