"""attack 2: one ciphertext for many passphrases, so that each guess tries all of them at once.

AES-GCM does not commit to its key: such ciphertexts exist and are made here. Every file that a
passphrase opens keeps a check of the passphrase beside it, which is compared before anything is
opened, so that all passphrases but one are the same wrong passphrase.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from test_format_properties import salamander
from test_keystore import CHEAPEST, path, store  # noqa: F401  (fixtures)

from pqvault.crypto import mac, passphrase, record
from pqvault.errors import IntegrityError, NoKeyFits
from pqvault.format import textdoc
from pqvault.keystore import Keystore, Unlocked, unlocks
from pqvault.sealedfile import LABEL, _bound, lock_fields, open_file

FIRST, SECOND, THIRD = b"first", b"second", b"third"
NONCE = bytes(12)


def lock_and_keys() -> tuple[passphrase.Lock, bytes, bytes]:
    """A lock of the first passphrase, and what both of them derive under its salt."""
    lock, key = passphrase.new_lock(FIRST, CHEAPEST)
    return lock, key, passphrase.derive(SECOND, lock.salt, CHEAPEST).key


def made_for_both(keys: tuple[bytes, bytes], aad: bytes) -> bytes:
    """A record that AES-GCM opens under either key."""
    sealed = NONCE + salamander((keys[0], 0), (keys[1], 0), (aad, aad))
    opened = [AESGCM(key).decrypt(NONCE, sealed[12:], aad) for key in keys]
    assert opened[0] != opened[1]
    return sealed


def said_by(open_it: Callable[[bytes], object], words: bytes) -> str:
    """What a passphrase is told that does not open."""
    with pytest.raises(NoKeyFits) as caught:
        open_it(words)
    assert caught.value.exit_code == 12
    return f"{caught.value.message}\n{caught.value.hint}"


def test_an_identity_file_for_two_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, first, second = lock_and_keys()
    aad, mac_key = _bound(lock, first)
    sealed = made_for_both((first, second), aad)
    fields = {**lock_fields(lock), "sealed": textdoc.b64encode(sealed)}
    tag = mac.compute(mac_key, textdoc.authenticated(LABEL, fields))
    data = textdoc.marshal(LABEL, fields, tag)

    def open_it(words: bytes) -> bytes:
        return open_file(data, words, "it")

    assert len(open_it(FIRST)) == 48  # what it was made for
    # The other one is told what any wrong one is, and its key meets no ciphertext.
    monkeypatch.setattr(record, "open_record", pytest.fail)
    assert said_by(open_it, SECOND) == said_by(open_it, THIRD)
    # A check that is nobody's does not make it open under both, but under none.
    nobody = {**fields, "check": textdoc.b64encode(bytes(32))}
    data = textdoc.marshal(LABEL, nobody, tag)
    assert said_by(open_it, FIRST) == said_by(open_it, SECOND)


def test_a_keystore_for_two_passphrases(
    store: Unlocked,  # noqa: F811
    path: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever can write the file puts the record there; the passphrase of the owner is sought."""
    keystore = store.key.keystore
    store.close()
    lock, first, second = lock_and_keys()
    parameters = unlocks.lock_text(lock)
    aad = unlocks._aad(keystore, "passphrase", parameters)
    sealed = made_for_both((first, second), aad)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE unlocks SET parameters=?, sealed=?", (parameters, sealed))

    def open_it(words: bytes) -> object:
        return Keystore(path).unlock(lambda: words)

    with pytest.raises(IntegrityError):  # opened, and no key of this keystore is in it
        open_it(FIRST)
    monkeypatch.setattr(record, "open_record", pytest.fail)
    assert said_by(open_it, SECOND) == said_by(open_it, THIRD)


def test_all_wrong_passphrases_take_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """One derivation each, whatever the file holds: nothing is tried again with other costs."""
    lock, _, _ = lock_and_keys()
    calls = []
    real = passphrase.derive
    monkeypatch.setattr(passphrase, "derive", lambda *a: calls.append(a[0]) or real(*a))
    for check in (lock.check, bytes(32), passphrase.derive(SECOND, bytes(16), CHEAPEST).check):
        calls.clear()
        began = time.perf_counter()
        for words in (SECOND, THIRD):
            with pytest.raises(NoKeyFits):
                replace(lock, check=check).open(words, "it")
        assert calls == [SECOND, THIRD] and time.perf_counter() - began < 5
