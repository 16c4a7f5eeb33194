"""Properties of the formats: what holds for every document, table, size, offset and history."""

from __future__ import annotations

import faulthandler
import io
import os
import random
import resource
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pytest
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from testkit import Pipe, kit, parquet

from pqvault.archive.view import View
from pqvault.crypto import cobblestone, kdf, mac, record
from pqvault.crypto.cobblestone import CHUNK_SIZE, MessageReader, MessageWriter, RandomReader
from pqvault.errors import FormatError, IntegrityError, PQVaultError
from pqvault.format import catalog, zstdseek
from pqvault.format.catalog import SCHEMA, CatalogReader, CatalogWriter, Kind
from pqvault.format.commit import Commit, PartFile
from pqvault.format.envelope import Envelope, WrappedKey
from pqvault.format.removed import Reason, Removed
from pqvault.format.textdoc import MAX_INTEGER, MAX_SIZE
from pqvault.format.zstdseek import BLOCK_SIZE, MAX_FRAME, SeekTable
from pqvault.sealed import InOrderReader, SealedReader, SealedWriter

KEY, CONTEXT = bytes(range(32)), b"a context"


def examples(count: int) -> settings:
    return settings(max_examples=count, deadline=None)


@dataclass
class Bytes:
    """Sealed bytes in memory. ``size``: what it says to be, which may be a lie."""

    data: bytes
    size: int = field(default=-1)

    def __post_init__(self) -> None:
        if self.size < 0:
            self.size = len(self.data)

    def pread_into(self, buffer: memoryview, offset: int) -> None:
        piece = self.data[offset : offset + len(buffer)]
        if len(piece) != len(buffer):
            raise IntegrityError("the source is too short")
        buffer[:] = piece


def seal(plain: bytes, **faults: Any) -> bytes:
    """A message by hand, of vectors/testkit.py."""
    return bytes(kit.cobblestone(KEY, CONTEXT, plain, **faults))


def random_reader(sealed: bytes) -> RandomReader:
    return RandomReader(Bytes(sealed), KEY, CONTEXT, "it")


def sealed_reader(plain: bytes) -> SealedReader:
    return SealedReader(Bytes(seal(plain)), KEY, CONTEXT, "it")


def in_order(plain: bytes) -> bytes:
    return b"".join(InOrderReader(Pipe(seal(plain)), KEY, CONTEXT, "it").frames())


# -- text documents -------------------------------------------------------------------------


def hexes(size: int) -> st.SearchStrategy[str]:
    return st.binary(min_size=size, max_size=size).map(bytes.hex)


texts = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters='"\\'))
integers = st.integers(0, MAX_INTEGER)
macs = st.binary(min_size=32, max_size=32)

envelopes = st.builds(
    Envelope,
    archive=hexes(16),
    part=hexes(16),
    group=texts,
    generation=st.integers(1, MAX_INTEGER),
    created=integers,
    profile=texts,
    recipients=st.lists(
        st.builds(WrappedKey, kem=texts, key_id=hexes(16), sealed=st.binary(max_size=50)),
        min_size=1,
        max_size=4,
        unique_by=lambda wrapped: wrapped.key_id,
    ).map(tuple),
    mac=macs,
)


@st.composite
def commits(draw: st.DrawFn) -> Commit:
    digest, size = draw(st.sampled_from([("blake3", 32), ("sha256", 32), ("sha384", 48)]))
    numbers = draw(st.lists(st.integers(0, 999_999), max_size=4, unique=True))
    names = ["catalog", *(f"objects/{n:06d}-{draw(hexes(4))}" for n in numbers)]
    named = st.dictionaries(hexes(16), hexes(32) | hexes(48), max_size=3)
    parents, replaces, part = draw(named), draw(named), draw(hexes(16))
    replaces.pop(part, None)
    return Commit(
        archive=draw(hexes(16)),
        part=part,
        seq=draw(st.integers(1, MAX_INTEGER)),
        created=draw(integers),
        profile=draw(texts),
        digest=digest,
        kind=draw(st.sampled_from(["seal", "append"])),
        parents=tuple(sorted(parents.items())),
        replaces=tuple(sorted(replaces.items())),
        root=draw(hexes(32)),
        sealed_to=tuple(draw(st.lists(hexes(16), max_size=3, unique=True))),
        files=tuple(PartFile(n, draw(integers), draw(hexes(size))) for n in sorted(names)),
        mac=draw(macs),
    )


@st.composite
def removals(draw: st.DrawFn) -> Removed:
    reason: Reason = draw(st.sampled_from(["replaced", "pruned"]))
    by = draw(st.sets(hexes(16), min_size=1, max_size=1 if reason == "pruned" else 3))
    return Removed(
        archive=draw(hexes(16)),
        part=draw(hexes(16)),
        removed=draw(hexes(16)),
        seq=draw(st.integers(1, MAX_INTEGER)),
        committed=draw(integers),
        commit=draw(hexes(32) | hexes(48)),
        reason=reason,
        by=tuple(sorted(by)),
        created=draw(integers),
        mac=draw(macs),
    )


@examples(100)
@given(envelopes | commits() | removals())
def test_documents_survive_marshal_and_parse(document: Envelope | Commit | Removed) -> None:
    data = document.marshal()
    assert type(document).parse(data) == document
    assert data.isascii() and data.count(b"\n") == 3
    assert data.startswith(document.authenticated() + b" ")


