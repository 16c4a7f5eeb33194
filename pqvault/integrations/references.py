"""References to keys: what options, pickles and task arguments carry in place of a key.

=====================  ======================================================================
``file:PATH``, PATH    an identity file, which may be sealed under a passphrase
``env:NAME``           an environment variable: the path of an identity file, or its text
``keystore:prod@2``    a key of the keystore; ``keystore:`` all that open
``process:…``          an identity that :func:`hand_over` keeps in this process's memory
=====================  ======================================================================

A reference means the same in every process that can reach what it names. Whoever finds it in a
log, a pickle or a task specification learns a name (ATTACKS rows 38 and 40).
"""

from __future__ import annotations

import difflib
import inspect
import os
import secrets
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from pqvault import passphrases
from pqvault.errors import NotFound, UsageError
from pqvault.keyfile import is_secret
from pqvault.keys import Identity, Recipient
from pqvault.keystore import Keystore
from pqvault.keystore.identities import StoredIdentity, stored_signing_key
from pqvault.keystore.identities import identities as stored_identities
from pqvault.policy import ANYBODY, Policy
from pqvault.signing import Signer, SigningKey

__all__ = [
    "References",
    "anywhere",
    "check_options",
    "hand_over",
    "identities",
    "normal",
    "policy",
    "recipients",
    "signing_keys",
]

References: TypeAlias = str | Sequence[str]

_WHAT: Final = (
    "name a file (file:PATH), a variable (env:NAME) or a key of the keystore (keystore:KEY)"
)

# What was resolved already: one Argon2id a process, not one an archive.
_resolved: dict[str, list[Identity]] = {}
_unlocked: list[Identity] = []  # what a parent had of the keystore when it forked this process
_lock = threading.Lock()


def _after_fork() -> None:
    """A child keeps the keys that are in its memory, and no connection to the keystore."""
    global _lock
    _lock = threading.Lock()
    for reference, found in list(_resolved.items()):
        stored = [one for one in found if isinstance(one, StoredIdentity)]
        for one in stored:
            seed = one.opener.known(one.key_id)
            if seed is not None:
                _unlocked.append(Identity(seed, one.profile))
        if stored:
            del _resolved[reference]


os.register_at_fork(after_in_child=_after_fork)


def normal(references: object) -> tuple[str, ...]:
    """References as a tuple. Raises UsageError for anything that is or holds a key."""
    if references is None:
        return ()
    items = [references] if isinstance(references, str | os.PathLike) else references
    if isinstance(items, Identity) or not isinstance(items, Iterable):
        raise _not_a_reference()
    found = []
    for item in items:
        text = os.fspath(item) if isinstance(item, os.PathLike) else item
        if not isinstance(text, str) or is_secret(text):
            raise _not_a_reference()  # never repeating it
        found.append(text)
    return tuple(found)


def check_options(options: Iterable[str], of: Callable[..., None]) -> None:
    """Raise UsageError for a misspelt option of a function: `signer` would check no signature.

    Others are none of ours: hosts hand theirs on.
    """
    names = list(inspect.signature(of).parameters)
    for option in options:
        meant = difflib.get_close_matches(option, names, 1, 0.75)
        if meant:
            raise UsageError(f"there is no option {option!r}", hint=f"{meant[0]!r} is one")


def anywhere(references: object) -> tuple[str, ...]:
    """:func:`normal`, for processes in other folders, maybe of other machines: paths of files are
    absolute. Raises UsageError for what means nothing there."""
    found = []
    for one in normal(references):
        kind, value = _split(one)
        if kind == "process":
            raise _not_a_reference()
        found.append(f"file:{os.path.abspath(value)}" if kind == "file" else one)
    return tuple(found)


def _not_a_reference() -> UsageError:
    return UsageError(
        "a key was given where a reference to one belongs: options end up in pickles and logs",
        hint=_WHAT,
    )


def hand_over(identity: Identity) -> str:
    """Keep an identity for this process and its forked children; returns a reference to it.

    For tests and notebooks. A process that is spawned, or on another machine, has no such key.
    """
    reference = f"process:{secrets.token_hex(8)}"
    with _lock:
        _resolved[reference] = [identity]
    return reference


