"""The vectors of sealed streams. Each function makes one: its name is the vector's."""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from vectors.people import ALICE, BOB, CAROL, DORA, EVE, Person, made
from vectors.testkit import (
    CHUNK,
    COMPRESSED,
    DIGESTS,
    MAGIC,
    RESERVED,
    RUN,
    Frame,
    Message,
    Root,
    Vector,
    b64,
    block,
    content,
    flip,
    frame,
    run,
    sealable,
    seek_table,
    stored,
)

Made = bytes | tuple[bytes, bytes]  # the file; what an in-order reader may release of it


@dataclass(frozen=True)
class Case:
    """A vector to be made."""

    make: Callable[[], Made]
    expect: str
    comment: str
    identity: Person
    inspect: str

    def vector(self) -> Vector:
        """Make it."""
        result = self.make()
        data, released = result if isinstance(result, tuple) else (result, b"")
        return Vector(
            name=self.make.__name__,
            kind="stream",
            expect=self.expect,
            comment=self.comment,
            identity=self.identity.text,
            released=hashlib.sha256(released).hexdigest(),
            inspect=self.inspect,
            files={"stream": data},
        )


CASES: list[Case] = []


def case(
    expect: str, comment: str, *, identity: Person = ALICE, inspect: str = "clean"
) -> Callable[[Callable[[], Made]], Callable[[], Made]]:
    """Register the vector that the function below makes."""

    def register(make: Callable[[], Made]) -> Callable[[], Made]:
        CASES.append(Case(make, expect, comment, identity, inspect))
        return make

    return register


ROOT = Root("stream")
OTHER = Root("another stream")
TEXT = b"post-quantum "
HEAD: Frame = (run(b"a", 100), 100)  # a first frame, which in-order readers release
A100 = b"a" * 100
# Behind it they make two chunks, three chunks, and a full one with an empty one.
TWO = made("two chunks", 17_000)
THREE = made("three chunks", 33_000)
FULL = made("full chunk", CHUNK + 1 - len(sealable(HEAD, (stored(b"x"), 1))))


def tail(data: bytes) -> Frame:
    """A stored frame."""
    return stored(data), len(data)


def sealed(
    plain: bytes,
    *,
    envelope: bytes | None = None,
    message: Callable[[Message], Any] = lambda m: m,
    **faults: Any,
) -> bytes:
    """A sealed stream to Alice. ``message`` moves its pieces about."""
    made_ = ROOT.message("stream", plain, **faults)
    made_ = message(made_) or made_
    return (ROOT.envelope(ALICE) if envelope is None else envelope) + bytes(made_)


def two(**options: Any) -> tuple[bytes, bytes]:
    """A stream of two chunks, of which the first frame is released when the second is bad."""
    return sealed(sealable(HEAD, tail(TWO)), **options), A100


def three(**options: Any) -> bytes:
    """A stream of three chunks."""
    return sealed(sealable(HEAD, tail(THREE)), **options)


def with_envelope(**faults: Any) -> bytes:
    """A good object behind an envelope with a fault."""
    return sealed(content(TEXT), envelope=ROOT.envelope(ALICE, **faults))


def with_recipients(*items: dict[str, Any], **faults: Any) -> bytes:
    """The same with these recipients."""
    return sealed(content(TEXT), envelope=ROOT.envelope(recipients=items, **faults))


def with_frame(data: bytes, size: int) -> tuple[bytes, bytes]:
    """A good frame, then this one, and a seek table that agrees."""
    return sealed(sealable(HEAD, (data, size))), A100


def with_table(table: bytes, *frames: Frame, extra: bytes = b"") -> bytes:
    """These frames, then this table."""
    return sealed(b"".join(data for data, _ in frames) + extra + table)


def pairs(*frames: Frame) -> list[tuple[int, int]]:
    """What a true seek table says of them."""
    return [(len(data), size) for data, size in frames]


# -- success --------------------------------------------------------------------------------


@case("success", "no content: no frame, only the seek table of none")
def stream_empty() -> Made:
    return sealed(sealable()), b""


@case("success", "one byte in a stored frame")
def stream_one_byte() -> Made:
    return sealed(content(b"x")), b"x"


@case("success", "a compressed frame, as zstd 1.5 made it: single segment, 1-byte content size")
def stream_compressed_frame() -> Made:
    text = b"datasets/train.jsonl " * 9
    frame_ = bytes.fromhex(
        "28b52ffd20bde50000a864617461736574732f747261696e2e6a736f6e6c2001004b484d26"
    )
    return sealed(sealable((frame_, len(text)))), text


def around_a_chunk(total: int) -> Made:
    """A stream with ``total`` bytes of plaintext of Cobblestone."""
    data = made("around a chunk", total - len(content(b"x")) + 1)
    return sealed(content(data)), data


@case("success", "the plaintext of the object is 16,383 bytes: one chunk, as long as a last one is")
def stream_one_byte_less_than_a_chunk() -> Made:
    return around_a_chunk(CHUNK - 1)


@case("success", "the plaintext of the object is 16,384 bytes: a full chunk and an empty last one")
def stream_exactly_one_chunk() -> Made:
    return around_a_chunk(CHUNK)


@case("success", "the plaintext of the object is 16,385 bytes: the last chunk holds one byte")
def stream_one_byte_more_than_a_chunk() -> Made:
    return around_a_chunk(CHUNK + 1)


@case("success", "three chunks, two frames, the second over a chunk border")
def stream_three_chunks() -> Made:
    return three(), A100 + THREE


@case("success", "two recipients, the identity is the second")
def stream_second_recipient() -> Made:
    return sealed(content(TEXT), envelope=ROOT.envelope(BOB, ALICE)), TEXT


@case("success", "the same stream of two recipients, read by the first", identity=BOB)
def stream_first_recipient() -> Made:
    return sealed(content(TEXT), envelope=ROOT.envelope(BOB, ALICE)), TEXT