@examples(50)
@given(envelopes, st.binary(max_size=100))
def test_envelope_at_the_head_of_a_stream(envelope: Envelope, rest: bytes) -> None:
    data = envelope.marshal()
    assert Envelope.parse_prefix(data + rest) == (envelope, len(data))
    assume(rest)
    with pytest.raises(FormatError):
        Envelope.parse(data + rest)


@st.composite
def mutated(draw: st.DrawFn, documents: st.SearchStrategy[Any]) -> tuple[type, bytes]:
    """A valid document with one byte changed, put in, or taken out."""
    document = draw(documents)
    data = document.marshal()
    at = draw(st.integers(0, len(data) - 1))
    # Bytes that mean something here make more of the mutants come through.
    byte = bytes(
        [draw(st.sampled_from(b'0123456789abcdef"\\,:[]{}-. =\n\r\tA/+') | st.integers(0, 255))]
    )
    how = draw(st.sampled_from(["change", "insert", "delete", "repeat"]))
    if how == "change":
        data = data[:at] + byte + data[at + 1 :]
    elif how == "insert":
        data = data[:at] + byte + data[at:]
    elif how == "delete":
        data = data[:at] + data[at + 1 :]
    else:
        end = draw(st.integers(at, min(at + 60, len(data))))
        data = data[:end] + data[at:end] + data[end:]
    return type(document), data


@examples(500)
@given(mutated(envelopes | commits()))
def test_mutated_documents_have_one_spelling(mutant: tuple[type, bytes]) -> None:
    """attack 43: what is accepted is written again byte for byte, all else is refused."""
    kind, data = mutant
    try:
        document = kind.parse(data)  # type: ignore[attr-defined]
    except FormatError:
        return
    assert document.marshal() == data


def test_documents_are_bounded() -> None:
    """attack 42: 4 MiB, to the byte."""
    start = Envelope("00" * 16, "00" * 16, "", 1, 0, "standard", ())

    def of(size: int) -> Envelope:
        count = 1000
        bare = [WrappedKey("x", f"{i:032x}", bytes(3 * 1024)) for i in range(count)]
        left = size - len(replace(start, recipients=tuple(bare)).marshal())
        # Four characters for three bytes, and the rest in the name of the group.
        bare[0] = WrappedKey("x", bare[0].key_id, bytes(3 * 1024 + left // 4 * 3))
        return replace(start, recipients=tuple(bare), group="g" * (left % 4))

    largest = of(MAX_SIZE).marshal()
    assert len(largest) == MAX_SIZE
    assert Envelope.parse(largest).marshal() == largest
    for size in (MAX_SIZE + 1, MAX_SIZE + 2, MAX_SIZE + 400):
        data = of(size).marshal()
        assert len(data) == size
        with pytest.raises(FormatError):
            Envelope.parse(data)
    with pytest.raises(FormatError):
        Envelope.parse(b"pqvault.dev/envelope@v1\n" + b"[" * (8 << 20))


# -- the seek table and frames --------------------------------------------------------------

sizes = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(1, MAX_FRAME)), max_size=20)


@examples(200)
@given(sizes)
def test_seek_table_survives_marshal_and_parse(pairs: list[tuple[int, int]]) -> None:
    table = SeekTable.of(array("I", [s for s, _ in pairs]), array("I", [c for _, c in pairs]))
    data = table.marshal()
    assert data == kit.seek_table(pairs)
    total = sum(s for s, _ in pairs) + len(data)
    assert SeekTable.parse(data, total, "it") == table
    assert (table.frames, table.size) == (len(pairs), sum(c for _, c in pairs))
    for other in (total - 1, total + 1):
        with pytest.raises(FormatError):
            SeekTable.parse(data, other, "it")


@examples(300)
@given(sizes, st.data())
def test_mutated_seek_tables_have_one_spelling(
    pairs: list[tuple[int, int]], data: st.DataObject
) -> None:
    """attack 44: one byte changed: refused, or another table of the very same bytes."""
    table = bytearray(kit.seek_table(pairs))
    total = sum(s for s, _ in pairs) + len(table)
    at = data.draw(st.integers(0, len(table) - 1))
    table[at] = data.draw(st.integers(0, 255))
    try:
        parsed = SeekTable.parse(bytes(table), total, "it")
    except FormatError:
        return
    assert parsed.marshal() == table
    assert parsed.sealed[-1] == total - len(table)


@examples(200)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.data())
def test_frame_at_is_the_frame_that_holds_the_byte(
    contents: list[int], data: st.DataObject
) -> None:
    table = SeekTable.of(array("I", contents), array("I", contents))
    offset = data.draw(st.integers(0, sum(contents) - 1))
    frame = table.frame_at(offset)
    assert table.content[frame] <= offset < table.content[frame + 1]


