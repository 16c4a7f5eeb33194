"""Key derivation: one encoding, one closed table of purposes.

Everything that is keyed or bound in pqvault is named by :func:`bind`: the info of HKDF and
HPKE, and the context of Cobblestone. docs/format.md section 2 has the same table.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

__all__ = [
    "HANDOVER_PURPOSES",
    "KEYSET_PURPOSES",
    "KEYSTORE_PURPOSES",
    "PURPOSES",
    "ROOT_KEY_SIZE",
    "bind",
    "derive",
]

ROOT_KEY_SIZE: Final = 32  # bytes; a part's root key, uniformly random

# purpose -> the names of its fields, in order. Closed: a name that is not here is a bug,
# and no two purposes can collide because the purpose is part of every encoding.
PURPOSES: Final = MappingProxyType(
    {
        "envelope": ("archive", "part", "group", "profile", "kem", "key id"),
        "envelope mac": ("archive", "part", "group"),
        "commit mac": ("archive", "part"),
        "commit id": ("archive", "part"),
        "object": ("archive", "part", "name"),
        "table": ("archive", "part", "name"),
        "wal": ("archive", "part", "name"),
        "retired mac": ("archive", "part"),
        "removed mac": ("archive", "part"),
        "signature": ("archive", "part", "suite", "algorithm", "signer id"),
        "envelope signature": ("archive", "part", "suite", "algorithm", "signer id"),
        "retired signature": ("archive", "part", "suite", "algorithm", "signer id"),
    }
)

# The same for keysets: docs/format.md section 11.
KEYSET_PURPOSES: Final = MappingProxyType(
    {
        "keyset id": (),
        "keyset wrap": ("keyset", "version", "master key"),
    }
)

# The same for keys on their way to a worker process; what is made with it is never kept.
HANDOVER_PURPOSES: Final = MappingProxyType({"handover": ("archive", "part", "name", "key id")})

# The same for keys at rest: docs/keystore.md has this table.
KEYSTORE_PURPOSES: Final = MappingProxyType(
    {
        "passphrase": ("salt", "parameters"),
        "keystore unlock": ("keystore", "kind", "parameters"),
        "keystore seal": ("keystore",),
        "keystore mac": ("keystore",),
        "keystore seed": ("keystore", "key", "version", "profile", "key id", "public key"),
        "audit head": ("keystore",),
        "sealed identities": ("salt",),
        "sealed identities mac": ("salt",),
    }
)

_ALL: Final = MappingProxyType(
    {**PURPOSES, **KEYSET_PURPOSES, **HANDOVER_PURPOSES, **KEYSTORE_PURPOSES}
)


def bind(purpose: str, *fields: bytes) -> bytes:
    """``pqvault.dev/<purpose>@v1`` ‖ 0x00 ‖ for each field: uint16 big-endian length ‖ bytes.

    Raises KeyError for a purpose that is not in the table and ValueError for a wrong number
    of fields or a field over 65,535 bytes: both are bugs of the caller, never of the data.
    """
    names = _ALL[purpose]
    if len(fields) != len(names):
        raise ValueError(f"purpose {purpose!r} takes the fields {names}")
    out = [b"pqvault.dev/", purpose.encode("ascii"), b"@v1\x00"]
    for field in fields:
        if len(field) > 0xFFFF:
            raise ValueError("a field of a purpose is at most 65,535 bytes")
        out += (len(field).to_bytes(2, "big"), field)
    return b"".join(out)


def derive(root_key: bytes, length: int, purpose: str, *fields: bytes) -> bytes:
    """HKDF-Expand-SHA-512 (RFC 5869 section 2.3) of ``root_key``, ``length`` bytes.

    Expand without Extract: the root key is 32 uniformly random bytes already.
    """
    if len(root_key) != ROOT_KEY_SIZE:
        raise ValueError(f"a root key is {ROOT_KEY_SIZE} bytes")
    info = bind(purpose, *fields)
    return HKDFExpand(algorithm=hashes.SHA512(), length=length, info=info).derive(root_key)
