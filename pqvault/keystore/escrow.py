"""The store key in shares, as SLIP-39 writes them: 33 words each, labelled and checksummed.

Any ``threshold`` of them and a copy of the keystore (`key backup`) open it without a
passphrase; fewer say nothing about it. The package `shamir-mnemonic` is the reference
implementation of SLIP-39; it is not hardened against an attacker who measures this machine.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from pqvault.errors import NoKeyFits, PQVaultError, UsageError
from pqvault.keystore.change import Unlocked

__all__ = ["Share", "join", "parse", "split"]

WORDS: Final = 33  # of a share of 32 bytes
MAX_SHARES: Final = 16  # SLIP-39 section 3.1


@dataclass(frozen=True, slots=True)
class Share:
    """One share: a secret to be kept apart from the others. ``words``: 33 of SLIP-39's list."""

    keystore: str
    number: int
    threshold: int
    shares: int
    words: str = field(repr=False)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a share is not pickled")

    def text(self) -> str:
        """What is kept: two lines that say what this is, and the words."""
        day = time.strftime("%Y-%m-%d", time.gmtime())
        return (
            f"# pqvault keystore {self.keystore}, made {day}\n"
            f"# share {self.number} of {self.shares}; any {self.threshold} open the keystore "
            "(`pqvault key join`)\n"
            f"{self.words}\n"
        )


def _library() -> Any:
    try:
        import shamir_mnemonic
    except ImportError:
        raise PQVaultError(
            "shares need the package shamir-mnemonic",
            hint="install it with `pip install 'pqvault[escrow]'`",
        ) from None
    return shamir_mnemonic


def split(store: Unlocked, threshold: int, shares: int) -> list[Share]:
    """Split the store key; that it was done is in the audit log. Raises UsageError."""
    if not 2 <= threshold <= shares <= MAX_SHARES:
        raise UsageError(
            f"{threshold} of {shares} shares is not possible",
            hint=f"--threshold is at least 2 and at most --shares, which is at most {MAX_SHARES}",
        )
    library = _library()
    with store.change() as change:
        change.audit("split", "keystore", threshold=threshold, shares=shares)
    # No passphrase of SLIP-39's own, so stretching one (iteration_exponent) would be for nothing.
    words = library.generate_mnemonics(
        1, [(threshold, shares)], store.key.secret, iteration_exponent=0
    )[0]
    keystore = store.key.keystore
    return [Share(keystore, n, threshold, shares, text) for n, text in enumerate(words, 1)]


def parse(text: str) -> list[str]:
    """The words of all shares in a text: one share a line, ``#`` for comments."""
    lines = (line.strip() for line in text.splitlines())
    return [" ".join(line.lower().split()) for line in lines if line and not line.startswith("#")]


def join(words: Sequence[str]) -> bytes:
    """The store key, 32 bytes, from enough shares. Raises UsageError (a typing error, with the
    share's first words), NoKeyFits (too few, or of different keystores)."""
    library = _library()
    given = list(dict.fromkeys(words))
    enough = len(given)
    for share in given:
        if (count := len(share.split())) != WORDS:  # perhaps another secret: it is not repeated
            raise UsageError(
                f"a share has {WORDS} words, and a line of {count} was given",
                hint="give the files that `pqvault key split` wrote, or a whole share on one line",
            )
        try:
            enough = min(enough, library.Share.from_mnemonic(share).member_threshold)
        except library.MnemonicError:
            start = " ".join(share.split()[:2])
            raise UsageError(
                f"the share that starts with {start!r} has a wrong or missing word",
                hint="compare it with its paper: every word carries part of a checksum",
            ) from None
    try:
        # The library takes neither more nor less than it needs.
        secret: bytes = library.combine_mnemonics(given[:enough])
    except library.MnemonicError as error:
        # Its sentence holds the first words at most, which are the same in all shares.
        raise NoKeyFits(
            f"these shares do not make a key: {error}", hint="bring shares of one split, enough"
        ) from None
    if len(secret) != 32:
        raise NoKeyFits("these shares are not of a keystore")
    return secret
