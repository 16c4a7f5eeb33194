"""Bech32: the vectors of BIP 173 and of age, and one test for each strictness rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pqvault.errors import FormatError
from pqvault.format import bech32

# From BIP 173 "Test vectors", and age's internal/bech32/bech32_test.go where the prefix
# or the text is longer than BIP 173 allows (age issue 453).
VALID = [
    "A12UEL5L",
    "a12uel5l",
    "an83characterlonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio1tt5tgs",
    "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw",
    "11" + "q" * 82 + "c8247j",
    "split1checkupstagehandshakeupstreamerranterredcaperred2y9e3w",
    "an84characterslonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio1569pvx",
]

INVALID = {
    "split1checkupstagehandshakeupstreamerranterredcaperred2y9e2w": "checksum",
    "s lit1checkupstagehandshakeupstreamerranterredcaperredp8hs2p": "not printable",
    "spl\x7ft1checkupstagehandshakeupstreamerranterredcaperred2y9e3w": "not printable",
    "split1cheo2y9e2w": "character 10 ",
    "split1a2y9w": "too short",
    "1checkupstagehandshakeupstreamerranterredcaperred2y9e3w": "prefix is empty",
    "pzry9x0s0muk": "no separator",
    "1pzry9x0s0muk": "prefix is empty",
    "x1b4n0q5v": "character 3 ",
    "li1dgmt3": "too short",
    "de1lg7wt\xff": "not ASCII",
    "A1G7SGD8": "checksum",
    "10a06t8": "prefix is empty",
    "1qzzfhee": "prefix is empty",
    "A12uEL5L": "mixes",
    "": "no separator",
}

PREFIXES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1).map(str.lower)


@pytest.mark.parametrize("text", VALID)
def test_known_texts_decode_and_encode_to_themselves(text: str) -> None:
    assert bech32.encode(*bech32.decode(text)) == text


@pytest.mark.parametrize(("text", "reason"), INVALID.items())
def test_known_bad_texts_are_refused_with_their_reason(text: str, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        bech32.decode(text)


@given(PREFIXES, st.binary(max_size=1300), st.booleans())
def test_round_trip(hrp: str, data: bytes, upper: bool) -> None:
    hrp = hrp.upper() if upper else hrp
    text = bech32.encode(hrp, data)
    assert bech32.decode(text) == (hrp, data)
    assert text in (text.lower(), text.upper())


@given(st.text(st.sampled_from("a1qpzry9x8 Kſ"), max_size=40))
def test_whatever_decodes_encodes_to_the_same_text(text: str) -> None:
    try:
        hrp, data = bech32.decode(text)
    except FormatError:
        return
    assert bech32.encode(hrp, data) == text


@given(st.binary(min_size=1, max_size=64), st.data())
def test_any_one_changed_character_is_noticed(content: bytes, data: st.DataObject) -> None:
    """BIP 173: up to four wrong characters are noticed for certain up to 89 characters."""
    text = bech32.encode("k", content[:40])
    position = data.draw(st.integers(2, len(text) - 1))
    other = data.draw(st.sampled_from("qpzry9x8gf2tvdw0s3jn54khce6mua7l"))
    changed = text[:position] + other + text[position + 1 :]
    if changed != text:
        with pytest.raises(FormatError, match="checksum"):
            bech32.decode(changed)


def seal_groups(hrp: str, groups: list[int]) -> str:
    """A text with a right checksum over groups that no encoder writes."""
    values = groups + bech32._checksum(hrp, groups)
    return hrp + "1" + "".join(chr(bech32._CHARSET[value]) for value in values)


def test_attack_43_padding_bits_must_be_zero() -> None:
    assert bech32.decode(seal_groups("k", [31, 28])) == ("k", b"\xff")
    with pytest.raises(FormatError, match="padding bits"):
        bech32.decode(seal_groups("k", [31, 29]))


def test_attack_43_padding_is_shorter_than_a_character() -> None:
    for groups in ([0], [31, 28, 0], [0] * 6):
        with pytest.raises(FormatError, match="a character too many"):
            bech32.decode(seal_groups("k", groups))


def test_attack_43_bech32m_is_another_encoding() -> None:
    """BIP 350's own example, whose checksum constant is not 1."""
    with pytest.raises(FormatError, match="checksum"):
        bech32.decode("A1LQFN3A")


def test_attack_43_letters_that_fold_to_ascii_are_refused() -> None:
    text = bech32.encode("k", b"\x00" * 8).replace("k", "\N{KELVIN SIGN}", 1)
    with pytest.raises(FormatError, match="not ASCII"):
        bech32.decode(text)


@pytest.mark.parametrize("hrp", ["", "a b", "Ab", "é", "a\x00"])
def test_prefixes_that_bip_173_forbids_are_not_encoded(hrp: str) -> None:
    with pytest.raises(FormatError, match="prefix"):
        bech32.encode(hrp, b"")
