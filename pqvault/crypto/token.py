"""Records sealed by a PKCS#11 token: AES-256-GCM under a key that never leaves it.

The module is native code that we load, so its path comes from the user (``PQVAULT_PKCS11_MODULE``)
and never from a file (ATTACKS row 25). A wrong PIN is tried once: tokens lock themselves.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from pqvault.errors import IntegrityError, NoKeyFits, NotFound, PQVaultError

__all__ = ["Token", "open_record", "seal_record"]

NONCE_SIZE: Final = 12  # bytes
TAG_BITS: Final = 128


@dataclass(frozen=True, slots=True)
class Token:
    """``module``: path of the PKCS#11 library; ``label``: the token's; ``key``: its key's."""

    module: str
    label: str
    key: str


def seal_record(token: Token, pin: str, data: bytes, aad: bytes) -> bytes:
    """nonce (12 bytes) ‖ ciphertext ‖ tag (16). Makes the key when the token has none."""
    pkcs11 = _library()
    nonce = secrets.token_bytes(NONCE_SIZE)
    with _session(token, pin, write=True) as session:
        key = _key(session, token, make=True)
        sealed: bytes = key.encrypt(
            data,
            mechanism=pkcs11.Mechanism.AES_GCM,
            mechanism_param=pkcs11.GCMParams(nonce, aad, TAG_BITS),
        )
    return nonce + sealed


def open_record(token: Token, pin: str, sealed: bytes, aad: bytes, what: str) -> bytes:
    """What :func:`seal_record` sealed. Raises NoKeyFits (PIN), NotFound (token or key),
    IntegrityError naming ``what``."""
    pkcs11 = _library()
    parameters = pkcs11.GCMParams(sealed[:NONCE_SIZE], aad, TAG_BITS)
    with _session(token, pin) as session:
        key = _key(session, token)
        try:
            data: bytes = key.decrypt(
                sealed[NONCE_SIZE:],
                mechanism=pkcs11.Mechanism.AES_GCM,
                mechanism_param=parameters,
            )
        except pkcs11.PKCS11Error:
            # Tokens do not agree on which error a wrong tag is.
            raise IntegrityError(f"{what} failed authentication in the token") from None
    return data


def _library() -> Any:
    try:
        import pkcs11
    except ImportError:
        raise PQVaultError(
            "a PKCS#11 token needs the package python-pkcs11",
            hint="install it with `pip install 'pqvault[pkcs11]'`",
        ) from None
    return pkcs11


@contextmanager
def _session(token: Token, pin: str, *, write: bool = False) -> Iterator[Any]:
    pkcs11 = _library()
    try:
        slot = pkcs11.lib(token.module).get_token(token_label=token.label)
        with slot.open(user_pin=pin, rw=write) as session:
            yield session
    except (pkcs11.NoSuchToken, pkcs11.TokenNotPresent):
        raise NotFound(f"there is no token {token.label!r}", hint="is it plugged in?") from None
    except (pkcs11.PinIncorrect, pkcs11.PinLenRange, pkcs11.PinInvalid):
        raise NoKeyFits(f"the PIN does not open the token {token.label!r}") from None
    except pkcs11.PinLocked:
        raise NoKeyFits(f"the PIN of the token {token.label!r} is locked") from None
    except pkcs11.PKCS11Error as error:
        # str(error) is often empty; its class says what happened.
        raise PQVaultError(
            f"the token {token.label!r} failed: {type(error).__name__} {error}".rstrip(),
            hint="PQVAULT_PKCS11_MODULE names its library",
        ) from None


def _key(session: Any, token: Token, *, make: bool = False) -> Any:
    pkcs11 = _library()
    kind = pkcs11.ObjectClass.SECRET_KEY
    try:
        return session.get_key(object_class=kind, label=token.key)
    except pkcs11.NoSuchKey:
        if not make:
            raise NotFound(f"the token {token.label!r} has no key {token.key!r}") from None
    template = {pkcs11.Attribute.SENSITIVE: True, pkcs11.Attribute.EXTRACTABLE: False}
    return session.generate_key(
        pkcs11.KeyType.AES, 256, label=token.key, store=True, template=template
    )
