"""The key of a table file as pyarrow wants it. docs/format.md section 10.2.

Always direct keys and a fresh properties object for each file: with one object for two files a
column chunk of one is accepted in the other, and a client that pyarrow calls back can hang the
interpreter at its end. Never AES_GCM_CTR_V1: a flipped byte comes back silently wrong there.
"""

from __future__ import annotations

from typing import Any, Final

from pqvault.lazy import LazyModule

__all__ = ["MAGIC", "MAX_ROW_GROUPS", "decryption", "encryption"]

pe = LazyModule("pyarrow.parquet.encryption")

MAGIC: Final = b"PARE"  # at both ends of a file whose footer is encrypted
MAX_ROW_GROUPS: Final = 32_767  # module AADs hold the ordinal in 16 bits, signed


def encryption(key: bytes, aad_prefix: bytes) -> Any:
    """Properties to write one file with. ``key``: 32 bytes, of that file alone."""
    return pe.create_encryption_properties(
        key, aad_prefix=aad_prefix, store_aad_prefix=False, encryption_algorithm="AES_GCM_V1"
    )


def decryption(key: bytes, aad_prefix: bytes) -> Any:
    """Properties to read one file with; a file that is not encrypted is refused."""
    return pe.create_decryption_properties(
        key, aad_prefix=aad_prefix, check_footer_integrity=True, allow_plaintext_files=False
    )
