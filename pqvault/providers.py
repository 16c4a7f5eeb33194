"""Who does ML-KEM: `cryptography` (OpenSSL), or liboqs, byte for byte alike."""

from __future__ import annotations

from pqvault.crypto import kem, oqs_library
from pqvault.errors import PQVaultError

__all__ = ["describe", "in_use", "use_kem_provider"]


def use_kem_provider(name: str) -> None:
    """Choose ``cryptography`` or ``liboqs`` for all that this process does from now on.

    Without a call the variable ``PQVAULT_KEM_PROVIDER`` chooses, else it is `cryptography`. Never
    does one stand in for the other. Raises UsageError for another name, PQVaultError when liboqs
    is not installed, too old, or was built without ML-KEM.
    """
    kem.use(name)


def in_use() -> str:
    """Name, version and place of the provider, as the audit log has it."""
    return kem.provider().version()


def describe() -> dict[str, str]:
    """Both by name, for `pqvault doctor`. Loads liboqs to ask for its version, if it is there;
    runs no program and touches no network."""
    found = {"cryptography": "not in use", "liboqs": _liboqs()}
    try:
        provider = kem.provider()
        offered = ", ".join(kem.offered()) or "none"
        found[provider.NAME] = f"in use, {provider.version()}: profiles {offered}"
    except PQVaultError as error:
        found["chosen"] = f"FAILED: {error.message}"
    return found


def _liboqs() -> str:
    try:
        library = oqs_library.find()
    except PQVaultError as error:
        return f"not usable: {error.message}"
    if library is None:
        return "not installed"
    wrapper = oqs_library.wrapper_version()
    if wrapper is None:
        return f"{library.version} in {library.where}, but liboqs-python is not installed"
    return f"not in use, {library.version} in {library.where}, liboqs-python {wrapper}"