@examples(120)
@given(
    st.integers(1, 300) | st.integers(65_000, 66_500) | st.integers(1, 400_000),
    st.integers(-5, 19),
    st.booleans(),
)
@example(size=MAX_FRAME, level=1, long=False)
def test_frame_headers_of_zstandard(size: int, level: int, long: bool) -> None:
    """The header is read as the library writes it, at any size and level."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, window_log=23, **({"enable_ldm": True} if long else {})
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    frame = compressor.compress(bytes(size))
    length, found = zstdseek.parse_frame_header(frame, "it")
    assert found == size == zstandard.frame_content_size(frame)
    assert length == zstandard.frame_header_size(frame)
    # and the blocks behind it lead to the end of the frame
    at, last = length, False
    while not last:
        step, last = zstdseek.parse_block_header(frame[at : at + 3], "it")
        at += 3 + step
    assert at == len(frame)


@examples(500)
@given(st.binary(max_size=20), st.integers(0, 255))
def test_frame_headers_that_are_accepted(rest: bytes, descriptor: int) -> None:
    """attack 30: zstd itself sees the same size and window, no dictionary, no checksum."""
    head = kit.MAGIC + bytes([descriptor]) + rest
    try:
        length, size = zstdseek.parse_frame_header(head, "it")
    except FormatError:
        return
    parameters = zstandard.get_frame_parameters(head)
    assert parameters.content_size == size and 0 < size <= MAX_FRAME
    assert parameters.window_size <= MAX_FRAME
    assert parameters.dict_id == 0 and not parameters.has_checksum
    assert length == zstandard.frame_header_size(head)


BORDERS = sorted(
    {
        max(1, blocks * BLOCK_SIZE + step)
        for blocks in (0, 1, 2, 3)
        for step in (-CHUNK_SIZE, -13, -12, -3, -2, -1, 0, 1, 2, 3, 12, 13, CHUNK_SIZE)
    }
)


@pytest.mark.parametrize("size", BORDERS)
def test_stored_frames_at_block_borders(size: int) -> None:
    """Written as the page says, zstd takes them, and both readers see the same at any place."""
    content = random.Random(size).randbytes(size)
    frame = b"".join(bytes(piece) for piece in zstdseek.stored_pieces(memoryview(content)))
    assert frame == kit.stored(content)
    assert len(frame) == zstdseek.stored_size(size)
    assert zstandard.ZstdDecompressor().decompress(frame) == content
    plain = kit.content(content, b"behind it")
    whole = content + b"behind it"
    assert in_order(plain) == whole
    reader = sealed_reader(plain)
    ends = [0, 1, 3, 12, size - 1, size, size + 1, *range(BLOCK_SIZE, size, BLOCK_SIZE)]
    for offset in ends:
        for step in (-2, -1, 0, 1):
            at = max(0, min(offset + step, len(whole)))
            for length in (1, 4, CHUNK_SIZE, BLOCK_SIZE + 1):
                assert reader.pread(at, length) == whole[at : at + length]
    # No frame was decoded whole: every read went through the blocks.
    assert set(reader._stored) <= {0, 1} and min(reader._stored.values()) > 0


# -- Cobblestone ----------------------------------------------------------------------------

around_chunks = st.builds(
    lambda chunks, step: max(0, chunks * CHUNK_SIZE + step),
    st.integers(0, 5),
    st.sampled_from([-2, -1, 0, 1, 2, 100, 9000]),
)


@examples(60)
@given(around_chunks, st.data())
def test_random_reads_are_slices(size: int, data: st.DataObject) -> None:
    plain = kit.made("a message", size)
    reader = random_reader(seal(plain))
    assert reader.size == size
    assert reader.pread(0, size) == plain
    for _ in range(8):
        start = min(data.draw(around_chunks), size)
        length = min(data.draw(around_chunks | st.integers(0, 40)), size - start)
        assert reader.pread(start, length) == plain[start : start + length]
    with pytest.raises(ValueError):
        reader.pread(size, 1)
    with pytest.raises(ValueError):
        reader.pread(-1, 1)


@examples(30)
@given(around_chunks, st.integers(1, 40_000))
def test_messages_of_the_writer_are_as_the_page_says(size: int, step: int) -> None:
    """In pieces of any size: sealed_size bytes, read in order and at random."""
    plain = kit.made("a message", size)
    writer = MessageWriter(KEY, CONTEXT)
    out = bytearray()
    for at in range(0, size, step):
        piece = plain[at : at + step]
        room = bytearray(MessageWriter.room(len(piece)))
        out += room[: writer.update_into(piece, room)]
    out += writer.finalize()
    assert len(out) == cobblestone.sealed_size(size)
    assert cobblestone.plain_size(len(out), "it") == size
    assert random_reader(bytes(out)).pread(0, size) == plain
    reader = MessageReader(KEY, CONTEXT, "it")
    assert reader.update(out) + reader.finalize() == plain


def cuts(total: int, last: int) -> Iterator[int]:
    """Lengths to cut a message of ``total`` bytes to, with ``last`` bytes in its last chunk."""
    yield from range(58)
    for border in range(56, total, 16_400):
        yield from (border - 1, border, border + 1, border + 15, border + 16)
    yield from range(total - last, total)


@pytest.mark.parametrize("size", [0, 40, CHUNK_SIZE, 2 * CHUNK_SIZE + 40])
def test_cut_messages_are_refused(size: int) -> None:
    """attack 10: at every chunk border, around it, and at every byte of the last chunk."""
    plain = kit.made("a message", size)
    sealed = seal(plain)
    for length in sorted({n for n in cuts(len(sealed), size % CHUNK_SIZE + 16) if n < len(sealed)}):
        with pytest.raises(IntegrityError):
            random_reader(sealed[:length])
        reader = MessageReader(KEY, CONTEXT, "it")
        out = b""
        with pytest.raises(IntegrityError):
            out = reader.update(sealed[:length])
            reader.finalize()
        assert plain.startswith(out)


@examples(60)
@given(around_chunks, st.data())
def test_one_flipped_bit_is_met(size: int, data: st.DataObject) -> None:
    """Nothing but the true bytes comes out, whichever bit it is; a failed read leaves zeros."""
    plain = kit.made("a message", size)
    sealed = bytearray(seal(plain))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        reader = random_reader(bytes(sealed))
    except IntegrityError:
        return
    out = bytearray(b"\xaa" * size)
    with pytest.raises(IntegrityError):
        reader.pread_into(memoryview(out), 0)
    # The library writes plaintext before it checks the tag: none of it may stay.
    assert out == bytes(size)
    for start in range(0, size, 5000):
        piece = memoryview(bytearray(b"\xaa" * min(7000, size - start)))
        try:
            reader.pread_into(piece, start)
        except IntegrityError:
            assert piece == bytes(len(piece))
        else:
            assert piece == plain[start : start + len(piece)]


def test_failed_read_leaves_zeros_when_the_source_fails() -> None:
    """The same when it is the source that fails, in the middle of a range."""
    sealed = seal(kit.made("a message", 100 * CHUNK_SIZE))
    source = Bytes(sealed)
    reader = RandomReader(source, KEY, CONTEXT, "it")
    source.data = sealed[: 70 * 16_400]
    out = bytearray(b"\xaa" * (100 * CHUNK_SIZE))
    with pytest.raises(IntegrityError):
        reader.pread_into(memoryview(out), 0)
    assert out == bytes(len(out))


def test_last_chunk_is_authenticated_first() -> None:
    """attack 10: nothing is said about the size before it is."""
    sealed = seal(kit.made("a message", 3 * CHUNK_SIZE + 5))
    with pytest.raises(IntegrityError, match="chunk 3 of 4"):
        random_reader(kit.flip(sealed, -1))
    random_reader(kit.flip(sealed, 60))  # a bad first chunk is met when it is read


def test_a_key_of_another_length_or_a_field_too_many_is_a_bug() -> None:
    """Never derived from, sealed under or bound: it would be another key than the page says."""
    for call in (
        lambda: kdf.derive(bytes(31), 32, "commit id", bytes(16), bytes(16)),
        lambda: kdf.bind("commit id", bytes(16)),
        lambda: kdf.bind("commit id", bytes(16), bytes(16), b""),
        lambda: kdf.bind("object", bytes(16), bytes(16), bytes(65_536)),
        lambda: mac.compute(bytes(32), b""),
        lambda: record.seal_record(bytes(16), b"", b""),
        lambda: RandomReader(Bytes(seal(b"")), bytes(16), CONTEXT, "it"),
    ):
        with pytest.raises(ValueError, match=r"bytes|fields"):
            call()


def test_nothing_outside_a_message_is_read() -> None:
    """Neither before its first byte, which would be that of another chunk, nor behind its last."""
    reader = random_reader(seal(bytes(40)))
    for offset, size in ((-1, 1), (-16_400, 16), (0, 41), (40, 1), (41, 0)):
        with pytest.raises(ValueError, match="outside the message"):
            reader.pread_into(memoryview(bytearray(size)), offset)
    assert reader.pread(40, 0) == b""


@dataclass
class Far:
    """A message of which only the head and two chunks are at hand, by their numbers."""

    chunks: dict[int, bytes]
    head: bytes
    size: int

    def pread_into(self, buffer: memoryview, offset: int) -> None:
        number, rest = divmod(offset - 56, 16_400)
        assert offset == 0 or not rest
        buffer[:] = self.head if offset == 0 else self.chunks[number]


def test_the_nonce_has_the_whole_number_of_a_chunk() -> None:
    """Format 7.1: base nonce XOR k, of all 38 bits that k has."""
    info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" + bytes(24) + CONTEXT
    okm = kit.expand(KEY, info, 76)
    numbers, base = (3 << 36, 2**38 - 1), int.from_bytes(okm[32:44], "big")
    texts = {numbers[0]: b"x" * CHUNK_SIZE, numbers[1]: b"the end"}
    aead = AESGCM(okm[:32])
    sealed = {k: aead.encrypt((base ^ k).to_bytes(12, "big"), t, None) for k, t in texts.items()}
    size = 56 + numbers[1] * 16_400 + len(sealed[numbers[1]])
    reader = RandomReader(Far(sealed, bytes(24) + okm[44:], size), KEY, CONTEXT, "it")
    for k, text in texts.items():
        assert reader.pread(k * CHUNK_SIZE, len(text)) == text


# Salt 24 bytes, drawn by the library, for each message.


def salts(count: int) -> set[bytes]:
    found = set()
    out = bytearray(MessageWriter.room(0))
    for _ in range(count):
        MessageWriter(KEY, CONTEXT).update_into(b"", out)
        found.add(bytes(out[:24]))
    return found


def test_salts_do_not_repeat() -> None:
    """attack 16: no (key, salt) twice in 10^4 messages of one key."""
    assert len(salts(10_000)) == 10_000


@pytest.mark.slow
def test_salts_do_not_repeat_in_a_million() -> None:
    """attack 16: no (key, salt) twice in 10^6."""
    assert len(salts(1_000_000)) == 1_000_000


def test_chunks_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """attack 17: 2^38 chunks and no more, without 4 PiB at hand."""
    assert cobblestone.MAX_CHUNKS == 2**38
    most = 56 + (2**38 - 1) * 16_400 + 16_399
    assert cobblestone.plain_size(most, "it") == 2**52 - 1
    with pytest.raises(FormatError, match="longer than a message can be"):
        RandomReader(Bytes(b"", most + 17), KEY, CONTEXT, "it")
    # the same at a limit that can be reached
    monkeypatch.setattr(cobblestone, "MAX_CHUNKS", 4)
    three = kit.made("a message", 3 * CHUNK_SIZE + 5)
    assert random_reader(seal(three)).pread(0, len(three)) == three
    with pytest.raises(FormatError, match="longer than a message can be"):
        random_reader(seal(bytes(4 * CHUNK_SIZE)))


# One ciphertext that two keys open: GHASH is linear, so one block can make both tags agree.


def gf(block: bytes) -> int:
    """The bits of a block as GHASH counts them."""
    return int(f"{int.from_bytes(block, 'big'):0128b}"[::-1], 2)


def block_of(value: int) -> bytes:
    return int(f"{value:0128b}"[::-1], 2).to_bytes(16, "big")


def times(a: int, b: int) -> int:
    out = 0
    while b:
        if b & 1:
            out ^= a
        a <<= 1
        if a >> 128:
            a ^= (1 << 128) | 0x87
        b >>= 1
    return out


def inverse(a: int) -> int:
    out, power = 1, a  # a^(2^128 - 2)
    for _ in range(127):
        power = times(power, power)
        out = times(out, power)
    return out


def salamander(
    first: tuple[bytes, int], second: tuple[bytes, int], aads: Sequence[bytes] = (b"", b"")
) -> bytes:
    """A chunk of three blocks and a tag that opens under two keys. Each: key, nonce; ``aads``:
    what goes with each, of one length."""
    parts = []
    for key, nonce in (first, second):
        # The empty message has the tag E(J0), which is GHASH's mask; one block of zeros gives H.
        aead, iv = AESGCM(key), nonce.to_bytes(12, "big")
        mask = aead.encrypt(iv, b"", None)
        zero = aead.encrypt(iv, bytes(16), None)
        # tag = C * H^2 + L * H + mask with one block C: solve for H from two messages.
        parts.append((aead, iv, gf(mask), zero))
    keys = [hash_key(aead, iv) for aead, iv, _, _ in parts]
    masks = [mask for _, _, mask, _ in parts]
    length = gf((8 * len(aads[0])).to_bytes(8, "big") + (48 * 8).to_bytes(8, "big"))
    before = [
        [gf(aad[at : at + 16].ljust(16, b"\0")) for at in range(0, len(aad), 16)] for aad in aads
    ]
    blocks = [gf(b"\x01" * 16), gf(b"\x02" * 16)]

    def tag(which: int, last: int) -> int:
        out = 0
        for value in (*before[which], *blocks, last, length):
            out = times(out ^ value, keys[which])
        return out ^ masks[which]

    # tag(last) = tag(0) + last * H^2 for each key; make them equal.
    squares = [times(h, h) for h in keys]
    difference = tag(0, 0) ^ tag(1, 0)
    last = times(difference, inverse(squares[0] ^ squares[1]))
    assert tag(0, last) == tag(1, last)
    return b"".join(map(block_of, (*blocks, last, tag(0, last))))


def hash_key(aead: AESGCM, iv: bytes) -> int:
    """H of GHASH: two messages of one nonce whose ciphertexts differ in one bit of one block."""
    one = aead.encrypt(iv, bytes(16), None)
    # A bit more in the block changes the tag by bit * H^2; the square root is a squaring 127 times.
    two = aead.encrypt(iv, b"\x80" + bytes(15), None)
    root = gf(one[16:]) ^ gf(two[16:])
    for _ in range(127):
        root = times(root, root)
    return root


def test_a_message_for_two_keys_is_refused() -> None:
    """attack 1: a chunk that opens under two keys; only the committed one may have it."""
    other = bytes(32)
    messages = [kit.cobblestone(key, CONTEXT, b"") for key in (KEY, other)]
    derived = []
    for key, message in zip((KEY, other), messages, strict=True):
        info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" + message.salt + CONTEXT
        okm = kit.expand(key, info, 76)
        derived.append((okm[:32], int.from_bytes(okm[32:44], "big")))
    assert messages[0].salt == messages[1].salt
    chunk = salamander(*derived)
    opened = [AESGCM(k).decrypt(n.to_bytes(12, "big"), chunk, None) for k, n in derived]
    assert opened[0] != opened[1]
    sealed = messages[0].salt + messages[0].commitment + chunk
    assert random_reader(sealed).pread(0, 48) == opened[0]
    with pytest.raises(IntegrityError, match="not sealed under this key"):
        RandomReader(Bytes(sealed), other, CONTEXT, "it")
    with pytest.raises(IntegrityError):
        MessageReader(other, CONTEXT, "it").update(sealed)


# -- sealed objects -------------------------------------------------------------------------


@dataclass
class Sink:
    """Sealed bytes as they are written."""

    data: bytearray = field(default_factory=bytearray)

    def write(self, data: memoryview) -> None:
        self.data += data


pieces = st.lists(
    st.tuples(st.sampled_from(["text", "noise", "zeros"]), st.integers(0, 90_000)), max_size=5
)


def piece(kind: str, size: int) -> bytes:
    if kind == "noise":
        return kit.made("noise", size)
    return (
        (b"all of it again and again, " * (size // 27 + 1))[:size]
        if kind == "text"
        else bytes(size)
    )


@examples(25)
@given(pieces, st.sampled_from([0, 1, 3]), st.integers(1, 3), st.data())
def test_objects_are_read_as_written(
    parts: list[tuple[str, int]], level: int, threads: int, data: st.DataObject
) -> None:
    """In order, at random, by any number of threads: the same bytes."""
    sink = Sink()
    whole = b"".join(piece(kind, size) for kind, size in parts)
    with SealedWriter(
        sink, KEY, CONTEXT, level=level, frame_size=zstdseek.MIN_FRAME, threads=threads
    ) as writer:
        for kind, size in parts:
            writer.write(piece(kind, size))
    frames = InOrderReader(Pipe(bytes(sink.data), 7000), KEY, CONTEXT, "it").frames()
    assert b"".join(frames) == whole
    reader = SealedReader(Bytes(bytes(sink.data)), KEY, CONTEXT, "it")
    assert reader.size == len(whole)
    for _ in range(8):
        start = data.draw(st.integers(0, len(whole)))
        length = data.draw(st.integers(0, 150_000))
        assert reader.pread(start, length) == whole[start : start + length]
    reader.seek(0)
    assert reader.read() == whole


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """The plaintext of an object of a few frames, in which some bytes are changed."""
    packed = zstandard.ZstdCompressor(level=5).compress(b"packed, as it comes, " * 50)
    blocks = st.sampled_from(
        [packed, kit.run(b"r", 70), kit.stored(b"stored " * 20), kit.stored(b"x")]
    )
    frames = [
        (f, zstdseek.parse_frame_header(f, "")[1]) for f in draw(st.lists(blocks, max_size=4))
    ]
    plain = bytearray(kit.sealable(*frames))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(plain) - 1))
        how = draw(st.sampled_from(["bit", "byte", "delete", "insert", "copy"]))
        if how == "bit":
            plain[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "byte":
            plain[at] = draw(st.integers(0, 255))
        elif how == "delete" and len(plain) > 1:
            del plain[at]
        elif how == "insert":
            plain.insert(at, draw(st.integers(0, 255)))
        else:
            end = draw(st.integers(at, len(plain)))
            plain[at:at] = plain[at:end]
    return bytes(plain)


@examples(600)
@given(objects())
def test_two_readers_never_see_two_contents(plain: bytes) -> None:
    """attack 44: of an object by whoever has the key, they see the same or refuse both."""
    results = []
    for read in (in_order, lambda p: sealed_reader(p).read()):
        try:
            results.append(read(plain))
        except IntegrityError:
            results.append(None)
    assert results[0] == results[1]
    if results[0] is not None:
        assert (
            zstandard.ZstdDecompressor().stream_reader(plain, read_across_frames=True).read()
            == results[0]
        )


def test_writer_refuses_in_a_forked_child() -> None:
    """attack 16: the child has the same salt and counter, so both would use one nonce twice."""
    sink = Sink()
    writer = SealedWriter(sink, KEY, CONTEXT, frame_size=zstdseek.MIN_FRAME)
    writer.write(b"before " * 20_000)
    child = os.fork()
    if child == 0:  # pragma: no cover, another process
        status = 1
        try:
            calls = (
                lambda: writer.write(b"x"),
                writer.reserve,
                lambda: writer.begin_file(1),
                writer.finish,
            )
            before = len(sink.data)
            refused = 0
            for call in calls:
                try:
                    call()
                except PQVaultError as error:
                    refused += "another process" in error.message
            with writer:
                pass
        except PQVaultError as error:
            # Leaving the context would finish, and that is refused like any writing.
            clean = "another process" in error.message and len(sink.data) == before
            status = 0 if clean and refused == len(calls) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    writer.write(b"after")
    writer.finish()
    reader = SealedReader(Bytes(bytes(sink.data)), KEY, CONTEXT, "it")
    assert reader.read() == b"before " * 20_000 + b"after"


# -- the catalog ----------------------------------------------------------------------------


def rows(entries: list[tuple[bytes, Kind]]) -> pa.RecordBatch:
    """A batch of entries without content; ``size`` says which part they are of."""
    count = len(entries)
    links = [b"target" if kind == Kind.SYMLINK else None for _, kind in entries]
    columns = [
        pa.array([path for path, _ in entries], pa.binary()),
        pa.array([int(kind) for _, kind in entries], pa.uint8()),
        pa.array([0] * count, pa.int64()),
        pa.array([0o644] * count, pa.uint16()),
        pa.array(range(count), pa.int64()),
        pa.array(links, pa.binary()),
        pa.array([None] * count, pa.binary()),
        pa.array([[]] * count, SCHEMA.field("extents").type),
        pa.nulls(count, pa.binary()),
    ]
    return pa.record_batch(columns, schema=SCHEMA)


def write_catalog(entries: list[tuple[bytes, Kind]]) -> io.BytesIO:
    file = io.BytesIO()
    # Kept open for us: the writer's file object would close it.
    file.close = lambda: None  # type: ignore[method-assign]
    writer = CatalogWriter(file)
    for at in range(0, len(entries), 7):
        writer.write(rows(entries[at : at + 7]))
    writer.finish()
    return file


components = st.sampled_from([b"a", b"b", b"a!", b"a0", b"\xff", b"long" * 60, b" "])
short_paths = st.lists(components, min_size=1, max_size=3).map(b"/".join)
long_paths = st.lists(st.sampled_from([b"l" * 250, b"m" * 251]), min_size=16, max_size=20).map(
    b"/".join
)


@examples(80)
@given(
    st.sets(short_paths | long_paths | st.binary(min_size=1, max_size=4), max_size=40),
    st.sets(short_paths | st.binary(max_size=5), max_size=10),
    st.integers(1, 6),
)
def test_find_is_a_look_up(present: set[bytes], others: set[bytes], group: int) -> None:
    """What is there is found, what is not is not, in row groups of any size."""
    paths = sorted(p for p in present if catalog_path(p))
    entries = [(path, Kind.TOMBSTONE) for path in paths]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "ROW_GROUP", group)
        reader = CatalogReader(write_catalog(entries), frozenset(), "it")
        assert reader.rows == len(paths)
        assert len(paths) / group <= reader.groups <= len(paths)
        for path in [*paths, *others, b"", b"\xff" * 6]:
            entry = reader.find(path)
            assert (entry.path if entry else None) == (path if path in paths else None)
        found = [p for batch in reader.batches() for p in batch.column(0).to_pylist()]
        assert found == paths
        for start in others:
            after = [p for batch in reader.batches(start) for p in batch.column(0).to_pylist()]
            assert after == paths[len(paths) - len(after) :]
            assert set(after) >= set(paths[bisect_left(paths, start) :])


@pytest.mark.parametrize(
    "first, lie, hidden",
    [
        (b"kkkk", b"zzzz", b"mmmm"),  # so that the group of a path is taken to be the one before
        (b"kkkk", b"cccc", b"kkkk"),  # or the one behind
    ],
)
def test_a_look_up_believes_no_statistics(
    monkeypatch: pytest.MonkeyPatch, first: bytes, lie: bytes, hidden: bytes
) -> None:
    """Whoever knows a public key can seal a catalog: what it lists is found, or it is refused."""
    monkeypatch.setattr(catalog, "ROW_GROUP", 2)
    paths = [b"aaaa", first, b"mmmm", b"nnnn"]
    data = bytearray(write_catalog([(path, Kind.TOMBSTONE) for path in paths]).getvalue())
    at = data.rindex(b"mmmm")  # in the footer
    data[at : at + 4] = lie
    reader = CatalogReader(io.BytesIO(data), frozenset(), "it")
    with pytest.raises(FormatError, match="statistics that lie"):
        reader.find(hidden)
    with pytest.raises(FormatError, match="statistics that lie"):
        list(reader.batches())


def test_a_look_up_among_paths_out_of_order_is_refused() -> None:
    paths = [b"a", b"c", b"b", b"d"]
    file = write_catalog([(path, Kind.TOMBSTONE) for path in paths])
    reader = CatalogReader(io.BytesIO(file.getvalue()), frozenset(), "it")
    for path in paths:
        with pytest.raises(FormatError, match="not sorted by path"):
            reader.find(path)


def test_threads_that_find_at_once_see_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a mount, or of a training job: the file that they read has one position."""

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            time.sleep(0.0002)  # as a disk does, while others seek
            return super().read(size)

    monkeypatch.setattr(catalog, "ROW_GROUP", 4)
    paths = [b"%02d" % number for number in range(32)]
    file = write_catalog([(path, Kind.TOMBSTONE) for path in paths])
    reader = CatalogReader(Slow(file.getvalue()), frozenset(), "it")
    random.Random(1).shuffle(paths)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(reader.find, paths))
    assert [entry.path for entry in found if entry is not None] == paths