@case("success", "generation and created at 2^53 - 1, the greatest integer there is")
def envelope_integers_at_their_limit() -> Made:
    most = 2**53 - 1
    return with_envelope(generation=most, created=most), TEXT


@case("success", "created 0, the least time there is")
def envelope_created_zero() -> Made:
    return with_envelope(created=0), TEXT


@case("success", "8 MiB of content in one frame of 64 run-length blocks: the most a frame may hold")
def frame_of_8_mib() -> Made:
    size = 8 << 20
    return sealed(sealable((run(b"z", size), size))), b"z" * size


@case("success", "a frame that is not a single segment: a window of 1 KiB, 4-byte content size")
def frame_with_window() -> Made:
    data = frame(3, block(b"abc", last=True), descriptor=0x80, extra=b"\x00")
    return sealed(sealable((data, 3))), b"abc"


@case("success", "a content size of 8 bytes, and one of 2 (which counts from 256)")
def frame_content_size_8_and_2_bytes() -> Made:
    long = frame(3, block(b"abc", last=True), descriptor=0xE0, width=8)
    short = frame(300 - 256, block(b"d", RUN, size=300, last=True), descriptor=0x60, width=2)
    return sealed(sealable((long, 3), (short, 300))), b"abc" + b"d" * 300


@case("success", "raw blocks of no bytes before, between and after blocks with content")
def frame_with_empty_blocks() -> Made:
    blocks = [b"", b"abc", b"", b"de", b""]
    data = frame(5, *(block(b, last=i == 4) for i, b in enumerate(blocks)))
    return sealed(sealable((data, 5))), b"abcde"


@case("success", "attack 44: as long as a stored frame of 200 bytes, but of another make")
def frame_as_long_as_stored() -> Made:
    data = made("as long", 200)
    other = frame(200, block(data[:80]), block(data[80:], last=True), descriptor=0x20, width=1)
    assert len(other) == len(stored(data))
    return sealed(sealable((other, 200), tail(b"end"))), data + b"end"


@case("success", "attack 44: as long as a stored frame and the same for its first block only")
def frame_as_long_as_stored_with_other_second_block() -> Made:
    first, rest = made("first block", 131072), made("second block", 104)
    last = (block(b"q", RUN, size=4), block(rest[4:], last=True))
    data = frame(131072 + 104, block(first), *last)
    whole = first + b"qqqq" + rest[4:]
    assert len(data) == len(stored(whole))
    return sealed(sealable((data, len(whole)))), whole


@case("success", "1,100 frames, each of another size: the seek table goes over a chunk border")
def stream_1100_frames() -> Made:
    frames = [(run(bytes([i % 251]), 1 + i), 1 + i) for i in range(1100)]
    whole = b"".join(bytes([i % 251]) * (1 + i) for i in range(1100))
    return sealed(sealable(*frames)), whole


# -- no key fits ----------------------------------------------------------------------------


@case("no key fits", "sealed to Alice, read by Carol", identity=CAROL)
def stream_of_somebody_else() -> Made:
    return sealed(content(TEXT))


@case("no key fits", "sealed to two, read by a third", identity=CAROL)
def stream_of_two_others() -> Made:
    return sealed(content(TEXT), envelope=ROOT.envelope(ALICE, BOB))


@case("no key fits", "damaged too, which nobody without a key can say", identity=CAROL)
def stream_of_somebody_else_damaged() -> Made:
    return flip(sealed(content(TEXT)), -1)


# -- envelope failure: what was altered since it was sealed ---------------------------------


@case("envelope failure", "attack 6: one bit of the MAC")
def envelope_mac_flipped() -> Made:
    return with_envelope(
        after=lambda data: data[:-45] + b64(flip(mac_of(data), 31)).encode() + b"\n"
    )


def mac_of(document: bytes) -> bytes:
    """The MAC of a document, 32 bytes."""
    return base64.b64decode(document[-45:-1])


@case("envelope failure", "attack 6: the MAC is of another root key")
def envelope_mac_of_other_key() -> Made:
    return with_envelope(mac_key=OTHER.derive(64, "envelope mac", b""))


@case("envelope failure", "the MAC is made with the key of the commit's MAC")
def envelope_mac_with_key_of_commit_mac() -> Made:
    return with_envelope(mac_key=ROOT.derive(64, "commit mac"))


def items(*people: Person) -> list[dict[str, Any]]:
    """The recipients as they stand in an envelope."""
    return [ROOT.wrapped(person) for person in people]


