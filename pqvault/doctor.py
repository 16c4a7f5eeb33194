"""What a bug report needs to know of this machine, and whether pqvault works on it."""

from __future__ import annotations

import io
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata

import pqvault
from pqvault import home, providers
from pqvault.crypto import kem
from pqvault.crypto.profiles import PROFILES
from pqvault.errors import IntegrityError, NoKeyFits, PQVaultError
from pqvault.keys import Identity
from pqvault.streams import decrypt, encrypt

__all__ = ["Examination", "examine"]

_PACKAGES = ("cryptography", "pyarrow", "zstandard", "blake3", "click", "fsspec")
# What makes AES-256-GCM, SHA-512 and BLAKE3 fast.
_FEATURES = ("aes", "vaes", "pclmulqdq", "vpclmulqdq", "sha_ni", "avx2", "avx512f")


@dataclass(slots=True)
class Examination:
    """Findings by name. ``checks``: ``ok`` or a sentence."""

    versions: dict[str, str] = field(default_factory=dict)
    cpu: dict[str, str] = field(default_factory=dict)
    providers: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    checks: dict[str, str] = field(default_factory=dict)

    @property
    def healthy(self) -> bool:
        """Whether every check passed."""
        return all(outcome == "ok" for outcome in self.checks.values())


def examine() -> Examination:
    """Look, and run the self-test. Touches no network and runs no program."""
    found = Examination()
    found.versions = {"pqvault": pqvault.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        found.versions[package] = metadata.version(package)
    found.cpu = _cpu()
    found.providers = providers.describe()
    try:
        found.places = {"PQVAULT_HOME": str(home.keystore().parent)}
    except PQVaultError:
        found.places = {"PQVAULT_HOME": "none"}  # a check says why
    identity = os.environ.get("PQVAULT_IDENTITY")
    if identity:
        found.places["PQVAULT_IDENTITY"] = identity
    for name, check in _CHECKS.items():
        found.checks[name] = _outcome(check)
    return found


def _cpu() -> dict[str, str]:
    flags: set[str] = set()
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith(("flags", "Features")):
                    flags = set(line.split(":", 1)[1].split())
                    break
    except OSError:
        return {"features": "unknown", "processors": str(os.cpu_count())}
    have = [feature for feature in _FEATURES if feature in flags]
    return {"features": " ".join(have) or "none of note", "processors": str(os.cpu_count())}


def _outcome(check: Callable[[], None]) -> str:
    try:
        check()
    except PQVaultError as error:
        return f"FAILED: {error.message}"
    return "ok"


_CONTENT = os.urandom(100_000) + bytes(100_000)


def _sealed(identity: Identity) -> bytes:
    out = io.BytesIO()
    encrypt(io.BytesIO(_CONTENT), out, [identity.recipient])
    return out.getvalue()


def _round_trip() -> None:
    identity, out = Identity.generate(), io.BytesIO()
    decrypt(io.BytesIO(_sealed(identity)), out, [identity])
    if out.getvalue() != _CONTENT:  # no `assert`: `python -O` leaves those out
        raise PQVaultError("what was sealed did not come back")


def _wrong_key() -> None:
    try:
        decrypt(io.BytesIO(_sealed(Identity.generate())), io.BytesIO(), [Identity.generate()])
    except NoKeyFits:
        return
    raise PQVaultError("a wrong key opened a sealed stream")


def _damage() -> None:
    identity = Identity.generate()
    sealed = bytearray(_sealed(identity))
    sealed[-1] ^= 1
    try:
        decrypt(io.BytesIO(bytes(sealed)), io.BytesIO(), [identity])
    except IntegrityError:
        return
    raise PQVaultError("damage was not noticed")


def _published_keys() -> None:
    if hidden := set(PROFILES) - set(kem.offered()):
        raise PQVaultError(
            f"not offered: {', '.join(sorted(hidden))}; a published key does not come out"
        )


def _home() -> None:
    folder = home.folder()
    if not os.access(folder, os.W_OK):
        raise PQVaultError(f"{folder} cannot be written")


_CHECKS = {
    "journals can be kept": _home,
    "published keys come out": _published_keys,
    "seal and open": _round_trip,
    "a wrong key is refused": _wrong_key,
    "damage is noticed": _damage,
}