def catalog_path(path: bytes) -> bool:
    parts = path.split(b"/")
    return b"\0" not in path and not any(p in (b"", b".", b"..") or len(p) > 255 for p in parts)


@examples(300)
@given(st.binary(max_size=12) | short_paths.map(lambda path: path + b"/.."))
def test_paths_are_refused_as_the_page_says(path: bytes) -> None:
    """attack 26: section 6, rule 1, for any bytes."""
    batch = rows([(path, Kind.TOMBSTONE)])
    file = io.BytesIO()
    file.close = lambda: None  # type: ignore[method-assign]
    writer = CatalogWriter(file)
    writer.write(batch)
    writer.finish()
    reader = CatalogReader(file, frozenset(), "it")
    if catalog_path(path):
        assert reader.batch(0).column(0).to_pylist() == [path]
    else:
        with pytest.raises(FormatError):
            reader.batch(0)


def in_child(call: Callable[[], object]) -> int:
    """The exit status of a child process that makes a call: 0, or what killed it."""
    child = os.fork()
    if child == 0:  # pragma: no cover, another process
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            faulthandler.disable()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            call()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


FOLDERS = [kit.Row(b"d%02d" % i, "d", mode=0o755) for i in range(30)]
CATALOG = parquet.write([FOLDERS[:10], FOLDERS[10:]])


