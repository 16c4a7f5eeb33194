"""Signatures, docs/format.md section 9: whether a signer has signed a document that is a file.

``python -m vectors.signatures`` writes them again, the same each time. Each is a JSON file; see
README.md. Documents, ids and contexts are made by hand from the page, with nothing of pqvault.
ML-DSA signatures are made with random bytes: they stand in ``signatures.json``, and
``--new-signatures`` makes those that are missing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA87PrivateKey

from vectors.archives import ONE, archive_with_retired_key
from vectors.people import bech32, made
from vectors.registry import Registry, json_files, write_files
from vectors.testkit import HERE, b64, bind, flip

FOLDER: Final = HERE / "signatures"
MADE: Final = HERE / "signatures.json"
GROUP_ORDER: Final = 2**252 + 27742317777372353535851937790883648493  # of Ed25519, RFC 8032
BOTH, CNSA2 = "Ed25519+ML-DSA-65", "ML-DSA-87"
ED, SMALL, LARGE = "Ed25519", "ML-DSA-65", "ML-DSA-87"
PURPOSES: Final = {
    "commit": "signature",
    "envelope": "envelope signature",
    "retired": "retired signature",
}

Case = dict[str, Any]
case: Final = Registry[Case]()


class Made:
    """``signatures.json``, or another such file: what no seed can make again."""

    def __init__(self, path: Path = MADE) -> None:
        self.path = path
        self.new = False
        there = path.exists()
        self.known: dict[str, str] = json.loads(path.read_text()) if there else {}
        self.used: set[str] = set()

    def get(self, name: str, make: Callable[[], bytes]) -> bytes:
        """The signature of this name."""
        if name not in self.known:
            if not self.new:
                raise LookupError(f"{name} is not in {self.path.name}: run with --new-signatures")
            self.known[name] = b64(make())
        self.used.add(name)
        return base64.b64decode(self.known[name])

    def save(self) -> None:
        """Write what was used."""
        used = {name: self.known[name] for name in sorted(self.used)}
        self.path.write_text(json.dumps(used, indent=1) + "\n")


KNOWN: Final = Made()


@dataclass(frozen=True)
class Signer:
    """Section 9.2: the keys of one who signs."""

    name: str
    suite: str
    known: Made = KNOWN

    @property
    def algorithms(self) -> list[str]:
        """In the order of the suite."""
        return self.suite.split("+")

    def private(self, algorithm: str) -> Any:
        """One of the keys."""
        seed = made(f"{algorithm} key of {self.name}", 32)
        if algorithm == ED:
            return Ed25519PrivateKey.from_private_bytes(seed)
        kind = MLDSA65PrivateKey if algorithm == SMALL else MLDSA87PrivateKey
        return kind.from_seed_bytes(seed)

    @property
    def public_key(self) -> bytes:
        """All of them, one after the other."""
        keys = (self.private(algorithm).public_key() for algorithm in self.algorithms)
        return b"".join(key.public_bytes_raw() for key in keys)

    @property
    def id(self) -> bytes:
        """16 bytes."""
        data = self.suite.encode() + self.public_key
        return (hashlib.sha384(data) if self.suite == CNSA2 else blake3(data)).digest()[:16]

    @property
    def text(self) -> str:
        """As a reader is given it."""
        return bech32("pqvsign-cnsa2-" if self.suite == CNSA2 else "pqvsign", self.public_key)

    def half(self, algorithm: str, context: bytes, data: bytes) -> bytes:
        """One signature."""
        if algorithm == ED:
            return bytes(self.private(ED).sign(context + data))
        digest = hashlib.sha256(context + b"\0" + data).hexdigest()[:16]
        name = f"{self.name} {algorithm} {digest}"
        return self.known.get(name, lambda: bytes(self.private(algorithm).sign(data, context)))

    def sign(
        self,
        data: bytes,
        kind: str = "commit",
        *,
        archive: bytes = ONE.archive,
        part: bytes = ONE.part,
        named: str = "",
        said: bytes = b"",
    ) -> bytes:
        """The whole signature. Faults: another archive, part, algorithm or signer is named."""
        signature = b""
        for algorithm in self.algorithms:
            names = (self.suite.encode(), (named or algorithm).encode(), said or self.id)
            context = bind(PURPOSES[kind], archive, part, *names)
            signature += self.half(algorithm, context, data)
        return signature

    def line(self, signature: bytes, suite: str = "", id: bytes = b"") -> bytes:
        """Section 9.1."""
        named = f"sign {suite or self.suite} {(id or self.id).hex()} {b64(signature)}\n"
        return named.encode()


FRIDA: Final = Signer("frida", BOTH)
GRETA: Final = Signer("greta", BOTH)
HEDI: Final = Signer("hedi", CNSA2)


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
