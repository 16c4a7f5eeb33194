"""Keys as text, docs/format.md sections 1.1 and 9.2: recipients, identities and signers.

``python -m vectors.keytexts`` writes them again, the same each time. Each is a JSON file; see
README.md. They are made by hand from the page, with nothing of pqvault.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from vectors.people import ALICE, DORA, EVE, Person, bech32
from vectors.registry import Registry, json_files, write_files
from vectors.signatures import FRIDA, HEDI
from vectors.testkit import HERE

FOLDER: Final = HERE / "keys"
PUBLIC: Final = {"standard": "age1pq", "high": "pqv-high-", "cnsa2": "pqv-cnsa2-"}
SECRET: Final = "AGE-SECRET-KEY-PQ-"
BECH32M: Final = 0x2BC830A3  # what checksums of BIP 350 come to
PRIME: Final = 2**255 - 19

Case = dict[str, str]
case: Final = Registry[Case]()


def recipient(text: str, person: Person | None = None) -> Case:
    """``person``: whose key id a reader finds, if it does not refuse."""
    return {"kind": "recipient", "text": text, "id": person.key_id.hex() if person else ""}


def public(person: Person, edit: Callable[[bytes], bytes] = bytes) -> str:
    """The recipient of a person, with a fault in its bytes."""
    return bech32(PUBLIC[person.profile], edit(person.public_key))


def identity(text: str, person: Person | None = None) -> Case:
    """The same of a private key."""
    return recipient(text, person) | {"kind": "identity"}


def x25519(point: bytes) -> Case:
    """A recipient with another half of X25519."""
    return recipient(public(ALICE, lambda key: key[:1184] + point))


def p384(edit: Callable[[bytes], bytes]) -> Case:
    """A recipient with another point of P-384."""
    return recipient(public(DORA, lambda key: key[:1568] + edit(key[1568:])))


@case("a recipient of the profile standard, as age writes it")
def recipient_standard() -> Case:
    return recipient(public(ALICE), ALICE)


@case("a recipient of the profile high")
def recipient_high() -> Case:
    return recipient(public(DORA), DORA)


@case("a recipient of the profile cnsa2")
def recipient_cnsa2() -> Case:
    return recipient(public(EVE), EVE)


@case("a recipient in upper case")
def recipient_in_upper_case() -> Case:
    return recipient(public(ALICE).upper())


@case("a recipient with one letter in upper case")
def recipient_in_two_cases() -> Case:
    return recipient(public(ALICE)[:-1] + public(ALICE)[-1].upper())


@case("one letter of a recipient is another: the checksum is wrong")
def recipient_with_another_letter() -> Case:
    text = public(ALICE)
    return recipient(text[:50] + ("q" if text[50] != "q" else "p") + text[51:])


@case("a letter that Bech32 does not have")
def recipient_with_a_letter_b() -> Case:
    return recipient(public(ALICE)[:50] + "b" + public(ALICE)[51:])


@case("the checksum of Bech32m")
def recipient_in_bech32m() -> Case:
    return recipient(bech32(PUBLIC["standard"], ALICE.public_key, check=BECH32M))


@case("the bits that fill the last letter are ones")
def recipient_with_padding_of_ones() -> Case:
    return recipient(bech32(PUBLIC["standard"], ALICE.public_key, padding="1"))


@case("a recipient and an LF")
def recipient_with_lf() -> Case:
    return recipient(public(ALICE) + "\n")


@case("a recipient that is a byte too short")
def recipient_short() -> Case:
    return recipient(public(ALICE, lambda key: key[:-1]))


@case("a recipient that is a byte too long")
def recipient_long() -> Case:
    return recipient(public(ALICE, lambda key: key + b"\0"))


@case("a recipient of cnsa2 that says to be one of high")
def recipient_of_another_profile() -> Case:
    return recipient(bech32(PUBLIC["high"], EVE.public_key))


@case("a recipient of a profile that is not known")
def recipient_of_an_unknown_profile() -> Case:
    return recipient(bech32("pqv-future-", EVE.public_key))


@case("a classical recipient of age: X25519 alone")
def recipient_classical() -> Case:
    return recipient(bech32("age", ALICE.public_key[1184:]))


@case("attack 19: the first number of the ML-KEM-768 key is the modulus, 3329")
def recipient_beyond_the_modulus() -> Case:
    return recipient(public(ALICE, lambda key: beyond(key, 0)))


@case("attack 19: the last number of the ML-KEM-1024 key is the modulus, 3329")
def recipient_beyond_the_modulus_cnsa2() -> Case:
    return recipient(public(EVE, lambda key: beyond(key, 1533)))


def beyond(key: bytes, at: int) -> bytes:
    """Two numbers of twelve bits, of which the one is too large."""
    pair = 3329 if at == 0 else 3329 << 12
    return key[:at] + pair.to_bytes(3, "little") + key[at + 3 :]


@case("the X25519 half is 0: every secret shared with it is zero")
def recipient_x25519_zero() -> Case:
    return x25519(bytes(32))


@case("the X25519 half is 1, of order 4")
def recipient_x25519_one() -> Case:
    return x25519((1).to_bytes(32, "little"))


@case("the X25519 half is 1 with the prime added")
def recipient_x25519_prime_and_one() -> Case:
    return x25519((PRIME + 1).to_bytes(32, "little"))


@case("the X25519 half is of order 8")
def recipient_x25519_order_8() -> Case:
    return x25519(bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"))


@case("a point that is not on P-384")
def recipient_p384_off_the_curve() -> Case:
    return p384(lambda point: point[:-1] + bytes([point[-1] ^ 1]))


@case("the point of P-384 compressed, and zeros behind it")
def recipient_p384_compressed() -> Case:
    return p384(lambda point: bytes([2 + (point[-1] & 1)]) + point[1:49] + bytes(48))


@case("the point of P-384 in hybrid form")
def recipient_p384_hybrid() -> Case:
    return p384(lambda point: bytes([6 + (point[-1] & 1)]) + point[1:])


@case("the point of P-384 at infinity, and zeros behind it")
def recipient_p384_infinity() -> Case:
    return p384(lambda point: bytes(97))


@case("an identity of the profile standard, as age writes it")
def identity_standard() -> Case:
    return identity(ALICE.text, ALICE)


@case("an identity of the profile high")
def identity_high() -> Case:
    return identity(DORA.text, DORA)


@case("an identity of the profile cnsa2")
def identity_cnsa2() -> Case:
    return identity(EVE.text, EVE)


@case("an identity in lower case")
def identity_in_lower_case() -> Case:
    return identity(ALICE.text.lower())


@case("an identity with one letter in lower case")
def identity_in_two_cases() -> Case:
    return identity(ALICE.text[:-1] + ALICE.text[-1].lower())


@case("one letter of an identity is another: the checksum is wrong")
def identity_with_another_letter() -> Case:
    text = ALICE.text
    return identity(text[:30] + ("Q" if text[30] != "Q" else "P") + text[31:])


@case("the bits that fill the last letter are ones")
def identity_with_padding_of_ones() -> Case:
    return identity(bech32(SECRET, ALICE.seed, padding="1"))


@case("an identity that is a byte too short")
def identity_short() -> Case:
    return identity(bech32(SECRET, ALICE.seed[:-1]))


@case("an identity of standard as long as one of cnsa2")
def identity_of_64_bytes() -> Case:
    return identity(bech32(SECRET, EVE.seed))


@case("a classical identity of age: X25519 alone")
def identity_classical() -> Case:
    return identity(bech32("AGE-SECRET-KEY-", ALICE.seed))


def signer(text: str, id: bytes = b"") -> Case:
    """``id``: the signer id that a reader finds, if it does not refuse."""
    return {"kind": "signer", "text": text, "id": id.hex()}


@case("a signer of Ed25519 and ML-DSA-65")
def signer_of_both() -> Case:
    return signer(FRIDA.text, FRIDA.id)


@case("a signer of ML-DSA-87")
def signer_cnsa2() -> Case:
    return signer(HEDI.text, HEDI.id)


@case("a signer in upper case")
def signer_in_upper_case() -> Case:
    return signer(FRIDA.text.upper())


@case("a signer that is a byte too short")
def signer_short() -> Case:
    return signer(bech32("pqvsign", FRIDA.public_key[:-1]))


@case("a signer of ML-DSA-87 that says to be one of Ed25519 and ML-DSA-65")
def signer_of_another_suite() -> Case:
    return signer(bech32("pqvsign", HEDI.public_key))


@case("a recipient in the place of a signer")
def signer_that_is_a_recipient() -> Case:
    return signer(public(ALICE))


def make_all() -> dict[Path, bytes]:
    """Every vector: the path of its file, and the bytes that belong there."""
    return json_files(FOLDER, case)


if __name__ == "__main__":
    write_files(FOLDER, make_all())