def identities(references: References | None) -> list[Identity]:
    """The identities that references name; without any, PQVAULT_IDENTITY, else the keystore.

    Raises NotFound naming a reference that resolves to nothing, UsageError, NoKeyFits for a
    wrong passphrase.
    """
    wanted = normal(references) or _default()
    return [identity for one in wanted for identity in _identities_of(one)]


def _default() -> tuple[str, ...]:
    return ("env:PQVAULT_IDENTITY",) if os.environ.get("PQVAULT_IDENTITY") else ("keystore:",)


def _identities_of(reference: str) -> list[Identity]:
    with _lock:
        if reference not in _resolved:
            _resolved[reference] = _resolve(reference)
        return _resolved[reference]


def _resolve(reference: str) -> list[Identity]:
    kind, value = _split(reference)
    if kind == "process":
        raise _nothing(
            reference,
            "this process holds no such key; a spawned worker needs a file, a variable or a"
            " key of the keystore",
        )
    if kind == "env":
        return _from_variable(reference, value)
    if kind == "keystore":
        return _from_keystore(reference, value)
    return _from_file(reference, value)


def _split(reference: str) -> tuple[str, str]:
    kind, colon, value = reference.partition(":")
    if colon and kind in ("file", "env", "keystore", "process"):
        return kind, value
    return "file", reference


def _from_file(reference: str, path: str) -> list[Identity]:
    if not os.path.exists(path):
        raise _nothing(reference, f"there is no file {path}")
    return Identity.load_file(path)


def _from_variable(reference: str, name: str) -> list[Identity]:
    value = os.environ.get(name)
    if not value:
        raise _nothing(reference, f"the environment variable {name} is not set here")
    if is_secret(value):
        return Identity.parse_file(os.fsencode(value), f"the environment variable {name}")
    return _from_file(reference, value)


def _from_keystore(reference: str, address: str) -> list[Identity]:
    if not Keystore.exists():
        raise _nothing(reference, "there is no keystore here")
    try:
        found = stored_identities(Keystore(), _ask, _warn, [address] if address else [])
    except NotFound as error:
        raise _nothing(reference, error.message) from None
    here = {one.key_id: one for one in _unlocked}
    return [here.get(one.key_id, one) for one in found]


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=2)


def _ask() -> bytes:
    return passphrases.ask("passphrase of the keystore: ", passphrases.KEYSTORE)


def _nothing(reference: str, why: str) -> NotFound:
    return NotFound(f"the key reference {reference} resolves to nothing: {why}", hint=_WHAT)


def recipients(references: References | None) -> list[Recipient]:
    """Public keys: ``age1pq1…`` texts, files of them (``file:PATH``, ``@PATH``) or keys of the
    keystore. Raises UsageError when there is none, KeyStateForbids."""
    found: list[Recipient] = []
    for one in normal(references):
        kind, value = _split(one)
        if one.startswith(("age1", "pqv-")):
            found.append(Recipient.parse(one))
        elif kind == "keystore":
            found.append(_stored_recipient(value))
        elif kind == "env":
            found += recipients(os.environ.get(value) or None)
        else:
            found += Recipient.load_file(value.removeprefix("@"))
    if not found:
        raise UsageError(
            "no recipient is given, so nobody could open what is written",
            hint="name one in the option `recipients`: age1pq1…, file:PATH or keystore:KEY",
        )
    return list(dict.fromkeys(found))


def _stored_recipient(address: str) -> Recipient:
    with Keystore() as store:
        return store.recipient(address)


def signing_keys(references: References | None) -> list[SigningKey]:
    """Signing keys: files of them, or keys of the keystore. Raises NotFound, KeyStateForbids."""
    found: list[SigningKey] = []
    for one in normal(references):
        kind, value = _split(one)
        if kind == "keystore":
            found.append(stored_signing_key(Keystore(), _ask, value))
        elif kind == "env":
            found += signing_keys(os.environ.get(value) or None)
        else:
            found += SigningKey.load_file(Path(value))
    return found


def policy(references: References | None) -> Policy:
    """Whom a reader believes: ``pqvsign1…`` texts, files of them, keys of the keystore."""
    found: list[Signer] = []
    for one in normal(references):
        kind, value = _split(one)
        if one.startswith("pqvsign1"):
            found.append(Signer.parse(one))
        elif kind == "keystore":
            with Keystore() as store:
                found += store.signers(value)
        else:
            found += Signer.load_file(value.removeprefix("@"))
    return Policy.of(found) if found else ANYBODY
