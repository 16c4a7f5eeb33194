"""pqvault: a post-quantum encryption vault for AI data.

::

    import pqvault
    key = pqvault.Identity.generate()
    pqvault.seal("datasets", "corpus.pqv", recipients=[key.recipient])
    with pqvault.open("corpus.pqv", identities=[key]) as archive:
        data = archive.open_file("datasets/train.jsonl").read()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# name -> module: loaded when first used, because pyarrow takes a tenth of a second and
# `import pqvault` must not.
_HOMES = {
    "Archive": "pqvault.archive.archive",
    "CompactReport": "pqvault.archive.compact",
    "Entry": "pqvault.format.entries",
    "Identity": "pqvault.keys",
    "Keystore": "pqvault.keystore",
    "Kind": "pqvault.format.entries",
    "PruneReport": "pqvault.archive.prune",
    "Recipient": "pqvault.keys",
    "ReencryptReport": "pqvault.rotation.reencrypt",
    "RotateReport": "pqvault.rotation.run",
    "SealReport": "pqvault.archive.sealreport",
    "SealedReader": "pqvault.sealed",
    "SealedWriter": "pqvault.sealed",
    "UnsealReport": "pqvault.archive.unseal",
    "VerifyReport": "pqvault.archive.verify",
    "compact": "pqvault.maintaining",
    "decrypt": "pqvault.streams",
    "encrypt": "pqvault.streams",
    "gc": "pqvault.api",
    "inspect": "pqvault.archive.inspect",
    "open": "pqvault.api",
    "open_stream": "pqvault.streams",
    "prune": "pqvault.maintaining",
    "reencrypt": "pqvault.reencrypting",
    "rotate": "pqvault.rotating",
    "seal": "pqvault.api",
    "use_kem_provider": "pqvault.providers",
    "verify": "pqvault.api",
}

__all__ = [
    "Archive",
    "CompactReport",
    "Entry",
    "Identity",
    "Keystore",
    "Kind",
    "PruneReport",
    "Recipient",
    "ReencryptReport",
    "RotateReport",
    "SealReport",
    "SealedReader",
    "SealedWriter",
    "UnsealReport",
    "VerifyReport",
    "__version__",
    "compact",
    "decrypt",
    "encrypt",
    "gc",
    "inspect",
    "open",
    "open_stream",
    "prune",
    "reencrypt",
    "rotate",
    "seal",
    "use_kem_provider",
    "verify",
]

if TYPE_CHECKING:
    from pqvault.api import gc, open, seal, verify
    from pqvault.archive.archive import Archive
    from pqvault.archive.compact import CompactReport
    from pqvault.archive.inspect import inspect
    from pqvault.archive.prune import PruneReport
    from pqvault.archive.sealreport import SealReport
    from pqvault.archive.unseal import UnsealReport
    from pqvault.archive.verify import VerifyReport
    from pqvault.format.entries import Entry, Kind
    from pqvault.keys import Identity, Recipient
    from pqvault.keystore import Keystore
    from pqvault.maintaining import compact, prune
    from pqvault.providers import use_kem_provider
    from pqvault.reencrypting import reencrypt
    from pqvault.rotating import rotate
    from pqvault.rotation.reencrypt import ReencryptReport
    from pqvault.rotation.run import RotateReport
    from pqvault.sealed import SealedReader, SealedWriter
    from pqvault.streams import decrypt, encrypt, open_stream


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pqvault' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
