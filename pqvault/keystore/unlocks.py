"""Ways to the store key. Each seals the same 32 bytes; any one of them opens the keystore.

=============  ==========================================================================
passphrase     under a key of Argon2id; always there
keyring        under a random key that the operating system's keyring holds
pkcs11         by an AES key inside a PKCS#11 token
=============  ==========================================================================
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import secrets
from collections.abc import Callable, Iterable
from typing import Any, Final

from pqvault import passphrases
from pqvault.crypto import kdf, record, token
from pqvault.crypto.passphrase import Cost, Lock, new_lock
from pqvault.crypto.token import Token
from pqvault.errors import FormatError, PQVaultError, UsageError
from pqvault.format.textdoc import Fields
from pqvault.keystore.authentic import StoreKey
from pqvault.keystore.records import Unlock
from pqvault.sealedfile import LOCK_KEYS, lock_fields, lock_of

__all__ = ["KEYRING", "PKCS11", "by_keyring", "by_passphrase", "by_token", "open_any"]

PASSPHRASE: Final = "passphrase"
KEYRING: Final = "keyring"
PKCS11: Final = "pkcs11"
MODULE: Final = "PQVAULT_PKCS11_MODULE"
PIN: Final = "PQVAULT_PKCS11_PIN"

_SERVICE: Final = "pqvault keystore"  # what the keyring shows; the user name is the keystore's id


def open_any(keystore: str, ways: Iterable[Unlock], ask: Callable[[], bytes]) -> bytes:
    """The store key, 32 bytes.

    A passphrase source that is named in the environment comes first; else the token, when
    ``PQVAULT_PKCS11_MODULE`` names its library; else the keyring; else ``ask``. Raises
    NoKeyFits for a wrong passphrase or PIN, FormatError, IntegrityError.
    """
    known = {way.kind: way for way in ways}
    if not passphrases.configured(passphrases.KEYSTORE):
        if PKCS11 in known and os.environ.get(MODULE):
            return _open_by_token(keystore, known[PKCS11])
        wrapping = _from_keyring(keystore) if KEYRING in known else None
        if wrapping is not None:
            return _open(keystore, known[KEYRING], wrapping)
    if PASSPHRASE not in known:
        raise FormatError("the keystore has no passphrase to be unlocked with")
    lock = parse_lock(known[PASSPHRASE].parameters)
    return _open(keystore, known[PASSPHRASE], lock.open(ask(), "the keystore"))


def _aad(keystore: str, kind: str, parameters: str) -> bytes:
    ident = bytes.fromhex(keystore)
    return kdf.bind("keystore unlock", ident, kind.encode(), parameters.encode())


def _seal(key: StoreKey, kind: str, parameters: str, wrapping: bytes) -> Unlock:
    aad = _aad(key.keystore, kind, parameters)
    return Unlock(kind, parameters, record.seal_record(wrapping, key.secret, aad))


def _open(keystore: str, way: Unlock, wrapping: bytes) -> bytes:
    aad = _aad(keystore, way.kind, way.parameters)
    return record.open_record(wrapping, way.sealed, aad, "the store key")


def by_passphrase(key: StoreKey, passphrase: bytes, cost: Cost) -> Unlock:
    """The store key sealed under a passphrase, with a fresh salt."""
    lock, wrapping = new_lock(passphrase, cost)
    return _seal(key, PASSPHRASE, lock_text(lock), wrapping)


def lock_text(lock: Lock) -> str:
    """The public half of a passphrase's lock as one line of JSON."""
    return json.dumps(lock_fields(lock), separators=(",", ":"))


def parse_lock(text: str) -> Lock:
    """What :func:`lock_text` wrote. Raises FormatError, also for a cost beyond the caps."""
    what = "the passphrase's parameters"
    lock = lock_of(Fields(_json(text, what), LOCK_KEYS, what), what)
    if lock_text(lock) != text:
        raise FormatError(f"{what} are not as pqvault writes them")
    return lock


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise FormatError(f"{what} are not JSON") from None


def by_keyring(key: StoreKey) -> Unlock:
    """The store key sealed under a fresh key that the operating system's keyring keeps.

    Raises PQVaultError without the package `keyring`, or when there is no keyring.
    """
    wrapping = secrets.token_bytes(32)
    library = _keyring()
    if library is None:
        raise PQVaultError(
            "the keyring needs the package keyring",
            hint="install it with `pip install 'pqvault[keyring]'`",
        )
    try:
        library.set_password(_SERVICE, key.keystore, base64.b64encode(wrapping).decode())
    except library.errors.KeyringError as error:
        raise PQVaultError(
            f"the keyring refuses: {type(error).__name__}",
            hint="is it unlocked in this session? Where there is no desktop there is none: name a"
            " passphrase's file in PQVAULT_PASSPHRASE_FILE",
        ) from None
    if _from_keyring(key.keystore) != wrapping:  # `null`, of who wants none, takes anything
        raise PQVaultError(
            "the keyring does not keep what it is given",
            hint="`python -m keyring diagnose` shows where another one is chosen",
        )
    return _seal(key, KEYRING, "{}", wrapping)


def _from_keyring(keystore: str) -> bytes | None:
    library = _keyring()
    if library is None:
        return None
    try:
        text = library.get_password(_SERVICE, keystore)
        wrapping = base64.b64decode(text or "", validate=True)
    except (library.errors.KeyringError, binascii.Error, ValueError):
        return None  # locked, or somebody else's: then the passphrase is asked for
    return wrapping if len(wrapping) == 32 else None


def _keyring() -> Any:
    try:
        import keyring
        import keyring.errors
    except ImportError:
        return None
    return keyring


def by_token(key: StoreKey, label: str, key_label: str) -> Unlock:
    """The store key sealed by the key ``key_label`` of a token, which makes it if need be.

    Raises UsageError when ``PQVAULT_PKCS11_MODULE`` is not set, NoKeyFits for a wrong PIN.
    """
    parameters = json.dumps({"token": label, "key": key_label}, separators=(",", ":"))
    at = _token(parameters)
    aad = _aad(key.keystore, PKCS11, parameters)
    return Unlock(PKCS11, parameters, token.seal_record(at, _pin(at), key.secret, aad))


def _open_by_token(keystore: str, way: Unlock) -> bytes:
    at = _token(way.parameters)
    aad = _aad(keystore, PKCS11, way.parameters)
    return token.open_record(at, _pin(at), way.sealed, aad, "the store key")


def _token(parameters: str) -> Token:
    what = "the token's parameters"
    fields = Fields(_json(parameters, what), ("token", "key"), what)
    module = os.environ.get(MODULE)
    if not module:
        raise UsageError(
            f"{MODULE} names no library of a token",
            hint="set it to the path of the token's library",
        )
    return Token(module, fields.text("token"), fields.text("key"))


def _pin(at: Token) -> str:
    return passphrases.ask(f"PIN of the token {at.label}: ", PIN).decode("utf-8", "replace")