def damaged(seed: int) -> bytes:
    """The catalog with one to three bytes changed, most of them in its footer."""
    rng, data = random.Random(seed), bytearray(CATALOG)
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for _ in range(rng.randint(1, 3)):
        data[rng.randrange(footer if rng.random() < 0.8 else 0, len(data))] = rng.randrange(256)
    return bytes(data)


def read_damaged(data: bytes) -> None:
    """An error of ours, or rows that keep the rules."""
    try:
        reader = CatalogReader(io.BytesIO(data), frozenset(), "it")
        paths = [p for batch in reader.batches() for p in batch.column(0).to_pylist()]
        reader.find(b"d07")
    except FormatError:
        return
    assert paths == sorted(set(paths)) and all(map(catalog_path, paths))


def test_damaged_catalogs_are_refused_or_read() -> None:
    """attack 32, attack 44: whatever the bytes, no other exception, no other rows, no crash."""

    def all_of_them() -> None:
        for seed in range(800):
            read_damaged(damaged(seed))

    assert in_child(all_of_them) == 0


def test_catalog_that_ends_the_process() -> None:
    """attack 32: the footer of a catalog may not abort whoever opens the archive."""
    data = parquet.write([FOLDERS], extra=[parquet.histogram([1, 2, 3])])
    assert in_child(lambda: read_damaged(data)) == 0


