"""Signatures, docs/format.md section 9: whether a signer has signed a document that is a file.

``python -m vectors.signatures`` writes them again, the same each time. Each is a JSON file; see
README.md. Documents, ids and contexts are made by hand from the page, with nothing of pqvault.
ML-DSA signatures are made with random bytes: they stand in ``signatures.json``, and
``--new-signatures`` makes those that are missing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from vectors.archives import archive_with_retired_key
from vectors.people import made
from vectors.registry import Registry, json_files, write_files
from vectors.signers import CNSA2, ED, FRIDA, GRETA, HEDI, KNOWN, Signer
from vectors.testkit import HERE, b64, flip

FOLDER: Final = HERE / "signatures"
GROUP_ORDER: Final = 2**252 + 27742317777372353535851937790883648493  # of Ed25519, RFC 8032

Case = dict[str, Any]
case: Final = Registry[Case]()


def documents() -> dict[str, bytes]:
    """One of each kind."""
    files: Any = archive_with_retired_key()[0]
    folders = {"commit": "commits/", "envelope": "envelopes/", "retired": "retired/"}
    return {
        kind: next(data for name, data in files.items() if name.startswith(folder))
        for kind, folder in folders.items()
    }


DOCUMENTS: Final = documents()
COMMIT: Final = DOCUMENTS["commit"]


def asked(signer: Signer, *lines: bytes, kind: str = "commit", answer: str = "wrong") -> Case:
    """A document, these lines behind it, and who is asked for."""
    data = DOCUMENTS[kind] + b"".join(lines)
    return {"kind": kind, "signer": signer.text, "answer": answer, "file": b64(data)}


def signed(signer: Signer, signature: bytes, **options: Any) -> Case:
    """The commit, with this signature of this signer."""
    return asked(signer, signer.line(signature), **options)


@case("a commit that is signed with both algorithms")
def signed_commit() -> Case:
    return signed(FRIDA, FRIDA.sign(COMMIT), answer="signed")


@case("a commit that is signed with ML-DSA-87")
def signed_commit_cnsa2() -> Case:
    return signed(HEDI, HEDI.sign(COMMIT), answer="signed")


@case("an envelope that is signed")
def signed_envelope() -> Case:
    signature = FRIDA.sign(DOCUMENTS["envelope"], "envelope")
    return signed(FRIDA, signature, kind="envelope", answer="signed")


@case("a record of a retired key that is signed")
def signed_record() -> Case:
    signature = FRIDA.sign(DOCUMENTS["retired"], "retired")
    return signed(FRIDA, signature, kind="retired", answer="signed")


@case("two have signed: the one who is asked for stands second")
def signed_by_two() -> Case:
    first, second = sorted((FRIDA, GRETA), key=lambda signer: signer.id)
    lines = [signer.line(signer.sign(COMMIT)) for signer in (first, second)]
    return asked(second, *lines, answer="signed")


@case("nobody has signed")
def unsigned() -> Case:
    return asked(FRIDA, answer="unsigned")


@case("another one has signed, wrongly: nobody asks for that one")
def signed_by_another() -> Case:
    return asked(FRIDA, GRETA.line(bytes(3373)), answer="unsigned")


@case("the signer id is by the digest of the other suite: somebody else's")
def id_of_other_digest() -> Case:
    id = blake3(CNSA2.encode() + HEDI.public_key).digest()[:16]
    return asked(HEDI, HEDI.line(HEDI.sign(COMMIT), id=id), answer="unsigned")


@case("a bit of the Ed25519 signature is flipped: the other one alone does not do")
def ed25519_flipped() -> Case:
    return signed(FRIDA, flip(FRIDA.sign(COMMIT), 5))


@case("a bit of the ML-DSA-65 signature is flipped: the other one alone does not do")
def mldsa65_flipped() -> Case:
    return signed(FRIDA, flip(FRIDA.sign(COMMIT), 700))


@case("a bit of the ML-DSA-87 signature is flipped")
def mldsa87_flipped() -> Case:
    return signed(HEDI, flip(HEDI.sign(COMMIT), 700))


@case("the two signatures in the other order")
def halves_exchanged() -> Case:
    signature = FRIDA.sign(COMMIT)
    return signed(FRIDA, signature[64:] + signature[:64])


@case("the Ed25519 signature is of another signer, the ML-DSA-65 one right")
def half_of_another() -> Case:
    return signed(FRIDA, GRETA.sign(COMMIT)[:64] + FRIDA.sign(COMMIT)[64:])


@case("a byte is missing")
def short() -> Case:
    return signed(FRIDA, FRIDA.sign(COMMIT)[:-1])


@case("a byte more")
def long() -> Case:
    return signed(FRIDA, FRIDA.sign(COMMIT) + b"\0")


@case("Ed25519 alone")
def ed25519_alone() -> Case:
    return signed(FRIDA, FRIDA.sign(COMMIT)[:64])


@case("an Ed25519 signature with S and the order of the group in the place of S")
def ed25519_s_too_large() -> Case:
    signature = FRIDA.sign(COMMIT)
    number = int.from_bytes(signature[32:64], "little") + GROUP_ORDER
    return signed(FRIDA, signature[:32] + number.to_bytes(32, "little") + signature[64:])


@case("a signature for an envelope behind a commit")
def of_another_purpose() -> Case:
    return signed(FRIDA, FRIDA.sign(COMMIT, "envelope"))


@case("a signature for another part")
def of_another_part() -> Case:
    return signed(FRIDA, FRIDA.sign(COMMIT, part=made("another part", 16)))


@case("a signature for another archive")
def of_another_archive() -> Case:
    return signed(FRIDA, FRIDA.sign(COMMIT, archive=bytes(16)))


@case("a signature of another document of the part")
def of_another_document() -> Case:
    return signed(FRIDA, FRIDA.sign(DOCUMENTS["envelope"]))


@case("a signature with another signer's id in its context")
def of_another_signer() -> Case:
    return signed(FRIDA, FRIDA.sign(COMMIT, said=GRETA.id))


@case("both signatures with the name of one algorithm in their context")
def of_another_algorithm() -> Case:
    return signed(FRIDA, FRIDA.sign(COMMIT, named=ED))


@case("signatures of the document without the LF at its end")
def without_last_lf() -> Case:
    return signed(FRIDA, FRIDA.sign(COMMIT[:-1]))


@case("a signature of the document and of the signature before it")
def over_the_signature_before() -> Case:
    first, second = sorted((FRIDA, GRETA), key=lambda signer: signer.id)
    line = first.line(first.sign(COMMIT))
    return asked(second, line, second.line(second.sign(COMMIT + line)))


@case("signatures without a context")
def without_context() -> Case:
    halves = [FRIDA.half(algorithm, b"", COMMIT) for algorithm in FRIDA.algorithms]
    return signed(FRIDA, b"".join(halves))


@case("a right signature under the name of another suite")
def under_another_suite() -> Case:
    return asked(FRIDA, FRIDA.line(FRIDA.sign(COMMIT), suite=CNSA2))


@case("a signature of a suite that is not known, in the name of who is asked for")
def under_an_unknown_suite() -> Case:
    return asked(FRIDA, FRIDA.line(FRIDA.sign(COMMIT), suite="of-the-future"))


def make_all() -> dict[Path, bytes]:
    """Every vector: the path of its file, and the bytes that belong there."""
    return json_files(FOLDER, case)


def main(arguments: list[str]) -> None:
    """Write them, and remove those that are made no more."""
    KNOWN.new = arguments == ["--new-signatures"]
    files = make_all()
    KNOWN.save()
    write_files(FOLDER, files)


if __name__ == "__main__":
    main(sys.argv[1:])
