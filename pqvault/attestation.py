"""What was signed, as supply-chain tools read it: an in-toto Statement, and a DSSE envelope of it.

Statement v1: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md; DSSE v1:
https://github.com/secure-systems-lab/dsse/blob/master/protocol.md. Those
tools know no BLAKE3: beside it SHA-256 of every file is taken. A commit that names a digest of the
SHA-2 family, as those of `cnsa2` do, is attested with that alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any, Final

from pqvault.archive.layout import commit_name, part_file
from pqvault.archive.publicpart import PublicPart
from pqvault.archive.publicstate import PublicState
from pqvault.archive.sealedfiles import sealed_pieces
from pqvault.crypto import digest as digests
from pqvault.errors import PolicyRefused, UsageError
from pqvault.format.textdoc import MAX_SIZE
from pqvault.policy import Policy
from pqvault.progress import Progress, Report, ignore
from pqvault.signing import SigningKey
from pqvault.storage import Storage, storage_at

__all__ = ["PAYLOAD_TYPE", "PREDICATE_TYPE", "envelope", "statement"]

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://pqvault.dev/attestation/archive/v1"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"


def statement(
    archive: str | os.PathLike[str], policy: Policy, *, progress: Progress = ignore
) -> dict[str, Any]:
    """The Statement over every file of an archive whose parts ``policy``'s signers signed.

    Every file is read and compared with its signed commit. No key is needed. Raises
    UsageError for a policy without signers, PolicyRefused, IntegrityError, RolledBack.
    """
    if not policy.demands:
        raise UsageError(
            "an attestation says whose signatures were checked, and no signer is given",
            hint="name the signers with --signer or --policy",
        )
    storage = storage_at(archive)
    state = PublicState(storage)
    for problem in state.problems:
        raise problem
    subjects: list[dict[str, Any]] = []
    parts = []
    for part in state.ordered():
        signed_by = policy.check(part.commit, f"part {part.id}")
        if not signed_by:
            raise PolicyRefused(f"part {part.id} is not signed, so nothing is attested of it")
        commit = storage.read(commit_name(part.id), MAX_SIZE)
        kind = _known_to_tools(part)
        taken = hashlib.new(kind, commit).hexdigest()
        subjects.append({"name": commit_name(part.id), "digest": {kind: taken}})
        subjects += _subjects(storage, part, progress)
        parts.append(_facts(part, signed_by))
    return {
        "_type": STATEMENT_TYPE,
        "subject": subjects,
        "predicateType": PREDICATE_TYPE,
        "predicate": {"archive": state.archive, "parts": parts},
    }


def _known_to_tools(part: PublicPart) -> str:
    return "sha256" if part.commit.digest == "blake3" else part.commit.digest


def _facts(part: PublicPart, signed_by: tuple[str, ...]) -> dict[str, Any]:
    commit = part.commit
    return {
        "part": part.id,
        "seq": commit.seq,
        "created": commit.created,
        "kind": commit.kind,
        "sealedTo": list(commit.sealed_to),
        "signedBy": list(signed_by),
    }


def _subjects(storage: Storage, part: PublicPart, progress: Progress) -> Iterator[dict[str, Any]]:
    for file in part.commit.files:
        name = part_file(part.id, file.name)
        own, other = part.commit.digest, _known_to_tools(part)
        hasher = digests.new(other) if other != own else None
        for data in sealed_pieces(storage, name, file, own):
            if hasher is not None:
                hasher.update(data)
        found = {other: hasher.digest().hex()} if hasher is not None else {}
        progress(Report("attest", done=file.size))
        yield {"name": name, "digest": found | {own: file.digest}}


def envelope(statement: dict[str, Any], keys: Iterable[SigningKey]) -> dict[str, Any]:
    """A DSSE envelope of a Statement: a signature of every algorithm of each key, the key id
    being ``<signer id>:<algorithm>``. ML-DSA signs with an empty context, as tools verify."""
    payload = json.dumps(statement, separators=(",", ":")).encode()
    kind = PAYLOAD_TYPE.encode()
    encoded = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    signatures = [
        {"keyid": f"{key.signer.signer_id}:{name}", "sig": base64.b64encode(value).decode()}
        for key in keys
        for name, value in key.sign_foreign(encoded)
    ]
    return {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": signatures,
    }