def test_catalog_with_size_statistics() -> None:
    """The same when they are true is a good catalog."""
    data = parquet.write([FOLDERS], extra=[parquet.histogram([len(FOLDERS)])])
    assert in_child(lambda: read_damaged(data)) == 0


def test_catalog_column_of_a_type_that_is_not() -> None:
    """attack 32: the same with a type of the column's metadata that Parquet does not know."""
    at = 0
    for _ in range(2):
        at = CATALOG.index(b"\x15\x0c\x19\x25", at + 1)  # type 6, then the list of encodings
        data = CATALOG[: at + 1] + b"\x3a" + CATALOG[at + 2 :]
        assert in_child(lambda data=data: read_damaged(data)) == 0


# -- several parts --------------------------------------------------------------------------

History = list[dict[bytes, Kind]]


@dataclass
class FakePart:
    """What a view needs of a part."""

    id: str
    entries: dict[bytes, Kind]
    step: int
    signed: bool = False

    def find(self, path: bytes) -> Any:
        kind = self.entries.get(path)
        return None if kind is None else catalog.Entry(path, kind)

    @property
    def catalog(self) -> FakePart:
        return self

    def least(self, start: bytes = b"") -> bytes | None:
        return min(self.entries, default=None)

    def batches(self) -> Iterator[pa.RecordBatch]:
        ordered = sorted(self.entries.items())
        for at in range(0, len(ordered), self.step):
            yield rows(ordered[at : at + self.step])


