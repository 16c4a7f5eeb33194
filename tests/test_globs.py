"""Globs over whole paths, as --exclude and unseal use them."""

from __future__ import annotations

import time

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pqvault.archive.globs import Globs
from pqvault.names import printable, spellings

paths = st.binary(min_size=1, max_size=30).filter(lambda p: not p.endswith(b"/"))


@pytest.mark.parametrize(
    ("glob", "path", "matches"),
    [
        ("a", b"a", True),
        ("a", b"a/b/c", True),
        ("a/", b"a/b", True),
        ("a", b"ab", False),
        ("a", b"b/a", False),
        ("a/b", b"a/b", True),
        ("a/*", b"a/b", True),
        ("a/*", b"a/b/c", False),
        ("a/*", b"a/", True),
        ("*", b"a", True),
        ("*", b"a/b", False),
        ("*.txt", b"x.txt", True),
        ("*.txt", b"d/x.txt", False),
        ("**/*.txt", b"x.txt", True),
        ("**/*.txt", b"d/e/x.txt", True),
        ("a/**", b"a/b/c", True),
        ("a/**", b"a", False),
        ("a/**/z", b"a/z", True),
        ("a/**/z", b"a/b/c/z", True),
        ("a/**/z", b"a/bz", False),
        ("**", b"a/b/c", True),
        ("a?c", b"abc", True),
        ("a?c", b"a/c", False),
        ("a?c", "a漢c".encode(), True),
        ("?", "é".encode(), True),
        ("a?c", b"a\xffc", True),
        ("?", "éé".encode(), False),
        ("a?c", b"ac", False),
        ("[ab]", b"a", True),
        ("[ab]", b"c", False),
        ("[a-c]x", b"bx", True),
        ("[!a]", b"b", True),
        ("[!a]", b"a", False),
        ("[^a]", b"b", True),
        ("[!a]", b"/", False),
        ("x[!a]y", b"x/y", False),
        ("[]]", b"]", True),
        ("[!]]", b"a", True),
        ("[!]]", b"]", False),
        ("[", b"[", True),
        ("a[", b"a[", True),
        ("[[]", b"[", True),
        ("[\\]", b"\\", True),
        ("a.c*", b"abc", False),
        ("*\n", b"x\n", True),
        ("*", b"a\nb", True),
        ("é*", "élan".encode(), True),
        (b"\xff*", b"\xffx", True),
        ("[a^]", b"^", True),
        ("[&&a]", b"&", True),
    ],
)
def test_table(glob: str | bytes, path: bytes, matches: bool) -> None:
    """`*` and `?` stay within a component, `**` crosses, a plain name is a path and all in it."""
    assert Globs([glob]).match(path) is matches


@given(path=paths)
def test_a_path_as_it_is_listed_is_itself(path: bytes) -> None:
    """`pqvault ls` shows some names escaped: what it prints finds them, where that is wanted."""
    shown = printable(path).translate({ord(char): f"[{char}]" for char in "*?["})
    assert Globs([shown], listed=True).match(path)
    assert Globs([path], listed=True).match(path) or set(path) & set(b"[")
    assert spellings(printable(path).encode())[-1] == path
    assert spellings(b"50% of %41")[1:] == []  # which no name is shown as


@pytest.mark.parametrize("glob", ["[z-a]", "[a--]", "[a||b]", "[a~~b]", b"[\xff-a]"])
def test_brackets_that_python_reads_otherwise(glob: str | bytes) -> None:
    """A set that `re` would refuse or warn of is no crash."""
    assert not Globs([glob]).match(b"0")


@given(path=paths)
def test_a_path_without_magic_is_itself(path: bytes) -> None:
    """A path's own name matches it, what is in it, and nothing beside it."""
    if not set(path) & set(b"*?["):
        globs = Globs([path])
        assert globs.match(path) and globs.match(path + b"/x")
        assert not globs.match(path + b"x") and not globs.match(b"_" + path)


@given(path=paths)
def test_a_path_escaped_is_itself(path: bytes) -> None:
    """Magic in a name is written in brackets, and then means itself."""
    escaped = b"".join(b"[%c]" % c if c in b"*?[" else b"%c" % c for c in path)
    assert Globs([escaped]).match(path)


@given(globs=st.lists(st.binary(max_size=12)), path=st.binary(max_size=12))
def test_any_bytes_make_a_glob(globs: list[bytes], path: bytes) -> None:
    """No glob is an error of Python's; all together match what one of them matches."""
    together = Globs(globs)
    assert together.match(path) is any(Globs([glob]).match(path) for glob in globs)
    assert bool(together) is bool(globs)


def test_no_globs_match_nothing() -> None:
    """What no glob means is for the caller to say."""
    assert not Globs([]) and not Globs([]).match(b"") and not Globs([]).match(b"a")


@given(globs=st.lists(st.binary(max_size=6), max_size=4), some=st.lists(paths, max_size=6))
def test_those_that_matched_nothing_are_known(globs: list[bytes], some: list[bytes]) -> None:
    """Over several looks, each as :meth:`Globs.match` has it."""
    looked = Globs(globs)
    for start in (0, 3):
        looked.look(pa.array(some[start : start + 3], pa.binary()))
    assert looked.unmatched == [g for g in globs if not any(map(Globs([g]).match, some))]
    assert looked.match_each(some) == [looked.match(path) for path in some]


def test_many_stars_over_a_long_name() -> None:
    """A glob of several stars over a long hostile name takes no time to fail."""
    began = time.process_time()
    assert not Globs(["*a" * 5 + "b"]).match(b"a" * 60)
    once = time.process_time() - began
    began = time.process_time()
    assert not Globs(["*a" * 5 + "b"]).match(b"a" * 120)
    assert time.process_time() - began < 8 * max(once, 0.001)
