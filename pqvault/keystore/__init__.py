"""Where an operator keeps identities and their history. docs/keystore.md.

One SQLite file. ``store`` reads it and unlocks it, ``change`` is the one way to change it,
``lifecycle`` and its neighbours say what changes there are, ``authentic`` says what is checked.
"""

from __future__ import annotations

from pqvault.crypto.passphrase import COSTS
from pqvault.keystore.change import Unlocked
from pqvault.keystore.records import is_address
from pqvault.keystore.states import State
from pqvault.keystore.store import KeyFacts, Keystore

__all__ = ["COSTS", "KeyFacts", "Keystore", "State", "Unlocked", "is_address"]