@st.composite
def parts(draw: st.DrawFn) -> dict[bytes, Kind]:
    """Entries of one part: each folder that a path is in is there, tombstones need none."""
    names = st.lists(st.sampled_from([b"a", b"a!", b"a0", b"b"]), min_size=1, max_size=3)
    kinds = st.sampled_from([Kind.FILE, Kind.FOLDER, Kind.SYMLINK, Kind.TOMBSTONE])
    entries = draw(st.dictionaries(names.map(b"/".join), kinds, max_size=6))
    for path, kind in list(entries.items()):
        while kind != Kind.TOMBSTONE and (path := path.rpartition(b"/")[0]):
            entries[path] = Kind.FOLDER
    # A tombstone that became a folder needs its own folders too.
    for path, kind in list(entries.items()):
        while kind != Kind.TOMBSTONE and (path := path.rpartition(b"/")[0]):
            entries[path] = Kind.FOLDER
    return entries


def view_of(history: History) -> dict[bytes, tuple[int, Kind]]:
    """Section 5.3, word by word."""
    stands: dict[bytes, tuple[int, Kind]] = {}
    for number, entries in enumerate(history):
        stands |= {path: (number, kind) for path, kind in entries.items()}

    def hidden(path: bytes) -> bool:
        part, kind = stands[path]
        if kind == Kind.TOMBSTONE:
            return True
        above = path
        while above := above.rpartition(b"/")[0]:
            # rule 3: any later part that says of a folder around it that it is none
            if any(later.get(above, Kind.FOLDER) != Kind.FOLDER for later in history[part + 1 :]):
                return True
        return False

    return {path: stands[path] for path in sorted(stands) if not hidden(path)}


