"""``--sign``, ``--signer``, ``--policy``, ``--allow-unsigned``: who vouches, who is believed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from . import completing
from .options import without_keystore

if TYPE_CHECKING:
    from pqvault.signing import Signer, SigningKey

Command = Callable[..., Any]

__all__ = ["load_signing_keys", "policy_options", "sign_option"]


def sign_option(command: Command) -> Command:
    """``--sign KEY``, repeatable; the command gets ``sign``, a list of signing keys."""

    @click.option(
        "--sign",
        multiple=True,
        metavar="KEY",
        shell_complete=completing.keys_or_files,
        help="Sign what is added: a signing key file, or a key of the keystore. Repeatable.",
    )
    @wraps(command)
    def wrapped(*args: Any, sign: tuple[str, ...], **kwargs: Any) -> Any:
        return command(*args, sign=load_signing_keys(sign), **kwargs)

    return wrapped


def policy_options(command: Command) -> Command:
    """The options that say whom to believe; the command gets ``policy``."""

    @click.option(
        "--signer",
        multiple=True,
        metavar="SIGNER",
        shell_complete=completing.recipients,
        help="Every part must be signed by one of these: pqvsign1…, @FILE, or a key of the"
        " keystore. Repeatable.",
    )
    @click.option(
        "--policy",
        type=click.Path(),
        metavar="FILE",
        help="Trusted signers and how many must have signed.",
    )
    @click.option(
        "--allow-unsigned", is_flag=True, help="Accept unsigned parts that hide nothing signed."
    )
    @click.option(
        "--signed-envelopes",
        is_flag=True,
        help="Every envelope must be signed too, as seal --sign and rotate --sign do.",
    )
    @wraps(command)
    def wrapped(
        *args: Any,
        signer: tuple[str, ...],
        policy: str | None,
        allow_unsigned: bool,
        signed_envelopes: bool,
        **kwargs: Any,
    ) -> Any:
        chosen = _policy(signer, policy, allow_unsigned, signed_envelopes)
        return command(*args, policy=chosen, **kwargs)

    return wrapped


def _policy(signers: tuple[str, ...], file: str | None, allow_unsigned: bool, wrapped: bool) -> Any:
    from pqvault.errors import UsageError
    from pqvault.policy import Policy

    if file is not None:
        if signers:
            raise UsageError("--signer and --policy both say who is trusted", hint="give one")
        found = Policy.load_file(file, allow_unsigned=allow_unsigned)
        return replace(found, envelopes=found.envelopes or wrapped)
    trusted = [one for text in signers for one in _signers(text)]
    if wrapped and not trusted:
        raise UsageError("--signed-envelopes needs to know by whom", hint="name them with --signer")
    return Policy.of(trusted, allow_unsigned=allow_unsigned, envelopes=wrapped)


def _signers(text: str) -> list[Signer]:
    from pqvault.keystore import Keystore, is_address
    from pqvault.signing import Signer

    if text.startswith("@"):
        return Signer.load_file(text[1:])
    if is_address(text) and Keystore.exists():
        with Keystore() as store:
            return store.signers(text)
    with without_keystore(text):
        return [Signer.parse(text)]


def load_signing_keys(texts: tuple[str, ...]) -> list[SigningKey]:
    """From ``--sign``: files, which may be sealed under a passphrase, or keys of the keystore.

    Raises UsageError, NotFound, KeyStateForbids for a key that may not sign.
    """
    return [key for text in texts for key in _signing_keys(text)]


def _signing_keys(text: str) -> list[SigningKey]:
    from pqvault.keystore import Keystore, is_address
    from pqvault.signing import SigningKey

    from . import unlocking

    if not os.path.exists(text) and is_address(text) and Keystore.exists():
        return [unlocking.stored_signing_key(text)]
    return SigningKey.load_file(text, ask=unlocking.ask_identity)
