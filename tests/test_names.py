"""Names shown to people: nothing that drives a terminal gets through, and nothing is lost."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pqvault.names import from_printable, printable, quiet

HOSTILE = [
    (b"plain name-1.txt", "plain name-1.txt"),
    ("données/日本語.txt".encode(), "données/日本語.txt"),
    (b"\x1b[31mred", "%1B[31mred"),
    (b"a\nb\rc\td", "a%0Ab%0Dc%09d"),
    (b"del\x7f", "del%7F"),
    (b"100%", "100%25"),
    (b"%41", "%2541"),
    (b"back\\slash", "back%5Cslash"),
    ("c1\x9b31m".encode(), "c1%C2%9B31m"),
    ("gpj.\u202eexe".encode(), "gpj.%E2%80%AEexe"),
    ("iso\u2066late".encode(), "iso%E2%81%A6late"),
    ("zero\u200bwidth\ufeff".encode(), "zero%E2%80%8Bwidth%EF%BB%BF"),
    ("line\u2028sep".encode(), "line%E2%80%A8sep"),
    ("hard\u00a0space".encode(), "hard%C2%A0space"),
    ("filler\u3164".encode(), "filler%E3%85%A4"),
    ("variant\ufe0f".encode(), "variant%EF%B8%8F"),
    ("tag\U000e0041".encode(), "tag%F3%A0%81%81"),
    ("private\ue000".encode(), "private%EE%80%80"),
    (b"latin-1 \xe9", "latin-1 %E9"),
    (b"lone surrogate \xed\xa0\x80", "lone surrogate %ED%A0%80"),
    (b"overlong \xc0\xaf", "overlong %C0%AF"),
    (b"", ""),
]


@pytest.mark.parametrize(("path", "text"), HOSTILE)
def test_hostile_names_are_shown_harmless(path: bytes, text: str) -> None:
    """One known answer for each kind of trick."""
    assert printable(path) == text
    assert from_printable(text) == path


@given(st.binary(max_size=300) | st.text(max_size=100).map(lambda t: t.encode("utf-8", "replace")))
def test_every_name_comes_back(path: bytes) -> None:
    """Whatever the bytes: one line, printable, no backslash, and reversible."""
    text = printable(path)
    assert text.isprintable()
    assert "\\" not in text
    assert from_printable(text) == path


def test_a_name_typed_by_a_person_needs_no_escapes() -> None:
    """A stray % and a lone byte from the command line stand for themselves."""
    assert from_printable("50% off") == b"50% off"
    assert from_printable("latin-\udce9") == b"latin-\xe9"


@pytest.mark.parametrize("path, text", HOSTILE)
def test_words_of_others_do_not_drive_the_terminal(path: bytes, text: str) -> None:
    """attack 28: a sentence with a name in it is harmless too, and one that was escaped before is
    not escaped twice."""
    assert quiet(text) == text
    said = quiet(path.decode("utf-8", "surrogateescape"))
    assert from_printable(said) == from_printable(os.fsdecode(path))
    assert printable(said.encode()).replace("%25", "%").replace("%5C", "\\") == said