def check_view(history: History, steps: list[int]) -> None:
    fakes: list[Any] = [
        FakePart(f"{i:032x}", entries, steps[i]) for i, entries in enumerate(history)
    ]
    view = View(fakes, on_damage=pytest.fail)
    expected = view_of(history)
    listed = []
    for batch, where in view.batches():
        paths, kinds = batch.column(0).to_pylist(), batch.column(1).to_pylist()
        listed += [(p, (i, Kind(k))) for p, i, k in zip(paths, where, kinds, strict=True)]
    assert listed == list(expected.items())
    for path in {path for entries in history for path in entries} | {b"none", b"a/none"}:
        found = view.find(path)
        if path in expected:
            assert found is not None
            part, entry = found
            assert (fakes.index(part), entry.kind) == expected[path]
        else:
            assert found is None


@examples(300)
@given(
    st.lists(parts(), min_size=2, max_size=4), st.lists(st.integers(1, 4), min_size=4, max_size=4)
)
def test_view_is_the_naive_one(history: History, steps: list[int]) -> None:
    """Listing and look-up of several parts, in batches of any size."""
    check_view(history, steps)


@examples(100)
@given(parts(), st.integers(1, 4))
def test_view_of_one_part(entries: dict[bytes, Kind], step: int) -> None:
    """The same of one part."""
    check_view([entries], [step])