def swap_line(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> bytes:
    """An envelope sealed with some recipients, which somebody then changed to others."""
    good = ROOT.envelope(recipients=before)
    other = ROOT.envelope(recipients=now)
    mac = good[good.rindex(b"---") :]
    return sealed(content(TEXT), envelope=other[: other.rindex(b"---")] + mac)


@case("envelope failure", "attack 6: a recipient added after the MAC was taken")
def envelope_recipient_added() -> Made:
    return swap_line(items(ALICE), items(ALICE, BOB))


@case("envelope failure", "attack 6: a recipient taken away after the MAC was taken")
def envelope_recipient_dropped() -> Made:
    return swap_line(items(ALICE, BOB), items(ALICE))


@case("envelope failure", "attack 6: the recipients in another order")
def envelope_recipients_reordered() -> Made:
    return swap_line(items(ALICE, BOB), items(BOB, ALICE))


@case("envelope failure", "the generation altered after the MAC was taken")
def envelope_generation_altered() -> Made:
    return with_envelope(after=lambda data: data.replace(b'"generation":1', b'"generation":2'))


@case("envelope failure", "the time altered after the MAC was taken")
def envelope_created_altered() -> Made:
    return with_envelope(after=lambda data: data.replace(b'"created":17', b'"created":16'))


# -- envelope failure: wrapped keys ---------------------------------------------------------


def rewrapped(change: Callable[[bytes], bytes]) -> dict[str, Any]:
    """Alice's wrapped key, its bytes changed before the envelope got its MAC."""
    item = ROOT.wrapped(ALICE)
    return item | {"sealed": b64(change(base64.b64decode(item["sealed"])))}


@case("envelope failure", "one bit of the ciphertext of the wrapped key")
def envelope_wrapped_key_flipped() -> Made:
    return with_recipients(rewrapped(lambda data: flip(data, -1)))


@case("envelope failure", "one bit of the ML-KEM ciphertext, which ML-KEM rejects in silence")
def envelope_enc_flipped() -> Made:
    return with_recipients(rewrapped(lambda data: flip(data, 500)))


@case("envelope failure", "one bit of the X25519 share")
def envelope_x25519_share_flipped() -> Made:
    return with_recipients(rewrapped(lambda data: flip(data, 1100)))


@case("envelope failure", "an X25519 share of zeros, of which no secret comes")
def envelope_x25519_share_of_zeros() -> Made:
    return with_recipients(rewrapped(lambda data: data[:1088] + bytes(32) + data[1120:]))


@case("envelope failure", "attack 18: random bytes of the right length, rejected in silence")
def envelope_wrapped_key_random() -> Made:
    return with_recipients(rewrapped(lambda data: made("random enc", len(data))))


@case("envelope failure", "a wrapped key one byte short")
def envelope_wrapped_key_short() -> Made:
    return with_recipients(rewrapped(lambda data: data[:-1]))


@case("envelope failure", "a wrapped key one byte long")
def envelope_wrapped_key_long() -> Made:
    return with_recipients(rewrapped(lambda data: data + b"\0"))


@case("envelope failure", "no wrapped key at all")
def envelope_wrapped_key_empty() -> Made:
    return with_recipients(rewrapped(lambda _: b""))


@case("envelope failure", "attack 13: the wrapped key was made for another part")
def envelope_wrapped_key_of_other_part() -> Made:
    return with_recipients(ROOT.wrapped(ALICE, part=OTHER.part))


@case("envelope failure", "attack 4: the wrapped key was made for another profile")
def envelope_wrapped_key_of_other_profile() -> Made:
    return with_recipients(ROOT.wrapped(ALICE, profile="high"))


# -- the profiles ---------------------------------------------------------------------------


def of(person: Person, *items: dict[str, Any], **faults: Any) -> bytes:
    """A good object behind an envelope of a person's profile."""
    items = items or (ROOT.wrapped(person),)
    envelope = ROOT.envelope(recipients=items, **{"profile": person.profile, **faults})
    return sealed(content(TEXT), envelope=envelope)


def altered(person: Person, change: Callable[[bytes], bytes]) -> dict[str, Any]:
    """A person's wrapped key, its bytes changed before the envelope got its MAC."""
    item = ROOT.wrapped(person)
    return item | {"sealed": b64(change(base64.b64decode(item["sealed"])))}


@case("success", "profile high: ML-KEM-1024 with P-384", identity=DORA)
def stream_of_profile_high() -> Made:
    return of(DORA), TEXT


@case("success", "profile cnsa2: ML-KEM-1024 alone, key ids of SHA-384", identity=EVE)
def stream_of_profile_cnsa2() -> Made:
    return of(EVE), TEXT


@case("envelope failure", "attack 4: an envelope of high that says standard", identity=DORA)
def envelope_high_called_standard() -> Made:
    return of(DORA, profile="standard")


@case("envelope failure", "attack 4: a key of cnsa2, said to be one of high", identity=EVE)
def envelope_cnsa2_called_high() -> Made:
    return of(EVE, ROOT.wrapped(EVE) | {"kem": "MLKEM1024-P384"}, profile="high")


@case("envelope failure", "a recipient of standard in an envelope of high", identity=DORA)
def envelope_of_two_profiles() -> Made:
    return of(DORA, ROOT.wrapped(DORA), ROOT.wrapped(ALICE))


@case("envelope failure", "attack 4: the wrapped key of high was bound to standard", identity=DORA)
def envelope_high_wrapped_key_of_standard() -> Made:
    return of(DORA, ROOT.wrapped(DORA, profile="standard"))


@case("envelope failure", "attack 18: one bit of ML-KEM-1024's ciphertext", identity=DORA)
def envelope_high_enc_flipped() -> Made:
    return of(DORA, altered(DORA, lambda data: flip(data, 500)))


@case("envelope failure", "a P-384 share that is no point of the curve", identity=DORA)
def envelope_high_p384_share_off_the_curve() -> Made:
    return of(DORA, altered(DORA, lambda data: flip(data, 1664)))


@case("envelope failure", "a P-384 share in the form 06, hybrid, of SEC 1", identity=DORA)
def envelope_high_p384_share_in_hybrid_form() -> Made:
    def hybrid(data: bytes) -> bytes:
        return data[:1568] + bytes([6 | data[1664] & 1]) + data[1569:]

    return of(DORA, altered(DORA, hybrid))


@case("envelope failure", "the P-384 share of another: a good point", identity=DORA)
def envelope_high_p384_share_of_another() -> Made:
    return of(DORA, altered(DORA, lambda d: d[:1568] + DORA.public_key[1568:] + d[1665:]))


@case("envelope failure", "a wrapped key of high as long as one of cnsa2", identity=DORA)
def envelope_high_wrapped_key_of_other_length() -> Made:
    return of(DORA, altered(DORA, lambda data: data[:1616]))


@case("envelope failure", "attack 18: one bit of the enc of cnsa2", identity=EVE)
def envelope_cnsa2_enc_flipped() -> Made:
    return of(EVE, altered(EVE, lambda data: flip(data, 1567)))


@case("envelope failure", "a wrapped key of cnsa2 one byte short", identity=EVE)
def envelope_cnsa2_wrapped_key_short() -> Made:
    return of(EVE, altered(EVE, lambda data: data[:-1]))


@case("no key fits", "cnsa2 with a key id of BLAKE3", identity=EVE)
def envelope_cnsa2_key_id_of_blake3() -> Made:
    key_id = DIGESTS["blake3"](b"ML-KEM-1024" + EVE.public_key)[:16]
    return of(EVE, ROOT.wrapped(EVE, key_id=key_id))


@case("envelope failure", "Bob's wrapped key under Alice's key id")
def envelope_wrapped_key_of_other_recipient() -> Made:
    return with_recipients(ROOT.wrapped(BOB) | {"key_id": ALICE.key_id.hex()})


@case("envelope failure", "the wrapped key is made for Bob, but bound to Alice's key id")
def envelope_wrapped_key_bound_to_other_key_id() -> Made:
    return with_recipients(ROOT.wrapped(BOB, key_id=ALICE.key_id))


@case("envelope failure", "the wrapped key opens and is another root key")
def envelope_wraps_other_root_key() -> Made:
    other = Root("stream", secret=OTHER.secret)
    return with_recipients(other.wrapped(ALICE))


@case("envelope failure", "attack 1: another root key for each recipient", identity=BOB)
def envelope_wraps_two_root_keys() -> Made:
    other = Root("stream", secret=OTHER.secret)
    return with_recipients(ROOT.wrapped(ALICE), other.wrapped(BOB))


# -- envelope failure: what no writer writes, under a good MAC ------------------------------


def written(old: bytes, new: bytes) -> Made:
    """An envelope whose covered bytes differ from the canonical ones; the MAC is of these."""

    def change(lines: bytes) -> bytes:
        assert lines.count(old) == 1, old
        return lines.replace(old, new)

    return with_envelope(text=change)


BAD = "problem"  # inspect meets it too


@case("envelope failure", "attack 4: the label of a version that is not", inspect=BAD)
def envelope_label_v2() -> Made:
    return written(b"envelope@v1", b"envelope@v2")


@case("envelope failure", "the label of a commit", inspect=BAD)
def envelope_label_of_commit() -> Made:
    return written(b"envelope@v1", b"commit@v1")


@case("envelope failure", "a byte-order mark before the label", inspect=BAD)
def envelope_byte_order_mark() -> Made:
    return written(b"pqvault.dev/", b"\xef\xbb\xbfpqvault.dev/")


@case("envelope failure", "the label line ends in CR LF", inspect=BAD)
def envelope_crlf() -> Made:
    return written(b"envelope@v1\n", b"envelope@v1\r\n")


@case("envelope failure", "a CR before the LF of the JSON line", inspect=BAD)
def envelope_json_line_crlf() -> Made:
    return written(b"]}\n", b"]}\r\n")


@case("envelope failure", "attack 43: a space after a colon", inspect=BAD)
def envelope_space_in_json() -> Made:
    return written(b'"generation":1', b'"generation": 1')


@case("envelope failure", "attack 43: a space after the JSON", inspect=BAD)
def envelope_space_after_json() -> Made:
    return written(b"]}\n", b"]} \n")


@case("envelope failure", "attack 43: a key twice, with the same value", inspect=BAD)
def envelope_key_twice() -> Made:
    return written(b'"generation":1', b'"generation":1,"generation":1')


@case("envelope failure", "attack 43: a key twice in a recipient, with another value", inspect=BAD)
def envelope_key_twice_in_recipient() -> Made:
    return written(b'"kem":"', b'"kem":"x","kem":"')


@case("envelope failure", "a key that is not of this version", inspect=BAD)
def envelope_unknown_key() -> Made:
    return written(b'"generation":1', b'"generation":1,"comment":"x"')


@case("envelope failure", "a key of a recipient that is not of this version", inspect=BAD)
def envelope_unknown_key_in_recipient() -> Made:
    return written(b'"kem":"', b'"name":"alice","kem":"')


@case("envelope failure", "a key is missing", inspect=BAD)
def envelope_key_missing() -> Made:
    return written(b'"group":"",', b"")


@case("envelope failure", "two keys in the other order", inspect=BAD)
def envelope_keys_in_other_order() -> Made:
    return with_envelope(edit=lambda fields: {"part": fields["part"]} | fields)


@case("envelope failure", "attack 43: an escape where the character itself belongs", inspect=BAD)
def envelope_escape_in_string() -> Made:
    return written(b'"standard"', b'"\\u0073tandard"')


@case(
    "envelope failure", "a character beyond ASCII, as the escape that JSON has for it", inspect=BAD
)
def envelope_string_beyond_ascii() -> Made:
    return with_envelope(profile="stand\u00e4rd")


@case("envelope failure", "the same character as UTF-8", inspect=BAD)
def envelope_utf8() -> Made:
    return written(b'"standard"', '"ständard"'.encode())


@case("envelope failure", "attack 44: a generation with a fraction", inspect=BAD)
def envelope_generation_with_fraction() -> Made:
    return written(b'"generation":1', b'"generation":1.0')


@case("envelope failure", "a generation with an exponent", inspect=BAD)
def envelope_generation_with_exponent() -> Made:
    return written(b'"generation":1', b'"generation":1e0')


@case("envelope failure", "a generation with a leading zero", inspect=BAD)
def envelope_generation_with_leading_zero() -> Made:
    return written(b'"generation":1', b'"generation":01')


@case("envelope failure", "the generation 0: the first is 1", inspect=BAD)
def envelope_generation_zero() -> Made:
    return with_envelope(generation=0)


@case("envelope failure", "attack 44: a generation below zero", inspect=BAD)
def envelope_generation_negative() -> Made:
    return with_envelope(generation=-1)


@case("envelope failure", "a generation that is a text", inspect=BAD)
def envelope_generation_text() -> Made:
    return written(b'"generation":1', b'"generation":"1"')


@case("envelope failure", "a generation that is a truth", inspect=BAD)
def envelope_generation_true() -> Made:
    return written(b'"generation":1', b'"generation":true')


@case("envelope failure", "attack 44: a time of 2^53", inspect=BAD)
def envelope_created_over_limit() -> Made:
    return with_envelope(created=2**53)


@case("envelope failure", "a time of minus zero", inspect=BAD)
def envelope_created_minus_zero() -> Made:
    return written(b'"created":1700000000000', b'"created":-0')


@case("envelope failure", "not a number", inspect=BAD)
def envelope_created_nan() -> Made:
    return written(b'"created":1700000000000', b'"created":NaN')


@case("envelope failure", "the part id in upper-case hex", inspect=BAD)
def envelope_id_in_upper_case() -> Made:
    return with_envelope(edit=lambda fields: fields | {"part": fields["part"].upper()})


@case("envelope failure", "a part id of 15 bytes", inspect=BAD)
def envelope_id_short() -> Made:
    return with_envelope(edit=lambda fields: fields | {"part": fields["part"][2:]})


@case("envelope failure", "attack 43: base64 without its padding", inspect=BAD)
def envelope_base64_without_padding() -> Made:
    item = ROOT.wrapped(ALICE)
    return with_recipients(item | {"sealed": item["sealed"].rstrip("=")})


@case("envelope failure", "attack 43: bits set that base64 leaves unused", inspect=BAD)
def envelope_base64_not_canonical() -> Made:
    item = ROOT.wrapped(ALICE)
    return with_recipients(item | {"sealed": loose(item["sealed"])})


@case("envelope failure", "attack 43: the same, of a recipient who is not the reader", inspect=BAD)
def envelope_base64_of_another_not_canonical() -> Made:
    item = ROOT.wrapped(BOB)
    return with_recipients(ROOT.wrapped(ALICE), item | {"sealed": loose(item["sealed"])})


def loose(text: str) -> str:
    """Base64 of the same bytes, with a bit set that decoding leaves unused."""
    body = text.rstrip("=")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = alphabet[alphabet.index(body[-1]) + 1]
    assert base64.b64decode(body[:-1] + last + "==") == base64.b64decode(text)
    return body[:-1] + last + text[len(body) :]


@case("envelope failure", "attack 43: base64 of the alphabet for addresses", inspect=BAD)
def envelope_base64_of_other_alphabet() -> Made:
    item = ROOT.wrapped(ALICE)
    return with_recipients(item | {"sealed": "-_" + item["sealed"][2:]})


@case("envelope failure", "attack 43: the MAC with bits set that base64 leaves unused", inspect=BAD)
def envelope_mac_not_canonical() -> Made:
    def loosen(data: bytes) -> bytes:
        return data[:-45] + loose(data[-45:-1].decode()).encode() + b"\n"

    return with_envelope(after=loosen)


@case("envelope failure", "a MAC of 31 bytes", inspect=BAD)
def envelope_mac_short() -> Made:
    return with_envelope(after=lambda data: data[:-45] + b64(bytes(31)).encode() + b"\n")


@case("envelope failure", "two spaces before the MAC", inspect=BAD)
def envelope_two_spaces_before_mac() -> Made:
    return with_envelope(after=lambda data: data[:-45] + b" " + data[-45:])


@case("envelope failure", "no recipient", inspect=BAD)
def envelope_without_recipients() -> Made:
    return with_recipients()


@case("envelope failure", "the same recipient twice", inspect=BAD)
def envelope_recipient_twice() -> Made:
    return with_recipients(*items(ALICE, ALICE))


@case("envelope failure", "attack 42: 1,025 recipients", inspect=BAD)
def envelope_1025_recipients() -> Made:
    bare = [{"kem": "", "key_id": f"{i:032x}", "sealed": ""} for i in range(1024)]
    return with_recipients(*items(ALICE), *bare)


@case("envelope failure", "attack 4: a KEM that is not known")
def envelope_unknown_kem() -> Made:
    return with_recipients(ROOT.wrapped(ALICE) | {"kem": "X25519"})


@case("envelope failure", "attack 5: the KEM of another recipient is not known")
def envelope_unknown_kem_of_other_recipient() -> Made:
    return with_recipients(ROOT.wrapped(ALICE), ROOT.wrapped(BOB) | {"kem": "X25519"})


@case("envelope failure", "attack 4: a profile that is not known")
def envelope_unknown_profile() -> Made:
    return with_envelope(profile="low")


@case("envelope failure", "a group, which streams do not have", inspect=BAD)
def envelope_of_a_group() -> Made:
    item = ROOT.wrapped(ALICE, group=b"labels")
    return with_recipients(item, group="labels")


@case("envelope failure", "attack 13: the envelope of an archive", inspect=BAD)
def envelope_of_an_archive() -> Made:
    root = Root("stream", archive=made("archive", 16))
    return root.envelope(ALICE) + bytes(root.message("stream", content(TEXT)))


@case("envelope failure", "the file ends within the JSON", inspect=BAD)
def envelope_truncated() -> Made:
    return ROOT.envelope(ALICE)[:1000]


@case("envelope failure", "the file ends before the envelope's last LF", inspect=BAD)
def envelope_without_last_lf() -> Made:
    return ROOT.envelope(ALICE)[:-1]


@case("payload failure", "a signature behind the MAC line, where the object is to begin")
def envelope_signed() -> Made:
    line = b"sign ML-DSA-87 %032x %s\n" % (1, b64(made("signature", 4627)).encode())
    return ROOT.envelope(ALICE) + line + bytes(ROOT.message("stream", content(TEXT)))


@case("envelope failure", "an empty file", inspect=BAD)
def file_empty() -> Made:
    return b""


@case("envelope failure", "no sealed stream but a PNG picture", inspect=BAD)
def file_of_another_kind() -> Made:
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + made("picture", 200)


@case("envelope failure", "2,000 lists, one in the other", inspect=BAD)
def envelope_deeply_nested() -> Made:
    return written(b'"group":""', b'"group":' + b"[" * 2000 + b"]" * 2000)


# -- payload failure: commitment and context ------------------------------------------------


def of_message(**fields: Any) -> Callable[[Message], Message]:
    """Replace pieces of a message."""
    return lambda message: replace(message, **fields)


@case("payload failure", "attack 1: one bit of the commitment; every chunk would open")
def stream_commitment_flipped() -> Made:
    return sealed(content(TEXT), message=lambda m: replace(m, commitment=flip(m.commitment, 31)))


@case("payload failure", "attack 1: the commitment to another key; every chunk would open")
def stream_commitment_of_other_key() -> Made:
    other = OTHER.message("stream", b"").commitment
    return sealed(content(TEXT), message=of_message(commitment=other))


@case("payload failure", "one bit of the salt")
def stream_salt_flipped() -> Made:
    return sealed(content(TEXT), message=lambda m: replace(m, salt=flip(m.salt, 0)))


@case("payload failure", "attack 12: the object of another stream behind this envelope")
def stream_object_of_other_stream() -> Made:
    return ROOT.envelope(ALICE) + bytes(OTHER.message("stream", content(TEXT)))


@case("payload failure", "attack 13: an object of this root key with another name")
def stream_object_of_other_name() -> Made:
    return ROOT.envelope(ALICE) + bytes(ROOT.message("catalog", content(TEXT)))


# -- payload failure: chunks ----------------------------------------------------------------


@case("payload failure", "one bit of the first of two chunks")
def stream_first_chunk_flipped() -> Made:
    data, _ = two(message=lambda m: m.chunks.insert(0, flip(m.chunks.pop(0), 0)))
    return data


@case("payload failure", "one bit of the last chunk")
def stream_last_chunk_flipped() -> Made:
    return two(message=lambda m: m.chunks.append(flip(m.chunks.pop(), 0)))


@case("payload failure", "one bit of the tag of the last chunk")
def stream_tag_flipped() -> Made:
    return two(message=lambda m: m.chunks.append(flip(m.chunks.pop(), -1)))


@case("payload failure", "one bit of the tag of an empty last chunk")
def stream_tag_of_empty_last_chunk_flipped() -> Made:
    plain = sealable(HEAD, tail(FULL))
    return sealed(plain, message=lambda m: m.chunks.append(flip(m.chunks.pop(), 3))), A100 + FULL


@case("payload failure", "attack 10: cut at a chunk border, the last chunk gone")
def stream_truncated_at_chunk_border() -> Made:
    return two(message=lambda m: m.chunks.pop() and None)


@case("payload failure", "attack 10: cut one byte behind a chunk border")
def stream_truncated_behind_chunk_border() -> Made:
    return two(message=lambda m: m.chunks.append(m.chunks.pop()[:1]))


@case("payload failure", "attack 10: cut one byte before a chunk border")
def stream_truncated_before_chunk_border() -> Made:
    data, _ = two(message=lambda m: m.chunks.pop() and None)
    return data[:-1]


@case("payload failure", "attack 10: the last byte is gone")
def stream_last_byte_gone() -> Made:
    return two(message=lambda m: m.chunks.append(m.chunks.pop()[:-1]))


@case("payload failure", "attack 10: an empty last chunk gone, all content there")
def stream_empty_last_chunk_gone() -> Made:
    data = sealed(sealable(HEAD, tail(FULL)), message=lambda m: m.chunks.pop() and None)
    return data, A100 + FULL


@case("payload failure", "the header of the object and no chunk")
def stream_without_chunks() -> Made:
    return sealed(content(TEXT), message=lambda m: m.chunks.clear())


@case("payload failure", "the header of the object cut short")
def stream_header_short() -> Made:
    return ROOT.envelope(ALICE) + bytes(ROOT.message("stream", b""))[:55]


@case("payload failure", "the envelope and nothing behind it")
def stream_without_object() -> Made:
    return ROOT.envelope(ALICE)


@case("payload failure", "the last chunk is shorter than a tag")
def stream_last_chunk_shorter_than_tag() -> Made:
    return sealed(content(TEXT), message=of_message(chunks=[bytes(15)]))


@case("payload failure", "a byte behind the end")
def stream_byte_behind_end() -> Made:
    return sealed(content(TEXT)) + b"\0"


@case("payload failure", "zeros behind the end, as a disk leaves them")
def stream_zeros_behind_end() -> Made:
    return sealed(content(TEXT)) + bytes(4096)


@case("payload failure", "a second stream behind the end")
def stream_second_stream_behind_end() -> Made:
    return sealed(content(TEXT)) * 2


@case("payload failure", "two final chunks, both sealed in turn")
def stream_two_final_chunks() -> Made:
    plain = content(TEXT)
    return sealed(plain, cut=[20, len(plain) - 20])


@case("payload failure", "a short chunk before a full one")
def stream_short_chunk_in_the_middle() -> Made:
    plain = sealable(HEAD, tail(TWO))
    return sealed(plain, cut=[100, CHUNK, len(plain) - 100 - CHUNK])


@case("payload failure", "attack 12: the first two of three chunks change places")
def stream_chunks_swapped() -> Made:
    return three(message=lambda m: m.chunks.insert(0, m.chunks.pop(1)))


@case("payload failure", "attack 12: the second chunk is the first once more")
def stream_chunk_repeated() -> Made:
    return three(message=lambda m: m.chunks.__setitem__(1, m.chunks[0])), A100


@case("payload failure", "attack 12: the second of three chunks is gone")
def stream_chunk_gone() -> Made:
    return three(message=lambda m: m.chunks.pop(1) and None), A100


@case("payload failure", "the first chunk is gone")
def stream_first_chunk_gone() -> Made:
    data, _ = two(message=lambda m: m.chunks.pop(0) and None)
    return data


@case("payload failure", "attack 12: a chunk of a stream of the same key with another salt")
def stream_chunk_of_other_salt() -> Made:
    other = ROOT.message("stream", sealable(HEAD, tail(TWO)), salt="another salt")
    return two(message=lambda m: m.chunks.__setitem__(1, other.chunks[1]))


@case("payload failure", "the count of chunks begins with 1")
def stream_counter_begins_with_one() -> Made:
    return sealed(content(TEXT), first=1)


# -- payload failure: frames ----------------------------------------------------------------


@case("payload failure", "attack 30: a frame of 13 bytes that claims a terabyte")
def frame_claims_a_terabyte() -> Made:
    return with_frame(bytes.fromhex("28b52ffde06c06060663636363"), 100)


@case("payload failure", "a frame of 8 MiB and a byte, of which the seek table says 8 MiB")
def frame_over_8_mib() -> Made:
    return with_frame(run(b"z", (8 << 20) + 1), 8 << 20)


@case("payload failure", "attack 30: a window of 16 MiB")
def frame_window_of_16_mib() -> Made:
    return with_frame(frame(3, block(b"abc", last=True), descriptor=0x80, extra=b"\x70"), 3)


@case("payload failure", "a frame with a checksum, a true one")
def frame_with_checksum() -> Made:
    # XXH64 of b"abc", its low four bytes
    checksum = struct.pack("<I", 0x44BC2CF5AD770999 & 0xFFFFFFFF)
    return with_frame(frame(3, block(b"abc", last=True), descriptor=0xA4) + checksum, 3)


@case("payload failure", "a frame with the id of a dictionary")
def frame_with_dictionary() -> Made:
    return with_frame(frame(3, block(b"abc", last=True), descriptor=0xA1, extra=b"\x07"), 3)


@case("payload failure", "a frame without its content size")
def frame_without_content_size() -> Made:
    return with_frame(MAGIC + b"\x00\x00" + block(b"abc", last=True), 3)


@case("payload failure", "the reserved bit of a frame's header is set")
def frame_reserved_bit_set() -> Made:
    return with_frame(frame(3, block(b"abc", last=True), descriptor=0xA8), 3)


@case("payload failure", "the unused bit of a frame's header is set")
def frame_unused_bit_set() -> Made:
    return with_frame(frame(3, block(b"abc", last=True), descriptor=0xB0), 3)


@case("payload failure", "a frame of no content")
def frame_of_no_content() -> Made:
    return with_frame(frame(0, block(b"", last=True)), 1)


@case("payload failure", "a block of the reserved type")
def frame_block_of_reserved_type() -> Made:
    return with_frame(frame(3, block(b"abc", RESERVED, last=True)), 3)


@case("payload failure", "a block longer than 128 KiB: what its header says")
def frame_block_over_128_kib() -> Made:
    return with_frame(frame(131073, block(b"a", RUN, size=131073, last=True)), 131073)


@case("payload failure", "a compressed block of noise")
def frame_block_of_noise() -> Made:
    return with_frame(frame(300, block(made("noise", 100), COMPRESSED, last=True)), 300)


@case("payload failure", "a frame that holds less than its header says")
def frame_shorter_than_its_header() -> Made:
    return with_frame(frame(4, block(b"abc", last=True)), 4)


@case("payload failure", "a frame that holds more than its header says")
def frame_longer_than_its_header() -> Made:
    return with_frame(frame(2, block(b"abc", last=True)), 2)


@case("payload failure", "a frame whose last block is not marked")
def frame_without_last_block() -> Made:
    return with_frame(frame(3, block(b"abc")), 3)


@case("payload failure", "a frame of zstd 0.7, whose magic number is another")
def frame_of_old_zstd() -> Made:
    return with_frame(b"\x27" + stored(b"abc")[1:], 3)


@case("payload failure", "bytes that are no frame")
def frame_of_noise() -> Made:
    return with_frame(made("no frame", 50), 50)


# -- seek table lies ------------------------------------------------------------------------

X: Frame = (run(b"x", 40), 40)
Y: Frame = (stored(b"y" * 60), 60)
XY = b"x" * 40 + b"y" * 60


@case("seek table lies", "the content sizes of two frames change places")
def seektable_sizes_swapped() -> Made:
    (a, b), (c, d) = pairs(X, Y)
    return with_table(seek_table([(a, d), (c, b)]), X, Y), XY


@case("seek table lies", "the sealed sizes of two frames change places")
def seektable_sealed_sizes_swapped() -> Made:
    (a, b), (c, d) = pairs(X, Y)
    return with_table(seek_table([(c, b), (a, d)]), X, Y), XY


@case("seek table lies", "the entries of two frames change places")
def seektable_entries_swapped() -> Made:
    return with_table(seek_table(reversed(pairs(X, Y))), X, Y), XY


@case("seek table lies", "a byte of content more than the last frame has")
def seektable_content_too_large() -> Made:
    (a, b), (c, d) = pairs(X, Y)
    return with_table(seek_table([(a, b), (c, d + 1)]), X, Y), XY


@case("seek table lies", "a byte of content less than the last frame has")
def seektable_content_too_small() -> Made:
    (a, b), (c, d) = pairs(X, Y)
    return with_table(seek_table([(a, b), (c, d - 1)]), X, Y), XY


@case("seek table lies", "a byte less for the first frame, a byte more for the second")
def seektable_border_moved() -> Made:
    (a, b), (c, d) = pairs(X, Y)
    return with_table(seek_table([(a - 1, b), (c + 1, d)]), X, Y), XY


@case("seek table lies", "two frames as one")
def seektable_frames_merged() -> Made:
    (a, b), (c, d) = pairs(X, Y)
    return with_table(seek_table([(a + c, b + d)]), X, Y), XY


@case("seek table lies", "two frames as one, with the content of the first only")
def seektable_second_frame_hidden() -> Made:
    (a, b), (c, _) = pairs(X, Y)
    return with_table(seek_table([(a + c, b)]), X, Y), XY


@case("seek table lies", "one frame as two")
def seektable_frame_split() -> Made:
    (a, b), (c, d) = pairs(X, Y)
    return with_table(seek_table([(a, b), (c - 9, d - 9), (9, 9)]), X, Y), XY


@case("seek table lies", "the last frame is not in it")
def seektable_frame_missing() -> Made:
    return with_table(seek_table(pairs(X)), X, Y), XY


@case("seek table lies", "the first frame is not in it")
def seektable_first_frame_missing() -> Made:
    return with_table(seek_table(pairs(Y)), X, Y), XY


@case("seek table lies", "a frame is in it twice")
def seektable_frame_twice() -> Made:
    return with_table(seek_table(pairs(X, Y, Y)), X, Y), XY


@case("seek table lies", "no frames, before there are two")
def seektable_of_no_frames() -> Made:
    return with_table(seek_table([]), X, Y), XY


@case("seek table lies", "a frame of no content and no bytes")
def seektable_empty_entry() -> Made:
    return with_table(seek_table([*pairs(X, Y), (0, 0)]), X, Y), XY


@case("seek table lies", "a frame of content and no bytes")
def seektable_frame_of_no_bytes() -> Made:
    return with_table(seek_table([*pairs(X, Y), (0, 5)]), X, Y), XY


@case("seek table lies", "a frame over 8 MiB, which it has")
def seektable_frame_over_8_mib() -> Made:
    size = (8 << 20) + 1
    big = (run(b"z", size), size)
    return with_table(seek_table(pairs(X, big)), X, big), b"x" * 40


@case("seek table lies", "attack 44: content sizes whose sum is 64 TiB")
def seektable_content_of_64_tib() -> Made:
    (a, _), (c, _) = pairs(X, Y)
    return with_table(seek_table([(a, 0xFFFFFFFF), (c, 0xFFFFFFFF)]), X, Y), XY


@case("seek table lies", "attack 44: sealed sizes whose sum is right modulo 2^32")
def seektable_sealed_sizes_wrap() -> Made:
    (a, b), (c, d) = pairs(X, Y)
    return with_table(seek_table([(a + c + 5, b), (2**32 - 5, d)]), X, Y), XY


@case("seek table lies", "bytes of no frame between the frames and the table")
def seektable_bytes_before_it() -> Made:
    return with_table(seek_table(pairs(X, Y)), X, Y, extra=b"hidden"), XY


@case("seek table lies", "attack 44: it counts 2^32 - 1 frames")
def seektable_count_too_large() -> Made:
    return with_table(seek_table(pairs(X, Y), count=0xFFFFFFFF), X, Y), XY


@case("seek table lies", "it counts a frame more than it lists")
def seektable_count_one_more() -> Made:
    return with_table(seek_table(pairs(X, Y), count=3), X, Y), XY


@case("seek table lies", "it counts a frame less than it lists")
def seektable_count_one_less() -> Made:
    return with_table(seek_table(pairs(X, Y), count=1), X, Y), XY


@case("seek table lies", "the length of its skippable frame is wrong")
def seektable_length_wrong() -> Made:
    return with_table(seek_table(pairs(X, Y), length=24), X, Y), XY


@case("seek table lies", "its descriptor promises checksums that are not there")
def seektable_descriptor_with_checksums() -> Made:
    return with_table(seek_table(pairs(X, Y), descriptor=0x80), X, Y), XY


@case("seek table lies", "checksums as the seekable format has them, which this format has not")
def seektable_with_checksums() -> Made:
    entries = [pair for a, b in pairs(X, Y) for pair in (a, b, 0)]
    body = struct.pack(f"<{len(entries)}I", *entries)
    end = struct.pack("<IBI", 2, 0x80, 0x8F92EAB1)
    return with_table(struct.pack("<II", 0x184D2A5E, len(body) + 9) + body + end, X, Y), XY


@case("seek table lies", "a reserved bit of its descriptor is set")
def seektable_reserved_bit_set() -> Made:
    return with_table(seek_table(pairs(X, Y), descriptor=0x04), X, Y), XY


@case("seek table lies", "its skippable frame has another magic number")
def seektable_other_skippable_frame() -> Made:
    return with_table(seek_table(pairs(X, Y), magic=0x184D2A50), X, Y), XY


@case("seek table lies", "it does not end with the magic number of seek tables")
def seektable_end_wrong() -> Made:
    return with_table(seek_table(pairs(X, Y), end=0x8F92EAB2), X, Y), XY


@case("seek table lies", "there is none")
def seektable_missing() -> Made:
    return with_table(b"", X, Y), XY


@case("seek table lies", "nothing at all is sealed, not even a seek table")
def seektable_missing_and_no_frames() -> Made:
    return sealed(b"")


@case("seek table lies", "it is cut, and the message sealed whole")
def seektable_cut() -> Made:
    return with_table(seek_table(pairs(X, Y))[:-1], X, Y), XY


@case("seek table lies", "it comes before the frames")
def seektable_first() -> Made:
    return sealed(seek_table(pairs(X, Y)) + X[0] + Y[0])


@case("seek table lies", "there are two")
def seektable_twice() -> Made:
    return with_table(seek_table(pairs(X, Y)) * 2, X, Y), XY


@case("seek table lies", "a byte behind it, within the message")
def seektable_byte_behind_it() -> Made:
    return with_table(seek_table(pairs(X, Y)) + b"\0", X, Y), XY


@case("seek table lies", "a skippable frame between two frames, which zstd passes over")
def skippable_frame_between() -> Made:
    hidden = struct.pack("<II", 0x184D2A50, 6) + b"hidden"
    second = (hidden + Y[0], 60)
    return sealed(sealable(X, second)), b"x" * 40


@case("seek table lies", "a seek table between two frames, which zstd passes over")
def seektable_between() -> Made:
    second = (seek_table(pairs(X)) + Y[0], 60)
    return sealed(sealable(X, second)), b"x" * 40


@case("seek table lies", "a skippable frame behind a frame, within what the table says is its")
def skippable_frame_within() -> Made:
    hidden = struct.pack("<II", 0x184D2A5E, 6) + b"hidden"
    first = (X[0] + hidden, 40)
    return sealed(sealable(first, Y)), b"x" * 40
